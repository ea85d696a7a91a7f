"""Models with a learnt prompt: prompt tuning and prefix tuning when the model answers.

peft puts the prompt before a text inside its own wrapper, which knows neither padding on the left
nor the positions of a running answer. A causal model sees of what comes before only its keys and
values, and those of a learnt prompt never change: they are computed once, and every text starts
from them. The result is the base model itself, called as before.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import DynamicCache, PreTrainedModel

__all__ = ["prompted"]


def prompted(adapted: PeftModel) -> PreTrainedModel:
    """The base model of `adapted`, which from now on reads the prompt before every text.

    Its context window is shorter by the length of the prompt.
    """
    model = adapted.get_base_model()
    assert isinstance(model, PreTrainedModel)
    prompt = _Prompt(model, _keys_and_values(adapted, model))
    model.register_forward_pre_hook(prompt, with_kwargs=True)
    window = getattr(model.config, "max_position_embeddings", None)  # not every model has one
    if window is not None:
        model.config.max_position_embeddings = window - prompt.length
    return model


def _keys_and_values(
    adapted: PeftModel, model: PreTrainedModel
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per layer the keys and values ``[1, heads, prompt, width]`` of the prompt."""
    with torch.no_grad():
        prompt = adapted.get_prompt(batch_size=1)
        if isinstance(prompt, torch.Tensor):  # embeddings, which the layers have to read
            embeds = prompt.to(model.dtype)
            prompt = model(inputs_embeds=embeds, use_cache=True).past_key_values
    return [(layer.keys, layer.values) for layer in prompt.layers]


class _Prompt:
    """Hands the prompt's keys and values to a forward pass that has no past yet."""

    def __init__(
        self, model: PreTrainedModel, layers: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> None:
        self.config = model.config
        self.layers = layers
        self.length = layers[0][0].shape[2]

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            given, args = {"input_ids": args[0], **given}, args[1:]
        text = given["input_ids"] if given.get("input_ids") is not None else given["inputs_embeds"]
        past = given.get("past_key_values")
        if past is None or past.get_seq_length() == 0:
            past = DynamicCache(config=self.config) if past is None else past
            for index, (keys, values) in enumerate(self.layers):
                rows = (len(text), -1, -1, -1)
                past.update(
                    keys.to(text.device).expand(rows), values.to(text.device).expand(rows), index
                )
        given = {**given, "past_key_values": past}
        mask = given.get("attention_mask")
        if mask is not None:
            given["attention_mask"] = torch.cat([mask.new_ones(len(mask), self.length), mask], 1)
        if given.get("position_ids") is not None:
            given["position_ids"] = given["position_ids"] + self.length
        return args, given
