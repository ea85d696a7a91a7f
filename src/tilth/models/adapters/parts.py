"""Parts of a model that adapters ask for: its head and its feed-forward blocks."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

__all__ = ["feed_forward_names", "head_name"]

_FEED_FORWARD = ("mlp", "feed_forward", "ffn")


def head_name(model: PreTrainedModel) -> str | None:
    """The module that turns the last hidden states into the model's answer, or None.

    The layer over the vocabulary of a language model, or ``classifier``.
    """
    head = model.get_output_embeddings() or dict(model.named_children()).get("classifier")
    names = [name for name, module in model.named_modules() if module is head]
    return names[0] if names and isinstance(head, nn.Module) else None


def feed_forward_names(model: nn.Module) -> list[str]:
    """The last names of the feed-forward blocks, sorted; none where they have other names."""
    found = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    return sorted(found & set(_FEED_FORWARD))
