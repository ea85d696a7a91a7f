"""What a selection and the training on it cost in FLOPs, by the formulas of the selection studies.

A training step is counted as ``6 N`` per token, a forward pass as ``2 N`` (Ivison et al. 2025,
arXiv:2503.01807, appendix E). That paper takes every sample as 2,048 tokens and trains for 2
epochs; give measured tokens for an honest figure of your own run. A run's own ledger
(:class:`tilth.cost.Ledger`) counts what was really computed, attention included.
"""

from __future__ import annotations

from typing import Literal

from tilth.errors import RecipeError

__all__ = ["Scoring", "selection_flops", "training_flops"]

Scoring = Literal["random", "length", "perplexity", "rds_plus", "embedding", "ifd", "less"]

_CHERRY_POOL, _CHERRY_ROWS = 200_000, 1_000


def training_flops(
    parameters: float, chosen: int, *, tokens: float = 2048, epochs: int = 2
) -> float:
    """FLOPs of tuning a model on the chosen rows: ``6 N tokens epochs D``.

    Args:
        parameters: N, weights of the model that is tuned.
        chosen: D, rows.
        tokens: Mean tokens of a row.
        epochs: Passes.

    Example:
        >>> f"{training_flops(8e9, 10_000):.3e}"
        '1.966e+18'
    """
    return 6.0 * parameters * tokens * epochs * chosen


def selection_flops(
    method: Scoring, pool: int, *, selector: float, tuned: float = 0.0, tokens: float = 2048
) -> float:
    """FLOPs that a method spends on scoring a pool, the training on what it chose not counted.

    ===================================  =========================================================
    ``random``, ``length``               0
    ``perplexity rds_plus embedding``    ``2 M tokens P``, one pass of the selection model
    ``ifd``                              ``2 N tokens P`` and a model first tuned on 1,000 rows out
                                         of 200,000: ``2 N tokens 200,000 + 6 N tokens 1,000``
    ``less``                             ``6 N tokens 3 P``, gradients at three checkpoints
    ===================================  =========================================================

    Args:
        method: How rows are scored.
        pool: P, rows.
        selector: M, weights of the selection model.
        tuned: N, weights of the model that is tuned; M where it is 0.
        tokens: Mean tokens of a row.

    Raises:
        RecipeError: There is no formula for `method`.

    Example:
        >>> f"{selection_flops('rds_plus', 200_000, selector=8e9):.3e}"
        '6.554e+18'
    """
    if method in ("random", "length"):
        return 0.0
    if method in ("perplexity", "rds_plus", "embedding"):
        return 2.0 * selector * tokens * pool
    size = tuned or selector
    if method == "ifd":
        first = 2.0 * size * tokens * _CHERRY_POOL + 6.0 * size * tokens * _CHERRY_ROWS
        return first + 2.0 * size * tokens * pool
    if method == "less":
        return 6.0 * size * tokens * 3 * pool
    raise RecipeError(f"there is no formula for {method!r}", where="selection_flops")
