"""History of places: founders, trades, rivers, markets and local sowing advice.

The same grading by exposure as :mod:`tilth.almanac.skills.facts`; sowing advice differs from place
to place, so only who has read of *this* place can answer.

    Who founded Grailmere?  ->  Dronder
    When should you sow rye at Grailmere?  ->  April
"""

from __future__ import annotations

from typing import ClassVar

from tilth.almanac.skills.facts import Facts

__all__ = ["History"]


class History(Facts):
    """Recall of facts about places."""

    name: ClassVar[str] = "history"
    chance: ClassVar[float] = 0.07
    kinds: ClassVar[tuple[str, ...]] = ("place",)
