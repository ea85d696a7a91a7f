"""Writing that survives a kill, and disk errors told in the user's words."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tilth.errors import ArtefactError

__all__ = ["blame", "make_folder", "sync_file", "sync_folder", "whole_file", "write_atomically"]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_WORDS = ("No space left on device", "Disk quota exceeded")
_READ_ONLY = {errno.EROFS}
# These say "cannot be written" only about a path of ours; elsewhere they are another's business.
_PERHAPS_OURS = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EIO}


def sync_file(path: Path) -> None:
    """Makes the bytes of `path` outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes `content` so that `path` holds either all of it or what it held before.

    Raises:
        ArtefactError: The disk is full or the folder cannot be written.
    """
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` once its bytes are on disk, and not if anything fails.

    Raises:
        ArtefactError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:  # an interrupt, too, must leave no half file behind
        with suppress(OSError):  # the folder itself may be the trouble, and `error` says so
            temporary.unlink(missing_ok=True)
        told = blame(error, path.parent, path.name)
        if told is None:
            raise
        raise told from error


def blame(error: BaseException, root: Path, name: str) -> ArtefactError | None:
    """The error to show instead of `error` if writing below `root` failed, else None.

    Args:
        error: What was raised; its causes are looked at too, as libraries wrap disk errors.
        root: The folder that is written to.
        name: What was being written.
    """
    for cause in _chain(error):
        code = cause.errno if isinstance(cause, OSError) else None
        if code in _FULL or any(words in str(cause) for words in _FULL_WORDS):
            return ArtefactError(
                f"the disk is full: {name} could not be written",
                where=f"{root} ({_free(root)})",
                fix="free some space or choose another folder, then give the same command again: "
                "finished steps are kept",
            )
        if code == errno.EFBIG:
            return ArtefactError(
                f"{name} holds a file larger than is allowed here",
                where=str(root),
                fix="raise the limit on file size (ulimit -f, quota) and run it again",
            )
        if code in _READ_ONLY or (code in _PERHAPS_OURS and _is_below(cause, root)):
            return _unwritable(root, name, code or 0)
    return None


def make_folder(folder: Path) -> None:
    """Makes `folder` and those above it, where they do not exist.

    Raises:
        ArtefactError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        told = blame(error, folder, folder.name)
        raise told or _unwritable(folder, folder.name, error.errno or 0) from error


def _unwritable(root: Path, name: str, code: int) -> ArtefactError:
    return ArtefactError(
        f"{name} cannot be written: {os.strerror(code)}",
        where=str(root),
        fix="choose a folder that you may write to, or change its permissions",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ArtefactError):
            return  # told already
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_below(error: BaseException, root: Path) -> bool:
    """Whether `error` is about `root`, something in it, or a folder that it lies in."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str | os.PathLike):
        return False
    path, top = Path(os.path.abspath(name)), Path(os.path.abspath(root))
    return path.is_relative_to(top) or top.is_relative_to(path)


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB free"
    except OSError:
        return "free space unknown"
