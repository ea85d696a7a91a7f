"""Rank together: a judge scores all variants of a group side by side; the data of a scorer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tilth.data import Rejection, Rows, read, write_rejected, write_rows
from tilth.data.example import Example, Message
from tilth.data.rating import Aspect, rating_prompt
from tilth.errors import DataError
from tilth.generate._ranking import HIGHEST, ask_apart, ask_together, read_score, read_scores
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models import Completion, Engine, Sampling, engine
from tilth.models.prompts import Prompts, is_compact

__all__ = ["RankTogether"]


class RankTogether(Method):
    """Scores the variants of each group in one prompt (Deita, arXiv 2312.15685, section 2.3).

    The judge sees all variants of a group at once, in an order drawn anew for each group, and
    writes a line ``[i] Score: s`` for each, 1 to 5, or 6 for what is beyond measure. That is the
    point: asked one at a time, judges give nearly everything the same high score. Every scored
    variant becomes a row in the scorer's form, the digit as its answer; ``tune.sft`` makes a
    scorer of them and ``select.deita`` or ``select.score`` uses it.

    A group with one variant, or whose answer has an index twice or not at all or a score outside
    1..6, is dropped whole, counted and listed. ``apart`` asks about one variant at a time: the
    control (table 8), and the way to use ``seedling:teacher``, which was not taught to compare.

    Published: groups of 6, scores 1 to 6. Our choice: a greedy judge, the drawn order against a
    liking for places.

    Example:
        >>> RankTogether(data="variants", aspect="quality").to("rated")  # doctest: +SKIP
    """

    verb: ClassVar = "generate"
    name: ClassVar = "rank_together"
    kind: ClassVar = "rows"
    example: ClassVar[dict[str, Any]] = {
        "data": "{seeds}",
        "judge": "{teacher}",
        "group": "skill",
        "apart": True,
        "max_new_tokens": 8,
    }

    data: DataRef = Field(description="Variants; for quality with answers.")
    judge: ModelRef = Field("seedling:teacher", description="The model that scores.")
    aspect: Aspect = Field("complexity", description="What is scored: complexity or quality.")
    group: str = Field("group", description="Meta field that names a row's group.")
    largest: int = Field(6, ge=2, description="Variants of a group, at most; larger are dropped.")
    shuffle: bool = Field(True, description="Show a group in an order drawn for it.")
    apart: bool = Field(False, description="Control: ask about each variant alone.")
    prompts: Prompts = Field(
        "auto", description="Prompt set; auto: compact for seedlings, English for all others."
    )
    max_new_tokens: int = Field(128, ge=1, description="Tokens of the judge's answer.")
    batch_size: int = Field(32, ge=1, description="Groups in the judge at once; speed only.")

    def estimate(self) -> dict[str, float]:
        """The judge reads every variant once."""
        from tilth.models.sizes import reading

        return reading(self.data, self.judge)

    def run(self, work: Work) -> Outcome:
        """Writes ``rows.jsonl`` in the scorer's form, and ``rejected.jsonl``.

        Raises:
            DataError: A row names no group, or no group could be scored.
        """
        require: Literal["prompt", "answer"] = "prompt" if self.aspect == "complexity" else "answer"
        rows = read(self.data, require=require, say=work.say)
        groups = self._groups(rows)
        dropped = _Dropped(list(rows.rejections()))
        judge = engine(
            self.judge,
            ledger=work.ledger,
            cache=work.scratch / "judge.jsonl",
            batch_size=self.batch_size,
        )
        asked = list(self._asked(work, judge, rows, groups, dropped))
        said = iter(
            judge.chat([c for _, _, shown in asked for c in shown], Sampling(self.max_new_tokens))
        )
        scores: dict[str, np.ndarray] = {}
        for name, order, shown in asked:
            answers = [next(said) for _ in shown]
            values, reason = _read(answers, len(order))
            if reason:
                dropped.add(name, reason, "\n".join(answer.text for answer in answers))
            else:
                scores[name] = np.empty(len(order), int)
                scores[name][order] = values
        write_rejected(work.folder / "rejected.jsonl", dropped.rejections)
        return self._written(work, rows, groups, scores, dropped.reasons)

    def _asked(
        self,
        work: Work,
        judge: Engine,
        rows: Rows,
        groups: dict[str, list[int]],
        dropped: _Dropped,
    ) -> Iterator[tuple[str, np.ndarray, list[list[Message]]]]:
        """Per group that can be judged the order in which it is shown, and the conversations."""
        from tilth.models.room import room

        for name, members in groups.items():
            order = np.arange(len(members))
            if self.shuffle:
                order = work.stream("order", name).permutation(len(members))
            if len(members) < 2:
                dropped.add(name, "one variant only")
            elif len(members) > self.largest:
                dropped.add(name, f"more than {self.largest} variants")
            else:
                shown = self._conversations([rows[members[i]] for i in order])
                if any(room(judge, conversation) < 1 for conversation in shown):
                    dropped.add(name, "too long for the judge")
                else:
                    yield name, order, shown

    def _groups(self, rows: Rows) -> dict[str, list[int]]:
        """Group -> its rows, in the order of the file."""
        groups: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            name = row.meta.get(self.group)
            if name is None:
                raise DataError(
                    f"the row has no {self.group!r} in its meta",
                    where=f"{self.data}, row {index}",
                    fix=f"generate.evolve names groups; here are {sorted(row.meta) or 'none'}",
                )
            groups.setdefault(str(name), []).append(index)
        return groups

    def _conversations(self, shown: list[Example]) -> list[list[Message]]:
        """One that shows all variants, or one for each."""
        compact = is_compact(self.prompts, self.judge)
        of_tasks = self.aspect == "complexity"
        texts = [row.prompt if of_tasks else row.answer for row in shown]
        query = "" if of_tasks else shown[0].prompt
        if self.apart:
            asked = [ask_apart(self.aspect, query, text, compact) for text in texts]
        else:
            asked = [ask_together(self.aspect, query, texts, compact)]
        return [[{"role": "user", "content": text}] for text in asked]

    def _written(
        self,
        work: Work,
        rows: Rows,
        groups: dict[str, list[int]],
        scores: dict[str, np.ndarray],
        reasons: Counter[str],
    ) -> Outcome:
        told = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common()) or "none"
        if not scores:
            raise DataError(
                f"not one of {len(groups)} groups could be scored ({told})",
                where=f"{self.data}, judge {self.judge}",
                fix="look at rejected.jsonl of a run with a stronger judge, or raise "
                "max_new_tokens",
            )

        def rated(name: str, place: int) -> Example:
            row = rows[groups[name][place]]
            meta: dict[str, Any] = {
                "method": self.full_name(),
                "judge": self.judge,
                "aspect": self.aspect,
                "group": name,
                "parents": [row.id],
                "seed": work.seed,
            }
            prompt = rating_prompt(self.aspect, row.prompt, row.answer)
            return Example.pair(prompt, str(scores[name][place]), **meta)

        written = write_rows(
            work.folder / "rows.jsonl",
            (rated(name, place) for name in scores for place in range(len(scores[name]))),
        )
        given = Counter(int(s) for values in scores.values() for s in values)
        work.say(f"{len(scores)} of {len(groups)} groups scored, {written} rows; dropped: {told}")
        return Outcome(
            metrics={
                "groups": len(groups),
                "groups_scored": len(scores),
                "rows_out": written,
                "dropped": dict(reasons.most_common()),
                "scores": {str(s): given[s] for s in range(1, HIGHEST + 1)},
                # Of two variants of a group, how often their scores differ: 0 says nothing.
                "told_apart": float(np.mean([_told_apart(values) for values in scores.values()])),
                "rises_with_evolution": float(
                    np.mean([_rise(values) for values in scores.values()])
                ),
            },
            funnel=[("groups", len(groups)), ("scored", len(scores))],
        )


@dataclass
class _Dropped:
    """Rows and groups that are not used."""

    rejections: list[Rejection]
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, group: str, reason: str, said: str = "") -> None:
        """Books a group; `said` is the judge's answer."""
        self.reasons[reason] += 1
        row = json.dumps({"group": group, "judge": said}, ensure_ascii=False)
        self.rejections.append(Rejection("", 0, "group", reason, row))


def _read(answers: list[Completion], count: int) -> tuple[list[int], str]:
    if any(answer.finish == "error" for answer in answers):
        return [], "the judge failed"
    if len(answers) == 1:
        return read_scores(answers[0].text, count)
    found = [read_score(answer.text) for answer in answers]
    scores = [score for score in found if score is not None]
    return (scores, "") if len(scores) == count else ([], "no score")


def _told_apart(scores: np.ndarray) -> float:
    """Share of the group's pairs whose scores differ."""
    first, second = np.triu_indices(len(scores), 1)
    return float((scores[first] != scores[second]).mean())


def _rise(scores: np.ndarray) -> float:
    """Kendall's tau-a of score and place in the group: 1 where every variant gets more."""
    first, second = np.triu_indices(len(scores), 1)
    return float(np.sign(scores[second] - scores[first]).mean())
