"""The manifest of an artefact, content digests and step keys."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

import tilth
from tilth.errors import ArtefactError

__all__ = [
    "MANIFEST",
    "FileEntry",
    "Manifest",
    "Outcome",
    "digest_of_files",
    "files_of",
    "folder_files",
    "installed_versions",
    "now",
    "plain",
    "step_key",
]

MANIFEST = "manifest.json"
SCHEMA = 1
_LITTER = {".DS_Store"}  # macOS leaves one in every folder that somebody looks at
_PACKAGES = (
    "accelerate datasets numpy peft safetensors scikit-learn scipy tokenizers torch transformers"
)


@dataclass(frozen=True)
class Outcome:
    """What a run has to say beside the files it wrote.

    Attributes:
        metrics: Plain numbers and strings, stored in the manifest.
        funnel: ``(stage, rows)`` in order, e.g. ``[("read", 900), ("kept", 500)]``.
        not_measured: Sentences for the report: what this step leaves open.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    funnel: list[tuple[str, int]] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)


class FileEntry(TypedDict):
    """What the manifest knows of a file."""

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """How an artefact came about.

    Attributes:
        schema_version: The form of the manifest (``schema`` in the file).
        key: The step's key.
        step: The step's name in its recipe.
        method: E.g. ``select.length``.
        method_version: Raised when a method's output for the same input changes.
        kind: ``rows``, ``model``, ``scores``, ``comparison`` or ``files``.
        settings: All settings, defaults included.
        inputs: Per input field the reference as given and the digest of its content.
        seed: The step's own seed.
        seeds: The seed plan, as plain integers.
        versions: Of Python, tilth and the libraries that were installed.
        cost: What it took (:class:`tilth.cost.Ledger`); of the last attempt where there were more.
        attempts: How often the work was begun; more than one after a kill.
        metrics: Numbers and strings that the method reports.
        funnel: ``(stage, rows)`` in order.
        not_measured: Sentences: what the step leaves open.
        files: Digest and size of every file.
        started: UTC, ISO 8601.
        finished: UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = SCHEMA
    key: str = ""
    step: str = ""
    method: str = ""
    method_version: str = "1"
    kind: str = "files"
    settings: dict[str, Any] = {}
    inputs: dict[str, dict[str, str]] = {}
    seed: int = 0
    seeds: dict[str, Any] = {}
    versions: dict[str, str] = {}
    cost: dict[str, int | float] = {}
    attempts: int = 1
    metrics: dict[str, Any] = {}
    funnel: list[tuple[str, int]] = []
    not_measured: list[str] = []
    files: dict[str, FileEntry] = {}
    started: str = ""
    finished: str = ""

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or name in ("", MANIFEST):
                raise ValueError(f"{name!r} is not a file inside the artefact")
        return files

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> Manifest:
        """A manifest from plain entries.

        Raises:
            ArtefactError: An entry is unknown or of the wrong type.
        """
        try:
            return cls.model_validate(plain(dict(entries), MANIFEST))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ArtefactError(
                f"a manifest cannot hold this: {first['msg']}", where=f"{MANIFEST}: {where}"
            ) from None

    def as_json(self) -> str:
        """The text of ``manifest.json``: sealed by its own digest, so that damage is found."""
        body = self.model_dump(mode="json")
        body = {"schema": body.pop("schema_version"), **body}
        return json.dumps({**body, "seal": _seal(body)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """The manifest in the file `path`.

        Raises:
            ArtefactError: It is missing, damaged, or of a newer version.
        """
        try:
            body = json.loads(path.read_bytes())
            seal = body.pop("seal")
            schema = body.pop("schema")
        except FileNotFoundError:
            raise ArtefactError(
                f"a half-written artefact: it has no {MANIFEST}", where=str(path)
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ArtefactError(f"a damaged artefact: {MANIFEST}", where=str(path)) from None
        if seal != _seal({"schema": schema, **body}):
            raise ArtefactError(f"a damaged artefact: {MANIFEST} was altered", where=str(path))
        if schema != SCHEMA:
            raise ArtefactError(
                f"an artefact of another version: {MANIFEST} has schema {schema}, not {SCHEMA}",
                where=str(path),
                fix="read it with the tilth that wrote it, or compute it again",
            )
        return cls.of({**body, "schema_version": schema})

    @staticmethod
    def is_ours(path: Path) -> bool:
        """Whether `path` is a manifest of tilth, and not some other program's file."""
        try:
            body = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(body, dict) and {"schema", "seal", "files", "key"} <= body.keys()


def step_key(
    method: str,
    version: str,
    settings: Mapping[str, Any],
    input_digests: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
    seeds: Mapping[str, Any] | None = None,
) -> str:
    """The key of a step: 64 hexadecimal digits over everything that decides its output.

    A setting that names an input counts by the digest of its content, not by its path.

    Args:
        method: E.g. ``"select.length"``.
        version: The method's version.
        settings: All settings, defaults included; plain values.
        input_digests: Per input field the digest of its content.
        seed: The step's own seed.
        seeds: The seed plan, as plain integers.

    Raises:
        ArtefactError: A setting is not a plain value.
    """
    inputs = dict(input_digests or {})
    body = {
        "schema": SCHEMA,
        "method": method,
        "version": version,
        "settings": {k: v for k, v in settings.items() if k not in inputs},
        "inputs": inputs,
        "seed": seed,
        "seeds": dict(seeds or {}),
    }
    return _seal(plain(body, "settings"))


def plain(value: Any, where: str) -> Any:
    """`value` in JSON types: NumPy numbers become numbers; NaN and infinities become None.

    Raises:
        ArtefactError: Something in it has no JSON form; the message says where.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ArtefactError(
        f"a {type(value).__name__} cannot be written to a manifest",
        where=where,
        fix="give numbers, strings, lists or dictionaries",
    )


def folder_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """``(relative name, path)`` of every file below `folder`, in the order of their names.

    Raises:
        ArtefactError: There is a link to a folder, a pipe or a device.
    """
    found: list[tuple[str, Path]] = []
    for inner, folders, names in os.walk(folder):
        for name in names + [n for n in folders if (Path(inner) / n).is_symlink()]:
            path = Path(inner) / name
            if not path.is_file() and not (path.is_symlink() and not path.exists()):
                raise ArtefactError(
                    f"{path.name} is neither a file nor a folder of its own",
                    where=str(path),
                    fix="replace it by what it stands for",
                )
            if name not in _LITTER:
                found.append((path.relative_to(folder).as_posix(), path))
    yield from sorted(found)


def files_of(files: Iterable[tuple[str, Path]]) -> dict[str, FileEntry]:
    """Digest and size of each file, read in pieces.

    Raises:
        ArtefactError: A file cannot be read.
    """
    entries: dict[str, FileEntry] = {}
    for name, path in files:
        try:
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                entries[name] = {"sha256": sha256, "bytes": os.fstat(file.fileno()).st_size}
        except OSError as error:
            raise ArtefactError(
                f"a file cannot be read: {error.strerror}", where=str(path)
            ) from error
    return entries


def digest_of_files(files: Mapping[str, FileEntry]) -> str:
    """The digest of a folder with these files."""
    return _seal({name: dict(entry) for name, entry in files.items()})


def installed_versions() -> dict[str, str]:
    """Versions of Python, tilth, the system and the libraries that decide results."""
    versions = {
        "tilth": tilth.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in _PACKAGES.split():
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an absent library has no part in the result
    return versions


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _seal(body: Any) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
