"""A plug-in package of small pure-Python methods, installed for tests by its entry points.

``plug_in.install(folder)`` writes what ``pip install`` would: a ``.dist-info`` folder, so that the
command line finds the methods in a process of its own too. ``Sow`` can be told by the environment
variable ``TILTH_TEST_KILL`` to kill its own process (``-9``) at a row, once.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from tilth.data.example import Example
from tilth.errors import DataError
from tilth.method import DataRef, Method, ModelRef, Outcome, ScoresRef, Work

POINTS = """\
[tilth.generate]
sow = plug_in:Sow
[tilth.select]
sieve = plug_in:Sieve
[tilth.tune]
graft = plug_in:Graft
[tilth.evaluate]
weigh = plug_in:Weigh
balance = plug_in:Balance
"""


def install(folder: Path) -> Path:
    """Makes the methods findable from `folder` on the import path."""
    info = folder / "tilth_plug_in-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tilth-plug-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    return folder


def read_rows(folder: str, name: str = "rows.jsonl") -> list[dict[str, Any]]:
    path = Path(folder) / name if Path(folder).is_dir() else Path(folder)
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Sow(Method):
    """Writes random numbers, one row after the other, and keeps each in its scratch folder."""

    verb: ClassVar = "generate"
    name: ClassVar = "sow"
    kind: ClassVar = "rows"

    count: int = Field(8, ge=1, description="Rows to write.")
    low: float = Field(0.0, description="Smallest number.")
    form: Literal["plain", "off"] = Field("plain", description="A word.")
    peek: bool = Field(False, description="Look at the test seeds, which is forbidden.")

    def estimate(self) -> dict[str, float]:
        return {"tokens_generated": float(self.count)}

    def run(self, work: Work) -> Outcome:
        if self.peek:
            work.test_seeds  # noqa: B018
        done = sorted(work.scratch.glob("*.json"))
        for number in range(len(done), self.count):
            if os.environ.get("TILTH_TEST_KILL") == f"sow:{number}":
                os.kill(os.getpid(), signal.SIGKILL)
            x = self.low + float(work.stream("row", number).random())
            row = Example.pair(f"Which number is {number}?", str(x), n=number, x=x).as_dict()
            temporary = work.scratch / "row.tmp"
            temporary.write_text(json.dumps(row))
            temporary.rename(work.scratch / f"{number:06}.json")
            work.ledger.add(tokens_generated=1)
        rows = [json.loads(p.read_text()) for p in sorted(work.scratch.glob("*.json"))]
        write_rows(work.folder / "rows.jsonl", rows)
        if os.environ.get("TILTH_TEST_KILL") == "sow:written":
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome({"rows_out": len(rows)}, [("written", len(rows))])


class Sieve(Method):
    """Keeps every n-th row."""

    verb: ClassVar = "select"
    name: ClassVar = "sieve"
    kind: ClassVar = "rows"

    data: DataRef = Field(description="Rows to choose from.")
    every: int = Field(2, ge=1, description="Keep every n-th row.")
    words: list[str] = Field([], description="Words.")
    strict: bool = Field(True, description="A switch.")

    def run(self, work: Work) -> Outcome:
        if os.environ.get("TILTH_TEST_KILL") == "sieve":
            os.kill(os.getpid(), signal.SIGKILL)
        rows = read_rows(self.data)[:: self.every]
        if not rows:
            raise DataError("there are no rows", where=self.data)
        write_rows(work.folder / "rows.jsonl", rows)
        return Outcome({"rows_out": len(rows)})


class Graft(Method):
    """Writes a model folder that holds nothing but the data's sum."""

    verb: ClassVar = "tune"
    name: ClassVar = "graft"
    kind: ClassVar = "model"

    data: DataRef = Field(description="Rows to learn.")
    model: ModelRef | None = Field(None, description="The model to start from.")

    def run(self, work: Work) -> Outcome:
        total = sum(row["meta"]["x"] for row in read_rows(self.data))
        (work.folder / "model").mkdir()
        (work.folder / "model" / "sum.json").write_text(json.dumps(total))
        return Outcome({"sum": total})


class Weigh(Method):
    """Scores data under every test seed."""

    verb: ClassVar = "evaluate"
    name: ClassVar = "weigh"
    kind: ClassVar = "scores"
    judges: ClassVar = True

    data: DataRef = Field(description="Rows to weigh.")

    def run(self, work: Work) -> Outcome:
        rows = [
            {"seed": int(s), "item": r["id"], "score": r["meta"]["x"] * s.stream("w").random()}
            for s in work.test_seeds
            for r in read_rows(self.data)
        ]
        write_rows(work.folder / "scores.jsonl", rows)
        return Outcome({"score": sum(r["score"] for r in rows) / len(rows)})


class Balance(Method):
    """Compares arms by their mean."""

    verb: ClassVar = "evaluate"
    name: ClassVar = "balance"
    kind: ClassVar = "comparison"
    judges: ClassVar = True

    baseline: ScoresRef = Field(description="Scores to compare with.")
    arms: dict[str, ScoresRef] = Field(description="Scores by name.")

    def run(self, work: Work) -> Outcome:
        def mean(folder: str) -> float:
            rows = read_rows(folder, "scores.jsonl")
            return sum(r["score"] for r in rows) / len(rows)

        gains = {name: mean(arm) - mean(self.baseline) for name, arm in self.arms.items()}
        (work.folder / "comparison.json").write_text(json.dumps(gains))
        return Outcome(gains)
