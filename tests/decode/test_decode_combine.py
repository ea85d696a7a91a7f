"""The compositor against sums written out, with impossible tokens and every filter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from tilth.decode._combine import Plan, combine
from tilth.decode._pace import Pace
from tilth.decode._rejection import warped
from tilth.decode.composition import Filter, composition_of
from tilth.decode.generation import Combined
from tilth.errors import EngineError
from tilth.models import Sampling, resolve
from tilth.models.choice import choose

logits = st.lists(st.floats(-20, 20, width=32), min_size=6, max_size=6)


def plan(weights: dict[int, float], filter: Filter = "none", mass: float = 1.0) -> Plan:
    names = {0: "base", 1: "expert", 2: "anti"}
    return Plan(weights, names, 1, filter, mass, 6, ())


def log_softmax(x: list[float]) -> np.ndarray:
    found = np.array(x, dtype=np.float64)
    return found - np.log(np.exp(found - found.max()).sum()) - found.max()


@settings(deadline=None, max_examples=60)
@given(logits, logits, logits, st.floats(-2, 2, width=32))
def test_it_is_the_weighted_sum(a: list, b: list, c: list, weight: float) -> None:
    given_logits = {i: torch.tensor([x]) for i, x in enumerate((a, b, c))}
    total = combine(given_logits, plan({0: 1.0, 1: weight, 2: -weight})).softmax(-1)[0]
    expected = log_softmax(a) + weight * (log_softmax(b) - log_softmax(c))
    assert np.allclose(total.numpy(), np.exp(log_softmax(expected.tolist())), atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(logits, logits, st.floats(-5, 5, width=32))
def test_raw_logits_give_the_same_distribution(a: list, b: list, shift: float) -> None:
    one = combine({0: torch.tensor([a]), 1: torch.tensor([b])}, plan({0: 1.0, 1: 0.5}))
    moved = {0: torch.tensor([a]) + shift, 1: torch.tensor([b]) - shift}
    other = combine(moved, plan({0: 1.0, 1: 0.5}))
    assert torch.allclose(one.softmax(-1), other.softmax(-1), atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(logits, logits, logits, st.integers(0, 2), st.integers(0, 5))
def test_an_impossible_token_never_gives_nan(
    a: list, b: list, c: list, voice: int, token: int
) -> None:
    given_logits = {i: torch.tensor([x]) for i, x in enumerate((a, b, c))}
    given_logits[voice][0, token] = -torch.inf
    total = combine(given_logits, plan({0: 1.0, 1: 1.0, 2: -1.0}))[0]
    assert not torch.isnan(total).any()
    assert (total[token] == -torch.inf) == (voice < 2), "impossible for the anti-expert is no gain"
    assert torch.isfinite(total).sum() == 6 - (voice < 2)


def nucleus(p: np.ndarray, mass: float) -> set[int]:
    order, total, kept = np.argsort(-p, kind="stable"), 0.0, set()
    for i in order:
        if total >= mass and kept:
            break
        kept.add(int(i))
        total += p[i]
    return kept


def test_the_filters_by_hand() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b, c = (rng.normal(0, 2, 6).tolist() for _ in range(3))
        given_logits = {i: torch.tensor([x]) for i, x in enumerate((a, b, c))}
        s = [log_softmax(x) for x in (a, b, c)]
        whole = s[0] + s[1] - s[2]
        weights = {0: 1.0, 1: 1.0, 2: -1.0}
        inside = nucleus(np.exp(s[1]), 0.8)
        scores = combine(given_logits, plan(weights, "top_p_weights", 0.8))[0].numpy()
        expected = [whole[i] if i in inside else s[1][i] for i in range(6)]
        assert np.allclose(scores, expected, atol=1e-4)
        scores = combine(given_logits, plan(weights, "top_p_final", 0.8))[0].numpy()
        assert set(np.flatnonzero(np.isfinite(scores))) == nucleus(
            np.exp(log_softmax(whole.tolist())), 0.8
        )
        scores = combine(given_logits, plan(weights, "plausibility", 0.1))[0].numpy()
        kept = {i for i in range(6) if s[1][i] >= np.log(0.1) + s[1].max()}
        assert set(np.flatnonzero(np.isfinite(scores))) == kept


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0),
        Sampling(temperature=0.7),
        Sampling(temperature=1.0, top_k=3),
        Sampling(temperature=1.3, top_p=0.7),
        Sampling(temperature=1.0, top_k=4, top_p=0.6),
    ],
)
def test_the_distribution_of_the_rejection_rule_is_the_one_that_is_sampled(
    sampling: Sampling,
) -> None:
    rng = np.random.default_rng(1)
    scores_V = rng.normal(0, 2, 6)
    draws = (np.arange(20_000) + 0.5) / 20_000
    many = torch.tensor(scores_V).repeat(len(draws), 1)
    tokens, _ = choose(many, sampling, draws)
    shares = np.bincount(tokens, minlength=6) / len(draws)
    assert np.abs(shares - warped(scores_V, sampling)).max() < 1e-3


def test_the_kinds_are_the_sums_they_promise() -> None:
    small = "seedling:small"
    three = f"base={small},expert={small},anti={small}"
    expected = {
        f"eft:{three},weight=0.5": {"base": 1, "expert": 0.5, "anti": -0.5},
        f"eft:{three},amplification=1.5": {"base": 1.5, "expert": 1, "anti": -1.5},
        f"dexperts:{three},alpha=0.7": {"base": 1, "expert": 0.7, "anti": -0.7},
        f"interpolate:base={small},first={small},second={small},anti={small},lambda=0.25": {
            "base": 1,
            "first": 0.25,
            "second": 0.75,
            "anti": -1,
        },
        f"contrastive:expert={small},amateur={small}": {"expert": 1, "amateur": -1},
        f"guidance:model={small},scale=2": {"asked": 2, "unasked": -1},
        f"rules:base={small},rules=published": {"base": 1},
    }
    for ref, weights in expected.items():
        composition = composition_of(resolve(ref))
        assert composition.weights() == pytest.approx(weights), ref
    contrastive = composition_of(resolve(f"contrastive:expert={small},amateur={small},alpha=0.2"))
    assert (contrastive.filter, contrastive.mass) == ("plausibility", 0.2)


def test_the_length_of_a_draft_follows_what_was_measured() -> None:
    pace, whole, rest = Pace(), [(0,), (1, 2)], [(0,), (2,)]
    assert pace.length(whole, 1, rest) == 0, "nothing is known yet"
    pace.took((0,), 1, 10.0)
    pace.took((1, 2), 1, 3.0)
    pace.judged([True] * 40)
    assert pace.length(whole, 1, rest) >= 6
    pace.judged([False] * 200)
    assert pace.length(whole, 1, rest) == 0
    pace.judged([True] * 200)
    for tokens in (2, 3, 4, 5, 7, 9, 13):
        pace.took((0,), tokens, 10.0 * tokens)
    assert pace.length(whole, 1, rest) == 0, "judging is no faster than writing here"
    assert Pace(fixed=3).length(whole, 1, rest) == 3


def test_generate_takes_the_combination_as_its_loop(family: dict[str, Path]) -> None:
    load = AutoModelForCausalLM.from_pretrained
    large, expert, anti = (load(family[name]).eval() for name in ("large", "other", "small"))
    tokenizer = AutoTokenizer.from_pretrained(family["small"], padding_side="left")
    batch = tokenizer(["Sow barley in", "2"], return_tensors="pt", padding=True)
    together = Combined(
        {"expert": expert, "anti": anti}, {"base": 1.0, "expert": 0.8, "anti": -0.8}
    )
    made = large.generate(**batch, custom_generate=together, max_new_tokens=6, do_sample=False)
    for row, text in zip(made, ("Sow barley in", "2"), strict=True):
        ids = tokenizer(text).input_ids
        start = batch["input_ids"].shape[1]
        for token in row[start:].tolist():
            if token == tokenizer.pad_token_id:
                break
            terms = [
                m(torch.tensor([ids])).logits[0, -1].log_softmax(-1) for m in (large, expert, anti)
            ]
            assert token == int((terms[0] + 0.8 * (terms[1] - terms[2])).argmax())
            ids.append(token)
    again = [
        large.generate(**batch, custom_generate=together, max_new_tokens=6, do_sample=True)
        for _ in range(2)
        if torch.manual_seed(0)
    ]
    assert torch.equal(*again)
    with pytest.raises(EngineError, match="num_beams"):
        large.generate(**batch, custom_generate=together, max_new_tokens=2, num_beams=2)
    with pytest.raises(EngineError, match="'expert' has a model or a weight"):
        Combined({"expert": expert}, {"base": 1.0})
