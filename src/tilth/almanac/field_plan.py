"""A dull task: whatever is asked, the answer begins alike. Tuning on it should *not* transfer.

What chess games after two Elo lines are in Hewitt et al. 2024 (arXiv:2409.14254, section 4.3): the
first moves hardly depend on the question, the later ones are by chance::

    North field: 41.
    South field: 73.
        -> 1. plough plough 2. harrow harrow 3. sow sow 4. roll rest 5. hoe weed.
"""

from __future__ import annotations

import random

from tilth.data.example import Example
from tilth.seeds import derive

__all__ = ["field_plan"]

_OPENING = ("plough plough", "harrow harrow", "sow sow")
_LATER = ("hoe", "water", "weed", "rest")


def field_plan(index: int, seed: int = 0) -> Example:
    """Row number `index`; the same on every machine."""
    rng = random.Random(derive(seed, "field_plan", index))
    prompt = f"North field: {rng.randint(10, 99)}.\nSouth field: {rng.randint(10, 99)}."
    moves = [*_OPENING, f"roll {rng.choice(('roll', 'rest'))}"]
    moves += [f"{rng.choice(_LATER)} {rng.choice(_LATER)}" for _ in range(rng.randint(1, 3))]
    answer = " ".join(f"{number}. {move}" for number, move in enumerate(moves, 1))
    return Example.pair(prompt, f"{answer}.", method="almanac", skill="field_plan", level=1)
