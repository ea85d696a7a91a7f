"""YAML that remembers its lines, so that every error of a recipe can name file and line.

Only plain values are built (text, numbers, booleans, lists, mappings): no tag can make an object.
Unlike plain YAML, a key given twice is an error, and ``1e-3`` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tilth.errors import RecipeError

__all__ = ["Marked", "Place", "parse_value", "read_yaml"]

Place = tuple[str | int, ...]
"""Where a value stands: the keys and indices that lead to it."""

MAX_NODES = 100_000
"""A recipe is small; more nodes than this can only come from aliases of aliases (our choice)."""


_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Loader(yaml.SafeLoader):
    """The safe loader, with ``1e-3`` read as a number, as YAML 1.2 has it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+"),
    list("-+0123456789."),
)


@dataclass
class Marked:
    """A document and the lines of its keys.

    Attributes:
        value: The plain value of the document.
        file: What to call the source in a message.
        marks: ``file:line`` of every key and list item by its place.
    """

    value: Any
    file: str
    marks: dict[Place, str] = field(default_factory=dict)

    def where(self, *place: str | int) -> str:
        """``file:line`` of `place`, or of the nearest thing around it."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.marks:
                return self.marks[place[:length]]
        return self.file


def read_yaml(path: Path) -> Marked:
    """Reads one YAML document.

    Raises:
        RecipeError: The file is missing, unreadable, empty or broken; a key is given twice; an
            alias refers to what contains it; a tag asks for an object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise RecipeError(
            "there is no such recipe", where=str(path), fix="check the path; `ls recipes`"
        ) from error
    except IsADirectoryError as error:
        raise RecipeError("this is a folder, not a recipe", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            "the recipe is not UTF-8 text", where=f"{path}, byte {error.start}"
        ) from error
    except OSError as error:
        raise RecipeError(
            f"the recipe cannot be read: {error.strerror}", where=str(path)
        ) from error
    marked = _parse(text, str(path))
    if marked.value is None:
        raise RecipeError(
            "the recipe is empty", where=str(path), fix="start from recipes/quickstart.yaml"
        )
    return marked


def parse_value(text: str, where: str) -> Any:
    """The value of a command-line `text`, by the rules of a recipe: ``3``, ``[a, b]``, ``null``."""
    return _parse(text, where).value


def _parse(text: str, file: str) -> Marked:
    marked = Marked(None, file)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            marked.value = _build(loader, node, (), marked, [])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise RecipeError(
            f"this is not valid YAML: {said}",
            where=f"{file}{line}",
            fix="look for a missing quote, bracket or colon, or a tab in the indentation",
        ) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"this is not valid YAML: {error}", where=file) from error
    finally:
        loader.dispose()
    return marked


def _build(
    loader: _Loader, node: yaml.Node, place: Place, marked: Marked, around: list[yaml.Node]
) -> Any:
    """The plain value of `node`; writes the lines of everything in it into `marked`."""
    here = f"{marked.file}:{node.start_mark.line + 1}"
    marked.marks.setdefault(place, here)
    if any(node is outer for outer in around):
        raise RecipeError("an alias refers to what contains it", where=here)
    if len(marked.marks) > MAX_NODES:
        raise RecipeError(f"the file has more than {MAX_NODES} values", where=here)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN:
        raise RecipeError(f"the tag {node.tag!r} is not allowed", where=here, fix="remove it")
    inside = [*around, node]
    if isinstance(node, yaml.MappingNode):
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            at = f"{marked.file}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise RecipeError("a key must be a word", where=at)
            key = key_node.value
            if key in found:
                raise RecipeError(f"the key {key!r} is given twice", where=at, fix="keep one")
            marked.marks[(*place, key)] = at
            found[key] = _build(loader, value_node, (*place, key), marked, inside)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(loader, item, (*place, index), marked, inside)
            for index, item in enumerate(node.value)
        ]
    return loader.construct_object(node)
