"""A small pure-Python experiment for the tests of the frame; worker processes import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from tilth.errors import DataError
from tilth.replicate import (
    Arm,
    Claim,
    Greater,
    Monotone,
    Replication,
    Scores,
    Within,
    shared_folder,
)
from tilth.seeds import Seed, SeedPlan

PLAN = SeedPlan.of(tuning=[1, 2], testing=[11, 12, 13, 14])
YIELD = {"manure": 0.8, "lime": 0.5, "none": 0.5, "salt": 0.2}


def harvest(arm: Arm, seed: Seed, quick: bool, folder: Path) -> Scores:
    """Scores of 40 plots: the arm's yield, the settings' gift, and noise from the seed."""
    with open(shared_folder(folder) / "calls.txt", "a") as calls:
        calls.write(f"{arm.name} {type(seed).__name__} {int(seed)}\n")
    os.write(1, b"harvesting\n")
    trouble = folder.parent.parent / "trouble" / f"{arm.name}-{int(seed)}"
    if trouble.exists():
        _meet(trouble.read_text(), folder)
    noise = seed.stream("noise", arm.name).normal(0, 0.05, 10 if quick else 40)
    mean = YIELD[arm.name] + arm.settings.get("gift", 0.0)
    return {
        "score": (mean + noise).tolist(),
        "cost": [1.0 - mean],
        "threads": float(os.environ["OMP_NUM_THREADS"]),
    }


def _meet(trouble: str, folder: Path) -> None:
    if trouble == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "slow":
        (folder / "begun").touch()
        time.sleep(60)
    if trouble == "raises":
        raise DataError("the field is flooded", where="north", fix="wait")


def claim(direction: Any, statement: str = "it holds") -> Claim:
    """A claim of this experiment."""
    return Claim("farm", statement, direction, "+0.3", "our own claim")


FARM = Replication(
    system="farm",
    title="What a field needs",
    source="Nobody 2026",
    arms=(
        Arm("manure"),
        Arm("lime", role="baseline"),
        Arm("none", role="control"),
        Arm("salt", role="control"),
    ),
    claims=(
        claim(Greater("manure", "none"), "manure helps"),
        claim(Greater("salt", "none"), "salt helps"),
        claim(Greater("lime", "none"), "lime helps"),
        claim(Within("lime", "none", 0.1), "lime makes no difference"),
        claim(Monotone(("salt", "none", "manure")), "the more the better"),
    ),
    cell=harvest,
    plan=PLAN,
    not_measured=("Other soils.",),
)
