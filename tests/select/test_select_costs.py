"""The FLOPs formulas, at the figures that arXiv:2503.01807 implies."""

from __future__ import annotations

import pytest

from tilth.errors import RecipeError
from tilth.select.costs import selection_flops, training_flops

N = 8e9


def test_the_ledger_of_the_published_setting() -> None:
    assert training_flops(N, 10_000) == pytest.approx(1.966e18, rel=5e-4)
    assert selection_flops("rds_plus", 200_000, selector=N) == pytest.approx(6.554e18, rel=5e-4)
    assert selection_flops("rds_plus", 5_800_000, selector=N) == pytest.approx(1.901e20, rel=5e-4)


def test_dearer_methods_are_dearer() -> None:
    cost = {
        method: selection_flops(method, 200_000, selector=N)
        for method in ("random", "length", "embedding", "perplexity", "rds_plus", "ifd", "less")
    }
    assert cost["random"] == cost["length"] == 0
    assert cost["embedding"] == cost["perplexity"] == cost["rds_plus"]
    assert cost["rds_plus"] < cost["ifd"] < cost["less"]
    small = selection_flops("embedding", 200_000, selector=1.1e8, tuned=N)
    assert small == pytest.approx(cost["embedding"] * 1.1e8 / N)


def test_measured_tokens_and_epochs_count() -> None:
    assert training_flops(1e6, 10, tokens=50, epochs=3) == 6 * 1e6 * 50 * 3 * 10
    with pytest.raises(RecipeError, match="no formula for 'magic'"):
        selection_flops("magic", 1, selector=1)  # type: ignore[arg-type]
