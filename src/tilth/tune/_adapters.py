"""Putting an adapter on a model, and saving what was tuned as a plain folder."""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as library

from tilth.errors import RecipeError
from tilth.models.chat import chat_format
from tilth.tune.adapters import DoRA, LoRA, Member

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapt", "save_plain", "without_cache"]


def adapt(model: PreTrainedModel, adapter: Member, *, seed: int, base_name: str) -> PeftModel:
    """`model` with a new adapter, whose random weights follow from `seed` alone.

    Args:
        model: The base; its own weights are frozen and stay as they are.
        adapter: Any member but ``full``.
        seed: Seed of the adapter's weights; torch's global generator is set to it and goes on from
            there with dropout.
        base_name: What the adapter's file says its base is.

    Raises:
        RecipeError: The adapter cannot be put on this model.
    """
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():  # of peft's use of a name that transformers renamed
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
            adapted = get_peft_model(model, _peft_config(model, adapter))
    except ValueError as error:
        linear = {n.rpartition(".")[2] for n, m in model.named_modules() if _is_linear(m)}
        raise RecipeError(
            f"{adapter} cannot be put on this model: {str(error).splitlines()[0]}",
            where="adapter.targets",
            fix=f"use all-linear, or some of {', '.join(sorted(linear))}",
        ) from error
    adapted.peft_config["default"].base_model_name_or_path = base_name
    return adapted


def _peft_config(model: PreTrainedModel, adapter: Member) -> PeftConfig:
    """The settings in the words of peft."""
    assert isinstance(adapter, LoRA | DoRA)
    kinds = {type(module) for module in model.modules()}
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]
        lora_dropout=adapter.dropout,
        target_modules=adapter.targets,
        use_dora=isinstance(adapter, DoRA),
        fan_in_fan_out=Conv1D in kinds,  # GPT-2 keeps its weights transposed
        modules_to_save=adapter.modules_to_save or None,
        task_type="CAUSAL_LM",
    )


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | Conv1D)


@contextmanager
def without_cache(model: PreTrainedModel) -> Iterator[None]:
    """Trains without a key-value cache and gives the configuration back as it was."""
    before = model.config.use_cache
    model.config.use_cache = False
    try:
        yield
    finally:
        model.config.use_cache = before


@contextmanager
def _without_bars() -> Iterator[None]:
    """Saves without the progress bars of the library."""
    shown = library.is_progress_bar_enabled()
    library.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            library.enable_progress_bar()


def save_plain(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Saves weights, tokenizer, chat template and stop tokens; any HF tool loads the folder.

    The template in which the model was tuned is saved even where the tokenizer had none of its
    own, and the mark that ends an answer is added to the stop tokens of generation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _without_bars():
        model.save_pretrained(str(folder))
    _settle(folder / "adapter_config.json")
    form = chat_format(tokenizer)
    generation = model.generation_config
    if generation is not None:
        known = generation.eos_token_id
        stops = set(known if isinstance(known, list) else [] if known is None else [known])
        stops |= form.stop_ids
        generation.eos_token_id = sorted(stops)
        generation.save_pretrained(folder)
    if form.is_default:
        tokenizer.chat_template = form.template
    tokenizer.save_pretrained(folder)


def _settle(config: Path) -> None:
    """Sorts the adapter's module names: peft writes a set, whose order differs by process."""
    if config.exists():
        told = json.loads(config.read_text("utf-8"))
        named = told["target_modules"]
        told["target_modules"] = sorted(named) if isinstance(named, list) else named
        config.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", "utf-8")
