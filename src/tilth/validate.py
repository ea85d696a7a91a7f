"""Checks a recipe against the methods that it names, before anything runs.

Settings are checked by each method's own model; references by the kind of artefact that the field
expects; files and models by whether they are there. No method is run and no model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tilth.artefacts import Artefact, Manifest
from tilth.errors import ModelError, RecipeError, TilthError, nearest
from tilth.method import Input, Method, replaced
from tilth.models.composed import located, parse
from tilth.models.reference import resolve
from tilth.recipe import Recipe, Step, leaves, problems_of, references, substitute
from tilth.registry import load

__all__ = ["Ready", "as_yaml", "build", "validate"]


@dataclass(frozen=True)
class Ready:
    """A step that has been checked.

    Attributes:
        recipe: The recipe that it belongs to.
        step: The step as the recipe has it.
        method: The class of its method.
        needs: The ids of the earlier steps whose artefacts it reads.
    """

    recipe: Recipe
    step: Step
    method: type[Method]
    needs: tuple[str, ...]

    def build(self, folders: Mapping[str, Path]) -> Method:
        """The method with its settings, given where the artefacts of earlier steps lie."""
        return self.method(**_settings(self.recipe, self.step, self.method, folders))


def validate(recipe: Recipe) -> list[Ready]:
    """Every step of `recipe`, checked, in order.

    Raises:
        RecipeError: Everything that is wrong, each with file, line and what to do.
        TilthError: A method cannot be imported.
    """
    problems: list[TilthError] = []
    ready: dict[str, Ready] = {}
    for index, step in enumerate(recipe.steps):
        try:
            method = load(step.do)
        except RecipeError as error:
            where = recipe.where("steps", index, "do")
            problems.append(RecipeError(error.problem, where, error.fix))
            continue
        names = [name for _, value in leaves(step.settings) for name in references(value)]
        needs = dict.fromkeys(n.removeprefix("steps.") for n in names if n.startswith("steps."))
        ready[step.id] = Ready(recipe, step, method, tuple(needs))
        problems += _problems(ready[step.id], index, ready)
    if problems:
        raise RecipeError.joined(problems)
    return list(ready.values())


def build(method: type[Method], settings: Mapping[str, Any], where: str) -> Method:
    """A method from settings of the command line, with the same messages as in a recipe.

    Raises:
        RecipeError: An unknown setting, a missing one, or a value of the wrong type.
    """
    problems = _unknown(method, settings, lambda *place: where)
    if not problems:
        try:
            return method(**settings)
        except ValidationError as error:
            problems = [*problems_of(error, method, lambda *place: where)]
    raise RecipeError.joined(problems)


def as_yaml(ready: list[Ready]) -> str:
    """The recipe as it will run: overrides applied, defaults of the recipe and paths filled in."""
    recipe = ready[0].recipe
    body = recipe.model_dump(by_alias=True, exclude_none=True)
    for name in ("data", "held_out"):
        if name in body:
            body[name] = str(recipe.path(body[name]))
    if recipe.model is not None:
        body["model"] = _model_path(recipe, recipe.model)
    for entry, one in zip(body["steps"], ready, strict=True):
        entry["with"] = replaced(entry["with"], _paths(recipe, one.method, entry["with"]))
    return yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100)


def _settings(
    recipe: Recipe, step: Step, method: type[Method], folders: Mapping[str, Path]
) -> dict[str, Any]:
    """The settings of `step` with every reference and relative path resolved."""

    def meaning(name: str) -> str:
        if name.startswith("steps."):
            return str(folders[name.removeprefix("steps.")])
        return str(getattr(recipe, name))

    settings = substitute(step.settings, meaning)
    resolved: dict[str, Any] = replaced(settings, _paths(recipe, method, settings))
    return resolved


def _paths(recipe: Recipe, method: type[Method], settings: dict[str, Any]) -> dict[str, str]:
    """The absolute path of every input given as a relative one, by its place."""
    found = {}
    for place, ref, mark in method(**settings).references():
        if mark.kind == "model":
            found[place] = _model_path(recipe, ref)
        elif not references(ref):
            found[place] = str(recipe.path(ref))
    return found


def _model_path(recipe: Recipe, ref: str) -> str:
    """A model reference whose local folders are absolute paths."""
    try:
        return located(
            ref, lambda name: str(path) if (path := recipe.path(name)).exists() else name
        )
    except ModelError:  # malformed: whoever resolves it says so, with the line of the recipe
        return ref


def _problems(one: Ready, index: int, ready: Mapping[str, Ready]) -> list[RecipeError]:
    """What is wrong with one step."""
    recipe, step = one.recipe, one.step

    def where(*place: str | int) -> str:
        return recipe.where("steps", index, "with", *place)

    found = _unknown(one.method, step.settings, where)
    known = {k: v for k, v in step.settings.items() if k in one.method.model_fields}
    try:
        method = one.method(**known)
    except ValidationError as error:
        found += problems_of(error, one.method, where)
    else:
        found += _references(one, method, where, ready)
        for place, ref, mark in method.references():
            if not any(name.startswith("steps.") for name in references(ref)):
                found += _missing(recipe, ref, mark, where(*_parts(place)))
            elif mark.kind == "model":
                found += _malformed(ref, where(*_parts(place)))
    return [RecipeError(f"step {step.id!r}: {e.problem}", e.where, e.fix) for e in found]


def _unknown(method: type[Method], settings: Mapping[str, Any], where: Any) -> list[RecipeError]:
    known = method.model_fields
    return [
        RecipeError(
            f"{method.full_name()} has no setting {name!r}",
            where=where(name),
            fix=nearest(name, known) or f"its settings are {', '.join(known)}",
        )
        for name in settings
        if name not in known
    ]


def _references(
    one: Ready, method: Method, where: Any, ready: Mapping[str, Ready]
) -> list[RecipeError]:
    """References to steps: into inputs only, and to an artefact of the kind that is expected."""
    inputs = {place: mark for place, _, mark in method.references()}
    found = []
    for parts, value in leaves(one.step.settings):
        place = ".".join(map(str, parts))
        for name in references(value):
            target = ready.get(name.removeprefix("steps."))
            if not name.startswith("steps.") or target is None:
                continue
            kind = target.method.kind
            if place not in inputs:
                problem = f"{place!r} is not an input and cannot take the output of a step"
                hint = f"the inputs of {method.full_name()} are {', '.join(method.inputs())}"
            elif inputs[place].kind not in (kind, "files"):
                expected = inputs[place].kind
                problem = (
                    f"{place!r} expects {_a(expected)}, but the step {target.step.id!r} "
                    f"({target.method.full_name()}) makes {_a(kind)}"
                )
                fitting = [r.step.id for r in ready.values() if r.method.kind == expected]
                hint = f"steps that make {_a(expected)}: {', '.join(fitting) or 'none so far'}"
            else:
                continue
            found.append(RecipeError(problem, where(*parts), hint))
    return found


def _missing(recipe: Recipe, ref: str, mark: Input, where: str) -> list[RecipeError]:
    """Whether the file, artefact or model that `ref` names is there and of the right kind."""
    named = str(substitute(ref, lambda name: str(getattr(recipe, name))))
    if mark.kind == "model":
        try:
            resolve(_model_path(recipe, named))
        except ModelError as error:
            return [RecipeError(f"{error.problem} ({named})", where, error.fix)]
        return []
    path = recipe.path(named)
    if not path.exists():
        near = nearest(path.name, [p.name for p in path.parent.glob("*")])
        fix = near or "check the path; it may be relative to the recipe or to the working directory"
        return [RecipeError(f"there is no file {named!r}", where, fix)]
    if Manifest.is_ours(path / "manifest.json"):
        kind = Artefact.open(path, verify=False).manifest.kind
        if mark.kind not in (kind, "files"):
            return [RecipeError(f"{named!r} holds {_a(kind)}, not {_a(mark.kind)}", where)]
    elif mark.kind in ("scores", "comparison"):
        return [RecipeError(f"{named!r} is not an artefact of kind {mark.kind}", where)]
    return []


def _malformed(ref: str, where: str) -> list[RecipeError]:
    """What is wrong with the writing of a composed model whose parts are not made yet."""
    try:
        parse(ref)
    except ModelError as error:
        return [RecipeError(f"{error.problem} ({ref})", where, error.fix)]
    return []


def _parts(place: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in place.split(".")]


def _a(kind: str) -> str:
    return "a model" if kind == "model" else "a comparison" if kind == "comparison" else kind
