"""Artefacts: the immutable outputs of steps, and the store that keeps them.

An artefact is a folder of files with a ``manifest.json`` that says how they came about and holds
their digests. A step writes into ``<label>-<key>.partial``; when it is done every file is flushed
to disk, the manifest is written last, and the folder is renamed. So a folder without the suffix and
with a manifest is complete, whatever was killed when. What is damaged later is noticed on loading,
named, moved to ``set-aside/`` and computed again; it is never used.

The folder's name holds the step's key, a hash of everything that decides its content: method,
version, settings, the content of its inputs, seeds. A finished key is never computed twice::

    store = Store("runs/demo/artefacts")
    key = step_key("select.length", "1", {"count": 500}, {"data": digest_of("pool.jsonl")})
    artefact = store.produce("keep", key, fields, work)
    artefact.path("rows.jsonl")

Not protected: somebody who alters a file *and* writes a fitting manifest. Digests find accidents,
they are no signature.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilth._disk import blame, make_folder, sync_file, sync_folder, write_atomically
from tilth._manifest import (
    MANIFEST,
    Manifest,
    Outcome,
    digest_of_files,
    files_of,
    folder_files,
    installed_versions,
    now,
    plain,
    step_key,
)
from tilth._secrets import refuse_secrets
from tilth.cost import Ledger
from tilth.errors import ArtefactError

__all__ = ["Artefact", "Manifest", "Outcome", "Store", "digest_of", "step_key", "write_atomically"]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,79}")
_KEY = re.compile(r"[0-9a-f]{16,64}")
_EXPECTED = {
    "rows": "rows.jsonl",
    "model": "model",
    "scores": "scores.jsonl",
    "comparison": "comparison.json",
}

StepWork = Callable[[Path, Path, Ledger], Outcome]
"""Does a step's work: ``(folder, scratch, ledger) -> outcome``."""


@dataclass(frozen=True)
class Artefact:
    """A finished step output; never written to again.

    Attributes:
        folder: Where it lies.
        manifest: How it came about.
        cached: False where this very call computed it.
    """

    folder: Path
    manifest: Manifest
    cached: bool = True

    @classmethod
    def open(cls, folder: str | Path, verify: bool = True) -> Artefact:
        """The artefact in `folder`.

        Args:
            folder: A finished artefact's folder.
            verify: Read every file and compare its digest.

        Raises:
            ArtefactError: The manifest or a file is missing, damaged or not part of the artefact;
                the message names it.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ArtefactError("there is no such artefact folder", where=str(folder))
        artefact = cls(folder, Manifest.read(folder / MANIFEST))
        if verify:
            artefact.verify()
        return artefact

    @property
    def digest(self) -> str:
        """The digest of the content: of names and bytes, not of where or when."""
        return digest_of_files(self.manifest.files)

    def path(self, name: str) -> Path:
        """The path of file or folder `name` of this artefact.

        Raises:
            ArtefactError: It has no such file.
        """
        files = self.manifest.files
        if name not in files and not any(f.startswith(name.rstrip("/") + "/") for f in files):
            raise ArtefactError(
                f"the artefact of step {self.manifest.step!r} has no {name!r}",
                where=str(self.folder),
                fix=f"it holds: {', '.join(sorted(files)) or 'no files'}",
            )
        return self.folder / name

    def verify(self) -> None:
        """Compares every file with the manifest.

        Raises:
            ArtefactError: Names the first file that is missing, damaged or strange.
        """
        present = dict(folder_files(self.folder))
        present.pop(MANIFEST, None)
        for name in self.manifest.files:
            if name not in present:
                raise self._damaged(name, "is missing")
        for name, path in present.items():
            entry = self.manifest.files.get(name)
            if entry is None:
                raise self._damaged(name, "does not belong to it")
            if path.is_symlink():
                raise self._damaged(name, "was replaced by a link")
            if path.stat().st_size != entry["bytes"]:
                raise self._damaged(name, f"has {path.stat().st_size} bytes, not {entry['bytes']}")
            if digest_of(path) != entry["sha256"]:
                raise self._damaged(name, "has other bytes than were written")

    def _damaged(self, name: str, what: str) -> ArtefactError:
        return ArtefactError(
            f"a damaged artefact: {name} {what}",
            where=str(self.folder / name),
            fix="run the recipe again: the step is then computed anew",
        )


def digest_of(path: str | Path, without: Collection[str] = ()) -> str:
    """The SHA-256 content digest of a file or a folder, read in pieces.

    A folder's digest covers the relative names and the bytes of its files; an artefact's manifest
    does not count, so that an artefact and a plain copy of its files have the same digest. An
    artefact is verified on the way.

    Args:
        path: The file or folder.
        without: Names of files at the top of a plain folder that do not count.

    Raises:
        ArtefactError: There is no such path, or an artefact is damaged.
    """
    path = Path(path)
    if path.is_file():
        return files_of([("", path)])[""]["sha256"]
    if not path.is_dir():
        raise ArtefactError(
            "there is no such file or folder", where=str(path), fix="check the path's spelling"
        )
    if Manifest.is_ours(path / MANIFEST):
        return Artefact.open(path).digest
    counted = [(name, file) for name, file in folder_files(path) if name not in without]
    return digest_of_files(files_of(counted))


class Store:
    """A folder of artefacts.

    Args:
        root: The folder; made when the first artefact is.
        say: Prints one line for the user.
    """

    def __init__(self, root: str | Path, say: Callable[[str], None] = print) -> None:
        self.root = Path(root)
        self.say = say

    def folder(self, label: str, key: str) -> Path:
        """Where the artefact of `key` lies or will lie.

        Raises:
            ArtefactError: The label or the key cannot be a folder's name.
        """
        if not _LABEL.fullmatch(label) or label.endswith((".partial", ".scratch")):
            raise ArtefactError(
                f"{label!r} cannot be the name of an artefact",
                fix="use up to 80 letters, digits, '.', '_' and '-', a letter or digit first",
            )
        if not _KEY.fullmatch(key):
            raise ArtefactError(f"{key!r} is not a step key", fix="make it with step_key(...)")
        return self.root / f"{label}-{key[:12]}"

    def find(self, key: str, label: str) -> Artefact | None:
        """The finished artefact of `key`, verified, or None.

        A damaged or half-written one is named in one line and moved to ``set-aside/``.
        """
        folder = self.folder(label, key)
        if not folder.exists():
            return None
        with suppress(ArtefactError):  # looked at again below, where no other process can act
            return self._checked(folder, key)
        with self._complaints(folder), self._lock(folder):
            return self._find(folder, key)

    def produce(
        self, label: str, key: str, manifest_fields: Mapping[str, Any], work: StepWork
    ) -> Artefact:
        """The artefact of `key`: found where it is finished, else computed by `work`.

        Two processes that ask for the same key compute it once: the second one waits.

        Args:
            label: The step's name, the first part of the folder's name.
            key: From :func:`step_key`.
            manifest_fields: ``step method method_version kind settings inputs seed seeds`` of the
                :class:`Manifest`.
            work: Called with an empty folder to write into, a scratch folder that outlives a kill,
                and the ledger to book on (seconds and memory are booked here).

        Raises:
            ArtefactError: The output cannot be written (full disk, read-only folder), a setting
                looks like a secret, or the work did not write what its kind promises.
        """
        folder = self.folder(label, key)
        fields = dict(manifest_fields)
        refuse_secrets(fields.get("settings", {}), "settings")
        refuse_secrets(fields.get("inputs", {}), "inputs")
        draft = Manifest.of({**fields, "key": key, "started": now()})
        with self._complaints(folder), self._lock(folder) as lock:
            found = self._find(folder, key)
            scratch = folder.with_name(f"{folder.name}.scratch")
            if found is None:
                draft = draft.model_copy(update={"attempts": lock.begin_attempt()})
                self._attempt(folder, scratch, draft, work)
                lock.finish()
            if scratch.exists():
                shutil.rmtree(scratch)
            return found or Artefact(folder, Manifest.read(folder / MANIFEST), cached=False)

    def _attempt(self, folder: Path, scratch: Path, draft: Manifest, work: StepWork) -> None:
        partial = folder.with_name(f"{folder.name}.partial")
        if partial.exists():
            self.say(f"{folder.name}: an earlier attempt was interrupted; continuing from it")
            shutil.rmtree(partial)
        partial.mkdir()
        scratch.mkdir(exist_ok=True)
        try:
            ledger = Ledger()
            with ledger.measure():
                outcome = work(partial, scratch, ledger)
            self._seal(partial, draft, outcome, ledger)
            os.rename(partial, folder)
            sync_folder(self.root)
        except BaseException:
            # What is half written is of no use to the next attempt (that is what scratch is for),
            # and on a full disk it is in the way. If this fails too, the next attempt clears it.
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _seal(self, partial: Path, draft: Manifest, outcome: Outcome, ledger: Ledger) -> None:
        expected = _EXPECTED.get(draft.kind)
        if expected and not (partial / expected).exists():
            raise ArtefactError(
                f"{draft.method or 'the step'} wrote no {expected}",
                where=f"step {draft.step}",
                fix=f"a method of kind {draft.kind!r} must write {expected} into work.folder",
            )
        files = list(folder_files(partial))
        for name, path in files:
            if path.is_symlink() or name == MANIFEST:
                raise ArtefactError(
                    f"{draft.method or 'the step'} wrote {name}, which an artefact cannot hold",
                    where=f"step {draft.step}",
                    fix="write plain files, and leave manifest.json to the store",
                )
            sync_file(path)
            path.chmod(path.stat().st_mode & ~0o222)
        for inner, _, _ in os.walk(partial):
            sync_folder(Path(inner))
        told = plain(
            {
                "metrics": outcome.metrics,
                "funnel": outcome.funnel,
                "not_measured": outcome.not_measured,
            },
            "outcome",
        )
        refuse_secrets(told, "outcome")
        manifest = Manifest.of(
            {
                **draft.model_dump(),
                **told,
                "files": files_of(files),
                "cost": ledger.as_dict(),
                "versions": installed_versions(),
                "finished": now(),
            }
        )
        write_atomically(partial / MANIFEST, manifest.as_json())

    def _checked(self, folder: Path, key: str) -> Artefact:
        artefact = Artefact.open(folder)
        if artefact.manifest.key != key:
            raise ArtefactError("the artefact belongs to another key", where=str(folder))
        return artefact

    def _find(self, folder: Path, key: str) -> Artefact | None:
        if not folder.exists():
            return None
        try:
            return self._checked(folder, key)
        except ArtefactError as error:
            away = self._set_aside(folder)
            self.say(f"{folder.name}: {error.problem}; moved to {away} and computed again")
            return None

    def _set_aside(self, folder: Path) -> Path:
        home = self.root / "set-aside"
        home.mkdir(exist_ok=True)
        number = 1
        while (away := home / f"{folder.name}-{number}").exists():
            number += 1
        os.rename(folder, away)
        sync_folder(home)
        sync_folder(self.root)
        return away

    @contextmanager
    def _lock(self, folder: Path) -> Iterator[_Lock]:
        home = self.root / ".locks"
        make_folder(home)
        with open(home / f"{folder.name}.json", "a+", encoding="utf-8") as file:
            lock = _Lock(file.fileno())
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = lock.read().get("pid", "unknown")
                self.say(f"{folder.name}: waiting for process {owner}, which is computing it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield lock

    @contextmanager
    def _complaints(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            told = blame(error, self.root, folder.name)
            if told is None:
                raise
            raise told from error


@dataclass(frozen=True)
class _Lock:
    """A held lock file; it remembers who works and how often the work was begun."""

    descriptor: int

    def read(self) -> dict[str, int]:
        text = os.pread(self.descriptor, 4096, 0)
        try:
            return dict(json.loads(text)) if text else {}
        except ValueError:
            return {}  # cut short by a kill; it holds nothing that a result depends on

    def begin_attempt(self) -> int:
        attempts = self.read().get("attempts", 0) + 1
        self._write(json.dumps({"pid": os.getpid(), "attempts": attempts}))
        return attempts

    def finish(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)
