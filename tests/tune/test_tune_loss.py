"""The loss is that of one large batch, however the window is cut, trimmed, sliced or packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, Architecture
from torch.nn import functional
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM, TrainingArguments

from tilth.errors import TrainingError
from tilth.tune._batches import Collator, Order
from tilth.tune._corpus import IGNORED, Corpus, gather
from tilth.tune._isolation import isolates_documents, require_isolation
from tilth.tune._trainer import Engine

CONTEXT = 64


def corpus_of(rows: int, seed: int = 0) -> Corpus:
    """Random rows of very different lengths, with few or many targets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, CONTEXT, rows)
    made = []
    for n in lengths:
        mask = rng.random(n) < rng.choice([0.1, 0.5, 0.9])
        mask[-1] = True
        made.append((rng.integers(6, 300, n), mask))
    return gather(made, max_length=CONTEXT, vocabulary=300)[0]


def engine_of(
    folder: Path, out: Path, corpus: Corpus, batching: str = "plain", **given: object
) -> Engine:
    """An engine on a fresh copy of the model; dropout off, so that runs can be compared."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    size = int(given.pop("batch_size", 4))  # type: ignore[call-overload]
    fold = bool(given.pop("fold", False))
    order = Order(corpus.lengths, batch_size=size, batching=batching, capacity=CONTEXT, seed=3)
    arguments = {"max_steps": 6, "learning_rate": 0.05, "optim": "sgd", "max_grad_norm": 0.0}
    args = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=size,
        logging_steps=1,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **(arguments | given),
    )
    return Engine(model, args, order=order, collator=Collator(corpus, order, pad=0, fold=fold))


def losses(engine: Engine) -> np.ndarray:
    engine.train_from(None)
    return np.array([row["loss"] for row in engine.rows])


def weights(engine: Engine) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in engine.model.parameters()])


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch_fused"])
def test_accumulated_batches_are_one_large_batch_also_in_the_short_last_window(
    tiny: Path, tmp_path: Path, optim: str
) -> None:
    # 21 rows: windows of 8, 8 and 5 rows; accumulated, the last one is 2 + 2 + 1.
    corpus = corpus_of(21)
    lr = 0.05 if optim == "sgd" else 1e-3
    large = engine_of(tiny, tmp_path / "a", corpus, batch_size=8, optim=optim, learning_rate=lr)
    small = engine_of(
        tiny,
        tmp_path / "b",
        corpus,
        batch_size=2,
        gradient_accumulation_steps=4,
        optim=optim,
        learning_rate=lr,
    )
    a, b = losses(large), losses(small)
    assert len(a) == len(b) == 6
    assert large.tokens == small.tokens == 2 * corpus.lengths.sum()
    assert large.targets == small.targets == 2 * corpus.targets
    np.testing.assert_allclose(a, b, rtol=2e-5)
    assert abs(float((a - b).mean())) < 1e-5  # no drift in one direction
    torch.testing.assert_close(weights(large), weights(small), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_loss_equals_the_models_own_on_padded_rows_with_a_mask(
    models: dict[Architecture, Path], tmp_path: Path, name: Architecture
) -> None:
    corpus = corpus_of(8)
    engine = engine_of(models[name], tmp_path, corpus, batch_size=8)
    engine.model.eval()
    batch = engine.data_collator(engine.order.of_epoch(0)[0])
    tokens = batch.pop("tokens")
    ours = engine.compute_loss(engine.model, batch)
    ids, labels = batch["input_ids"], batch["labels"]
    lengths = [int(corpus.lengths[i]) for i in engine.order.of_epoch(0)[0]]
    assert tokens == sum(lengths)
    mask = torch.tensor([[1] * n + [0] * (ids.shape[1] - n) for n in lengths])
    logits = engine.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    expected = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
    )
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_rows_have_the_logits_they_have_alone(
    models: dict[Architecture, Path], tmp_path: Path, name: Architecture
) -> None:
    corpus = corpus_of(12)
    engine = engine_of(models[name], tmp_path, corpus, batching="packed", batch_size=3)
    model = engine.model.eval()
    with torch.no_grad():
        for chosen in engine.order.of_epoch(0):
            batch = engine.data_collator(chosen)
            packed = model(
                input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
            ).logits
            for b, item in enumerate(chosen):
                at = 0
                for row in engine.order.items[item]:
                    tokens = corpus.tokens[corpus.starts[row] : corpus.starts[row + 1]]
                    alone = model(
                        input_ids=torch.from_numpy(tokens.astype(np.int64))[None], use_cache=False
                    ).logits[0]
                    torch.testing.assert_close(
                        packed[b, at : at + len(tokens)], alone, rtol=1e-5, atol=1e-5
                    )
                    at += len(tokens)
    assert isolates_documents(model, 300)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_training_is_training_on_the_same_rows_apart(
    models: dict[Architecture, Path], tmp_path: Path, name: Architecture
) -> None:
    corpus = corpus_of(10)
    # All bins, and all rows, in one batch: the same window of targets.
    packed = engine_of(models[name], tmp_path / "a", corpus, "packed", batch_size=10, max_steps=3)
    plain = engine_of(models[name], tmp_path / "b", corpus, "plain", batch_size=10, max_steps=3)
    folded = engine_of(
        models[name], tmp_path / "c", corpus, "plain", batch_size=10, max_steps=3, fold=True
    )
    assert len(folded.data_collator([*range(10)])["input_ids"]) < 10
    expected = losses(plain)
    for other in (packed, folded):
        np.testing.assert_allclose(losses(other), expected, rtol=2e-5)
        torch.testing.assert_close(weights(other), weights(plain), rtol=1e-3, atol=2e-5)


def test_a_cache_would_let_packed_documents_see_each_other(tiny: Path) -> None:
    """The trap: with a cache, positions that begin anew keep nothing apart."""
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    ids = torch.tensor([[9, 10, 11, 12, 13, 14]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    with torch.no_grad():
        alone = model(input_ids=ids[:, 3:], use_cache=False).logits
        leaking = model(input_ids=ids, position_ids=positions, use_cache=True).logits[:, 3:]
        apart = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, 3:]
    assert (leaking - alone).abs().max() > 1e-3
    torch.testing.assert_close(apart, alone, rtol=1e-5, atol=1e-5)


def test_a_model_that_cannot_keep_documents_apart_is_refused() -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=60, hidden_size=16, n_layer=2, n_head=2)
    model = BloomForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.3)
    with pytest.raises(TrainingError, match="BloomForCausalLM cannot keep packed documents apart"):
        require_isolation(model, 60)
