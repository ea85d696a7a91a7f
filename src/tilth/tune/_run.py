"""One tuning run, from the data reference to the saved model: the straight line of `tune.sft`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from tilth._manifest import installed_versions
from tilth.artefacts import digest_of
from tilth.cost import training_flops
from tilth.data.read import Rows, read
from tilth.data.write import Rejection, write_rejected
from tilth.errors import DataError, TrainingError
from tilth.method import Method, Outcome, Work
from tilth.models.adapters.attach import in_place
from tilth.models.adapters.nf4 import weights_in
from tilth.models.chat import encode_chat
from tilth.models.load import base_name, load, pick_device
from tilth.models.reference import Reference, digest, resolve
from tilth.tune._adapters import adapt, save_plain, without_cache
from tilth.tune._batches import Collator, Order
from tilth.tune._card import Card
from tilth.tune._checkpoint import Checkpoints
from tilth.tune._corpus import Corpus, Encoded, Refused, gather
from tilth.tune._fit import prompt_of, require_fit
from tilth.tune._isolation import isolates_documents, require_isolation
from tilth.tune._precision import Precision, resolve_precision, threads_for, with_threads
from tilth.tune._trainer import Engine
from tilth.tune._trainer_arguments import check_given
from tilth.tune.adapters import QLoRA

if TYPE_CHECKING:
    from tilth.tune.sft import SFT

Encode = Callable[[Rows, PreTrainedTokenizerBase], Iterator[Encoded | str]]
"""Per row its ids and targets, or why it has none."""


@dataclass(frozen=True)
class _Setup:
    """What a run is made of once data and model are there; `teller` is who the card speaks of."""

    settings: SFT
    teller: Method
    reference: Reference
    rows: Rows
    refused: list[Refused]
    corpus: Corpus
    precision: Precision
    threads: int
    fold: bool
    seeds: dict[str, int]

    def identity(self) -> str:
        """What a checkpoint must share with the run that continues it."""
        body = {
            "settings": self.settings.model_dump(mode="json", exclude={"model", "data"}),
            "corpus": self.corpus.digest(),
            "base": digest(self.reference),
            "precision": self.precision,
            "seeds": self.seeds,
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def tune(
    settings: SFT,
    work: Work,
    *,
    encode: Encode | None = None,
    teller: Method | None = None,
    learnt: str = "assistant turns only",
) -> Outcome:
    """Trains as `settings` say and fills ``work.folder``; see :class:`tilth.tune.sft.SFT`.

    A method with texts of its own passes its `encode`, itself as `teller` for the card, and
    `learnt`, which the card says of the targets.
    """
    check_given(settings.trainer)
    reference = resolve(settings.model)
    require_fit(settings, reference)
    rows = read(settings.data, max_rejected=settings.max_rejected, say=work.say)
    model, tokenizer = load(reference, "cpu", "float32")
    device = pick_device("cpu" if settings.trainer.get("use_cpu") else "auto")
    parameters = model.num_parameters()
    threads = threads_for(parameters, settings.threads)
    with with_threads(threads), without_cache(model):
        corpus, refused = gather(
            (encode or _encoded)(rows, tokenizer),
            max_length=_longest(model, settings),
            vocabulary=_vocabulary(model),
        )
        _set_aside(rows, refused, corpus, settings.max_rejected, work)
        seeds = {name: work.derive(name) for name in ("order", "weights")}
        precision = resolve_precision(settings.precision, device, parameters)
        if settings.batching == "packed":
            require_isolation(model, _vocabulary(model))
        fold = settings.batching != "packed" and isolates_documents(model, _vocabulary(model))
        fold = fold and not prompt_of(settings)  # each row begins with the prompt
        teller = teller or settings
        setup = _Setup(
            settings, teller, reference, rows, refused, corpus, precision, threads, fold, seeds
        )
        tuned = _trainable(model, setup, device)
        engine = _engine(tuned, tokenizer, setup, work, device)
        _train(engine, tokenizer, work)
    _book(engine, corpus, work)
    if isinstance(tuned, PeftModel) and reference.adapters:
        tuned = in_place(tuned)
    save_plain(tuned, tokenizer, work.folder / "model")
    metrics = _metrics(engine, setup)
    kind = settings.adapter.kind if isinstance(tuned, PeftModel) else ""
    card = _card(setup, work, kind, metrics)
    dataclasses.replace(card, learnt=learnt).write(work.folder / "model")
    return Outcome(
        metrics=metrics,
        funnel=[
            ("read", rows.records),
            ("conversations", len(rows)),
            ("trained on", len(corpus)),
        ],
        not_measured=["whether the model became better: an evaluation step must say that"],
    )


# ---- rows ----


def _encoded(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded | str]:
    """Per row its ids and targets, or why it has none."""
    for example in rows:
        try:
            row = encode_chat(tokenizer, example.messages)
        except DataError as error:
            yield error.problem
        else:
            yield row.input_ids, row.assistant_mask


def _vocabulary(model: PreTrainedModel) -> int:
    """Rows of the input embedding: ids must lie below it."""
    return int(_weight(model.get_input_embeddings()).shape[0])


def _weight(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _longest(model: PreTrainedModel, settings: SFT) -> int:
    """The longest row that may be kept: as wanted, or what the model's context has room for."""
    context = getattr(model.config, "max_position_embeddings", None)  # not every model has one
    wanted = settings.max_length
    return min(wanted, context - prompt_of(settings)) if context else wanted


def _set_aside(
    rows: Rows, refused: list[Refused], corpus: Corpus, max_rejected: float, work: Work
) -> None:
    """Lists unusable rows in ``rejected.jsonl`` and stops where there are too many.

    Raises:
        DataError: More than `max_rejected` of the rows cannot be trained on, or all.
    """
    here = [
        Rejection(
            str(rows.path),
            _line(rows, r.index),
            "messages",
            r.reason,
            json.dumps(rows[r.index].messages, ensure_ascii=False)[:300],
        )
        for r in refused
    ]
    path = work.folder / "rejected.jsonl"
    write_rejected(path, [*rows.rejections(), *here])
    if not refused:
        return
    share = len(refused) / len(rows)
    work.say(f"{len(refused):,} of {len(rows):,} rows cannot be trained on: {refused[0].reason}")
    if len(corpus) == 0 or share > max_rejected:
        raise DataError(
            f"{share:.0%} of the rows cannot be trained on (the limit is {max_rejected:.0%}); "
            f"the first: {refused[0].reason}",
            where=f"{rows.path}, row {here[0].line}",
            fix="raise max_length or max_rejected, or repair the rows",
        )


def _line(rows: Rows, index: int) -> int:
    """The line of a row in its file, as far as it says where it was read; else its number."""
    _, _, line = str(rows[index].meta.get("read_from", "")).rpartition(":")
    return int(line) if line.isdigit() else index + 1


# ---- the trainer ----


def _trainable(
    model: PreTrainedModel, setup: _Setup, device: torch.device
) -> PreTrainedModel | PeftModel:
    """The model with what is to be trained: its own weights, or a new adapter."""
    settings, reference = setup.settings, setup.reference
    if settings.adapter.kind == "full":
        return model
    if setup.precision == "bf16" and device.type != "cpu":
        # Frozen weights need no float32 copy where memory is dear. On a processor they keep it:
        # activations between layers then stay in float32, as in full tuning under autocast.
        nn.Module.to(model, torch.bfloat16)
    if isinstance(settings.adapter, QLoRA):
        nn.Module.to(model, device)  # where the weights will be rounded
    return adapt(
        model,
        settings.adapter,
        seed=setup.seeds["weights"],
        base_name=reference.base if reference.adapters else base_name(reference),
    )


def _engine(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    setup: _Setup,
    work: Work,
    device: torch.device,
) -> Engine:
    """The training engine with batches, checkpoints and log."""
    settings = setup.settings
    order = Order(
        setup.corpus.lengths,
        batch_size=settings.batch_size,
        batching=settings.batching,
        capacity=_longest(_bare(model), settings),
        seed=setup.seeds["order"],
    )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    log = work.folder / "metrics.jsonl"
    log.touch()

    def on_row(row: dict[str, float]) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    return Engine(
        model,
        _arguments(setup, order, work.scratch / "trainer", device),
        order=order,
        collator=Collator(setup.corpus, order, pad=pad or 0, fold=setup.fold),
        checkpoints=Checkpoints(work.scratch / "checkpoints", setup.identity(), say=work.say),
        on_row=on_row,
    )


def _arguments(
    setup: _Setup, order: Order, folder: Path, device: torch.device
) -> TrainingArguments:
    """The settings in the words of transformers."""
    settings = setup.settings
    steps = settings.max_steps
    if steps is None:
        steps = settings.epochs * -(-len(order) // settings.gradient_accumulation)
    rate = settings.learning_rate or settings.adapter.learning_rate
    ours = {
        "output_dir": str(folder),
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "learning_rate": rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": round(settings.warmup_ratio * steps),
        "max_steps": steps,
        "logging_steps": settings.log_every or min(10, max(1, steps // 50)),
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "bf16": setup.precision == "bf16",
        "seed": setup.seeds["weights"] % 2**32,
        "use_cpu": device.type == "cpu",
        "report_to": [],
        "disable_tqdm": not sys.stderr.isatty(),
        "logging_nan_inf_filter": False,  # divergence stops the run instead
    }
    return TrainingArguments(**{**ours, **settings.trainer})


def _train(engine: Engine, tokenizer: PreTrainedTokenizerBase, work: Work) -> None:
    """Trains to the end from the newest whole checkpoint; keeps the weights if it diverges."""
    checkpoints = engine.checkpoints
    state = checkpoints.newest() if checkpoints is not None else None
    if state is not None:
        work.say(f"continuing at step {state.step} of {engine.args.max_steps}")
    try:
        engine.train_from(state)
    except TrainingError as error:
        if engine.state.global_step == 0:
            raise
        kept = work.scratch / "last-good"
        save_plain(engine.bare_model(), tokenizer, kept)
        raise TrainingError(
            f"{error.problem}; the weights after step {engine.state.global_step} are kept",
            where=f"{error.where}; {kept}",
            fix=error.fix,
        ) from error


# ---- what is said about it ----


def _book(engine: Engine, corpus: Corpus, work: Work) -> None:
    """Books the tokens and FLOPs of all steps, those before an interruption included."""
    model = engine.bare_model()
    added = engine.trainable if isinstance(model, PeftModel) else 0
    bare = _bare(model)
    head, inputs = _weight(bare.get_output_embeddings()), _weight(bare.get_input_embeddings())
    looked_up = 0 if inputs is head else inputs.numel()
    body = bare.num_parameters() - added - head.numel() - looked_up
    lengths = corpus.lengths.astype(float)
    attended = float((lengths**2).sum() / lengths.sum() / 2)  # mean positions before a token
    layers, width = bare.config.num_hidden_layers, bare.config.hidden_size
    # Logits are computed at targets only. Frozen weights need the gradient of their input alone,
    # two thirds of the cost, and the adapter comes on top.
    flops = training_flops(body, engine.tokens, layers, width, attended)
    flops += training_flops(head.numel(), engine.targets)
    if added:
        flops = flops * 2 / 3 + training_flops(added, engine.tokens)
    work.ledger.add(tokens_trained=engine.tokens, flops=flops)


def _bare(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model without its adapter's wrapper."""
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(bare, PreTrainedModel)
    return bare


def _metrics(engine: Engine, setup: _Setup) -> dict[str, Any]:
    """Numbers for the manifest and the card."""
    model = engine.bare_model()
    return {
        "rows_in": len(setup.rows),
        "rows_trained": len(setup.corpus),
        "rows_rejected": len(setup.refused) + sum(setup.rows.rejected.values()),
        "steps": engine.state.global_step,
        "tokens": engine.tokens,
        "target_tokens": engine.targets,
        "parameters": weights_in(model),
        "trainable_parameters": engine.trainable,
        "loss_first": engine.rows[0]["loss"] if engine.rows else None,
        "loss_last": engine.rows[-1]["loss"] if engine.rows else None,
        "precision": setup.precision,
        "threads": setup.threads,
    }


def _card(setup: _Setup, work: Work, adapter: str, metrics: dict[str, Any]) -> Card:
    """The model card; sizes and versions, nothing that a clock says."""
    cost = {
        "steps": metrics["steps"],
        "tokens": metrics["tokens"],
        "target_tokens": metrics["target_tokens"],
        "flops": work.ledger.flops,
    }
    results = {k: metrics[k] for k in ("loss_first", "loss_last", "trainable_parameters")}
    return Card(
        method=setup.teller.full_name(),
        base=_name(setup.reference),
        adapter=adapter,
        data={"data": Path(setup.settings.data).name, "sha256": digest_of(setup.settings.data)},
        rows={k: int(metrics[k]) for k in ("rows_in", "rows_trained", "rows_rejected")},
        settings=setup.teller.model_dump(mode="json", exclude={"model", "data"}),
        seeds={name: str(seed) for name, seed in {"step": work.seed, **setup.seeds}.items()},
        cost=cost,
        results={k: v for k, v in results.items() if v is not None},
        versions={k: v for k, v in installed_versions().items() if k != "platform"},
    )


def _name(reference: Reference) -> str:
    """The base model's name for the card, without the place where its folder lies."""
    if reference.kind == "folder" and not str(reference).startswith("seedling:"):
        return Path(reference.base).name
    return str(reference)
