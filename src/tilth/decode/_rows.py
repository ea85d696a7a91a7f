"""Rows of a composed model, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tilth.models.generation import Row

__all__ = ["Job", "Said", "draws_ahead", "draws_of"]


@dataclass
class Job(Row):
    """A row of a composed model.

    Attributes:
        prompts: Voice to prompt; `prompt` is that of the lead.
        seen: Tokens that rules count as seen before the answer.
        accepts: Uniform draws of the ``rejection`` rule.
    """

    prompts: dict[int, list[int]] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    accepts: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Said:
    """What a row has just written.

    Attributes:
        row: The row; its `finish` is set with its last tokens.
        tokens: The new tokens.
        logprobs: Their log-probabilities under the composed distribution, where asked for.
        parts: The same under each voice's own distribution, by the role's name.
        top: Per token the likeliest alternatives with their log-probabilities.
    """

    row: Job
    tokens: list[int]
    logprobs: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    top: list[list[tuple[int, float]]] = field(default_factory=list)


def draws_of(jobs: Sequence[Job], ahead: int) -> np.ndarray:
    """Every row's uniform draw for the token `ahead` of the next."""
    return np.concatenate([draws_ahead(job, ahead + 1)[-1:] for job in jobs])


def draws_ahead(job: Job, count: int) -> np.ndarray:
    """A row's uniform draws for the next `count` tokens; 0 beyond its limit or if it is greedy."""
    found = np.zeros(count)
    own = job.draws[len(job.new) : len(job.new) + count]
    found[: len(own)] = own
    return found
