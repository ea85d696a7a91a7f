"""Training checkpoints that are whole or refused: safetensors and JSON, each file with its digest.

A checkpoint is written to a temporary name, its manifest last, and then renamed, so that a kill at
any moment leaves either the old state or the new one. On reading, every file is compared with its
digest; a checkpoint with a missing or altered file is set aside, and the next older one is used.
Nothing in it is a pickle: random-number states are tensors of bytes and lists of integers.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer

from tilth._disk import blame, sync_file, sync_folder
from tilth.errors import TrainingError

__all__ = ["Checkpoints", "State", "optimizer_state", "restore_optimizer", "rng_state", "set_rng"]

SCHEMA = 1
_MANIFEST = "manifest.json"
_STEP = "step-"


@dataclass(frozen=True)
class State:
    """What a checkpoint holds.

    Attributes:
        step: Optimiser steps done.
        tensors: Files of tensors by name: ``model``, ``optimizer``, ``random``, each a mapping
            from names to tensors.
        values: Files of JSON by name: ``trainer_state`` in the form of `transformers`, and
            ``state`` for scheduler, sampler, log, counters and scalar random-number state.
        folder: Where it was read from.
    """

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    values: dict[str, dict[str, Any]]
    folder: Path | None = None


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Args:
        folder: Where they are; made on the first save.
        run: What identifies the run: settings, data and model digests. A checkpoint of another
            run is set aside as a damaged one is.
        keep: How many whole checkpoints stay; the older one is what a damaged newest falls back to.
        say: Prints one line for the user.
    """

    def __init__(
        self, folder: Path, run: str, *, keep: int = 2, say: Callable[[str], None] = print
    ) -> None:
        self.folder = folder
        self.run = run
        self.keep = keep
        self.say = say

    def save(self, state: State) -> Path:
        """Writes `state` and removes the checkpoints beyond the newest `keep`.

        Raises:
            ArtefactError: The disk is full or cannot be written.
        """
        final = self.folder / f"{_STEP}{state.step:08d}"
        partial = final.with_suffix(".partial")
        with self._blaming(final.name):
            self._clear(partial)
            self._clear(final)
            partial.mkdir(parents=True)
            for name, tensors in state.tensors.items():
                save_file(tensors, partial / f"{name}.safetensors")
            for name, values in state.values.items():
                (partial / f"{name}.json").write_text(json.dumps(values))
            manifest = {
                "schema": SCHEMA,
                "run": self.run,
                "step": state.step,
                "files": {p.name: _seal(p) for p in sorted(partial.iterdir())},
            }
            path = partial / _MANIFEST
            path.write_text(json.dumps(manifest, indent=1))
            _seal(path)
            sync_folder(partial)
            os.replace(partial, final)
            sync_folder(self.folder)
            for old in self._steps()[self.keep :]:
                self._clear(old)
        return final

    def newest(self) -> State | None:
        """The newest whole checkpoint of this run, or None.

        A damaged one is renamed to ``*.damaged`` and named in one line; what a kill left
        half-written or half-removed is cleared away.
        """
        for left in [*self.folder.glob("*.partial"), *self.folder.glob("*.old")]:
            self._clear(left)
        for folder in self._steps():
            try:
                return self._load(folder)
            except TrainingError as error:
                aside = folder.with_suffix(".damaged")
                self._clear(aside)
                os.replace(folder, aside)
                self.say(f"{error.problem}: set aside as {aside.name}; using the one before it")
        return None

    def _steps(self) -> list[Path]:
        """Finished checkpoint folders, newest first."""
        if not self.folder.is_dir():
            return []
        found = (p for p in self.folder.glob(f"{_STEP}*") if not p.suffix)
        return sorted(found, reverse=True)

    def _load(self, folder: Path) -> State:
        """Reads and verifies one checkpoint."""
        where = str(folder)
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
            files: dict[str, dict[str, Any]] = manifest["files"]
            step = int(manifest["step"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"checkpoint {folder.name} has no readable manifest ({error})", where=where
            ) from error
        if manifest.get("run") != self.run:
            raise TrainingError(
                f"checkpoint {folder.name} belongs to other settings, data or base weights",
                where=where,
            )
        for name, sealed in files.items():
            path = folder / name
            if not path.is_file():
                raise TrainingError(f"checkpoint {folder.name} lacks {name}", where=where)
            if path.stat().st_size != sealed["bytes"] or _digest(path) != sealed["sha256"]:
                raise TrainingError(f"checkpoint {folder.name}: {name} was altered", where=where)
        paths = [folder / name for name in files]
        tensors = {p.stem: load_file(p) for p in paths if p.suffix == ".safetensors"}
        values = {p.stem: json.loads(p.read_text()) for p in paths if p.suffix == ".json"}
        return State(step, tensors, values, folder)

    @contextmanager
    def _blaming(self, name: str) -> Iterator[None]:
        """Tells a full or read-only disk in the user's words."""
        try:
            yield
        except Exception as error:
            told = blame(error, self.folder, f"the training checkpoint {name}")
            if told is None:
                raise
            raise told from error

    @staticmethod
    def _clear(folder: Path) -> None:
        """Removes a folder; a complete one loses its name first, so that no half looks whole."""
        if not folder.exists():
            return
        if not folder.suffix:
            dying = folder.with_suffix(".old")
            if dying.exists():
                shutil.rmtree(dying)
            os.replace(folder, dying)
            folder = dying
        shutil.rmtree(folder)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(path: Path) -> dict[str, str | int]:
    """Forces a file to the disk and returns its digest and size."""
    sync_file(path)
    return {"sha256": _digest(path), "bytes": path.stat().st_size}


def optimizer_state(
    optimizer: Optimizer, names: Mapping[Any, str]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors and plain values.

    Args:
        optimizer: Any optimiser whose state per parameter is tensors and numbers.
        names: The name of each of its parameters.

    Returns:
        Tensors ``"<parameter>//<key>"``, and the numbers: per parameter, and of each group.
    """
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for parameter, state in optimizer.state.items():
        name = names[parameter]
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}//{key}"] = value.detach().cpu().contiguous()
            else:
                numbers.setdefault(name, {})[key] = value
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    return tensors, {"numbers": numbers, "groups": groups}


def restore_optimizer(
    optimizer: Optimizer,
    names: Mapping[Any, str],
    tensors: dict[str, torch.Tensor],
    values: dict[str, Any],
) -> None:
    """The inverse of :func:`optimizer_state`."""
    by_name: dict[str, dict[str, Any]] = {k: dict(v) for k, v in values["numbers"].items()}
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("//")
        by_name.setdefault(name, {})[key] = tensor
    order = [p for group in optimizer.param_groups for p in group["params"]]
    index = iter(range(len(order)))
    groups = [
        {**saved, "params": [next(index) for _ in group["params"]]}
        for saved, group in zip(values["groups"], optimizer.param_groups, strict=True)
    ]
    state = {i: by_name[names[p]] for i, p in enumerate(order) if names[p] in by_name}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def rng_state() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of every global random-number generator: tensors of bytes, and plain values."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    keys = np.asarray(keys)
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(keys.astype(np.int64))}
    if torch.cuda.is_available():
        for device, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"cuda:{device}"] = state
    return tensors, {"numpy": [kind, *rest], "python": random.getstate()}


def set_rng(tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """The inverse of :func:`rng_state`."""
    torch.set_rng_state(tensors["torch"])
    kind, *rest = values["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), *rest))
    version, internal, gauss = values["python"]
    random.setstate((version, tuple(internal), gauss))
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.set_rng_state(tensors[f"cuda:{device}"], device)
