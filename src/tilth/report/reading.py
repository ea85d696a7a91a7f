"""A run folder, read for a report: what is there is shown, what is damaged or missing is named.

A report must also be possible of a run that failed, so that nothing here insists on completeness
but ``run.json`` itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilth.artefacts import Artefact, Manifest
from tilth.errors import ArtefactError

__all__ = ["RunView", "StepView", "json_rows", "read_run"]


@dataclass(frozen=True)
class StepView:
    """One step of a run.

    Attributes:
        id: Its name in the recipe.
        do: The method, ``verb.name``.
        status: As in ``run.json``: ``waiting running finished failed interrupted``.
        cached: Its artefact was there before this run.
        folder: Its artefact, or None.
        manifest: The artefact's manifest; an empty one where there is no artefact.
        problem: What went wrong, in the words of the run or of the reader.
    """

    id: str
    do: str
    status: str
    cached: bool = False
    folder: Path | None = None
    manifest: Manifest = field(default_factory=Manifest)
    problem: str = ""

    @property
    def done(self) -> bool:
        """The step has a readable artefact."""
        return bool(self.manifest.key)

    def file(self, name: str) -> Path | None:
        """The artefact's file `name`, or None where it does not exist."""
        path = self.folder / name if self.folder else None
        return path if path and path.is_file() else None


@dataclass(frozen=True)
class RunView:
    """A run: its record and its steps in order."""

    folder: Path
    record: dict[str, Any]
    steps: tuple[StepView, ...]

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.record.get("name") or self.folder.name)

    def of_kind(self, kind: str) -> list[StepView]:
        """The finished steps whose artefact is of `kind`."""
        return [s for s in self.steps if s.done and s.manifest.kind == kind]

    @property
    def stopped_at(self) -> StepView | None:
        """The first step that failed, or that was still open when the run ended."""
        failed = [s for s in self.steps if s.status == "failed" or s.problem]
        return next(iter(failed), None) or next((s for s in self.steps if not s.done), None)

    @property
    def comparison(self) -> dict[str, Any]:
        """The content of the last finished comparison, or ``{}``."""
        for step in reversed(self.of_kind("comparison")):
            path = step.file("comparison.json")
            if path:
                return _json(path)
        return {}

    def step_at(self, reference: str) -> StepView | None:
        """The step whose artefact `reference` (a path in a manifest's settings) points to."""
        name = Path(reference).name
        return next((s for s in self.steps if s.folder and s.folder.name == name), None)


def read_run(folder: str | Path) -> RunView:
    """Reads ``run.json`` and the manifests it points to.

    Raises:
        ArtefactError: `folder` holds no readable ``run.json``.
    """
    folder = Path(folder)
    path = folder / "run.json"
    if not path.is_file():
        raise ArtefactError(
            "this folder is not a run: it has no run.json",
            where=str(folder),
            fix="give the folder that `tilth run` named, e.g. runs/quickstart",
        )
    record = _json(path)
    return RunView(folder, record, tuple(_step(folder, entry) for entry in record["steps"]))


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file; a last line cut off by a kill is left out."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n") and line.strip():
                yield json.loads(line)


def _step(root: Path, entry: dict[str, Any]) -> StepView:
    folder = root / entry["artefact"] if entry.get("artefact") else None
    manifest, problem = Manifest(), str(entry.get("error") or "")
    if folder:
        try:
            manifest = Artefact.open(folder, verify=False).manifest
        except ArtefactError as error:
            problem = problem or error.problem
    return StepView(
        id=str(entry["id"]),
        do=str(entry["do"]),
        status=str(entry.get("status", "")),
        cached=bool(entry.get("cached")),
        folder=folder,
        manifest=manifest,
        problem=problem,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"{path.name} cannot be read: {error}",
            where=str(path),
            fix="run the same `tilth run` command again: it sets damaged outputs aside",
        ) from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{path.name} is not a JSON object", where=str(path))
    return content
