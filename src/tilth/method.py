"""The method contract: what every member of every verb looks like.

A method is a frozen pydantic model. Its fields are its settings (published defaults, cited in the
docstring); :meth:`Method.run` does the work inside a :class:`Work` folder that becomes an immutable
artefact. A method is found by its entry point (group ``tilth.<verb>``), by the recipe runner, the command line,
the documentation and the conformance suite alike.

    >>> from tilth.select.length import Length                          # doctest: +SKIP
    >>> chosen = Length(data="pool.jsonl", count=500).to("chosen")      # doctest: +SKIP
    >>> chosen.manifest.metrics["rows_out"]                             # doctest: +SKIP
    500
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from tilth.cost import Ledger
from tilth.errors import SeedError
from tilth.seeds import SeedPlan, TestSeed, TuningSeed, derive, stream

__all__ = ["DataRef", "Input", "Kind", "Method", "ModelRef", "Outcome", "ScoresRef", "Work"]

Kind = Literal["rows", "model", "scores", "comparison", "files"]


@dataclass(frozen=True)
class Input:
    """Marks a settings field as an input whose *content* enters the step's key."""

    kind: Kind


DataRef = Annotated[str, Input("rows")]
"""A data file, or the folder of an artefact of kind ``rows``."""

ModelRef = Annotated[str, Input("model")]
"""A model reference: ``seedling:small``, a folder, a hub id, ``openai:MODEL@URL``, ``REF+ADAPTER``."""

ScoresRef = Annotated[str, Input("scores")]
"""The folder of an artefact of kind ``scores``."""


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
        example: Small settings with which the conformance suite runs it; the words ``{rows}``,
            ``{seeds}``, ``{model}``, ``{teacher}`` and ``{scores}`` stand for the suite's fixtures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    verb: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[str] = "1"
    kind: ClassVar[Kind]
    judges: ClassVar[bool] = False
    example: ClassVar[dict[str, Any]] = {}

    @abstractmethod
    def run(self, work: Work) -> Outcome:
        """Does the work: reads the inputs, writes files into ``work.folder``."""

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
        """Settings fields that are inputs, with the kind that each expects."""
        return {
            name: marks[0].kind
            for name, info in cls.model_fields.items()
            if (marks := [m for m in info.metadata if isinstance(m, Input)])
        }
