"""What a replication is: arms, claims, seeds, and the function that computes one cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from tilth.cost import Ledger
from tilth.errors import RecipeError, nearest
from tilth.replicate.claims import Claim
from tilth.replicate.figures import Plot
from tilth.seeds import Seed, SeedPlan

__all__ = [
    "Arm",
    "Cell",
    "Measured",
    "Replication",
    "Scores",
    "load",
    "names",
    "shared_folder",
]

GROUP = "tilth.replicate"
_WORD = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,59}")

Scores = Mapping[str, float | Sequence[float]]
"""What a cell measures: per metric one score per item (better: items are then paired) or a mean.

Every arm of a claim must list the same items in the same order under the same seed."""


@dataclass(frozen=True)
class Measured:
    """Scores of a cell that also knows what it spent.

    Attributes:
        scores: As a cell may return them alone.
        spent: The cost of the cell as if it had run alone, where the clock does not tell it, e.g.
            because a step was shared with another arm. Booked instead of the measured time.
    """

    scores: Scores
    spent: Ledger


@dataclass(frozen=True)
class Arm:
    """One thing that is compared.

    Attributes:
        name: A short word, e.g. ``"tuned"``.
        what: One line: what this arm does.
        role: ``method`` is what the paper proposes, ``baseline`` what it is compared with,
            ``control`` what must *not* help if the explanation is right.
        settings: Handed to the cell.
        candidates: Settings to choose among; each one is run on the tuning seeds, and the best is
            added to `settings` for the test seeds. Empty: nothing is chosen.
    """

    name: str
    what: str = ""
    role: Literal["method", "baseline", "control"] = "method"
    settings: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not _WORD.fullmatch(self.name):
            raise RecipeError(
                f"{self.name!r} cannot be the name of an arm",
                fix="use lower-case letters, digits, '.', '_' and '-', at most 60",
            )

    def with_settings(self, more: Mapping[str, Any]) -> Arm:
        """This arm with a candidate's settings added and nothing left to choose."""
        return replace(self, settings={**self.settings, **more}, candidates=())


Cell = Callable[[Arm, Seed, bool, Path], Scores | Measured]
"""``cell(arm, seed, quick, folder)``: computes one arm under one seed and returns its scores.

A module-level function, because it runs in a fresh worker process with one thread. `seed` is a
``TuningSeed`` while settings are chosen and a ``TestSeed`` afterwards. `folder` is the cell's own;
it outlives a kill, so that what the cell keeps there (a run folder) is continued."""


@dataclass(frozen=True)
class Replication:
    """A system's claims over shared arms.

    Attributes:
        system: Its name: ``tilth replicate SYSTEM``, ``results/SYSTEM.json``.
        title: The paper, or what is shown.
        source: Authors, year, identifier of the paper.
        method: The methods of tilth that it exercises, e.g. ``select.rds_plus``.
        recipe: The recipe that a user would start from.
        arms: What is compared.
        claims: What is claimed about the arms.
        cell: Computes one arm under one seed.
        plan: Tuning and test seeds.
        quick_plan: Those of ``--quick``; by default the first tuning seed and two test seeds.
        choose_by: The metric by which candidates are chosen; higher is better.
        level: Confidence level.
        version: Raise it when cells would give other scores than before.
        not_measured: Sentences: what the experiment leaves open.
        metrics: Metric -> what it measures, in a sentence for the page of the paper.
        plots: Figures for that page.
    """

    system: str
    title: str
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    cell: Cell
    source: str = ""
    method: str = ""
    recipe: str = ""
    plan: SeedPlan = field(default_factory=SeedPlan)
    quick_plan: SeedPlan | None = None
    choose_by: str = "score"
    level: float = 0.95
    version: str = "1"
    not_measured: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)
    plots: tuple[Plot, ...] = ()

    def __post_init__(self) -> None:
        if not _WORD.fullmatch(self.system):
            raise RecipeError(f"{self.system!r} cannot be the name of a system")
        known = [arm.name for arm in self.arms]
        if len(set(known)) != len(known):
            raise RecipeError("two arms have the same name", where=self.system)
        for claim in self.claims:
            if claim.system != self.system:
                raise RecipeError(
                    f"a claim of {claim.system!r} stands in {self.system!r}", where=claim.statement
                )
            self._check_arms("a claim", claim.direction.arms, claim.statement)
        drawn = [plot.name for plot in self.plots]
        for plot in self.plots:
            self._check_arms("a figure", plot.arms, plot.title)
            if not _WORD.fullmatch(plot.name) or drawn.count(plot.name) > 1:
                raise RecipeError(
                    f"{plot.name!r} cannot be the name of a figure, or is that of two",
                    where=self.system,
                )
        if self.cell.__qualname__ != self.cell.__name__:
            raise RecipeError(
                "the cell must be a function at the top level of a module",
                where=f"{self.system}: {self.cell.__qualname__}",
                fix="worker processes import it by name: move it out of the function or class",
            )

    def _check_arms(self, what: str, arms: Sequence[str], where: str) -> None:
        """Every one of `arms`, which `what` speaks of, must exist."""
        known = [arm.name for arm in self.arms]
        for arm in arms:
            if arm not in known:
                raise RecipeError(
                    f"{what} speaks of the arm {arm!r}, which does not exist",
                    where=f"{self.system}: {where}",
                    fix=nearest(arm, known),
                )

    def seeds(self, quick: bool) -> SeedPlan:
        """The seeds of a full or a quick replication."""
        if not quick:
            return self.plan
        return self.quick_plan or replace(
            self.plan, tuning=self.plan.tuning[:1], testing=self.plan.testing[:2]
        )


def names() -> list[str]:
    """The systems that can be replicated, from the entry-point group ``tilth.replicate``."""
    return sorted(entry_points(group=GROUP).names)


def load(system: str) -> Replication:
    """The replication called `system`.

    Raises:
        RecipeError: There is none of that name; the nearest one is suggested.
    """
    known = names()
    if system not in known:
        raise RecipeError(
            f"there is no replication called {system!r}",
            where="tilth replicate",
            fix=nearest(system, known) or f"known: {', '.join(known)}",
        )
    (point,) = entry_points(group=GROUP, name=system)
    found = point.load()
    if not isinstance(found, Replication):
        raise RecipeError(f"{point.value} is not a Replication", where=f"entry point {system!r}")
    return found


def shared_folder(folder: Path) -> Path:
    """A folder that all cells of a replication share, from the folder of one cell.

    For what several arms need alike (a pool, a first model). Only what is safe against two
    processes at once belongs there, such as an artefact store.
    """
    shared = folder.parent.parent / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    return shared
