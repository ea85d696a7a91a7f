"""Arguments of transformers that a user may add to those that follow from the settings."""

from __future__ import annotations

import dataclasses
import difflib

from transformers import TrainingArguments

from tilth.errors import RecipeError

__all__ = ["check_given"]

_OURS = {
    "output_dir", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "warmup_ratio", "num_train_epochs",
    "max_steps", "logging_steps", "save_steps", "save_strategy", "bf16", "fp16", "seed",
    "data_seed", "train_sampling_strategy", "label_smoothing_factor", "eval_strategy",
}  # fmt: skip
"""Arguments that follow from the settings, or that our loss and batches do not read."""


def check_given(given: dict[str, object]) -> None:
    """Refuses trainer arguments that do not exist or that settings of ours decide."""
    known = [f.name for f in dataclasses.fields(TrainingArguments)]
    for name in given:
        if name in _OURS:
            raise RecipeError(
                f"{name} is decided by the settings of tune.sft", where=f"trainer.{name}"
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise RecipeError(
                f"transformers.TrainingArguments has no {name!r}",
                where=f"trainer.{name}",
                fix=f"did you mean {near[0]}?" if near else "see the documentation of transformers",
            )
