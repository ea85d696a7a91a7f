"""The rejection rule of speculative sampling, for one row.

Axes: T positions, V tokens.

With q the distribution that a draft was drawn from and p the composed one, both after temperature,
top-k and top-p: a drafted token d stands with probability min(1, p(d) / q(d)). At the first that
does not, a token is drawn from the positive part of p - q; where all stand, one more from p. Every
token is then distributed as p (Leviathan et al. 2023, arXiv:2211.17192, appendix A.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tilth.models.engine import Sampling

if TYPE_CHECKING:
    from tilth.decode._rows import Job

__all__ = ["judge", "warped"]


def warped(scores_V: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The distribution that is sampled from: after temperature, then top-k, then top-p.

    Greedy choice is all mass on the best token.
    """
    p = np.zeros(len(scores_V))
    if sampling.temperature == 0:
        p[int(np.argmax(scores_V))] = 1.0
        return p
    scaled = scores_V.astype(np.float64) / sampling.temperature
    kept = np.arange(len(scaled))
    if 0 < sampling.top_k < len(scaled):
        kept = np.sort(np.argpartition(scaled, -sampling.top_k)[-sampling.top_k :])
    weights = np.exp(scaled[kept] - scaled[kept].max())
    weights /= weights.sum()
    if sampling.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        before = np.cumsum(weights[order]) - weights[order]
        inside = np.sort(order[: max(1, int((before < sampling.top_p).sum()))])
        kept, weights = kept[inside], weights[inside] / weights[inside].sum()
    p[kept] = weights
    return p


def judge(
    job: Job,
    draft_T: np.ndarray,
    lead_TV: torch.Tensor,
    total_TV: torch.Tensor,
    sampling: Sampling,
) -> list[int]:
    """The tokens that a row writes after a draft.

    Args:
        job: The row; its `accepts` are used in pairs, one to accept and one to draw, a pair for
            every token that it writes, so that a row does not depend on its batch.
        draft_T: The drafted tokens.
        lead_TV: The drafter's log-probabilities at the T + 1 positions.
        total_TV: The composed scores there.
        sampling: The rule of choice.
    """
    if not len(draft_T):  # a row's last token: nothing was drafted, and it is drawn plainly
        p = warped(total_TV[0].double().cpu().numpy(), sampling)
        return [_drawn(p, job.draws[len(job.new)] if len(job.draws) else 0.0)]
    tokens: list[int] = []
    for step in range(len(draft_T) + 1):
        place = 2 * (len(job.new) + step)
        accept, draw = job.accepts[place : place + 2] if len(job.accepts) else (0.0, 0.0)
        p = warped(total_TV[step].double().cpu().numpy(), sampling)
        if step == len(draft_T):
            return [*tokens, _drawn(p, draw)]
        q = warped(lead_TV[step].double().cpu().numpy(), sampling)
        token = int(draft_T[step])
        if accept * q[token] < p[token]:
            tokens.append(token)
            continue
        rest = np.clip(p - q, 0, None)
        return [*tokens, _drawn(rest if rest.sum() > 0 else p, draw)]
    return tokens


def _drawn(weights: np.ndarray, draw: float) -> int:
    sums = np.cumsum(weights)
    return min(int(np.searchsorted(sums, draw * sums[-1], side="right")), len(sums) - 1)
