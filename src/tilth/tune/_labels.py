"""Sure or unsure: the split of the probed questions, and what is doubtful about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tilth.data.deduplicate import deduplicate
from tilth.data.example import Example
from tilth.data.questions import Question
from tilth.errors import DataError
from tilth.models.probe import ProbeRow

__all__ = ["Labels", "Split", "conflicts", "joined", "labels_of"]

Split = Literal["supervised", "entropy"]

_VALIDATED = 0.2
"""Share of the answered questions on which a fraction is validated (our choice)."""

NEAR = 0.7
"""Least similarity of near-duplicate questions: that of ``tilth.data.deduplicate``."""


@dataclass(frozen=True)
class Labels:
    """The split.

    Attributes:
        sure: Per question whether the model knows the answer.
        tied: Share of the questions that share the commonest entropy; 0 in a supervised split.
        boundary: The largest entropy that still counts as sure; None in a supervised split.
    """

    sure: np.ndarray
    tied: float = 0.0
    boundary: float | None = None

    def check(self, where: str) -> None:
        """Stops where there is nothing to tell apart.

        Raises:
            DataError: All questions are sure, or all are unsure; both are counted.
        """
        known, unknown = int(self.sure.sum()), int((~self.sure).sum())
        if known and unknown:
            return
        raise DataError(
            f"nothing can be learnt from this split: {known:,} sure and {unknown:,} unsure",
            where=where,
            fix="the model answers "
            + ("every question: give harder ones" if known else "none: give easier ones")
            + ", use another match or split, or see with evaluate.probe what it answers",
        )


def joined(
    questions: Sequence[Question],
    tables: Sequence[Sequence[ProbeRow]],
    model: str,
    where: str,
) -> list[ProbeRow | None]:
    """The probe row of every question from the tables of all shards; None where there is none.

    Args:
        questions: The questions, in order.
        tables: The rows of each table.
        model: The fingerprint that they must have.
        where: The tables, for errors.

    Raises:
        DataError: A table was made with another model or asked in another way, two tables were
            sampled differently, or two hold the same question.
    """
    by_id: dict[str, ProbeRow] = {}
    sampled: set[tuple[int, float]] = set()
    for table in tables:
        for row in table:
            if row.model != model:
                raise DataError(
                    "this probe table was made with another model, or asked in another way",
                    where=f"{where}: row {row.id} has {row.model}",
                    fix="probe the model that is tuned, with its wording, form and max_new_tokens",
                )
            if row.id in by_id:
                raise DataError("a question is in two probe tables", where=f"{where}: {row.id}")
            by_id[row.id] = row
            if row.samples:  # a choice has none
                sampled.add((row.n_samples, row.temperature))
    if len(sampled) > 1:
        told = " and ".join(f"{n} at temperature {t:g}" for n, t in sorted(sampled))
        raise DataError(
            f"the probe tables were sampled differently: {told}",
            where=where,
            fix="probe all shards with the same samples and temperature",
        )
    return [by_id.get(q.id) for q in questions]


def labels_of(
    rows: Sequence[ProbeRow],
    *,
    split: Split,
    fraction: float | Literal["validated"],
    threshold: float | None,
    rng: np.random.Generator,
) -> Labels:
    """Sure or unsure for every probed question.

    Args:
        rows: The probe table.
        split: ``supervised``: sure where the greedy answer is right. ``entropy``: sure where the
            sampled answers agree; needs no right answers.
        fraction: Share of the questions that is sure, by entropy; ``validated`` takes the boundary
            that best tells right from wrong on a fifth of the questions with known answers.
        threshold: The largest entropy that is sure; replaces `fraction`.
        rng: Draws the validation part.

    Raises:
        DataError: A right answer or an entropy is missing; the row is named.
    """
    if split == "supervised":
        for row in rows:
            if row.correct is None:
                raise DataError(
                    "a question has no right answer, and the split is supervised",
                    where=f"question {row.id}",
                    fix="give its answer, leave it out, or use split: entropy",
                )
        return Labels(np.array([bool(row.correct) for row in rows]))
    for row in rows:
        if row.entropy is None:
            raise DataError(
                "the probe table has no entropies, and the split is by entropy",
                where=f"question {row.id}",
                fix="probe with samples: 5 or more",
            )
    entropies = np.array([row.entropy for row in rows], dtype=np.float64)
    tied = Counter(entropies.tolist()).most_common(1)[0][1] / len(rows)
    if threshold is None and fraction == "validated":
        threshold = _validated(rows, entropies, rng)
    if threshold is not None:
        return Labels(entropies <= threshold, tied, threshold)
    # Equal entropies are ordered by how probable the greedy answer was, and not by the file.
    order = sorted(range(len(rows)), key=lambda i: (entropies[i], -rows[i].logprob, i))
    kept = order[: int(len(rows) * float(fraction) + 1e-9)]  # 0.29 * 100 is 29
    sure = np.zeros(len(rows), bool)
    sure[kept] = True
    return Labels(sure, tied, float(entropies[kept].max()) if kept else None)


def _validated(rows: Sequence[ProbeRow], entropies: np.ndarray, rng: np.random.Generator) -> float:
    """The entropy at or below which answers are right, by balanced accuracy."""
    known = np.array([i for i, row in enumerate(rows) if row.correct is not None], dtype=int)
    part = rng.permutation(known)[: max(2, int(len(known) * _VALIDATED))]
    right = np.array([bool(rows[i].correct) for i in part])
    if len(known) < 2 or right.all() or not right.any():
        raise DataError(
            "a fraction cannot be validated: the questions with known answers are all of one kind",
            where=f"{int(right.sum())} right of {len(right)}",
            fix="give a fraction or a threshold instead",
        )
    cuts = np.unique(entropies[part])
    below = entropies[part][None, :] <= cuts[:, None]
    gains = below[:, right].mean(1) - below[:, ~right].mean(1)
    return float(cuts[int(np.argmax(gains))])


def conflicts(questions: Sequence[Question], sure: np.ndarray) -> tuple[int, int]:
    """Near-duplicate questions, and how many of them bear the opposite label of their twin.

    They pull the model both ways at once and make it refuse too much.
    """
    asked = [Example([{"role": "user", "content": q.asked}], id=q.id) for q in questions]
    twins = deduplicate(asked, near=NEAR, size=3, part="prompt").dropped
    return len(twins), sum(bool(sure[t.index] != sure[t.kept_index]) for t in twins)
