"""What runs inside a worker process: one cell, its output in a log, its scores written last."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from tilth._manifest import installed_versions, now
from tilth.artefacts import write_atomically
from tilth.cost import Ledger
from tilth.errors import DataError, RecipeError, TilthError
from tilth.replicate.frame import Arm, Cell, Measured, Replication
from tilth.seeds import Seed, TuningSeed

__all__ = ["Job", "cell_in", "work"]

SCHEMA = 1


@dataclass(frozen=True)
class Job:
    """A cell to compute.

    Attributes:
        arm: The arm, its settings chosen.
        seed: A tuning or a test seed.
        quick: The quick variant.
        key: A hash of all that decides the scores.
        folder: Where it works and leaves ``cell.json``.
    """

    arm: Arm
    seed: Seed
    quick: bool
    key: str
    folder: Path

    @classmethod
    def of(cls, replication: Replication, arm: Arm, seed: Seed, quick: bool, home: Path) -> Job:
        """The cell of `arm` and `seed` below the replication's folder `home`."""
        body = {
            "schema": SCHEMA,
            "system": replication.system,
            "version": replication.version,
            "arm": arm.name,
            "settings": dict(arm.settings),
            "seed": int(seed),
            "phase": _phase(seed),
            "quick": quick,
        }
        try:
            text = json.dumps(body, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"the settings of an arm must be plain values: {error}",
                where=f"{replication.system}: arm {arm.name!r}",
            ) from error
        key = hashlib.sha256(text.encode()).hexdigest()
        name = f"{arm.name}-{_phase(seed)}-{int(seed)}-{key[:8]}"
        return cls(arm, seed, quick, key, home / "cells" / name)

    @property
    def name(self) -> str:
        """``arm/seed``, for messages."""
        return f"{self.arm.name}/{int(self.seed)}"


def work(cell: Cell, job: Job) -> None:
    """Computes one cell and writes ``cell.json``, or ``failure.json``; exits 1 where it failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _die_with_parent()
    _log_to(job.folder / "log.txt")
    with open(job.folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another command may be computing the same cell
        if cell_in(job.folder, job.key) is not None:
            return
        try:
            body = _measure(cell, job)
            text = json.dumps({**body, "seal": _seal(body)}, indent=1, allow_nan=False)
            write_atomically(job.folder / "cell.json", text + "\n")
        except Exception as error:
            told = str(error) if isinstance(error, TilthError) else _one_line(error)
            failure = {"error": told, "trace": traceback.format_exc()}
            write_atomically(job.folder / "failure.json", json.dumps(failure, indent=1) + "\n")
            traceback.print_exc()
            sys.exit(1)


def cell_in(folder: Path, key: str) -> dict[str, Any] | None:
    """The content of a whole ``cell.json`` of this key, or None."""
    try:
        body = json.loads((folder / "cell.json").read_bytes())
        whole = body.pop("seal") == _seal(body) and body["key"] == key
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return body if whole else None


def _phase(seed: Seed) -> str:
    """``tuning`` or ``testing``."""
    return "tuning" if isinstance(seed, TuningSeed) else "testing"


def _seal(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _measure(cell: Cell, job: Job) -> dict[str, Any]:
    started = now()
    ledger = Ledger()
    with ledger.measure():
        found = cell(job.arm, job.seed, job.quick, job.folder)
    scores = found.scores if isinstance(found, Measured) else found
    spent = found.spent if isinstance(found, Measured) else ledger
    return {
        "key": job.key,
        "arm": job.arm.name,
        "settings": dict(job.arm.settings),
        "seed": int(job.seed),
        "phase": _phase(job.seed),
        "quick": job.quick,
        "scores": {name: _plain(name, value) for name, value in _checked(scores).items()},
        "cost": spent.as_dict(),
        "versions": installed_versions(),
        "started": started,
        "finished": now(),
    }


def _checked(scores: Any) -> Mapping[str, Any]:
    if not isinstance(scores, Mapping) or not scores:
        raise DataError(
            f"a cell must return scores by metric, not {scores!r:.80}",
            fix='return e.g. {"score": [1.0, 0.0, 1.0]}',
        )
    return scores


def _plain(name: str, value: Any) -> list[float]:
    """One score per item as plain numbers; a mean alone is a list of one."""
    row = [float(x) for x in np.atleast_1d(np.asarray(value, dtype=np.float64))]
    if not row or not all(math.isfinite(x) for x in row):
        raise DataError("a score is missing or not a finite number", where=f"metric {name!r}")
    return row


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _log_to(path: Path) -> None:
    """Sends all output, also that of libraries and children, to a file of the cell's own."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _die_with_parent() -> None:
    """Ends this process when the one that started it is gone, even if it was killed."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
