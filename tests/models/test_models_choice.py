"""Choosing tokens: the distribution is right, and a margin means what it says."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.models import Sampling
from tilth.models.choice import choose


def kept_by_hand(logits: np.ndarray, rule: Sampling) -> np.ndarray:
    """The distribution after temperature, top-k and top-p, written the long way."""
    scaled = logits / rule.temperature
    if rule.top_k:
        scaled = np.where(scaled >= np.sort(scaled)[-rule.top_k], scaled, -np.inf)
    shares = np.exp(scaled - scaled.max())
    shares /= shares.sum()
    mass, kept = 0.0, np.zeros_like(shares)
    for token in np.argsort(-shares, kind="stable"):
        if mass >= rule.top_p:
            break
        kept[token] = shares[token]
        mass += shares[token]
    return kept / kept.sum()


rules = st.builds(
    Sampling,
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.1]),
    top_k=st.sampled_from([0, 1, 3, 12]),
)


@settings(max_examples=25, deadline=None)
@given(rule=rules, seed=st.integers(0, 1000))
def test_draws_follow_the_distribution(rule, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, 12)
    # Evenly spaced draws: every token comes as often as its share says, to one draw.
    draws = (np.arange(400) + 0.5) / 400
    many = torch.tensor(logits).expand(400, -1)
    ids, _ = choose(many, rule, draws)
    counts = np.bincount(ids, minlength=12)
    assert np.abs(counts / 400 - kept_by_hand(logits, rule)).max() <= 0.005
    assert (np.diff(ids) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(rule=rules, seed=st.integers(0, 10_000), greedy=st.booleans())
def test_a_change_within_the_margin_changes_nothing(rule, seed, greedy):
    rule = Sampling() if greedy else rule
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (4, 30))
    draws = rng.random(4)
    ids, margins = choose(torch.tensor(logits), rule, draws)
    for row in range(4):
        size = min(margins[row], 1e-2) / 2.5
        moved = logits[row : row + 1] + rng.uniform(-size, size, (1, 30))
        again, _ = choose(torch.tensor(moved), rule, draws[row : row + 1])
        assert again[0] == ids[row]


def test_greedy_takes_the_largest():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.5]])
    ids, margins = choose(logits, Sampling(), np.zeros(2))
    assert ids.tolist() == [1, 0]
    np.testing.assert_allclose(margins, [2.0, 0.5])
