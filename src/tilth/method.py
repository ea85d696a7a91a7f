"""The method contract: what every member of every verb looks like.

A method is a frozen pydantic model. Its fields are its settings (published defaults, cited in the
docstring); :meth:`Method.run` does the work inside a :class:`Work` folder that becomes an immutable
artefact. A method is found by its entry point (group ``tilth.<verb>``), by the recipe runner, the
command line, the documentation and the conformance suite alike.

    >>> from tilth.select.length import Length                          # doctest: +SKIP
    >>> chosen = Length(pool="pool.jsonl", count=500).to("chosen")      # doctest: +SKIP
    >>> chosen.manifest.metrics["rows_out"]                             # doctest: +SKIP
    500
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pkgutil import resolve_name
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

from tilth.artefacts import Artefact, Manifest, Outcome, Store, step_key
from tilth.cost import Ledger
from tilth.errors import ArtefactError, SeedError, nearest
from tilth.seeds import SeedPlan, TestSeed, TuningSeed, derive, stream

__all__ = [
    "DataRef",
    "Input",
    "Kind",
    "Method",
    "ModelRef",
    "Outcome",
    "ScoresRef",
    "Work",
    "replaced",
]

Kind = Literal["rows", "model", "scores", "comparison", "files"]


@dataclass(frozen=True)
class Input:
    """Marks a settings field as an input whose *content* enters the step's key.

    Attributes:
        kind: The kind of artefact that it expects.
        digester: ``module:function`` that maps a reference to its content digest. It is a name,
            so that the ground floor does not import the floor that knows model references.
    """

    kind: Kind
    digester: str = "tilth.artefacts:digest_of"

    def digest(self, ref: str) -> str:
        """The digest of the content that `ref` refers to."""
        found: str = resolve_name(self.digester)(ref)
        return found


DataRef = Annotated[str, Input("rows")]
"""A data file, or the folder of an artefact of kind ``rows``."""

ModelRef = Annotated[str, Input("model", "tilth.models.reference:digest")]
"""A model: ``seedling:small``, a folder, a hub id, ``openai:MODEL@URL``, ``REF+ADAPTER``."""

ScoresRef = Annotated[str, Input("scores")]
"""The folder of an artefact of kind ``scores``."""


@dataclass
class Work:
    """Where a step works, and the only source of its seeds.

    Attributes:
        folder: Write output files here; the folder becomes the artefact.
        scratch: Survives a kill and is handed to the next attempt (checkpoints, answer caches);
            removed once the artefact is complete.
        seed: The step's own seed, derived from the root seed and the step's name.
        ledger: Book tokens, FLOPs, bytes and money here; seconds and memory are booked for you.
        say: Prints one line for the user.
    """

    folder: Path
    scratch: Path
    seed: int
    ledger: Ledger = field(default_factory=Ledger)
    say: Callable[[str], None] = print
    plan: SeedPlan = field(default_factory=SeedPlan)
    judges: bool = False

    def derive(self, *names: str | int) -> int:
        """A 63-bit integer named by `names` under this step's seed."""
        return derive(self.seed, *names)

    def stream(self, *names: str | int) -> np.random.Generator:
        """A generator named by `names` under this step's seed."""
        return stream(self.seed, *names)

    @property
    def tuning_seeds(self) -> tuple[TuningSeed, ...]:
        """The seeds that may choose."""
        return self.plan.tuning

    @property
    def test_seeds(self) -> tuple[TestSeed, ...]:
        """The seeds that may only judge.

        Raises:
            SeedError: This step is not a final evaluation.
        """
        if not self.judges:
            raise SeedError(
                "only a final evaluation may see the test seeds",
                where=str(self.folder),
                fix="use work.tuning_seeds here, or set `judges = True` on an evaluation method",
            )
        return self.plan.testing


class Method(BaseModel):
    """Base of all methods; see the module's docstring.

    Class attributes:
        verb: The verb that it belongs to, e.g. ``"select"``.
        name: Its name, as in ``do: select.length``.
        version: Part of the step's key: raise it when the output for the same input changes.
        kind: What the artefact holds: ``rows`` (``rows.jsonl``), ``model`` (``model/``), ``scores``
            (``scores.jsonl``), ``comparison`` (``comparison.json``) or ``files``.
        judges: True only for final evaluations, which then see the test seeds.
        shown: Optional inputs that the example of its command names too.
        example: Small settings with which the conformance suite runs it; the words ``{rows}``,
            ``{seeds}``, ``{model}``, ``{teacher}`` and ``{scores}`` stand for the suite's fixtures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    verb: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[str] = "1"
    kind: ClassVar[Kind]
    judges: ClassVar[bool] = False
    shown: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[dict[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest(cls, given: Any) -> Any:
        unknown = [name for name in given if name not in cls.model_fields]
        if unknown:
            known = ", ".join(cls.model_fields)
            hint = nearest(unknown[0], cls.model_fields) or f"its settings are {known}"
            raise ValueError(f"{cls.full_name()} has no setting {unknown[0]!r}; {hint}")
        return given

    @abstractmethod
    def run(self, work: Work) -> Outcome:
        """Does the work: reads the inputs, writes files into ``work.folder``."""

    def estimate(self) -> dict[str, float]:
        """What a run will cost, in the words of :class:`tilth.cost.Ledger`; empty where unknown.

        ``tilth run --dry-run`` prints it; it must not load a model.
        """
        return {}

    @classmethod
    def full_name(cls) -> str:
        """``verb.name``, the word that a recipe uses."""
        return f"{cls.verb}.{cls.name}"

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @classmethod
    def inputs(cls) -> dict[str, Kind]:
        """Settings fields that are, or hold, inputs, with the kind that each expects."""
        return {
            name: marks[0].kind
            for name, info in cls.model_fields.items()
            if (marks := [*_marks(_typed(info))])
        }

    def references(self) -> Iterator[tuple[str, str, Input]]:
        """``(place, reference, mark)`` of every input, e.g. ``("arms.tuned", "runs/...", mark)``.

        Inputs are found inside lists, mappings and nested settings too.
        """
        for name, info in type(self).model_fields.items():
            yield from _references(_typed(info), getattr(self, name), name)

    def lineage(self) -> dict[str, dict[str, str]]:
        """Per input its reference and the digest of its content; reads the inputs."""
        return {
            place: {"ref": ref, "digest": mark.digest(ref)}
            for place, ref, mark in self.references()
        }

    def make(
        self, store: Store, label: str, plan: SeedPlan, say: Callable[[str], None] = print
    ) -> Artefact:
        """Runs the method as the step `label`, or finds it finished.

        Recipes, the command line and :meth:`to` all come through here.

        Args:
            store: Where the artefact goes.
            label: The step's name; it names the step's own random stream under ``plan.root``.
            plan: The seeds. A method that does not judge sees no test seeds in it.
            say: Prints one line for the user.
        """
        seen = plan if self.judges else replace(plan, testing=())
        seed = derive(plan.root, "step", label)
        lineage = self.lineage()

        def work(folder: Path, scratch: Path, ledger: Ledger) -> Outcome:
            return self.run(Work(folder, scratch, seed, ledger, say, seen, self.judges))

        entries = {
            "step": label,
            "method": self.full_name(),
            "method_version": self.version,
            "kind": self.kind,
            "settings": self.model_dump(mode="json"),
            "inputs": lineage,
            "seed": seed,
            "seeds": seen.as_dict(),
        }
        key = self.key(label, plan, {place: entry["digest"] for place, entry in lineage.items()})
        return store.produce(label, key, entries, work)

    def key(self, label: str, plan: SeedPlan, digests: dict[str, str]) -> str:
        """The step's key: method, version, settings, content of the inputs, and seeds.

        Test seeds count only for a method that judges: changing them re-computes nothing else.

        Args:
            label: The step's name.
            plan: The seeds.
            digests: Per input the digest of its content, as in :meth:`lineage`.
        """
        settings = replaced(self.model_dump(mode="json"), digests)
        seeds: dict[str, Any] = {"tuning": [int(s) for s in plan.tuning]}
        if self.judges:
            seeds["testing"] = [int(s) for s in plan.testing]
        seed = derive(plan.root, "step", label)
        return step_key(self.full_name(), self.version, settings, digests, seed=seed, seeds=seeds)

    def to(
        self,
        folder: str | Path,
        seed: int | None = None,
        plan: SeedPlan | None = None,
        say: Callable[[str], None] = print,
    ) -> Artefact:
        """Runs the method into `folder`, which becomes the artefact.

        Nothing is computed where the folder already holds this very result; a run that was
        killed is continued by the same call.

        Args:
            folder: Must not exist, or hold the result of the same call.
            seed: The root seed; that of `plan` by default.
            plan: Tuning and test seeds; ``SeedPlan()`` by default.
            say: Prints one line for the user.

        Raises:
            ArtefactError: The folder holds something else, or cannot be written.
        """
        plan = plan or SeedPlan()
        plan = plan if seed is None else replace(plan, root=seed)
        return self.make(_Place(Path(os.path.abspath(folder)), say), self.full_name(), plan, say)


class _Place(Store):
    """A store with room for one artefact, in a folder that the user chose."""

    def __init__(self, place: Path, say: Callable[[str], None]) -> None:
        super().__init__(place.parent / ".tilth", say)
        self.place = place

    def folder(self, label: str, key: str) -> Path:
        """The chosen folder, unless it holds something that is not this artefact."""
        if self.place.exists() and not self._holds(key):
            raise ArtefactError(
                "this folder already holds something else",
                where=str(self.place),
                fix="choose another folder, or move this one away",
            )
        return self.place

    def _holds(self, key: str) -> bool:
        path = self.place / "manifest.json"
        return Manifest.is_ours(path) and Manifest.read(path).key == key


def _typed(info: FieldInfo) -> Any:
    """A field's annotation together with its marks, which pydantic keeps apart."""
    parts: Any = (info.annotation, None, *info.metadata)
    return Annotated[parts]


def _marks(annotation: Any) -> Iterator[Input]:
    """Every input mark anywhere inside a type annotation."""
    for part in get_args(annotation):
        if isinstance(part, Input):
            yield part
        else:
            yield from _marks(part)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for info in annotation.model_fields.values():
            yield from _marks(_typed(info))


def _references(annotation: Any, value: Any, place: str) -> Iterator[tuple[str, str, Input]]:
    """Walks a value along its annotation and yields what is marked as an input."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        marks = [m for m in args[1:] if isinstance(m, Input)]
        if marks and isinstance(value, str):
            yield place, value, marks[0]
        else:
            yield from _references(args[0], value, place)
    elif origin in (Union, UnionType):
        for part in args:
            yield from _references(part, value, place)
    elif isinstance(value, dict) and len(args) == 2:
        for key, item in value.items():
            yield from _references(args[1], item, f"{place}.{key}")
    elif isinstance(value, list | tuple) and args:
        fixed = origin is tuple and Ellipsis not in args
        for index, item in enumerate(value):
            yield from _references(args[index] if fixed else args[0], item, f"{place}.{index}")
    elif isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            yield from _references(_typed(info), getattr(value, name), f"{place}.{name}")


def replaced(value: Any, by_place: Mapping[str, str], place: str = "") -> Any:
    """Settings with another text at some places, e.g. ``{"arms.tuned": "/runs/x"}``."""
    if place in by_place:
        return by_place[place]
    start = f"{place}." if place else ""
    if isinstance(value, dict):
        return {k: replaced(v, by_place, f"{start}{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [replaced(v, by_place, f"{start}{i}") for i, v in enumerate(value)]
    return value
