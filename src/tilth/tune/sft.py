"""Supervised tuning on conversations: the whole model, or any adapter."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from tilth.method import DataRef, Kind, Method, ModelRef, Outcome, Work
from tilth.tune.adapters import Adapter, LoRA

__all__ = ["SFT"]


class SFT(Method):
    """Tunes a model on the assistant turns of conversations, fully or with any adapter.

    Only tokens of assistant turns, with the mark that ends each, are targets. The loss of an
    optimiser step is

        L = sum over all target tokens t of the window of  -log p(t | what precedes t)  /  targets

    where the window is all rows between two optimiser steps, over accumulated batches and
    processes. Each target thus weighs the same, however the window is cut into batches and however
    short its last part is; the mean of means that common trainers compute weighs tokens of short
    rows more.

    Rows longer than ``max_length`` and rows without a target are not cut or guessed: they go to
    ``rejected.jsonl`` with the reason. Training checkpoints lie in the step's scratch folder and
    are verified by digest; after a kill the same call continues and ends in the same bytes on a
    CPU. A loss or gradient that is not finite stops the run before it can touch the weights, which
    are kept in ``last-good`` beside the checkpoints.

    The result is ``model/``, a plain PEFT adapter folder or a plain ``save_pretrained`` folder (in
    float32, as trained) with tokenizer and model card, and ``metrics.jsonl``, the training log.
    Where the base carries an adapter already, that one is merged first; as no PEFT file can name
    such a base, the result is then saved merged, as a whole model.

    Sources of the defaults: those of each adapter, its learning rate among them, are in
    :mod:`tilth.tune.adapters`; 2 epochs, linear schedule, 3 % warm-up and 2,048 tokens (Wang et al.
    2023, Tulu, arXiv:2306.04751, appendix D); batches of 16 are our choice. Weight decay (none) and
    clipping (at 1) are those of transformers, and are set in ``trainer``.

    Example:
        >>> from tilth.tune.sft import SFT                                  # doctest: +SKIP
        >>> SFT(model="seedling:small", data="rows.jsonl").to("tuned")      # doctest: +SKIP
    """

    verb: ClassVar[str] = "tune"
    name: ClassVar[str] = "sft"
    kind: ClassVar[Kind] = "model"
    example: ClassVar[dict[str, Any]] = {
        "model": "{model}",
        "data": "{rows}",
        "max_steps": 4,
        "batch_size": 4,
        "adapter": {"rank": 4},
        "save_every": 2,
    }

    model: ModelRef = Field(description="the model to tune")
    data: DataRef = Field(description="conversations to tune on")
    adapter: Adapter = Field(
        LoRA(), description="what is trained: full, lora, ..., or with settings, lora:rank=32"
    )
    epochs: int = Field(2, ge=1, description="passes over the data")
    max_steps: int | None = Field(
        None, ge=1, description="optimiser steps; replaces epochs where it is given"
    )
    batch_size: int = Field(16, ge=1, description="rows of a batch; packed rows count as one")
    gradient_accumulation: int = Field(1, ge=1, description="batches of an optimiser step")
    learning_rate: float | None = Field(
        None, gt=0, description="highest learning rate; by default that of the adapter"
    )
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="how the learning rate falls after the warm-up"
    )
    warmup_ratio: float = Field(0.03, ge=0, le=1, description="share of the steps that warm up")
    max_length: int = Field(
        2048, ge=2, description="longest row in tokens; the model's context where that is shorter"
    )
    batching: Literal["grouped", "packed", "plain"] = Field(
        "grouped",
        description="rows of like length together, several rows in one, or by chance",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="bf16 autocast where it is faster here, or as given"
    )
    save_every: int = Field(100, ge=1, description="optimiser steps between checkpoints")
    log_every: int | None = Field(
        None, ge=1, description="steps per log row; by default about 50 rows, each of 1 to 10 steps"
    )
    threads: int | None = Field(
        None, ge=1, description="processor threads; by default 1 or 2 for small models"
    )
    max_rejected: float = Field(
        0.1, ge=0, le=1, description="greatest share of unusable rows before the run stops"
    )
    trainer: dict[str, Any] = Field(
        default_factory=dict,
        description="further transformers.TrainingArguments, e.g. weight_decay, optim",
    )

    def estimate(self) -> dict[str, float]:
        """Tokens from the size of the data, FLOPs as 6 (adapters: 4) per weight and token."""
        from tilth.models.sizes import parameters_of, rows_and_tokens

        rows, tokens = rows_and_tokens(self.data)
        if rows == 0:
            return {}
        if self.max_steps is None:
            trained = tokens * self.epochs
        else:
            trained = tokens / rows * self.max_steps * self.batch_size * self.gradient_accumulation
        per_weight = 6 if self.adapter.kind == "full" else 4
        return {
            "tokens_trained": float(round(trained)),
            "flops": per_weight * parameters_of(self.model) * trained,
        }

    def run(self, work: Work) -> Outcome:
        """Trains, and writes ``model/``, ``metrics.jsonl`` and ``rejected.jsonl``.

        Raises:
            DataError: No row can be trained on, or too many cannot.
            ModelError: The model cannot be loaded, or the tokenizer does not fit it.
            TrainingError: Training diverged, or the model cannot pack rows.
        """
        from tilth.tune._run import tune

        return tune(self, work)
