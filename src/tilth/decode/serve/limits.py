"""How much a server takes on."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tilth.errors import EngineError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; all defaults are our choice.

    Attributes:
        waiting: Requests that may wait; the next one is refused with status 429.
        body_bytes: Largest request body; a larger one is refused with status 413.
        new_tokens: Most tokens of one answer.
        choices: Most answers to one request (``n``), and most prompts of a completion.
        seconds: Longest time for one request once it is its turn; then the answer ends as it is.
        grace: Seconds that answers under way may still take when the server is stopped.
    """

    waiting: int = 16
    body_bytes: int = 1_000_000
    new_tokens: int = 1024
    choices: int = 8
    seconds: float = 120.0
    grace: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise EngineError(
                    f"the limit {field.name} is {getattr(self, field.name)}",
                    where="tilth serve",
                    fix="use a number above 0",
                )
