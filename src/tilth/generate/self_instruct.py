"""Self-instruct: a teacher writes new instructions from a page of seeds, and answers them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import Field

from tilth.data import Rejection, read, write_rejected, write_rows
from tilth.data.example import Example, content_id
from tilth.errors import DataError
from tilth.generate._novelty import NoveltyIndex
from tilth.generate._writing import Answered, Compact, English, Writer
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models import Engine, Sampling, engine

__all__ = ["SelfInstruct"]

_BLOCKED = re.compile(
    r"\b(images?|graphs?|pictures?|files?|maps?|draw|plot|go to"
    r"|video|audio|music|flowchart|diagram)\b",
    re.IGNORECASE,
)
_ATTEMPTS_PER_ROW = 10
_HOPELESS = 512  # attempts without one usable row after which no more are made (our choice)


class SelfInstruct(Method):
    """Grows instruction data from a few seeds (Wang et al. 2022, arXiv 2212.10560).

    In rounds: a prompt shows the teacher ``examples_per_prompt`` instructions, of which
    ``generated_per_prompt`` are its own from earlier rounds, and asks for new ones. An instruction
    is kept where its ROUGE-L with every seed and every kept one is at most ``novelty`` and the
    rules on length and wording hold; the teacher then answers it greedily, and rules on answers
    follow. Every dropped candidate is in ``rejected.jsonl`` with its reason.

    Published defaults (paper section 2 and the code, commit 0b26ccaa4159): 8 examples, 2 of them
    generated; novelty 0.7; temperature 0.7, top_p 0.5; 4 to 150 words; the list of blocked words,
    joined with Alpaca's; answers at temperature 0, up to 350 tokens. Differences: chat turns in
    place of plain continuation, no presence penalty, one instance per instruction (as Alpaca), a
    list that was cut off loses its last item only (as Alpaca), no random re-formatting of prompts.
    Our choice: rounds of 64 prompts, ten attempts per row asked for, the test for answers that
    repeat themselves.

    Example:
        >>> rows = SelfInstruct(seeds="seeds.jsonl", count=100).to("written")  # doctest: +SKIP
    """

    verb: ClassVar = "generate"
    name: ClassVar = "self_instruct"
    kind: ClassVar = "rows"
    example: ClassVar[dict[str, Any]] = {
        "seeds": "{seeds}",
        "teacher": "{teacher}",
        "count": 2,
        "max_attempts": 16,
        "max_answer_tokens": 16,
        "prompts": "compact",
        "min_words": 1,
    }

    seeds: DataRef = Field(description="Seed instructions with answers.")
    teacher: ModelRef = Field("seedling:teacher", description="The model that writes.")
    count: int = Field(1000, ge=1, description="Rows to write. Our choice.")
    prompts: Literal["auto", "english", "compact"] = Field(
        "auto", description="Prompt set; auto: compact for seedlings, English for all others."
    )
    examples_per_prompt: int = Field(8, ge=1, description="Instructions shown per prompt.")
    generated_per_prompt: int = Field(2, ge=0, description="Of these, written in earlier rounds.")
    novelty: float = Field(0.7, ge=0, le=1, description="Highest ROUGE-L; 1: exact repeats go.")
    temperature: float = Field(0.7, ge=0, description="For instructions; answers are greedy.")
    top_p: float = Field(0.5, gt=0, le=1, description="For instructions.")
    min_words: int = Field(4, ge=1, description="Words of an instruction, at least.")
    max_words: int = Field(150, ge=1, description="Words of an instruction, at most.")
    max_prompt_tokens: int = Field(1024, ge=1, description="Tokens of the teacher's new list.")
    max_answer_tokens: int = Field(350, ge=1, description="Tokens of an answer.")
    max_attempts: int = Field(0, ge=0, description="Prompts at most; 0: ten per row asked for.")
    round_size: int = Field(64, ge=1, description="Prompts per round; changes the result.")
    batch_size: int = Field(32, ge=1, description="Rows in the teacher at once; speed only.")

    def run(self, work: Work) -> Outcome:
        """Writes ``rows.jsonl`` and ``rejected.jsonl``.

        Raises:
            DataError: The seeds cannot be read, or not one usable row was written.
        """
        writer = self._writer()
        rows = read(self.seeds, require="prompt", say=work.say)
        texts = dict.fromkeys(writer.instruction(row.prompt) for row in rows)
        pool = _Pool([(_id(text), text) for text in texts], rejected=list(rows.rejections()))
        teacher = engine(
            self.teacher,
            ledger=work.ledger,
            cache=work.scratch / "teacher.jsonl",
            batch_size=self.batch_size,
        )
        limit = self.max_attempts or _ATTEMPTS_PER_ROW * self.count
        while len(pool.rows) < self.count and pool.attempts < limit:
            size = min(self.round_size, limit - pool.attempts)
            self._round(work, teacher, writer, pool, size)
            work.say(
                f"round {pool.rounds}: {len(pool.rows)} of {self.count} rows "
                f"from {pool.attempts} prompts"
            )
            if not pool.rows and pool.attempts >= _HOPELESS:
                break
        return self._written(work, pool, limit)

    def _writer(self) -> Writer:
        compact = self.prompts == "compact" or (
            self.prompts == "auto" and self.teacher.startswith("seedling:")
        )
        return Compact() if compact else English()

    def _round(self, work: Work, teacher: Engine, writer: Writer, pool: _Pool, size: int) -> None:
        """One round: ask, read, filter, answer, filter again.

        Every candidate draws from streams named by its own number, and sees only earlier rounds, so
        that the size of the teacher's batches cannot change the result.
        """
        numbers = range(pool.attempts, pool.attempts + size)
        shown = [pool.examples(work, n, self) for n in numbers]
        said = teacher.chat(
            [[{"role": "user", "content": writer.ask([text for _, text in s])}] for s in shown],
            Sampling(self.max_prompt_tokens, self.temperature, self.top_p),
            [work.derive("candidate", n) for n in numbers],
        )
        new: list[tuple[str, dict[str, Any]]] = []
        for number, examples, completion in zip(numbers, shown, said, strict=True):
            origin = {
                "method": self.full_name(),
                "teacher": self.teacher,
                "parents": [parent for parent, _ in examples],
                "seed": work.derive("candidate", number),
                "round": pool.rounds,
            }
            texts = writer.read(completion.text, completion.finish == "length")
            if not texts:
                fault = {"error": "the teacher failed", "length": "unfinished"}
                pool.drop(completion.text, fault.get(completion.finish, "empty"), number)
            for text in texts:
                if reason := self._fault(text, writer.strict, pool):
                    pool.drop(text, reason, number)
                else:
                    pool.novel.add(text)
                    new.append((text, {**origin, "attempt": number}))
        answers = writer.answer(
            teacher,
            [text for text, _ in new],
            [work.derive("answer", meta["attempt"], text) for text, meta in new],
            self.max_answer_tokens,
        )
        for (text, meta), answered in zip(new, answers, strict=True):
            pool.take(text, answered, meta, self.count)
        pool.attempts += size
        pool.rounds += 1

    def _fault(self, text: str, strict: bool, pool: _Pool) -> str:
        """Why an instruction is not kept; empty where it is. Cheap rules come first."""
        words = text.split()
        if not words:
            return "empty"
        if len(words) < self.min_words:
            return "too short"
        if len(words) > self.max_words:
            return "too long"
        if not text[0].isalnum() and text[0] not in "\"'“‘¿¡(":
            return "starts with punctuation"
        if strict and not text[0].isascii():
            return "does not start with a Latin letter"
        if strict and _BLOCKED.search(text):
            return "asks for more than text"
        if strict and text.startswith("Write a program"):
            return "asks for a program"
        if text in pool.novel:
            return "repeat"
        return "not novel" if pool.novel.nearest(text, self.novelty)[1] >= 0 else ""

    def _written(self, work: Work, pool: _Pool, limit: int) -> Outcome:
        write_rows(work.folder / "rows.jsonl", pool.rows)
        write_rejected(work.folder / "rejected.jsonl", pool.rejected)
        reasons = Counter(row.reason for row in pool.rejected)
        told = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common(4)) or "none"
        short = len(pool.rows) < self.count
        if not pool.rows:
            raise DataError(
                f"the teacher wrote no usable row in {pool.attempts} attempts ({told})",
                where=f"teacher {self.teacher}",
                fix="raise novelty, temperature or max_attempts, or use a stronger teacher",
            )
        shortfall = f"asked for {self.count} rows, got {len(pool.rows)} in {limit} attempts"
        if short:
            work.say(f"{shortfall}; dropped: {told}. Raise max_attempts, novelty or temperature")
        return Outcome(
            metrics={
                "rows_asked": self.count,
                "rows_out": len(pool.rows),
                "attempts": pool.attempts,
                "rounds": pool.rounds,
                "dropped": dict(reasons.most_common()),
            },
            funnel=list(pool.funnel(reasons)),
            not_measured=[shortfall] if short else [],
        )


def _id(text: str) -> str:
    return content_id([{"role": "user", "content": text}])


@dataclass
class _Pool:
    """What has been written so far."""

    seeds: list[tuple[str, str]]
    rows: list[Example] = field(default_factory=list)
    instructions: list[tuple[str, str]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    novel: NoveltyIndex = field(default_factory=NoveltyIndex)
    attempts: int = 0
    rounds: int = 0

    def __post_init__(self) -> None:
        for _, text in self.seeds:
            self.novel.add(text)

    def examples(self, work: Work, number: int, settings: SelfInstruct) -> list[tuple[str, str]]:
        """``(id, instruction)`` of the examples that candidate `number` is shown, in order."""
        rng = work.stream("examples", number)
        room = settings.examples_per_prompt
        own = min(settings.generated_per_prompt, len(self.instructions), max(room - 1, 0))
        seeds = min(room - own, len(self.seeds))
        drawn = [self.seeds[i] for i in rng.choice(len(self.seeds), seeds, replace=False)]
        if own:
            picked = rng.choice(len(self.instructions), own, replace=False)
            drawn += [self.instructions[i] for i in picked]
        return [drawn[i] for i in rng.permutation(len(drawn))]

    def drop(self, text: str, reason: str, attempt: int, answer: str = "") -> None:
        """Books a candidate that is not kept."""
        place = "answer" if reason.startswith("answer") else "prompt"
        row = {"prompt": text, "answer": answer} if answer else {"prompt": text}
        self.rejected.append(
            Rejection("", attempt, place, reason, json.dumps(row, ensure_ascii=False))
        )

    def take(self, text: str, answered: Answered, meta: dict[str, Any], count: int) -> None:
        """Keeps an answered instruction, or books why not."""
        reason = answered.fault or _answer_fault(answered)
        if not reason and len(self.rows) >= count:
            reason = "more than asked for"
        if reason:
            self.drop(answered.prompt, reason, meta["attempt"], answered.answer)
            return
        row = Example.pair(answered.prompt, answered.answer, **meta)
        self.rows.append(row)
        self.instructions.append((row.id, text))

    def funnel(self, reasons: Counter[str]) -> Iterator[tuple[str, int]]:
        """``(stage, rows)``: what was written, what each reason took, what is left."""
        left = len(self.rows) + sum(reasons.values())
        yield "written", left
        for reason, number in reasons.most_common():
            left -= number
            yield f"without: {reason}", left
        yield "kept", left


def _answer_fault(answered: Answered) -> str:
    """Why an answer is not kept; empty where it is."""
    answer, prompt = answered.answer.strip(), answered.prompt.strip()
    if not answer:
        return "answer empty"
    if answer.casefold() == prompt.casefold():
        return "answer is the instruction"
    if answer.endswith(":"):
        return "answer ends in a colon"
    words = answer.split()
    fours = {tuple(words[i : i + 4]) for i in range(len(words) - 3)}
    if len(words) >= 24 and len(fours) < math.ceil((len(words) - 3) / 2):
        return "answer repeats itself"
    return ""
