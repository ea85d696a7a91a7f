"""Embeddings: the weights by hand, and the same row whatever it shares a batch with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, TEXT, tiny_model

from tilth.data import Example
from tilth.errors import ModelError
from tilth.models import load, resolve
from tilth.models.chat import ChatFormat
from tilth.models.embedding import TULU_TEMPLATE, embedder, pooled
from tilth.models.generation import Forward, left_padded

ROWS = [Example.pair(text[: 8 + 9 * i], text[-5 - 4 * i :]) for i, text in enumerate(TEXT)]
POOLINGS = ("weighted", "mean", "last")


def test_the_weights_of_four_tokens() -> None:
    one_BTD = torch.eye(4)[None]
    weights = pooled(one_BTD, torch.ones(1, 4, dtype=torch.long), "weighted")[0]
    np.testing.assert_allclose(weights / weights.sum(), [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    mean = pooled(one_BTD, torch.ones(1, 4, dtype=torch.long), "mean")[0]
    np.testing.assert_allclose(mean / mean.sum(), [0.25] * 4, atol=1e-6)
    last = pooled(one_BTD, torch.ones(1, 4, dtype=torch.long), "last")[0]
    np.testing.assert_allclose(last, [0, 0, 0, 1], atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_stands_at_padding_never_counts(pooling: str) -> None:
    states = torch.randn(1, 5, 7, generator=torch.Generator().manual_seed(0))
    alone = pooled(states, torch.ones(1, 5, dtype=torch.long), pooling)
    rubbish = torch.full((1, 3, 7), float("nan"))
    for parts, mask in (
        ((states, rubbish), [1] * 5 + [0] * 3),
        ((rubbish, states), [0] * 3 + [1] * 5),
    ):
        padded = pooled(torch.cat(parts, 1), torch.tensor([mask]), pooling)
        np.testing.assert_allclose(padded, alone, atol=1e-7)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_alone_right_padded_and_left_padded_are_the_same(models, architecture, pooling) -> None:
    reader = embedder(str(models[architecture]), pooling=pooling)
    prepared = reader.prepare(ROWS)
    assert len({row.tokens for row in prepared}) > 4, "the test needs different lengths"
    alone = np.concatenate([reader.embed([row]) for row in prepared])
    right = reader.embed(prepared)
    model, _ = load(str(models[architecture]), "cpu")
    with torch.inference_mode():
        ids_BT, mask_BT = left_padded([row.content for row in prepared], 0, model.device)
        left = pooled(Forward(model).hidden(ids_BT, mask_BT), mask_BT, pooling).numpy()
    np.testing.assert_allclose(right, alone, atol=1e-5)
    np.testing.assert_allclose(left, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)
    assert alone.dtype == np.float32


def test_half_precision_is_pooled_in_float32(tiny: Path) -> None:
    model, _ = load(str(tiny), "cpu", "bfloat16")
    ids_BT, mask_BT = left_padded([[5, 6, 7], [8, 9, 10]], 0, model.device)
    with torch.inference_mode():
        states = Forward(model).hidden(ids_BT, mask_BT)
    assert states.dtype == torch.bfloat16
    assert pooled(states, mask_BT).dtype == torch.float32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_form_of_tulu(models, architecture) -> None:
    _, tokenizer = load(str(models[architecture]), "cpu")
    row = Example.pair("How much?", "Five.", system="Be brief.")
    text = ChatFormat(tokenizer, TULU_TEMPLATE).render(row.messages)
    end = tokenizer.eos_token
    assert text == (f"<|system|>\nBe brief.\n<|user|>\nHow much?\n<|assistant|>\nFive.{end}\n")
    reader = embedder(str(models[architecture]))
    (whole,), (query,) = reader.prepare([row]), reader.prepare([row], query=True)
    assert whole == query, "a short query reads as the row it is"
    assert whole.content[-1] == tokenizer.eos_token_id
    prompt = embedder(str(models[architecture]), part="prompt").prepare([row])[0]
    answer = embedder(str(models[architecture]), part="answer").prepare([row])[0]
    assert prompt.content + answer.content == whole.content


def test_the_own_template_is_another_identity(tiny: Path) -> None:
    tulu, own = embedder(str(tiny)), embedder(str(tiny), template="own")
    assert tulu.identity["template"] != own.identity["template"]
    assert tulu.prepare(ROWS[:1]) != own.prepare(ROWS[:1])
    for other in ({"pooling": "mean"}, {"part": "prompt"}, {"max_length": 99}):
        assert embedder(str(tiny), **other).identity != tulu.identity


def test_a_query_has_the_length_for_each_part(tiny: Path) -> None:
    row = Example.pair("word " * 60, "other " * 60)
    reader = embedder(str(tiny), max_length=40)
    (sample,), (query,) = reader.prepare([row]), reader.prepare([row], query=True)
    assert sample.refused == "nothing of its answer lies in the first 40 tokens"
    assert (query.tokens, query.cut, query.refused) == (80, True, "")
    prompt = embedder(str(tiny), max_length=40, part="prompt").prepare([row])[0]
    assert (prompt.tokens, prompt.cut) == (40, True)
    fits = embedder(str(tiny), max_length=100).prepare([Example.pair("word", "other " * 90)])[0]
    assert (fits.tokens, fits.cut, fits.refused) == (100, True, "")


def test_nothing_goes_beyond_the_window(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", "gpt2", context=64)
    reader = embedder(str(folder))
    long = Example.pair("word", "other " * 60)
    assert reader.identity["max_length"] == 64
    assert all(p.tokens == 64 for p in reader.prepare([long]) + reader.prepare([long], query=True))
    assert reader.embed(reader.prepare([long])).shape == (1, 32)


def test_tokens_and_flops_are_booked(tiny: Path) -> None:
    reader = embedder(str(tiny))
    prepared = reader.prepare(ROWS)
    reader.embed(prepared)
    assert reader.ledger.tokens_read == sum(row.tokens for row in prepared)
    model, _ = load(str(tiny), "cpu")
    body = sum(p.numel() for p in model.base_model.layers.parameters())
    assert reader.ledger.flops > 2 * body * reader.ledger.tokens_read


def test_an_endpoint_cannot_embed_a_pool() -> None:
    with pytest.raises(ModelError, match="on this machine"):
        embedder(resolve("openai:tiny@http://localhost:1/v1"))
