"""Choosing the next token, and how safe a choice is from rounding.

Axes: B rows, V tokens.

The same row gives logits that differ in their last digits from batch to batch, because sums are
formed in another order. A choice comes with a *margin*: how far the logits or probabilities would
have to move for another token to win. The engine decides anew, on the row alone, where the margin
is within the rounding, so that an answer does not depend on who shares its batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tilth.models.engine import Sampling

if TYPE_CHECKING:
    import torch

__all__ = ["choose"]


def choose(
    logits_BV: torch.Tensor, sampling: Sampling, draws_B: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The next token of every row.

    Sampling inverts the cumulative distribution, in the order of the vocabulary, at one uniform
    draw per row and step. Tokens are kept first by `top_k`, then by `top_p` (the smallest set of
    the likeliest with at least that mass).

    Args:
        logits_BV: Raw scores.
        sampling: The rule.
        draws_B: Uniform draws in [0, 1); not used by greedy choice.

    Returns:
        Token ids ``[B]`` and margins ``[B]``, in units of the logits.
    """
    import torch

    if sampling.temperature == 0:
        best_B2, ids_B2 = torch.topk(logits_BV.float(), 2, dim=-1)
        return ids_B2[:, 0].cpu().numpy(), (best_B2[:, 0] - best_B2[:, 1]).cpu().numpy()
    scaled_BV = logits_BV.double().cpu().numpy() / sampling.temperature
    chosen = [_draw(row_V, sampling, u) for row_V, u in zip(scaled_BV, draws_B, strict=True)]
    ids_B, margins_B = zip(*chosen, strict=True)
    return np.array(ids_B), np.array(margins_B) * sampling.temperature


def _draw(scaled_V: np.ndarray, sampling: Sampling, draw: float) -> tuple[int, float]:
    """One row's token and its margin in units of `scaled_V`."""
    margin = np.inf
    kept = np.arange(len(scaled_V))
    if 0 < sampling.top_k < len(scaled_V):
        k = sampling.top_k
        likeliest = np.argpartition(scaled_V, (-k - 1, -k))
        margin = scaled_V[likeliest[-k]] - scaled_V[likeliest[-k - 1]]
        kept = np.sort(likeliest[-k:])
    weights = np.exp(scaled_V[kept] - scaled_V[kept].max())
    weights /= weights.sum()
    if sampling.top_p < 1:
        inside, safe = _nucleus(weights, sampling.top_p)
        kept, weights, margin = kept[inside], weights[inside], min(margin, safe)
    sums = np.cumsum(weights)
    point = draw * sums[-1]
    at = min(int(np.searchsorted(sums, point, side="right")), len(sums) - 1)
    # A change d of the logits moves a share s by at most 2 s (1 - s) d, which is d / 2.
    edges = [point - sums[at - 1]] if at else []
    edges += [sums[at] - point] if at < len(sums) - 1 else []  # the last edge is 1 in any case
    return int(kept[at]), float(min([margin, *(2 * e for e in edges)]))


def _nucleus(weights: np.ndarray, top_p: float) -> tuple[np.ndarray, float]:
    """Places of the smallest set of the likeliest with mass `top_p`, in order, and its margin."""
    # What is dropped here weighs less than 1 - top_p together, so none of it is in the set.
    candidates = np.flatnonzero(weights >= (1 - top_p) / len(weights))
    order = candidates[np.argsort(-weights[candidates], kind="stable")]
    before = np.cumsum(weights[order]) - weights[order]
    size = max(1, int(np.searchsorted(before, top_p, side="left")))
    safe = 2 * float(np.abs(before[1:] - top_p).min(initial=np.inf))
    if size < len(order):
        safe = min(safe, float(np.log(weights[order[size - 1]] / weights[order[size]])))
    return np.sort(order[:size]), safe
