"""Intervals and tests, against SciPy, cases done by hand, and simulation."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tilth import _resampling
from tilth.errors import DataError, RecipeError
from tilth.seeds import TestSeed
from tilth.stats import Estimate, bootstrap, iqm, mean_interval, paired_difference, permutation_test

sp = pytest.importorskip("scipy.stats")
RNG = np.random.default_rng(0)
SKEWED = RNG.gamma(2.0, size=60)
numbers = st.floats(-100, 100, width=32)


# Interquartile mean


def test_iqm_by_hand():
    assert iqm(range(1, 9)) == 4.5  # 3, 4, 5, 6 are left
    assert iqm([8, 1, 7, 2, 6, 3, 5, 4]) == 4.5
    assert iqm([1, 2, 3, 100]) == 2.5
    assert iqm([5.0]) == 5.0
    assert iqm([[0, 1], [2, 1000]]) == 1.5


@given(arrays(float, st.integers(1, 40), elements=numbers))
def test_iqm_is_scipys_trimmed_mean(scores):
    assert iqm(scores) == pytest.approx(sp.trim_mean(scores, 0.25), abs=1e-9)


# Intervals of one arm


@pytest.mark.parametrize("interval", ["percentile", "bca"])
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("mean", np.mean),
        ("iqm", lambda x, axis: sp.trim_mean(x, 0.25, axis=axis)),
        (lambda x: float(np.std(x)), np.std),
    ],
    ids=["mean", "iqm", "std"],
)
def test_one_seed_agrees_with_scipy(interval, name, function):
    resamples = 4000
    ours = bootstrap(SKEWED, name, interval=interval, resamples=resamples)
    theirs = sp.bootstrap((SKEWED,), function, n_resamples=resamples, method=interval, rng=1)
    spread = theirs.standard_error
    # Two independent bootstraps: the ends of 4000 resamples differ by about 0.05 standard errors.
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.25 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.25 * spread)
    assert ours.value == pytest.approx(float(function(SKEWED, axis=0)))
    assert "over items (only one seed)" in ours.method


def test_bca_is_exact_where_the_resamples_are_given():
    # The very resamples through SciPy's own correction: same quantiles, digit for digit.
    drawn = np.sort(RNG.choice(SKEWED, (2000, SKEWED.size)).mean(axis=1))
    left_out = _resampling.left_out([[SKEWED]], "mean", whole_seeds=False, shared_items=False)
    value = SKEWED.mean()
    tails = _resampling.bca_tails(np.array([0.025, 0.975]), drawn, value, left_out)
    z0 = sp.norm.ppf(((drawn < value).mean() + (drawn <= value).mean()) / 2)
    centred = left_out.mean() - left_out
    a = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    z = z0 + sp.norm.ppf([0.025, 0.975])
    assert tails == pytest.approx(sp.norm.cdf(z0 + z / (1 - a * z)))
    assert tails[0] > 0.025  # skewed to the right: both ends move up
    assert tails[1] > 0.975


def test_seeds_alone_are_a_bootstrap_of_their_means():
    scores = RNG.normal(size=(8, 30))
    ours = bootstrap(scores, over=["seeds"], resamples=4000)
    theirs = sp.bootstrap((scores.mean(axis=1),), np.mean, n_resamples=4000, method="percentile")
    interval, spread = theirs.confidence_interval, theirs.standard_error
    assert ours.low == pytest.approx(interval.low, abs=0.25 * spread)
    assert ours.high == pytest.approx(interval.high, abs=0.25 * spread)


def test_two_levels_carry_both_kinds_of_luck():
    # Var = seed variance / S + item variance / (S N), by hand: 0.04 / 10 + 1 / 200 = 0.009, of
    # which drawing leaves the expected shares of bootstrap variances.
    seeds = RNG.normal(0, 0.2, (10, 1))
    scores = seeds + RNG.normal(0, 1, (10, 20))
    width = {
        over: np.ptp([(e := bootstrap(scores, over=over, resamples=4000)).low, e.high])
        for over in (("items",), ("seeds",), ("seeds", "items"))
    }
    within = scores.var(axis=1).mean() / 200
    between = scores.mean(axis=1).var() / 10
    for over, variance in (
        (("items",), within),
        (("seeds",), between),
        (("seeds", "items"), within + between),
    ):
        assert width[over] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.08)


def test_shared_items_are_drawn_once_for_all_seeds():
    item = RNG.normal(size=50)
    scores = np.stack([item] * 5)  # five seeds that agree on everything
    shared = bootstrap(scores, shared_items=True, resamples=2000)
    apart = bootstrap(scores, shared_items=False, resamples=2000)
    alone = bootstrap(item, resamples=2000)
    assert shared.high - shared.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert apart.high - apart.low < 0.6 * (shared.high - shared.low)


def test_seeds_may_have_different_numbers_of_items():
    ragged = [[0.0, 1.0], [1.0] * 7, [0.0] * 3]
    for statistic, value in (("mean", 8 / 12), ("iqm", 5 / 6), (np.median, 1.0)):
        estimate = bootstrap(ragged, statistic, resamples=500)
        assert estimate.value == pytest.approx(value)
        assert 0 <= estimate.low <= estimate.high <= 1
        assert (estimate.seeds, estimate.items) == (3, 12)


def test_ragged_resamples_never_see_the_padding():
    ragged = [[5.0, 6.0], RNG.uniform(5, 6, 30)]
    for statistic in ("mean", "iqm", np.min, np.max):
        estimate = bootstrap(ragged, statistic, resamples=300)
        assert 5 <= estimate.low <= estimate.high <= 6


def test_memory_is_bounded_by_chunks(monkeypatch):
    sizes = list(_resampling.chunks(10_000, 5000))
    assert sum(sizes) == 10_000
    assert max(sizes) * 5000 <= _resampling.CHUNK
    assert list(_resampling.chunks(3, 10 * _resampling.CHUNK)) == [1, 1, 1]


def test_the_interval_covers_the_truth_as_often_as_it_says():
    hits = 0
    for n in range(200):
        scores = np.random.default_rng(n).normal(1.0, 1.0, 40)
        hits += not bootstrap(scores, resamples=400, seed=n).excludes(1.0)
    # 200 trials at about 0.94 (percentile intervals of 40 items): 188, standard deviation 3.4.
    assert 176 <= hits <= 198


@given(
    arrays(float, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=numbers),
    st.floats(0.1, 10),
    numbers,
    st.sampled_from(["mean", "iqm"]),
)
@settings(max_examples=40, deadline=None)
def test_intervals_move_and_stretch_with_the_scores(scores, factor, shift, statistic):
    one = bootstrap(scores, statistic, resamples=100)
    other = bootstrap(scores * factor + shift, statistic, resamples=100)
    for a, b in ((one.value, other.value), (one.low, other.low), (one.high, other.high)):
        assert b == pytest.approx(a * factor + shift, abs=1e-6)
    assert scores.min() - 1e-9 <= one.low <= one.high <= scores.max() + 1e-9


def test_the_same_seed_gives_the_same_interval():
    scores = RNG.normal(size=(3, 10))
    assert bootstrap(scores, seed=1) == bootstrap(scores, seed=1) == mean_interval(scores, seed=1)
    assert bootstrap(scores, seed=1) != bootstrap(scores, seed=2)


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_equal_scores_have_no_width(interval):
    estimate = bootstrap(np.full((3, 5), 0.25), interval=interval, resamples=100)
    assert (estimate.low, estimate.value, estimate.high) == (0.25, 0.25, 0.25)
    assert estimate.excludes(0)


def test_an_estimate_reads_well():
    estimate = Estimate(0.4123, 0.38, 0.4444, 0.95, 5, 100, "percentile bootstrap")
    assert str(estimate) == "0.412 [0.380, 0.444]"
    assert estimate.excludes(0)
    assert not estimate.excludes(0.4)
    assert Estimate(**json.loads(json.dumps(estimate.as_dict()))) == estimate


# Pairs


def test_a_paired_mean_is_the_interval_of_the_differences():
    a, b = RNG.normal(size=(2, 4, 25))
    assert paired_difference(a, b, resamples=500).as_dict() == pytest.approx(
        bootstrap(a - b, resamples=500).as_dict()
    )


def test_pairing_removes_what_both_sides_share():
    hard = RNG.normal(0, 5, (3, 40))
    a, b = hard + 0.5 + RNG.normal(0, 0.1, hard.shape), hard
    for statistic in ("mean", "iqm"):
        difference = paired_difference(a, b, statistic, resamples=1000)
        assert difference.value == pytest.approx(0.5, abs=0.15)
        assert difference.excludes(0)
    assert not bootstrap(a, resamples=1000).excludes(bootstrap(b, resamples=1000).value)


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_paired_iqm_agrees_with_scipy(interval):
    a, b = SKEWED, SKEWED * 0.8 + RNG.normal(0, 0.3, SKEWED.size)

    def difference(x, y, axis):
        return sp.trim_mean(x, 0.25, axis=axis) - sp.trim_mean(y, 0.25, axis=axis)

    theirs = sp.bootstrap((a, b), difference, paired=True, n_resamples=4000, method=interval, rng=2)
    ours = paired_difference(a, b, "iqm", interval=interval, resamples=4000)
    slack = 0.25 * theirs.standard_error
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=slack)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=slack)


def test_pairs_are_matched_by_seed_not_by_order():
    a = {TestSeed(1): [1.0, 2.0], TestSeed(2): [5.0]}
    b = {TestSeed(2): [4.0], TestSeed(1): [0.0, 1.0]}
    estimate = paired_difference(a, b, resamples=100)
    assert (estimate.low, estimate.high) == pytest.approx((1.0, 1.0))


def test_rounding_alone_never_excludes_zero():
    a = [[0.1 + 0.2] * 3, [0.7 + 0.1, 0.1 * 3, 1.1 + 2.2]]
    b = [[0.3] * 3, [0.8, 0.3, 3.3]]
    assert a != b  # equal but for the last bits
    for statistic in ("mean", "iqm"):
        assert not paired_difference(a, b, statistic, resamples=100).excludes(0)


def test_sides_that_do_not_match_are_told_apart_by_seed():
    with pytest.raises(DataError, match=r"3 items on one side and 2 on the other\n.*seed 102"):
        paired_difference({101: [1, 2], 102: [1, 2, 3]}, {101: [1, 2], 102: [1, 2]})
    with pytest.raises(DataError, match="only one side has seed 7"):
        permutation_test({TestSeed(5): [1], TestSeed(7): [1]}, {TestSeed(5): [1]})


# The permutation test


def enumerated(differences, alternative):
    observed = sum(differences)
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    extreme = {
        "two-sided": lambda x: abs(x) >= abs(observed) - 1e-9,
        "greater": lambda x: x >= observed - 1e-9,
        "less": lambda x: x <= observed + 1e-9,
    }[alternative]
    return sum(map(extreme, sums)) / len(sums)


def test_permutation_by_hand():
    # Differences 1, 2, 3: of the 8 sign patterns only +++ and --- are as far out as 6.
    a, b = [2, 3, 4], [1, 1, 1]
    assert permutation_test(a, b) == 2 / 8
    assert permutation_test(a, b, alternative="greater") == 1 / 8
    assert permutation_test(a, b, alternative="less") == 1.0
    assert permutation_test(a, a) == 1.0


@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=7),
    st.sampled_from(["two-sided", "greater", "less"]),
)
@settings(max_examples=80, deadline=None)
def test_small_permutation_tests_are_exact(differences, alternative):
    p = permutation_test(differences, [0] * len(differences), alternative=alternative)
    assert p == pytest.approx(enumerated(differences, alternative))


def test_larger_permutation_tests_agree_with_scipy():
    a = RNG.normal(0.25, 1, 50)
    theirs = sp.permutation_test(
        (a, np.zeros(50)), lambda x, y: np.mean(x - y), permutation_type="samples", rng=1
    )
    ours = permutation_test(a, np.zeros(50))
    assert ours == pytest.approx(theirs.pvalue, abs=0.02)  # 4 standard errors
    assert permutation_test(a + 100, np.zeros(50)) == 1 / 10_001


def test_five_seeds_cannot_say_more_than_they_know():
    a, b = np.ones((5, 100)), np.zeros((5, 100))
    assert permutation_test(a, b, over="seeds") == 2 / 32
    assert permutation_test(a, b, over="items") < 0.001


# What cannot be used


@pytest.mark.parametrize(
    ("scores", "where"),
    [
        ({101: [0.5, float("nan")]}, "seed 101, item 1"),
        ({101: [0.5], 102: [float("inf")]}, "seed 102, item 0"),
        ({101: [0.5], 102: []}, "seed 102"),
        ([[0.5], [[0.5]]], "seed 1"),
        ([], ""),
        ({}, ""),
    ],
)
def test_bad_scores_are_named(scores, where):
    with pytest.raises(DataError) as caught:
        bootstrap(scores)
    assert caught.value.where == where


@pytest.mark.parametrize(
    "setting",
    [
        {"level": 95},
        {"level": 0},
        {"resamples": 10},
        {"over": []},
        {"over": ["rows"]},
        {"over": "seeds"},
        {"interval": "student"},
        {"statistic": "median"},
    ],
)
def test_bad_settings_are_refused(setting):
    with pytest.raises(RecipeError):
        bootstrap([[1.0, 2.0]], **setting)


def test_shared_items_must_be_as_many_under_every_seed():
    with pytest.raises(DataError, match="seed 9"):
        bootstrap({8: [1, 2], 9: [1]}, shared_items=True)
