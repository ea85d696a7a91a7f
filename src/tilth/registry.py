"""Finds methods by name: ``select.length`` -> its class, through the installed entry points.

A method is registered by one line in ``pyproject.toml`` (group ``tilth.<verb>``). Listing reads
only the first line of each docstring out of the source text, so that ``tilth methods`` and
``tilth select --help`` import no method at all.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from tilth.errors import RecipeError, TilthError, nearest
from tilth.method import Method

__all__ = ["VERBS", "Entry", "load", "methods"]

VERBS: dict[str, str] = {
    "generate": "Write new training data with a teacher model.",
    "select": "Choose the rows that are worth training on.",
    "tune": "Change the weights of a model.",
    "decode": "Change what a model says without changing its weights.",
    "evaluate": "Measure a model, and compare two.",
    "optimize": "Choose settings with tuning seeds only.",
}
"""The verbs, in the order in which a project uses them, with one line each."""


@dataclass(frozen=True)
class Entry:
    """A registered method that is not imported yet.

    Attributes:
        verb: Its verb, e.g. ``"select"``.
        name: Its name within the verb, e.g. ``"length"``.
        target: ``module:Class``.
    """

    verb: str
    name: str
    target: str

    @property
    def full_name(self) -> str:
        """``verb.name``, the word that a recipe uses."""
        return f"{self.verb}.{self.name}"

    def summary(self) -> str:
        """The first line of the class docstring, read from the source without importing it."""
        module, _, class_name = self.target.partition(":")
        try:
            spec = find_spec(module)
        except ModuleNotFoundError:
            spec = None
        if spec is None or spec.origin is None:
            return f"(not installed: {module})"
        tree = ast.parse(Path(spec.origin).read_bytes())
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == class_name:
                return (ast.get_docstring(node) or "").partition("\n")[0]
        return self.load().summary()

    def load(self) -> type[Method]:
        """Imports the class.

        Raises:
            TilthError: It cannot be imported, or it is not the method that its line promises.
        """
        point = EntryPoint(self.name, self.target, f"tilth.{self.verb}")
        try:
            found = point.load()
        except TilthError:
            raise
        except (ImportError, AttributeError) as error:
            raise TilthError(
                f"the method {self.full_name!r} cannot be imported: {error}",
                where=f"entry point {self.target}",
                fix="install what is missing, or correct the package that registers it",
            ) from error
        if not (isinstance(found, type) and issubclass(found, Method)):
            raise TilthError(f"{self.target} is not a Method", where=f"tilth.{self.verb}")
        if found.full_name() != self.full_name:
            raise TilthError(
                f"{self.target} calls itself {found.full_name()!r}",
                where=f"entry point {self.full_name!r}",
                fix="make `verb` and `name` of the class agree with its entry point",
            )
        return found


def methods(verb: str | None = None) -> dict[str, Entry]:
    """Every registered method by full name, in the order of the verbs, then by name.

    Args:
        verb: Only the members of this verb.
    """
    return {n: e for n, e in _all().items() if verb is None or e.verb == verb}


def load(full_name: str) -> type[Method]:
    """The class of `full_name`.

    Example:
        >>> load("select.length").full_name()                           # doctest: +SKIP
        'select.length'

    Raises:
        RecipeError: There is no such method; the nearest name is suggested.
        TilthError: It is registered but cannot be imported.
    """
    known = methods()
    if full_name in known:
        return known[full_name].load()
    same_name = [n for n, e in known.items() if e.name == full_name.rpartition(".")[2]]
    hint = f"did you mean {' or '.join(map(repr, same_name))}?" if same_name else ""
    raise RecipeError(
        f"there is no method {full_name!r}",
        fix=f"{hint or nearest(full_name, known)} `tilth methods` lists them all".strip(),
    )


@cache
def _all() -> dict[str, Entry]:
    points = entry_points()
    found: dict[str, Entry] = {}
    for verb in VERBS:
        for point in sorted(points.select(group=f"tilth.{verb}"), key=lambda p: p.name):
            entry = Entry(verb, point.name, point.value)
            other = found.setdefault(entry.full_name, entry)
            if other.target != entry.target:
                raise TilthError(
                    f"two packages register {entry.full_name!r}",
                    where=f"{other.target} and {entry.target}",
                    fix="uninstall one of them, or ask its author for another name",
                )
    return found
