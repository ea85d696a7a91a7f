"""Evolve: from one instruction or response a family of ever harder or ever better ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import Field

from tilth.data import Rejection, Rows, read, write_rejected, write_rows
from tilth.data.example import Example, Message
from tilth.data.rating import Aspect
from tilth.errors import DataError
from tilth.generate._evolving import evolver, fault
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models import Engine, Sampling, engine
from tilth.models.prompts import Prompts, is_compact

__all__ = ["Evolve"]


class Evolve(Method):
    """Writes groups of variants of an instruction or a response (Deita, arXiv 2312.15685).

    For each seed the teacher rewrites the newest variant ``rounds`` times, each time in a way that
    is drawn among the operators: for ``complexity`` a further constraint, a deeper inquiry, more
    specific concepts, reasoning in steps; for ``quality`` more help, relevance, depth, creativity,
    detail. The seed and its variants are one group, named in ``meta["group"]``; what
    ``generate.rank_together`` reads.

    A variant that is empty, unfinished, equal to an earlier one, or that speaks of the rewriting
    itself is not used: it is listed in ``rejected.jsonl`` and the next round starts again from the
    last good one, so that a group may be smaller.

    Published defaults (sections 2.3 and 2.4): 2,000 seeds, 5 rounds, hence groups of 6. That the
    operator is drawn uniformly, temperature, top_p and the limits on length are our choice.

    Example:
        >>> Evolve(data="seeds.jsonl", aspect="quality").to("variants")  # doctest: +SKIP
    """

    verb: ClassVar = "generate"
    name: ClassVar = "evolve"
    kind: ClassVar = "rows"
    example: ClassVar[dict[str, Any]] = {
        "data": "{seeds}",
        "teacher": "{teacher}",
        "count": 3,
        "rounds": 2,
        "max_new_tokens": 64,
    }

    data: DataRef = Field(description="Seeds: single-turn rows; for quality with answers.")
    teacher: ModelRef = Field("seedling:teacher", description="The model that rewrites.")
    aspect: Aspect = Field("complexity", description="What grows: complexity or quality.")
    count: int = Field(2000, ge=1, description="Seeds, drawn at random; all where there are fewer.")
    rounds: int = Field(5, ge=1, description="Rewritings of each seed.")
    prompts: Prompts = Field(
        "auto", description="Prompt set; auto: compact for seedlings, English for all others."
    )
    temperature: float = Field(0.7, ge=0, description="Of the teacher.")
    top_p: float = Field(0.95, gt=0, le=1, description="Of the teacher.")
    max_new_tokens: int = Field(1024, ge=1, description="Tokens of a variant, at most.")
    batch_size: int = Field(32, ge=1, description="Rows in the teacher at once; speed only.")

    def estimate(self) -> dict[str, float]:
        """A variant is written once and read once or twice, as long as its seed or longer."""
        from tilth.models.sizes import parameters_of, rows_and_tokens

        rows, tokens = rows_and_tokens(self.data)
        if rows == 0:
            return {}
        moved = min(self.count, rows) * self.rounds * tokens / rows
        return {
            "tokens_generated": float(round(moved)),
            "flops": 2.0 * parameters_of(self.teacher) * 2 * moved,
        }

    def run(self, work: Work) -> Outcome:
        """Writes ``rows.jsonl``, group after group, and ``rejected.jsonl``.

        Raises:
            DataError: The seeds cannot be read, or not one could be evolved.
        """
        require: Literal["prompt", "answer"] = "prompt" if self.aspect == "complexity" else "answer"
        rows = read(self.data, require=require, say=work.say)
        rejected = list(rows.rejections())
        chains = self._chains(rows, work, rejected)
        teacher = engine(
            self.teacher,
            ledger=work.ledger,
            cache=work.scratch / "teacher.jsonl",
            batch_size=self.batch_size,
        )
        for number in range(1, self.rounds + 1):
            self._round(work, teacher, chains, number, rejected)
            variants = sum(len(chain.texts) - 1 for chain in chains)
            work.say(f"round {number}: {variants} variants of {len(chains)} seeds")
        return self._written(work, rows, chains, rejected)

    def _chains(self, rows: Rows, work: Work, rejected: list[Rejection]) -> list[_Chain]:
        """The drawn seeds; rows with several turns and repeats cannot be seeds."""
        drawn = work.stream("seeds").permutation(len(rows))
        chains: dict[str, _Chain] = {}
        for index in drawn.tolist():
            if len(chains) == self.count:
                break
            row = rows[index]
            turns = sum(m["role"] == "user" for m in row.messages)
            chain = _Chain(row, self.aspect)
            reason = "several turns" if turns > 1 else "repeat" if chain.group in chains else ""
            if reason:
                rejected.append(Rejection(rows.path.name, index + 1, "", reason, row.prompt))
            else:
                chains[chain.group] = chain
        return list(chains.values())

    def _round(
        self,
        work: Work,
        teacher: Engine,
        chains: list[_Chain],
        number: int,
        rejected: list[Rejection],
    ) -> None:
        from tilth.models.room import room

        form = evolver(self.aspect, is_compact(self.prompts, self.teacher))
        asked: list[tuple[_Chain, str, list[Message]]] = []
        for chain in chains:
            draw = work.stream("operator", chain.group, number).integers(len(form.operators))
            operator = form.operators[int(draw)]
            text = form.ask(operator, *chain.newest())
            conversation: list[Message] = [{"role": "user", "content": text}]
            if room(teacher, conversation) < 1:
                rejected.append(chain.rejection(number, "too long for the teacher", ""))
            else:
                asked.append((chain, operator, conversation))
        said = teacher.chat(
            [conversation for _, _, conversation in asked],
            Sampling(self.max_new_tokens, self.temperature, self.top_p),
            [work.derive("variant", chain.group, number) for chain, _, _ in asked],
        )
        for (chain, operator, _), completion in zip(asked, said, strict=True):
            text, reason = fault(completion, chain.texts)
            if reason:
                rejected.append(chain.rejection(number, reason, text))
            else:
                chain.texts.append(text)
                chain.steps.append((number, operator))

    def _written(
        self, work: Work, rows: Rows, chains: list[_Chain], rejected: list[Rejection]
    ) -> Outcome:
        reasons = Counter(r.reason for r in rejected if r.field == "evolution")
        evolved = sum(len(chain.texts) - 1 for chain in chains)
        write_rejected(work.folder / "rejected.jsonl", rejected)
        if not evolved:
            told = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
            raise DataError(
                f"not one of {len(chains)} seeds could be evolved ({told or 'no usable seed'})",
                where=f"{self.data}, teacher {self.teacher}",
                fix="use a stronger teacher, other prompts, or single-turn seeds",
            )
        written = write_rows(
            work.folder / "rows.jsonl",
            (row for chain in chains for row in chain.rows(self, work.seed)),
        )
        operators = Counter(operator for chain in chains for _, operator in chain.steps)
        sizes = Counter(len(chain.texts) for chain in chains)
        told = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common()) or "none"
        work.say(f"{evolved} variants in {len(chains)} groups; not used: {told}")
        return Outcome(
            metrics={
                "seeds": len(chains),
                "rows_out": written,
                "evolved": evolved,
                "dropped": dict(reasons.most_common()),
                "operators": dict(sorted(operators.items())),
                "group_sizes": {str(size): sizes[size] for size in sorted(sizes)},
            },
            funnel=[
                ("read", rows.records),
                ("seeds", len(chains)),
                ("rewritings asked for", len(chains) * self.rounds),
                ("variants", evolved),
            ],
        )


@dataclass
class _Chain:
    """A seed and its variants."""

    seed: Example
    aspect: Aspect
    texts: list[str] = field(default_factory=list)
    steps: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.texts.append(self.seed.prompt if self.aspect == "complexity" else self.seed.answer)
        self.group = self._row(self.texts[0]).id

    def newest(self) -> tuple[str, str]:
        """The newest variant as ``(prompt, answer)``."""
        if self.aspect == "complexity":
            return self.texts[-1], ""
        return self.seed.prompt, self.texts[-1]

    def rejection(self, number: int, reason: str, text: str) -> Rejection:
        """A rewriting that cannot be used."""
        row = {"group": self.group, "round": number, "text": text}
        return Rejection("", number, "evolution", reason, json.dumps(row, ensure_ascii=False))

    def rows(self, method: Evolve, seed: int) -> Iterator[Example]:
        """The group's rows, the seed first."""
        parent = self.seed.id
        steps = [(0, "seed"), *self.steps]
        for variant, (text, (number, operator)) in enumerate(zip(self.texts, steps, strict=True)):
            row = self._row(
                text,
                method=method.full_name(),
                teacher=method.teacher,
                aspect=self.aspect,
                group=self.group,
                variant=variant,
                round=number,
                operator=operator,
                parents=[parent],
                seed=seed,
            )
            parent = row.id
            yield row

    def _row(self, text: str, **meta: Any) -> Example:
        if self.aspect == "complexity":
            return Example([{"role": "user", "content": text}], meta)
        return Example.pair(self.seed.prompt, text, **meta)
