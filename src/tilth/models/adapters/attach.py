"""Puts the adapter of a folder on a model, whichever adapter it is, and adds it to the weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from tilth.errors import ModelError
from tilth.models.adapters import adaptformer, bitfit, nf4
from tilth.models.adapters.prompts import prompted
from tilth.models.weights import no_safetensors

__all__ = ["attach", "in_place", "merges", "without_notices"]

_APART = {adaptformer.PEFT_TYPE, "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "ADAPTION_PROMPT"}
"""Types whose effect the base weights cannot express."""

OURS = {adaptformer.PEFT_TYPE, bitfit.PEFT_TYPE}
"""Types that plain peft does not know."""


def attach(model: PreTrainedModel, folder: Path, name: str = "default") -> PeftModel:
    """`model` with the adapter in `folder`, every tensor of it proven to be in use.

    Language models and vision transformers alike. Base weights are rounded to four bits where the
    adapter was trained so. A second adapter is put beside the first with
    ``adapted.load_adapter(folder, "second")``, and chosen with ``adapted.set_adapter("second")``.

    Args:
        model: The base that the adapter was made for; it is changed.
        folder: The adapter's folder.
        name: What to call the adapter.

    Raises:
        ModelError: The folder is damaged, or the adapter belongs to another base model.

    Example:
        >>> adapted = attach(model, Path("tuned/model"))            # doctest: +SKIP
    """
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise no_safetensors(folder, path.name)
    double = nf4.note_of(folder)
    if double is not None:
        nf4.quantize(model, double=double, compute=model.dtype)
        nf4.dequantize(model, model.dtype)
    other = ModelError(
        "this adapter was made for another base model",
        where=str(folder),
        fix="name its own base: BASE+ADAPTER",
    )
    with without_notices():
        try:
            adapted = PeftModel.from_pretrained(model, str(folder), name, is_trainable=False)
        except SafetensorError as error:
            raise ModelError(f"the adapter is damaged: {error}", where=str(path)) from error
        except (RuntimeError, ValueError, KeyError) as error:  # a shape, or no such module or type
            other.problem += f" ({str(error).splitlines()[-1].strip()[:200]})"
            raise other from error
        with safe_open(path, "pt") as file:
            stored = set(file.keys())
        if stored not in (_keys(adapted, name, False), _keys(adapted, name, "auto")):
            raise other
    return adapted


def _keys(adapted: PeftModel, name: str, embeddings: bool | Literal["auto"]) -> set[str]:
    """The names of the tensors of an adapter, with embeddings where peft saves them beside it."""
    state = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=embeddings)
    return set(state)


def merges(folder: Path) -> bool:
    """Whether the adapter in `folder` can be added to the base weights."""
    told = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    return told.get("peft_type") not in _APART


def in_place(adapted: PeftModel) -> PreTrainedModel:
    """The base model with the adapter in it: a plain model that answers as `adapted` does.

    The adapter is added to the weights where they can express it. A branch beside a block or a
    learnt prompt stays in the model as it is, which then cannot be saved as a whole model.
    """
    name = adapted.active_adapter
    config = adapted.peft_config[name]
    model = adapted.get_base_model()
    assert isinstance(model, PreTrainedModel)
    if config.is_prompt_learning:
        return prompted(adapted)
    if config.peft_type in _APART:
        return model
    if getattr(model, "is_loaded_in_4bit", False):
        adapted = _on_plain_weights(adapted)
    before = _biases(adapted)
    with without_notices():
        merged = adapted.merge_and_unload()
    if _biases(merged) > before:
        # Llama and its kin say in the configuration whether linear layers have a bias.
        for flag in ("attention_bias", "mlp_bias"):
            if hasattr(merged.config, flag):
                setattr(merged.config, flag, True)
    head, inputs = merged.get_output_embeddings(), merged.get_input_embeddings()
    if head is not None and head.weight is not inputs.weight:
        merged.config.tie_word_embeddings = False
    return merged


def _on_plain_weights(adapted: PeftModel) -> PeftModel:
    """The same adapter on the rounded values as ordinary weights, where merging is exact."""
    name = adapted.active_adapter
    config, state = adapted.peft_config[name], get_peft_model_state_dict(adapted)
    model = adapted.unload()
    nf4.dequantize(model, torch.float32)
    again = get_peft_model(model, config)
    set_peft_model_state_dict(again, state)
    return again


def _biases(model: torch.nn.Module) -> int:
    """How many modules have a bias."""
    return sum(getattr(m, "bias", None) is not None for m in model.modules())


@contextmanager
def without_notices() -> Iterator[None]:
    """Silences what peft says of things that are handled here: tied heads, renamed properties."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")
        warnings.filterwarnings("ignore", message=".*save_embedding_layers")
        yield
