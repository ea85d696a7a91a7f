"""Runs a recipe: each step once, each artefact kept, from where the last attempt stopped.

A run folder ``runs/<name>/`` holds ``recipe.yaml`` (as it ran), ``run.json`` (the state, rewritten
after every step), ``metrics.jsonl`` (one line per finished step) and ``artefacts/``. A step whose
key is finished is not computed again, so a killed run is continued by the same command, and ends
with the same bytes.

    >>> from tilth.recipe import Recipe
    >>> outcome = run(Recipe.read("recipes/quickstart.yaml"))           # doctest: +SKIP
    >>> outcome.artefacts["exam"].manifest.metrics                      # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from tilth._manifest import installed_versions
from tilth.artefacts import Artefact, Store, write_atomically
from tilth.errors import ArtefactError, TilthError
from tilth.recipe import Recipe
from tilth.validate import Ready, as_yaml, validate

__all__ = ["Planned", "Progress", "RunResult", "StepRecord", "plan", "run"]

Status = Literal["waiting", "running", "finished", "failed", "interrupted"]


@dataclass
class StepRecord:
    """A step in ``run.json``.

    Attributes:
        id: The step's id.
        do: Its method.
        artefact: Its folder, relative to the run folder; empty until it is finished.
        status: Where it stands.
        cached: True where an earlier attempt or run had finished it.
        seconds: How long this attempt took, looking up included.
        error: What ended it, if it failed.
    """

    id: str
    do: str
    artefact: str = ""
    status: Status = "waiting"
    cached: bool = False
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Progress:
    """What a watcher is told when a step begins and when it ends.

    Attributes:
        index: The step's number, from 1.
        total: How many steps there are.
        record: The step's state.
        metrics: What it measured; empty until it is finished.
    """

    index: int
    total: int
    record: StepRecord
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, and its artefacts by step id."""

    folder: Path
    artefacts: dict[str, Artefact]


@dataclass(frozen=True)
class Planned:
    """A step in a dry run.

    Attributes:
        id: The step's id.
        do: Its method.
        key: Its key, or ``""`` while an earlier step's content is unknown.
        finished: Whether its artefact is there, whole.
        waits_for: The steps that must run before it.
        estimate: The expected cost in the words of the ledger; empty where the method gives none.
    """

    id: str
    do: str
    key: str
    finished: bool
    waits_for: tuple[str, ...]
    estimate: dict[str, float]


def _ignore(_: Progress) -> None:
    """Watches nothing."""


def run(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    say: Callable[[str], None] = print,
    watch: Callable[[Progress], None] = _ignore,
) -> RunResult:
    """Runs every step that is not finished yet.

    Args:
        recipe: The recipe; it is validated first.
        folder: The run folder; ``runs/<name>`` by default.
        say: Prints one line for the user.
        watch: Is told when a step begins and ends.

    Raises:
        TilthError: The recipe is wrong, a step failed, or the folder cannot be written. What was
            finished is kept.
    """
    ready = validate(recipe)
    home = Path(folder) if folder is not None else Path("runs") / recipe.name
    state = _State(home, recipe, [StepRecord(one.step.id, one.step.do) for one in ready])
    state.begin(as_yaml(ready))
    store = Store(home / "artefacts", say)
    made: dict[str, Artefact] = {}
    for index, (one, record) in enumerate(zip(ready, state.steps, strict=True), start=1):
        record.status = "running"
        state.write()
        watch(Progress(index, len(ready), record))
        began = perf_counter()
        try:
            folders = {name: artefact.folder.absolute() for name, artefact in made.items()}
            artefact = one.build(folders).make(store, one.step.id, recipe.plan, say)
        except BaseException as error:
            record.status = "failed" if isinstance(error, Exception) else "interrupted"
            record.seconds = perf_counter() - began
            record.error = str(error) or type(error).__name__
            state.end(record.status, failed=True)
            if isinstance(error, TilthError):
                raise _in_step(error, one) from error
            raise
        made[one.step.id] = artefact
        record.artefact = artefact.folder.relative_to(home).as_posix()
        record.status, record.cached = "finished", artefact.cached
        record.seconds = perf_counter() - began
        state.append_metrics(artefact)
        state.write()
        watch(Progress(index, len(ready), record, artefact.manifest.metrics))
    state.end("finished")
    return RunResult(home, made)


def plan(recipe: Recipe, folder: str | Path | None = None) -> list[Planned]:
    """What :func:`run` would do; computes keys as far as they are known, and writes nothing.

    Raises:
        TilthError: The recipe is wrong.
    """
    home = Path(folder) if folder is not None else Path("runs") / recipe.name
    store = Store(home / "artefacts", lambda line: None)
    done: dict[str, Path] = {}
    planned = []
    for one in validate(recipe):
        waits_for = tuple(name for name in one.needs if name not in done)
        # An unfinished step's folder has no name yet; its estimate goes by the other settings.
        method = one.build({name: done.get(name, home / name) for name in one.needs})
        key, found = "", False
        if not waits_for:
            digests = {place: entry["digest"] for place, entry in method.lineage().items()}
            key = method.key(one.step.id, recipe.plan, digests)
            place = store.folder(one.step.id, key)
            if found := _is_whole(place, key):
                done[one.step.id] = place.absolute()
        estimate = {} if found else _estimate(method.estimate, bool(waits_for))
        planned.append(Planned(one.step.id, one.step.do, key, found, waits_for, estimate))
    return planned


def _estimate(estimate: Callable[[], dict[str, float]], inputs_missing: bool) -> dict[str, float]:
    try:
        return estimate()
    except TilthError:
        if inputs_missing:
            return {}  # it needs to look into what an earlier step has not made yet
        raise


def _is_whole(folder: Path, key: str) -> bool:
    if not folder.exists():
        return False
    try:
        return Artefact.open(folder).manifest.key == key
    except ArtefactError:
        return False  # damaged: the run would set it aside and compute it again


def _in_step(error: TilthError, one: Ready) -> TilthError:
    """The same error, with the step's name in its place."""
    place = f"step {one.step.id!r} ({one.step.do})"
    where = f"{place}, {error.where}" if error.where else place
    return type(error)(error.problem, where, error.fix)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class _State:
    """The files of a run folder that tell how far it is."""

    home: Path
    recipe: Recipe
    steps: list[StepRecord]
    status: Status = "running"
    started: str = field(default_factory=_now)
    finished: str = ""
    versions: dict[str, str] = field(default_factory=installed_versions)

    def begin(self, recipe_yaml: str) -> None:
        """Makes the run folder."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtefactError(
                f"the run folder cannot be made: {error.strerror}",
                where=str(self.home),
                fix="choose another one with --runs, or change the permissions",
            ) from error
        write_atomically(self.home / "recipe.yaml", recipe_yaml)
        self.write()

    def end(self, status: Status, failed: bool = False) -> None:
        """Notes how the run ended; where it failed, the disk must not hide the reason."""
        self.status, self.finished = status, _now()
        try:
            self.write()
        except ArtefactError:
            if not failed:
                raise

    def write(self) -> None:
        """Rewrites ``run.json`` whole."""
        body = {
            "name": self.recipe.name,
            "recipe": "recipe.yaml",
            "seeds": self.recipe.plan.as_dict(),
            "status": self.status,
            "steps": [asdict(step) for step in self.steps],
            "versions": self.versions,
            "started": self.started,
            "finished": self.finished,
        }
        text = json.dumps(body, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.home / "run.json", text)

    def append_metrics(self, artefact: Artefact) -> None:
        """Adds the step's line to ``metrics.jsonl`` unless an earlier attempt did."""
        manifest = artefact.manifest
        path = self.home / "metrics.jsonl"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if manifest.key in before:
            return
        row = {
            "step": manifest.step,
            "do": manifest.method,
            "key": manifest.key,
            "finished": manifest.finished,
            "metrics": manifest.metrics,
            "cost": manifest.cost,
        }
        write_atomically(path, before + json.dumps(row, ensure_ascii=False) + "\n")
