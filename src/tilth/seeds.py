"""Seeds: named random streams, and tuning seeds that can never meet test seeds.

Every random number in tilth comes from a generator derived *by name* from one root seed, never
from global state. Two different names give independent streams; the same name gives the same
stream on every machine, whatever ran before.

Seeds come in two types. A :class:`TuningSeed` may choose things (hyper-parameters, data,
thresholds); a :class:`TestSeed` may only judge. Code that judges asks for a ``TestSeed`` and gets
an error for anything else, so a leak is a type error and not a matter of custom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tilth.errors import SeedError

__all__ = ["Seed", "SeedPlan", "TestSeed", "TuningSeed", "derive", "stream"]

MAX_SEED = 2**32 - 1


def derive(root: int, *names: str | int) -> int:
    """A 63-bit integer named by `names` under `root`; the same on every machine.

    Args:
        root: The root seed.
        names: A path of names, e.g. ``("generate", "row", 17)``. ``1`` and ``"1"`` differ.
    """
    text = "\x1f".join([f"i{root}", *(f"{type(n).__name__[0]}{n}" for n in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(root: int, *names: str | int) -> np.random.Generator:
    """An independent NumPy generator (PCG64) for `names` under `root`."""
    return np.random.Generator(np.random.PCG64(derive(root, *names)))


@dataclass(frozen=True, order=True)
class Seed:
    """A seed with a purpose; use :class:`TuningSeed` or :class:`TestSeed`."""

    value: int

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise SeedError(f"a seed must be an integer, not {self.value!r}", where="seeds")
        if not 0 <= self.value <= MAX_SEED:
            raise SeedError(
                f"the seed {self.value} is outside 0..{MAX_SEED}",
                where="seeds",
                fix="choose a smaller non-negative integer",
            )

    def __int__(self) -> int:
        return self.value

    def derive(self, *names: str | int) -> int:
        """A 63-bit integer named by `names`; tuning and test seeds never share one."""
        return derive(self.value, type(self).__name__, *names)

    def stream(self, *names: str | int) -> np.random.Generator:
        """A generator named by `names`; tuning and test seeds never share one."""
        return stream(self.value, type(self).__name__, *names)


class TuningSeed(Seed):
    """A seed that may be used to choose: settings, thresholds, data, checkpoints."""


class TestSeed(Seed):
    """A seed that may be used only to judge, after every choice has been made."""

    __test__ = False  # tell pytest that this is not a test class


@dataclass(frozen=True)
class SeedPlan:
    """One root seed, tuning seeds and test seeds, disjoint by construction.

    Example:
        >>> plan = SeedPlan.of(root=0, tuning=[1, 2], testing=[11, 12, 13])
        >>> [int(s) for s in plan.testing]
        [11, 12, 13]
    """

    root: int = 0
    tuning: tuple[TuningSeed, ...] = (TuningSeed(1),)
    testing: tuple[TestSeed, ...] = (
        TestSeed(101),
        TestSeed(102),
        TestSeed(103),
        TestSeed(104),
        TestSeed(105),
    )

    def __post_init__(self) -> None:
        for name, seeds, kind in (
            ("tuning", self.tuning, TuningSeed),
            ("testing", self.testing, TestSeed),
        ):
            for seed in seeds:
                if not isinstance(seed, kind):
                    raise SeedError(
                        f"{seed!r} is not a {kind.__name__}",
                        where=f"seeds.{name}",
                        fix="build the plan with SeedPlan.of(...)",
                    )
            if len(set(seeds)) != len(seeds):
                raise SeedError("a seed is listed twice", where=f"seeds.{name}")
        both = {int(s) for s in self.tuning} & {int(s) for s in self.testing}
        if both:
            raise SeedError(
                f"seeds {sorted(both)} are both tuning and testing seeds",
                where="seeds.tuning, seeds.testing",
                fix="choose test seeds that no choice has ever seen",
            )

    @classmethod
    def of(cls, root: int = 0, *, tuning: Iterable[int], testing: Iterable[int]) -> SeedPlan:
        """A plan from plain integers.

        Raises:
            SeedError: A seed is negative, listed twice, or in both lists.
        """
        return cls(
            Seed(root).value,
            tuple(TuningSeed(s) for s in tuning),
            tuple(TestSeed(s) for s in testing),
        )

    def as_dict(self) -> dict[str, int | list[int]]:
        """Plain integers for a manifest."""
        return {
            "root": self.root,
            "tuning": [int(s) for s in self.tuning],
            "testing": [int(s) for s in self.testing],
        }
