"""Putting an adapter on a model, and saving what was tuned as a plain folder."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as library

from tilth.errors import ModelError, RecipeError
from tilth.models.adapters import nf4
from tilth.models.adapters.adaptformer import AdaptFormerConfig
from tilth.models.adapters.attach import without_notices
from tilth.models.adapters.bitfit import BitFitConfig, bias_modules
from tilth.models.adapters.parts import feed_forward_names, head_name
from tilth.models.chat import chat_format
from tilth.tune.adapters import (
    IA3,
    MEMBERS,
    AdaptFormer,
    BitFit,
    DoRA,
    Head,
    LowRank,
    Member,
    Prefix,
    Prompt,
    QLoRA,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapt", "save_adapter", "save_plain", "without_cache"]


def adapt(model: PreTrainedModel, adapter: Member, *, seed: int, base_name: str) -> PeftModel:
    """`model` with a new adapter, whose random weights follow from `seed` alone.

    Args:
        model: The base, a language model or a vision transformer; its own weights are frozen and
            stay as they are (rounded to four bits where the adapter is QLoRA).
        adapter: Any member but ``full``.
        seed: Seed of the adapter's weights; torch's global generator is set to it and goes on from
            there with dropout.
        base_name: What the adapter's file says its base is.

    Raises:
        RecipeError: The adapter cannot be put on this model.
        ModelError: bitsandbytes is missing, or cannot round weights on this device.
    """
    if not adapter.sees_images and not model.can_generate():
        raise RecipeError(
            f"{adapter.kind} is a prompt before a text, and {type(model).__name__} reads none",
            where="adapter",
            fix=f"use one of {', '.join(k for k, m in MEMBERS.items() if m.sees_images)}",
        )
    if isinstance(adapter, QLoRA):
        compute = torch.float32 if model.device.type == "cpu" else torch.bfloat16
        nf4.quantize(model, double=adapter.double_quantization, compute=compute)
    torch.manual_seed(seed)
    try:
        with without_notices():
            adapted = get_peft_model(model, config_of(model, adapter))
    except ValueError as error:
        linear = {n.rpartition(".")[2] for n, m in model.named_modules() if _is_linear(m)}
        raise RecipeError(
            f"{adapter} cannot be put on this model: {str(error).splitlines()[0]}",
            where="adapter",
            fix=f"its linear layers are {', '.join(sorted(linear))}",
        ) from error
    adapted.peft_config["default"].base_model_name_or_path = base_name
    return adapted


def config_of(model: PreTrainedModel, adapter: Member) -> PeftConfig:
    """The settings in the words of peft.

    Raises:
        ValueError: The model has no modules that this adapter could be put on.
    """
    task = "CAUSAL_LM" if model.can_generate() else None
    whole = getattr(adapter, "modules_to_save", None) or None  # prompts and the head have none
    head = head_name(model)
    if isinstance(adapter, LowRank):
        spared = [head] if head and not task and adapter.targets == "all-linear" else None
        return LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,  # type: ignore[arg-type]
            lora_dropout=adapter.dropout,
            target_modules=adapter.targets,
            exclude_modules=spared,
            use_dora=isinstance(adapter, DoRA),
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
            modules_to_save=whole,
            task_type=task,
        )
    if isinstance(adapter, IA3):
        targets, feed_forward = _scaled(model)
        return IA3Config(
            target_modules=targets,
            feedforward_modules=feed_forward,
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
            modules_to_save=whole,
            task_type=task,
        )
    if isinstance(adapter, Prompt):
        start = "RANDOM" if adapter.start == "random" else "SAMPLE_VOCAB"
        return PromptTuningConfig(
            num_virtual_tokens=adapter.tokens, prompt_tuning_init=start, task_type=task
        )
    if isinstance(adapter, Prefix):
        return PrefixTuningConfig(num_virtual_tokens=adapter.tokens, task_type=task)
    if isinstance(adapter, BitFit):
        targets = bias_modules(model, adapter.new, without=whole or [])
        return BitFitConfig(
            target_modules=_some(targets, "bias"), modules_to_save=whole, task_type=task
        )
    if isinstance(adapter, AdaptFormer):
        blocks = adapter.targets or feed_forward_names(model)
        return AdaptFormerConfig(
            target_modules=_some(blocks, "feed-forward block of a usual name"),
            width=model.config.hidden_size,
            bottleneck=adapter.bottleneck,
            scale=adapter.scale,
            learn_scale=adapter.learn_scale,
            dropout=adapter.dropout,
            modules_to_save=whole,
            task_type=task,
        )
    assert isinstance(adapter, Head)
    # peft has no type of this name; this one trains a copy of each module that it names.
    return LNTuningConfig(target_modules=_some([head] if head else [], "head"), task_type=task)


def _some(names: list[str], what: str) -> list[str]:
    if not names:
        raise ValueError(f"the model has no {what}")
    return names


_KEYS_AND_VALUES = ("k_proj", "v_proj", "key", "value")
_LAST_OF_BLOCK = ("down_proj", "fc2", "dense_4h_to_h")


def _scaled(model: PreTrainedModel) -> tuple[list[str] | None, list[str] | None]:
    """What (IA)^3 scales: layers by their usual names, else None, which leaves it to peft."""
    there = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    last = sorted(there & set(_LAST_OF_BLOCK))
    keys_and_values = sorted(there & set(_KEYS_AND_VALUES))
    if last and keys_and_values:
        return keys_and_values + last, last
    return None, None  # keys and values are parts of one layer, or the names are unusual


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


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Saves an adapter as a folder, the same bytes in every process."""
    folder.mkdir(parents=True, exist_ok=True)
    with _without_bars(), without_notices():
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's card, which holds nothing yet
    _settle(folder / "adapter_config.json")
    model = adapted.get_base_model()
    if getattr(model, "is_loaded_in_4bit", False):
        nf4.write_note(folder, double=nf4.is_double(model))


def save_plain(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Saves weights, tokenizer, chat template and stop tokens; any HF tool loads the folder.

    The template in which the model was tuned is saved even where the tokenizer had none of its
    own, and the mark that ends an answer is added to the stop tokens of generation.

    Raises:
        ModelError: A whole model has weights that its configuration has no place for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        save_adapter(model, folder)
    else:
        _require_place(model)
        with _without_bars():
            model.save_pretrained(str(folder))
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


def _require_place(model: PreTrainedModel) -> None:
    """Refuses to save weights that a model made from the same configuration would not load."""
    with torch.device("meta"):
        blank = type(model)(model.config)
    extra = sorted(set(model.state_dict()) - set(blank.state_dict()))
    if extra:
        raise ModelError(
            f"{type(model).__name__} has no place for {len(extra)} of the tuned weights, "
            f"the first is {extra[0]}",
            where="adapter",
            fix="tune from a model without adapters, so that the new adapter is kept apart",
        )


def _settle(config: Path) -> None:
    """Sorts the adapter's module names: peft writes sets, whose order differs by process."""
    told = json.loads(config.read_text("utf-8"))
    for name in ("target_modules", "feedforward_modules", "exclude_modules", "modules_to_save"):
        if isinstance(told.get(name), list):
            told[name] = sorted(told[name])
    config.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", "utf-8")
