"""The short LoRA warm-up that gives LESS its checkpoints, with Adam's state of each.

It is no tuning method: it learns just enough that gradients say something. What it leaves is a file
per epoch; a killed warm-up goes on after its last whole epoch and ends in the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tilth.artefacts import write_atomically
from tilth.seeds import derive, stream
from tilth.select._gradients import IGNORED, Moments, Row, lora_layers, padded

__all__ = ["Recipe", "adapted", "load_epoch", "train"]


@dataclass(frozen=True)
class Recipe:
    """How the warm-up learns; see :class:`tilth.select.less.LESS` for the sources.

    Attributes:
        rank: Of the LoRA matrices.
        alpha: Their scale, ``alpha / rank``.
        dropout: On their input.
        learning_rate: The highest; it falls linearly to zero.
        epochs: Passes over the rows, each of which leaves a checkpoint.
        batch_size: Rows per step.
        seed: Of the adapter's weights, the order and the dropout.
    """

    rank: int
    alpha: float
    dropout: float
    learning_rate: float
    epochs: int
    batch_size: int
    seed: int

    def rates(self, rows: int) -> list[float]:
        """The learning rate of every step: 3 % of them warm up, then it falls to zero."""
        steps = self.epochs * math.ceil(rows / self.batch_size)
        warm = max(1, round(0.03 * steps))
        rising = ((step + 1) / warm for step in range(warm))
        falling = ((steps - step) / max(1, steps - warm) for step in range(warm, steps))
        return [self.learning_rate * share for share in (*rising, *falling)][:steps]


def adapted(model: PreTrainedModel, recipe: Recipe) -> PeftModel:
    """`model` with a LoRA adapter on all linear layers, whose weights follow from the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(derive(recipe.seed, "adapter"))
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,  # type: ignore[arg-type]
            lora_dropout=recipe.dropout,
            target_modules="all-linear",
            fan_in_fan_out=Conv1D in {type(module) for module in model.modules()},
            task_type="CAUSAL_LM",
        )
        made = get_peft_model(model, config)
    assert isinstance(made, PeftModel)
    return made


def train(model: PeftModel, rows: Sequence[Row], recipe: Recipe, folder: Path) -> int:
    """Trains the adapter; ``epoch-1.safetensors`` and so on appear in `folder`.

    Returns:
        Tokens trained by this call.
    """
    layers = lora_layers(model)
    weights = {name: layer.weight for name, layer in layers.items()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights.values(), lr=recipe.learning_rate, weight_decay=0.0)
    rates = recipe.rates(len(rows))
    per_epoch = len(rates) // recipe.epochs
    tokens = 0
    for epoch in range(recipe.epochs):
        file = folder / f"epoch-{epoch + 1}.safetensors"
        if file.exists():
            _restore(optimizer, weights, file, steps=(epoch + 1) * per_epoch)
            continue
        with torch.random.fork_rng():
            torch.manual_seed(derive(recipe.seed, "dropout", epoch))  # as after an interruption
            model.train()
            for number, batch in enumerate(_batches(rows, recipe, epoch)):
                for group in optimizer.param_groups:
                    group["lr"] = rates[epoch * per_epoch + number]
                tokens += sum(len(ids) for ids, _ in batch)
                _step(model, optimizer, batch)
        write_atomically(file, save(_tensors(optimizer, weights)))
    model.eval()
    return tokens


def load_epoch(model: PeftModel, file: Path) -> dict[str, Moments]:
    """Gives `model` the weights of a checkpoint, and returns Adam's state."""
    tensors = load_file(file)
    moments = {}
    for name, layer in lora_layers(model).items():
        with torch.no_grad():
            layer.weight.copy_(tensors[name])
        device = layer.weight.device
        moments[name] = Moments(
            tensors[f"{name}//exp_avg"].to(device), tensors[f"{name}//exp_avg_sq"].to(device)
        )
    return moments


def _batches(rows: Sequence[Row], recipe: Recipe, epoch: int) -> Iterator[list[Row]]:
    order = stream(recipe.seed, "order", epoch).permutation(len(rows)).tolist()
    for start in range(0, len(order), recipe.batch_size):
        yield [rows[i] for i in order[start : start + recipe.batch_size]]


def _step(model: PeftModel, optimizer: torch.optim.Optimizer, batch: list[Row]) -> None:
    """One step on the mean loss of all targets of the batch."""
    ids_BT, labels_BT = padded(batch, next(model.parameters()).device)
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
    loss = functional.cross_entropy(
        logits_BTV.float().flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _tensors(
    optimizer: torch.optim.Optimizer, weights: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Weights by name, and beside each Adam's state as ``NAME//exp_avg`` and so on."""
    tensors = {}
    for name, weight in weights.items():
        tensors[name] = weight.detach().cpu().contiguous()
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{name}//{key}"] = optimizer.state[weight][key].cpu().contiguous()
    return tensors


def _restore(
    optimizer: torch.optim.Optimizer, weights: dict[str, torch.Tensor], file: Path, steps: int
) -> None:
    tensors = load_file(file)
    for name, weight in weights.items():
        with torch.no_grad():
            weight.copy_(tensors[name])
        optimizer.state[weight] = {
            "step": torch.tensor(float(steps)),
            **{k: tensors[f"{name}//{k}"].to(weight.device) for k in ("exp_avg", "exp_avg_sq")},
        }
