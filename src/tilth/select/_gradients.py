"""Gradients of single rows for the LoRA weights of a model, from one backward pass per batch.

Axes: B rows, T positions, I inputs and O outputs of a layer, P weights, D projected dimensions.

For a linear layer ``y = W x`` the gradient of row b is the sum over its positions of
``(dL_b / dy_t) x_t^T``. Inputs are seen on the way forward and ``dL / dy`` on the way back, so that
one pass over a batch gives every row's own gradient; each layer's are projected as soon as they are
there, and never more than one layer's are held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tilth.errors import ModelError
from tilth.select._projection import Projection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tilth.data.example import Message

__all__ = ["Gradients", "Moments", "Row", "encoded", "lora_layers", "padded"]

IGNORED = -100

Row = tuple[list[int], list[bool]]
"""Token ids, and for each whether it is a target."""


@dataclass(frozen=True)
class Moments:
    """Adam's state of one weight, and its constants (those of Kingma and Ba, arXiv:1412.6980).

    Attributes:
        first: The running mean of gradients.
        second: The running mean of their squares.
    """

    first: torch.Tensor
    second: torch.Tensor
    decay_first: float = 0.9
    decay_second: float = 0.999
    epsilon: float = 1e-8

    def step(self, gradients_BP: torch.Tensor) -> torch.Tensor:
        """The direction in which Adam would go for each row's gradient.

        Without the correction for the first steps: its factors are the same for all rows, and a
        cosine does not see them.
        """
        first = self.first.flatten() * self.decay_first
        second = self.second.flatten() * self.decay_second
        up_BP = first + (1 - self.decay_first) * gradients_BP
        down_BP = second + (1 - self.decay_second) * gradients_BP.square()
        return up_BP / (down_BP.sqrt() + self.epsilon)


def encoded(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_length: int
) -> Row | None:
    """A conversation cut to `max_length` tokens; None where no answer token is left to predict."""
    from tilth.models.chat import encode_chat

    row = encode_chat(tokenizer, messages)
    ids, targets = row.input_ids[:max_length], row.assistant_mask[:max_length]
    return (ids, targets) if any(targets[1:]) else None


def padded(rows: Sequence[Row], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels ``[B, T]``, padded on the right; a label stands where it is predicted."""
    longest = max(len(ids) for ids, _ in rows)
    ids_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    labels_BT = torch.full((len(rows), longest), IGNORED)
    for b, (ids, targets) in enumerate(rows):
        ids_BT[b, : len(ids)] = torch.tensor(ids)
        wanted = [t if on else IGNORED for t, on in zip(ids[1:], targets[1:], strict=True)]
        labels_BT[b, : len(wanted)] = torch.tensor(wanted, dtype=torch.long)
    return ids_BT.to(device), labels_BT.to(device)


def lora_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The LoRA matrices of a PEFT model by the name of their weight.

    Raises:
        ModelError: It has none, or its adapter has other parts, whose gradients are not computed.
    """
    layers = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (".lora_A." in name or ".lora_B." in name)
    }
    other = [
        name
        for name, _ in model.named_parameters()
        if ("lora_" in name or "modules_to_save" in name) and name not in layers
    ]
    if not layers or other:
        raise ModelError(
            f"the adapter holds {other[0]}, which is no LoRA matrix of a linear layer"
            if other
            else "the model carries no LoRA adapter",
            where="checkpoints",
            fix="tune it with `adapter: lora`, or leave checkpoints empty: then tilth does",
        )
    return layers


class Gradients:
    """Projected unit gradients of rows under one checkpoint.

    Args:
        model: A PEFT model with a LoRA adapter; its weights are left as they are.
        projection: Of the weights that :func:`lora_layers` names.
        moments: Adam's state by the same names; None: plain gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        projection: Projection,
        moments: Mapping[str, Moments] | None = None,
    ) -> None:
        self.model = model.eval()
        self.projection = projection
        self.moments = moments
        self.tokens = 0
        self.device = next(model.parameters()).device
        self._out_BD = torch.zeros(0)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        # Without a weight that learns, the way back has to begin somewhere: at the embeddings.
        inputs = model.get_input_embeddings()  # type: ignore[operator]
        self._hooks = [inputs.register_forward_hook(_require_grad)]
        for name, layer in lora_layers(model).items():
            self._hooks.append(layer.register_forward_hook(self._watch(name)))

    def close(self) -> None:
        """Takes the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def __call__(self, rows: Sequence[Row]) -> np.ndarray:
        """Unit rows float32 ``[B, D]``, in the order of `rows`; a zero gradient stays zero.

        The loss of a row is the mean over its targets, so that its length does not weigh.
        """
        ids_BT, labels_BT = padded(rows, self.device)
        self.tokens += sum(len(ids) for ids, _ in rows)
        self._out_BD = torch.zeros(len(rows), self.projection.dimensions, device=self.device)
        with torch.enable_grad():
            # No mask: padding stands on the right, where no token before it sees it.
            logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
            losses_BT = functional.cross_entropy(
                logits_BTV.float().flatten(0, 1),
                labels_BT.flatten(),
                ignore_index=IGNORED,
                reduction="none",
            ).view(ids_BT.shape)
            counts_B = (labels_BT != IGNORED).sum(1)
            (losses_BT.sum(1) / counts_B).sum().backward()
        unit_BD = functional.normalize(self._out_BD.double(), dim=1).float()
        return unit_BD.cpu().numpy()

    def _watch(self, name: str) -> Any:
        def forward(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            seen_BTI = inputs[0].detach()
            output.register_hook(lambda back_BTO: self._take(name, seen_BTI, back_BTO))

        return forward

    def _take(self, name: str, seen_BTI: torch.Tensor, back_BTO: torch.Tensor) -> None:
        """Adds one layer's gradients, each row's the sum of its positions' outer products."""
        gradients_BOI = torch.bmm(back_BTO.transpose(1, 2).float(), seen_BTI.float())
        gradients_BP = gradients_BOI.flatten(1)
        if self.moments is not None:
            gradients_BP = self.moments[name].step(gradients_BP)
        self.projection.add(self._out_BD, name, gradients_BP)


def _require_grad(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
    output.requires_grad_(True)
