"""Errors that say what is wrong, where, and what to do.

Every error of tilth derives from :class:`TilthError` and from the built-in that it refines, and
stays picklable, so that it crosses worker processes whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = [
    "ArtefactError",
    "DataError",
    "EngineError",
    "MissingExtra",
    "ModelError",
    "RecipeError",
    "SandboxError",
    "SeedError",
    "TilthError",
    "TilthWarning",
    "TrainingError",
    "nearest",
]


class TilthError(Exception):
    """The base of all tilth errors.

    Args:
        problem: What is wrong, in one sentence.
        where: File, line, field, row, tensor or step at which it was found.
        fix: What the user can do about it.
    """

    def __init__(self, problem: str, where: str = "", fix: str = "") -> None:
        super().__init__(problem, where, fix)
        self.problem = problem
        self.where = where
        self.fix = fix

    @classmethod
    def joined(cls, errors: Sequence[TilthError]) -> TilthError:
        """One error that tells all of `errors`; the error itself where there is only one."""
        if len(errors) == 1:
            return errors[0]
        told = "\n".join(f"- {error}" for error in errors)
        return cls(f"{len(errors)} problems:\n{told}")

    def __str__(self) -> str:
        where = f"\n  where: {self.where}" if self.where else ""
        fix = f"\n  fix:   {self.fix}" if self.fix else ""
        return f"{self.problem}{where}{fix}"


class TilthWarning(UserWarning):
    """What computes, but perhaps not what is meant; the command line shows it as a note."""


class RecipeError(TilthError, ValueError):
    """A recipe, a setting or a command-line value that cannot be used."""


class SeedError(TilthError, ValueError):
    """Overlapping seeds, or a seed used outside its phase."""


class DataError(TilthError, ValueError):
    """A file or row that cannot be read as examples."""


class ArtefactError(TilthError, RuntimeError):
    """A step output that is damaged, half-written or cannot be written."""


class ModelError(TilthError, RuntimeError):
    """A model reference that cannot be resolved or safely loaded."""


class EngineError(TilthError, RuntimeError):
    """A text engine that failed, or was asked for what it cannot do."""


class TrainingError(TilthError, RuntimeError):
    """A training run that diverged or cannot be resumed."""


class SandboxError(TilthError, RuntimeError):
    """The sandbox for generated code could not be set up."""


class MissingExtra(TilthError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtra:
        """The error for `package`, which the optional dependency group `extra` brings."""
        return cls(
            f"the package {package!r} is not installed",
            where=f"needed by the extra {extra!r}",
            fix=f"pip install 'tilth[{extra}]'",
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the member of `known` that `word` is most likely a slip of, or ``""``.

    Example:
        >>> nearest("cuont", ["count", "data"])
        "did you mean 'count'?"
    """
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""
