"""What a recipe file may say, and how it is read.

A recipe is YAML: ``name``, ``model``, ``data``, ``held_out``, ``seeds``, ``steps``; each step is
``{id, do: verb.method, with: {...}}``. A value ``${steps.ID}`` stands for the artefact of an
earlier step, ``${model}``, ``${data}`` and ``${held_out}`` for the recipe's own. Every error names
the file and line, and the nearest valid word.

    >>> recipe = Recipe.read("recipes/quickstart.yaml", ["keep.count=100"])     # doctest: +SKIP
    >>> [step.id for step in recipe.steps]                                      # doctest: +SKIP
    ['write', 'keep', 'tuned', 'exam']
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictInt, ValidationError

from tilth.errors import RecipeError, SeedError, nearest
from tilth.marked_yaml import Marked, Place, parse_value, read_yaml
from tilth.seeds import SeedPlan

__all__ = ["Recipe", "Seeds", "Step", "leaves", "problems_of", "references", "substitute"]

_WORD = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
_REFERENCE = re.compile(r"\$\{([^}]*)\}")


class Seeds(BaseModel):
    """The seeds of a recipe; see :class:`tilth.seeds.SeedPlan`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: StrictInt = Field(default=0, description="every random stream is derived from it by name")
    tuning: list[StrictInt] = Field(default=[1], description="seeds that may choose settings")
    testing: list[StrictInt] = Field(
        default=[101, 102, 103, 104, 105], description="seeds that may only judge"
    )


VARIABLES = ("model", "data", "held_out")
"""The recipe's own words that a setting may refer to."""


class Step(BaseModel):
    """One step: a method and its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=_WORD, description="the name that later steps refer to")
    do: str = Field(description="the method, e.g. select.length")
    settings: dict[str, Any] = Field({}, alias="with", description="the method's settings")


class Recipe(BaseModel):
    """A recipe that has been read; :mod:`tilth.validate` checks it against its methods."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_WORD, description="names the run folder")
    model: str | None = Field(None, description="a model reference, available as ${model}")
    data: str | None = Field(None, description="a data file, available as ${data}")
    held_out: str | None = Field(None, description="a file to judge on, available as ${held_out}")
    seeds: Seeds = Seeds()
    steps: list[Step] = Field(min_length=1, description="what to do, in order")

    _source: Marked = PrivateAttr(default_factory=lambda: Marked(None, "recipe"))
    _folder: Path | None = PrivateAttr(default=None)

    @classmethod
    def read(cls, path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """Reads a recipe file and applies ``key.path=value`` overrides.

        Args:
            path: The YAML file.
            overrides: E.g. ``model=./mine``, ``seeds.root=3``, ``steps.keep.with.count=100`` or
                the same in short, ``keep.count=100``.

        Raises:
            RecipeError: What is wrong, with file, line and the nearest valid word.
            SeedError: The seeds overlap.
        """
        path = Path(path)
        return cls._from(read_yaml(path), overrides, path.resolve().parent)

    @classmethod
    def of(cls, value: dict[str, Any], overrides: Iterable[str] = ()) -> Recipe:
        """A recipe from plain Python values; relative paths start at the working directory."""
        return cls._from(Marked(value, "recipe"), overrides, None)

    @classmethod
    def _from(cls, source: Marked, overrides: Iterable[str], folder: Path | None) -> Recipe:
        if not isinstance(source.value, dict):
            raise RecipeError(
                "a recipe is a mapping with the keys name, model, data, held_out, seeds, steps",
                where=source.file,
                fix="start from recipes/quickstart.yaml",
            )
        for override in overrides:
            _override(source, override)
        try:
            recipe = cls.model_validate(source.value)
        except ValidationError as error:
            raise RecipeError.joined(problems_of(error, cls, source.where)) from error
        recipe._source = source
        recipe._folder = folder
        recipe._check_names()
        _ = recipe.plan
        return recipe

    @property
    def plan(self) -> SeedPlan:
        """The seeds by type.

        Raises:
            SeedError: A seed is negative, listed twice, or both tuning and testing.
        """
        try:
            return SeedPlan.of(
                self.seeds.root, tuning=self.seeds.tuning, testing=self.seeds.testing
            )
        except SeedError as error:
            where = f"{self.where('seeds')}, {error.where}"
            raise SeedError(error.problem, where, error.fix) from error

    def where(self, *place: str | int) -> str:
        """``file:line`` of a key, e.g. ``where("steps", 0, "with", "count")``."""
        return self._source.where(*place)

    def path(self, text: str) -> Path:
        """A path of the recipe: relative to its file, or else to the working directory."""
        given = Path(text).expanduser()
        if self._folder is not None and (self._folder / given).exists():
            return self._folder / given
        return Path.cwd() / given

    def _check_names(self) -> None:
        seen: dict[str, int] = {}
        for index, step in enumerate(self.steps):
            if step.id in type(self).model_fields:
                raise RecipeError(
                    f"a step cannot be called {step.id!r}",
                    where=self.where("steps", index, "id"),
                    fix="that word is a key of the recipe itself; choose another id",
                )
            if step.id in seen:
                raise RecipeError(
                    f"two steps have the id {step.id!r}",
                    where=f"{self.where('steps', index, 'id')}, "
                    f"first at {self.where('steps', seen[step.id], 'id')}",
                    fix="give each step its own id",
                )
            seen[step.id] = index
        for index, step in enumerate(self.steps):
            for place, value in leaves(step.settings):
                for name in references(value):
                    self._check_reference(name, index, seen, place)

    def _check_reference(self, name: str, index: int, steps: dict[str, int], place: Place) -> None:
        where = self.where("steps", index, "with", *place)
        target = name.removeprefix("steps.")
        if name in VARIABLES:
            if getattr(self, name) is None:
                raise RecipeError(
                    f"${{{name}}} is used, but the recipe has no {name!r}",
                    where=where,
                    fix=f"add a line `{name}: ...` at the top of the recipe",
                )
        elif not name.startswith("steps.") or target not in steps:
            known = [*VARIABLES, *(f"steps.{s.id}" for s in self.steps[:index])]
            raise RecipeError(
                f"${{{name}}} refers to nothing",
                where=where,
                fix=nearest(name, known) or f"known here: {', '.join(known)}",
            )
        elif steps[target] == index:
            raise RecipeError(f"the step {target!r} refers to itself", where=where)
        elif steps[target] > index:
            mutual = self.steps[index].id in self._upstream(target)
            raise RecipeError(
                f"the steps {self.steps[index].id!r} and {target!r} wait for each other"
                if mutual
                else f"${{{name}}} refers to a later step",
                where=where,
                fix="break the circle" if mutual else f"move the step {target!r} further up",
            )

    def _upstream(self, step_id: str) -> set[str]:
        """Every step that `step_id` needs, directly or not."""
        needs = {
            step.id: {
                name.removeprefix("steps.")
                for _, value in leaves(step.settings)
                for name in references(value)
            }
            for step in self.steps
        }
        found: set[str] = set()
        queue = [step_id]
        while queue:
            fresh = needs.get(queue.pop(), set()) - found
            found |= fresh
            queue.extend(fresh)
        return found


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every plain value inside nested mappings and lists, with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*place, index))
    else:
        yield place, value


def references(value: Any) -> list[str]:
    """The names inside ``${...}`` of a text; none for anything else."""
    return _REFERENCE.findall(value) if isinstance(value, str) else []


def substitute(value: Any, meaning: Callable[[str], str]) -> Any:
    """`value` with every ``${name}`` in it replaced by ``meaning(name)``."""
    if isinstance(value, dict):
        return {key: substitute(item, meaning) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, meaning) for item in value]
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: meaning(found[1]), value)
    return value


def problems_of(
    error: ValidationError, model: type[BaseModel], where: Callable[..., str]
) -> list[RecipeError]:
    """Pydantic's findings as errors with file, line and the nearest valid word.

    Args:
        error: What pydantic raised.
        model: The model that was validated.
        where: Gives ``file:line`` of a place.
    """
    found = []
    for item in error.errors():
        place = tuple(part for part in item["loc"])
        name = ".".join(map(str, place))
        known = _known_keys(model, place[:-1])
        if item["type"] == "extra_forbidden":
            hint = nearest(str(place[-1]), known)
            found.append(
                RecipeError(
                    f"unknown key {str(place[-1])!r}",
                    where=where(*place),
                    fix=f"{hint} known keys: {', '.join(known)}".strip(),
                )
            )
        elif item["type"] == "missing":
            found.append(
                RecipeError(
                    f"{name!r} is missing", where=where(*place[:-1]), fix=f"add `{place[-1]}: ...`"
                )
            )
        else:
            said = item["msg"].removeprefix("Value error, ")
            said = said[0].lower() + said[1:]
            problem = f"{name!r}: {said}" if name else said
            got = item.get("input")
            ours = item["type"] == "value_error"  # such a message names the value itself
            short = f", not {got!r}" if isinstance(got, str | int | float | bool) else ""
            choices = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
            found.append(
                RecipeError(
                    problem if ours else problem + short,
                    where=where(*place),
                    fix=nearest(str(got), choices),
                )
            )
    return found


def _known_keys(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that `model` takes at `place`, walking into nested models."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            inner = [annotation, *getattr(annotation, "__args__", ())]
            models = [t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)]
            if not models:
                return []
            model = models[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _override(source: Marked, text: str) -> None:
    """Writes one ``key.path=value`` into the document."""
    where = f"override {text!r}"
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise RecipeError("an override is `key.path=value`", where=where)
    place = _place_of(source.value, path.strip().split("."), where)
    target = source.value
    for part in place[:-1]:
        if isinstance(target, dict):
            target = target.setdefault(part, {})
        elif isinstance(target, list) and isinstance(part, int) and part < len(target):
            target = target[part]
    last = place[-1]
    if isinstance(target, list) and str(last).isdigit() and int(last) < len(target):
        last = int(last)
    elif not isinstance(target, dict):
        raise RecipeError(f"{path!r} has nothing inside it to override", where=where)
    target[last] = parse_value(value, where)
    source.marks[(*place[:-1], last)] = where


def _place_of(document: dict[str, Any], parts: list[str], where: str) -> Place:
    """The place that an override means; steps are named by their id, ``with`` may be left out."""
    steps = document.get("steps")
    listed = steps if isinstance(steps, list) else []
    ids = [str(step["id"]) for step in listed if isinstance(step, dict) and "id" in step]
    if parts[0] == "steps" and len(parts) > 1:
        parts = parts[1:]
    elif parts[0] in Recipe.model_fields:
        return tuple(parts)
    if parts[0] not in ids or len(parts) < 2:
        known = [*Recipe.model_fields, *ids]
        raise RecipeError(
            f"{parts[0]!r} is neither a key of the recipe nor the id of a step"
            if parts[0] not in ids
            else f"say which setting of the step {parts[0]!r}",
            where=where,
            fix=nearest(parts[0], known) or f"known: {', '.join(known)}",
        )
    index = next(i for i, s in enumerate(listed) if isinstance(s, dict) and s.get("id") == parts[0])
    rest = parts[1:] if parts[1] in ("id", "do", "with") else ["with", *parts[1:]]
    return ("steps", index, *rest)
