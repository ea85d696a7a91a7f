"""Response ranking: does a model prefer an instruction's own response to that of another one?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from tilth.data import read
from tilth.data.example import Example, Message
from tilth.errors import DataError
from tilth.evaluate._asking import Form, plain_text
from tilth.evaluate._scores import ScoreRow, write_scores
from tilth.method import DataRef, Method, ModelRef, Outcome, Work
from tilth.models import Engine, Score, engine, require
from tilth.seeds import stream
from tilth.stats import mean_interval

__all__ = ["Draws", "Ranking", "draw", "rank", "ranking_scores"]


@dataclass(frozen=True)
class Draws:
    """Which random responses every item is compared with.

    Attributes:
        items: Row numbers of the items.
        others: Per item the row numbers of its random responses.
        equal: How many draws were the item's own response, word for word, and were excluded.
    """

    items: list[int]
    others: list[list[int]]
    equal: int


def draw(
    rows: Sequence[Example], count: int = 1000, draws: int = 5, seed: int = 0, *, official: bool
) -> Draws:
    """The random responses: of other rows, with replacement.

    Args:
        rows: The rows; their last turns are the responses.
        count: Items from the top.
        draws: Random responses per item.
        seed: Names the draw (the official script's own draws are not reproduced).
        official: Keep draws whose text equals the item's own response, which no model can prefer.

    Raises:
        DataError: There is one response only.
    """
    answers = [row.answer.strip() for row in rows]
    if len(set(answers)) < 2:
        raise DataError("ranking needs at least two different responses", where=f"{len(rows)} rows")
    rng = stream(seed, "ranking")
    items, others, equal = [], [], 0
    for item in range(min(count, len(rows))):
        other = rng.integers(0, len(rows) - 1, size=draws)
        other += other >= item  # any row but its own
        kept = [int(j) for j in other if official or answers[j] != answers[item]]
        equal += draws - len(kept)
        if kept:
            items.append(item)
            others.append(kept)
    return Draws(items, others, equal)


def ranking_scores(
    model: Engine, rows: Sequence[Example], drawn: Draws, form: Form = "chat"
) -> tuple[list[Score], list[list[Score]]]:
    """Log-probabilities of every item's own response, and of its random ones, given its question.

    In the chat form the mark that ends a turn is part of the response.
    """
    pairs = [(i, j) for i, js in zip(drawn.items, drawn.others, strict=True) for j in (i, *js)]
    unique = list(dict.fromkeys(pairs))
    conversations = [[*_question(rows[i]), _answer(rows[j])] for i, j in unique]
    if form == "chat":
        scores = model.score_chat(conversations)
    else:
        texts = [(plain_text(c[:-1]), f" {c[-1]['content']}") for c in conversations]
        scores = model.score(texts)
    found = dict(zip(unique, scores, strict=True))
    own = [found[i, i] for i in drawn.items]
    random = [[found[i, j] for j in js] for i, js in zip(drawn.items, drawn.others, strict=True)]
    return own, random


def rank(own: Sequence[Score], random: Sequence[Sequence[Score]]) -> dict[str, np.ndarray]:
    """Per item the share of its random responses that score strictly below its own.

    Returns:
        ``sum`` by the log-probability of the whole response, ``mean`` by that of a token, which
        does not favour short responses; and ``ties``, how many pairs are equal by the sum.
    """
    both = list(zip(own, random, strict=True))
    return {
        "sum": np.array([np.mean([a.logprob > b.logprob for b in bs]) for a, bs in both]),
        "mean": np.array([np.mean([a.mean > b.mean for b in bs]) for a, bs in both]),
        "ties": np.array([sum(a.logprob == b.logprob for b in bs) for a, bs in both]),
    }


class Ranking(Method):
    """Says how often a model prefers an instruction's own response to random responses.

    For each of the first ``count`` rows, ``draws`` responses of other rows are drawn with
    replacement; an item's score is the share of them whose log-probability after its instruction
    is strictly below that of its own response. A base model that ranks well knows which response
    belongs to which instruction before any tuning. The sum over a response depends on its length,
    so the rate by the mean per token stands beside it. Intervals draw instructions, since the pairs
    of one are not independent.

    Hewitt et al. 2024 (arXiv:2409.14254, section 4.4): 1,000 Alpaca items, 5 draws each, seed 0.
    By default a draw that equals the item's own response is excluded, and empty responses are set
    aside; ``official`` keeps equal draws, as the released script does.

    Example:
        >>> Ranking(model="seedling:small", data="rows.jsonl").to("ranks")  # doctest: +SKIP
    """

    verb: ClassVar = "evaluate"
    name: ClassVar = "ranking"
    kind: ClassVar = "scores"
    judges: ClassVar = True
    example: ClassVar[dict[str, Any]] = {"model": "{model}", "data": "{rows}", "draws": 2}

    model: ModelRef = Field(description="The model that ranks.")
    data: DataRef = Field(description="Instructions with their responses.")
    count: int = Field(1000, ge=1, description="Items, from the top.")
    draws: int = Field(5, ge=1, description="Random responses per item.")
    draw_seed: int = Field(0, ge=0, description="Names the random responses.")
    form: Form = Field("chat", description="chat: turns; plain: question-and-answer text.")
    official: bool = Field(False, description="Keep draws that equal the item's own response.")
    batch_size: int = Field(32, ge=1, description="Responses in the model at once; speed only.")

    def run(self, work: Work) -> Outcome:
        """Writes ``scores.jsonl`` (a row per item) and ``pairs.jsonl`` (a row per pair).

        Raises:
            DataError: The file has no rows, or one response only.
            EngineError: The model gives no log-probabilities.
        """
        rows = list(read(self.data, rejected_to=work.folder / "rejected.jsonl", say=work.say))
        model = engine(
            self.model,
            ledger=work.ledger,
            cache=work.scratch / "scores.jsonl",
            batch_size=self.batch_size,
        )
        require(model, "score_chat" if self.form == "chat" else "score")
        drawn = draw(rows, self.count, self.draws, self.draw_seed, official=self.official)
        own, random = ranking_scores(model, rows, drawn, self.form)
        ranks = rank(own, random)
        seed = int(work.test_seeds[0])
        write_scores(work.folder / "scores.jsonl", _score_rows(rows, drawn, ranks["sum"], seed))
        lines = (
            json.dumps({"item": rows[i].id, "other": rows[j].id, **_told(a, b)})
            for i, a, js, bs in zip(drawn.items, own, drawn.others, random, strict=True)
            for j, b in zip(js, bs, strict=True)
        )
        (work.folder / "pairs.jsonl").write_text("".join(f"{x}\n" for x in lines), "utf-8")
        return self._outcome(work, rows, drawn, ranks)

    def _outcome(
        self, work: Work, rows: list[Example], drawn: Draws, ranks: dict[str, np.ndarray]
    ) -> Outcome:
        by_sum, by_mean = mean_interval(ranks["sum"]), mean_interval(ranks["mean"])
        pairs = sum(map(len, drawn.others))
        asked = min(self.count, len(rows))
        work.say(f"prefers its own response: {by_sum} by the sum, {by_mean} by the token")
        work.say(
            f"{pairs:,} pairs of {len(drawn.items):,} items; {drawn.equal} equal draws left out"
        )
        metrics: dict[str, Any] = {
            "score": by_sum.value,
            "estimate": by_sum.as_dict(),
            "per_token": by_mean.value,
            "per_token_estimate": by_mean.as_dict(),
            "pairs": pairs,
            "ties": int(ranks["ties"].sum()),
            "equal_draws_excluded": drawn.equal,
            "items_without_draws": asked - len(drawn.items),
            "form": self.form,
        }
        return Outcome(
            metrics=metrics,
            funnel=[("rows", len(rows)), ("items", asked), ("ranked", len(drawn.items))],
            not_measured=["whether the model writes the response that it prefers"],
        )


def _score_rows(
    rows: Sequence[Example], drawn: Draws, shares: np.ndarray, seed: int
) -> list[ScoreRow]:
    return [
        {
            "seed": seed,
            "item": f"{item}/{rows[item].id}",
            "skill": str(rows[item].meta.get("skill") or "ranking"),
            "level": int(rows[item].meta.get("level") or 1),
            "score": float(share),
            "prompt": rows[item].prompt,
            "output": "",
            "answer": rows[item].answer,
            "finish": "",
        }
        for item, share in zip(drawn.items, shares, strict=True)
    ]


def _told(own: Score, other: Score) -> dict[str, Any]:
    return {
        "logprob": own.logprob,
        "tokens": own.tokens,
        "other_logprob": other.logprob,
        "other_tokens": other.tokens,
    }


def _question(row: Example) -> list[Message]:
    last = max(i for i, message in enumerate(row.messages) if message["role"] == "assistant")
    return row.messages[:last]


def _answer(row: Example) -> Message:
    return {"role": "assistant", "content": row.answer}
