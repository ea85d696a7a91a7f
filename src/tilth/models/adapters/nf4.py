"""Base weights rounded to four bits (NF4), as QLoRA trains on (arXiv:2305.14314).

Blocks of 64 weights share a scale, and with double quantisation blocks of 256 scales share another:
the defaults of that method and of bitsandbytes, which does the rounding on processors too. A folder
whose adapter was trained on rounded weights says so in ``base_quantization.json``, and belongs to
the rounded weights: loading rounds the base first, so that the model is the one that was trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tilth.errors import ModelError
from tilth.models.adapters.parts import head_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["NOTE", "dequantize", "is_double", "note_of", "quantize", "weights_in", "write_note"]

NOTE = "base_quantization.json"
"""The file beside an adapter that says how its base was rounded."""


def _library() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise ModelError(
            "rounding to four bits needs bitsandbytes, which is not installed",
            where="adapter: qlora",
            fix="pip install 'tilth[qlora]', or use lora",
        ) from error
    return bitsandbytes


def quantize(model: PreTrainedModel, *, double: bool, compute: torch.dtype) -> list[str]:
    """Rounds the linear layers of `model` in place, all but the one that gives the logits.

    Args:
        model: The base, on the device where it will stay.
        double: Round the scales as well.
        compute: The number format in which products are computed.

    Returns:
        The names of the layers that were rounded.

    Raises:
        ModelError: bitsandbytes is missing or cannot work on this device, or no layer is linear.
    """
    library = _library()
    head = head_name(model)
    names = [n for n, module in model.named_modules() if type(module) is nn.Linear and n != head]
    if not names:
        raise ModelError(
            f"{type(model).__name__} has no linear layers that could be rounded",
            where="adapter: qlora",
            fix="use lora",
        )
    for name in names:
        module = model.get_submodule(name)
        assert isinstance(module, nn.Linear)
        rounded = library.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=compute,
            compress_statistics=double,
            quant_type="nf4",
        )
        # Its other way to compute on a processor packs the weights anew, rounds their scales to
        # bfloat16 and cannot be undone exactly.
        rounded.support_avx512bf16_for_cpu = False
        rounded.bias = module.bias
        device = module.weight.device
        rounded.weight = library.nn.Params4bit(
            module.weight.data.cpu(),
            requires_grad=False,
            compress_statistics=double,
            quant_type="nf4",
            module=rounded,
        )
        try:
            model.set_submodule(name, rounded.to(device))
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            raise ModelError(
                f"bitsandbytes {library.__version__} cannot round to four bits on {device.type}: "
                f"{str(error).splitlines()[0]}",
                where="adapter: qlora",
                fix="use lora, or a newer bitsandbytes",
            ) from error
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft asks this of a model
    return names


def dequantize(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Makes the rounded layers of `model` ordinary linear layers with the rounded values."""
    library = _library()
    for name, module in list(model.named_modules()):
        if isinstance(module, library.nn.Linear4bit):
            weight = module.weight
            values = library.functional.dequantize_4bit(weight.data, weight.quant_state)
            plain = nn.Linear(module.in_features, module.out_features, module.bias is not None)
            plain.weight = nn.Parameter(values.to(dtype), requires_grad=False)
            plain.bias = module.bias
            model.set_submodule(name, plain)
    model.is_loaded_in_4bit = False  # type: ignore[assignment]


def is_double(model: nn.Module) -> bool:
    """Whether the scales of the rounded layers of `model` are rounded too."""
    four_bits = _library().nn.Linear4bit
    rounded = (m for m in model.modules() if isinstance(m, four_bits))
    return bool(next(rounded).weight.quant_state.nested)


def weights_in(model: nn.Module) -> int:
    """How many weights `model` holds; two of those that are rounded share a byte."""
    states = ((p, getattr(p, "quant_state", None)) for p in model.parameters())
    return sum(p.numel() if s is None else int(s.shape.numel()) for p, s in states)


def write_note(folder: Path, *, double: bool) -> None:
    """Writes how the base of the adapter in `folder` was rounded."""
    told = {"bits": 4, "type": "nf4", "double": double}
    (folder / NOTE).write_text(json.dumps(told, indent=2) + "\n", "utf-8")


def note_of(folder: Path) -> bool | None:
    """Whether the scales were rounded too; None where the base was not rounded.

    Raises:
        ModelError: The note is not one of ours.
    """
    path = folder / NOTE
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_text("utf-8"))
        double = told["double"]
        known = (told["bits"], told["type"]) == (4, "nf4") and isinstance(double, bool)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"not a note on rounding: {error}", where=str(path)) from error
    if not known:
        raise ModelError("the base was rounded in a way that tilth does not know", where=str(path))
    return bool(double)
