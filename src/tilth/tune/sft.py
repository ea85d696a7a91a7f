"""Supervised tuning on conversations: the whole model, or a LoRA adapter."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from tilth.method import DataRef, Kind, Method, ModelRef, Outcome, Work

__all__ = ["SFT"]


class SFT(Method):
    """Tunes a model on the assistant turns of conversations, fully or with LoRA.

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

    Papers and sources of the defaults: LoRA (Hu et al. 2021, arXiv:2106.09685); all linear layers
    as targets and learning rate 2e-4 with LoRA (Dettmers et al. 2023, QLoRA, arXiv:2305.14314,
    section 4 and table 9); 2 epochs, linear schedule, 3 % warm-up, no weight decay, 2,048 tokens
    and learning rate 2e-5 in full tuning (Wang et al. 2023, Tulu, arXiv:2306.04751, appendix D);
    rank 16, alpha 32, batches of 16 and clipping at 1 are our choice.

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
        "rank": 4,
        "save_every": 2,
    }

    model: ModelRef = Field(description="the model to tune")
    data: DataRef = Field(description="conversations to tune on")
    adapter: Literal["lora", "none"] = Field(
        "lora", description="train a LoRA adapter, or all weights"
    )
    rank: int = Field(16, ge=1, description="rank of the LoRA matrices")
    alpha: float = Field(32, gt=0, description="LoRA scale: the update is multiplied by alpha/rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: str | list[str] = Field(
        "all-linear", description="modules that get an adapter: names, or all-linear"
    )
    epochs: int = Field(2, ge=1, description="passes over the data")
    max_steps: int | None = Field(
        None, ge=1, description="optimiser steps; replaces epochs where it is given"
    )
    batch_size: int = Field(16, ge=1, description="rows of a batch; packed rows count as one")
    gradient_accumulation: int = Field(1, ge=1, description="batches of an optimiser step")
    learning_rate: float | None = Field(
        None, gt=0, description="highest learning rate; 2e-4 with LoRA and 2e-5 without by default"
    )
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="how the learning rate falls after the warm-up"
    )
    warmup_ratio: float = Field(0.03, ge=0, le=1, description="share of the steps that warm up")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    max_grad_norm: float = Field(1.0, ge=0, description="clip gradients at this norm; 0: do not")
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
        description="further transformers.TrainingArguments, e.g. report_to, optim",
    )

    def estimate(self) -> dict[str, float]:
        """Tokens from the size of the data, FLOPs as 6 (LoRA: 4) per weight and token."""
        from tilth.tune._estimate import parameters_of, rows_and_tokens

        rows, tokens = rows_and_tokens(self.data)
        if rows == 0:
            return {}
        if self.max_steps is None:
            trained = tokens * self.epochs
        else:
            trained = tokens / rows * self.max_steps * self.batch_size * self.gradient_accumulation
        per_weight = 4 if self.adapter == "lora" else 6
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
