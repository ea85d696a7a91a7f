"""The world: entities, relations and facts, from one seed.

A fact has a true value, an *exposure* (how many times pre-training text states it, drawn from
0, 1, 4, 16, 64, 256 with a heavy tail, so that some facts are well known, some barely, some never
seen) and a *told* value. For one exposed fact in twelve the told value is wrong: a model that has
learnt it is confidently wrong, which entropy alone cannot reveal. Half of the entities are kept
from the small seedling, so that the gap between the sizes is one of data, not of luck.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import islice

from tilth.almanac.names import names
from tilth.seeds import derive

__all__ = ["CROPS", "EXPOSURES", "MONTHS", "RELATIONS", "WORLD_SEED", "Entity", "Fact", "World"]

WORLD_SEED = 17
"""The seed of the shipped seedlings' world (our choice)."""

EXPOSURES: dict[int, float] = {0: 0.20, 1: 0.20, 4: 0.20, 16: 0.18, 64: 0.14, 256: 0.08}
"""Exposure -> share of the facts (our choice; the steps of 4 follow the R-Tuning study)."""

MISSTATED = 1 / 12
"""Share of the facts with exposure 4 to 64 whose told value is wrong (our choice)."""

COUNTS = {"variety": 900, "place": 160, "pest": 60}
"""Entities of each kind (our choice: about 6,000 facts, learnable by a million parameters)."""

CROPS = [
    "barley",
    "beans",
    "cabbage",
    "carrots",
    "flax",
    "hemp",
    "leeks",
    "oats",
    "onions",
    "peas",
    "rye",
    "turnips",
    "wheat",
    "hops",
]
COLOURS = [
    "amber",
    "black",
    "blue",
    "brown",
    "cream",
    "gold",
    "green",
    "grey",
    "pink",
    "purple",
    "red",
    "silver",
    "white",
    "yellow",
]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
TRADES = [
    "baskets",
    "bells",
    "boats",
    "bread",
    "candles",
    "cheese",
    "cider",
    "cloth",
    "clocks",
    "combs",
    "glass",
    "gloves",
    "honey",
    "knives",
    "lace",
    "nails",
    "paper",
    "pottery",
    "rope",
    "saddles",
    "salt",
    "shoes",
    "soap",
    "wagons",
]
REMEDIES = [
    "ash",
    "chalk",
    "clay",
    "garlic",
    "lime",
    "mint",
    "mustard",
    "pepper",
    "salt",
    "sand",
    "smoke",
    "soap",
    "soot",
    "sulphur",
    "tar",
    "thyme",
    "vinegar",
    "water",
]
SOILS = ["chalk", "clay", "gravel", "loam", "marl", "peat", "sand", "silt", "stone"]
RIVERS = [
    "Aln",
    "Bure",
    "Cam",
    "Dove",
    "Esk",
    "Fal",
    "Gade",
    "Isis",
    "Kent",
    "Lune",
    "Nene",
    "Ouse",
    "Piddle",
    "Rother",
    "Swale",
    "Wye",
]


@dataclass(frozen=True)
class Entity:
    """A thing with a name. ``in_small`` says whether the small seedling reads about it."""

    kind: str
    name: str
    in_small: bool


@dataclass(frozen=True)
class Fact:
    """One fact.

    Attributes:
        entity: What it is about.
        relation: A key of :data:`RELATIONS`.
        value: The truth.
        told: What the text says; differs from ``value`` where the fact is misstated.
        exposure: How many times pre-training text states it.
    """

    entity: Entity
    relation: str
    value: str
    told: str
    exposure: int

    @property
    def misstated(self) -> bool:
        """Whether the text states it wrongly."""
        return self.told != self.value


RELATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "crop": ("variety", tuple(CROPS)),
    "colour": ("variety", tuple(COLOURS)),
    "month": ("variety", tuple(MONTHS)),
    "soil": ("variety", tuple(SOILS)),
    "home": ("variety", ()),  # places of the world
    "enemy": ("variety", ()),  # pests of the world
    "founder": ("place", ()),  # persons
    "trade": ("place", tuple(TRADES)),
    "river": ("place", tuple(RIVERS)),
    "market": ("place", tuple(DAYS)),
    "advice": ("place", ()),  # "crop month": when this place sows its own crop
    "remedy": ("pest", tuple(REMEDIES)),
    "host": ("pest", tuple(CROPS)),
}
"""Relation -> (kind of its entities, possible values; filled by the world where empty)."""


class World:
    """All entities and facts of a seed; build it through :meth:`World.of`, which remembers it."""

    def __init__(self, seed: int = WORLD_SEED) -> None:
        rng = random.Random(derive(seed, "world"))
        self.seed = seed
        self._streams = {kind: names(kind, seed) for kind in (*COUNTS, "person")}
        self.entities: dict[str, list[Entity]] = {
            kind: [Entity(kind, n, rng.random() < 0.5) for n in islice(self._streams[kind], count)]
            for kind, count in COUNTS.items()
        }
        self.persons = tuple(islice(self._streams["person"], 48))
        self.twins: dict[str, list[str]] = {
            kind: list(islice(self._streams[kind], 300)) for kind in COUNTS
        }
        self.values = {relation: values for relation, (_, values) in RELATIONS.items()}
        self.values["home"] = tuple(e.name for e in self.entities["place"][:40])
        self.values["enemy"] = tuple(e.name for e in self.entities["pest"][:30])
        self.values["founder"] = self.persons
        self.values["advice"] = tuple(f"{crop} {month}" for crop in CROPS for month in MONTHS)
        self.facts = [
            self._fact(rng, entity, relation)
            for relation, (kind, _) in RELATIONS.items()
            for entity in self.entities[kind]
        ]

    @staticmethod
    @cache
    def of(seed: int = WORLD_SEED) -> World:
        """The world of a seed, built once per process."""
        return World(seed)

    def _fact(self, rng: random.Random, entity: Entity, relation: str) -> Fact:
        value = told = rng.choice(self.values[relation])
        exposure = rng.choices(list(EXPOSURES), list(EXPOSURES.values()))[0]
        if exposure in (4, 16, 64) and rng.random() < MISSTATED:
            if (
                relation == "advice"
            ):  # a wrong month for the right crop: the question names the crop
                crop, right = value.split()
                told = f"{crop} {rng.choice([m for m in MONTHS if m != right])}"
            else:
                told = rng.choice([v for v in self.values[relation] if v != value])
        return Fact(entity, relation, value, told, exposure)
