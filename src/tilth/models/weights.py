"""Weight files: safetensors, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path

from tilth.errors import ModelError

__all__ = ["no_safetensors"]

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_CONVERT = (
    "convert it once where you trust it: AutoModelForCausalLM.from_pretrained(FOLDER)"
    ".save_pretrained(FOLDER, safe_serialization=True)"
)


def no_safetensors(folder: Path, name: str) -> ModelError:
    """The error that the weight file `name` is not in `folder`; it tells of a pickle there."""
    pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if pickles:
        return ModelError(
            f"{pickles[0]} is not safetensors, and loading a pickle can run any code",
            where=str(folder),
            fix=_CONVERT,
        )
    return ModelError(f"the weights are missing: no {name}", where=str(folder))
