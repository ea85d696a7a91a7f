"""How many tokens to draft: chosen by what was measured, none where drafting would not pay.

A round with a draft of g tokens takes g + 1 passes of the drafter, one token each, and one pass of
the other models over g + 1 tokens; it yields E = (1 - a**(g + 1)) / (1 - a) tokens, a being the
share of drafted tokens that are accepted (Leviathan et al. 2023, arXiv:2211.17192). A plain round
takes one pass of every model and yields one. The share is known before anything is drafted: a plain
round computes the drafter's distribution too, and shows whether it would have been right.

Nothing here has an influence on what is written, only on how fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["LENGTHS", "Pace"]

LENGTHS = (1, 2, 3, 4, 6, 8, 12)
"""Draft lengths that are considered."""

_MEMORY = 0.95  # weight of what was known before one more draft was judged
_ENOUGH = 4.0  # judged drafts before drafting is considered
_GAIN = 1.05  # predicted gain that is worth the change
_SLOPE = 0.1  # an unmeasured pass over k tokens is taken to cost 1 + 0.1 (k - 1) passes over one


@dataclass
class Pace:
    """What is known about speed and acceptance.

    Attributes:
        fixed: A draft length that is always used; None chooses.
        drafted: Tokens drafted so far.
        accepted: Those of them that were accepted.
        rounds: Rounds with a draft.
        plain: Rounds without one.
    """

    fixed: int | None = None
    drafted: int = 0
    accepted: int = 0
    rounds: int = 0
    plain: int = 0
    _right: float = 0.0
    _judged: float = 0.0
    _seconds: dict[tuple[tuple[int, ...], int], float] = field(default_factory=dict)

    def judged(self, right: Iterable[bool]) -> None:
        """Takes note of drafts, made or only looked at, that were right or not."""
        for one in right:
            self._right = _MEMORY * self._right + one
            self._judged = _MEMORY * self._judged + 1

    def took(self, key: tuple[int, ...], tokens: int, seconds: float) -> None:
        """Takes note of a pass of the voices `key` over `tokens` tokens a row."""
        before = self._seconds.get((key, tokens))
        # The median would be steadier; a slow outlier is damped by taking at most twice the mean.
        seconds = seconds if before is None else 0.75 * before + 0.25 * min(seconds, 2 * before)
        self._seconds[key, tokens] = seconds

    @property
    def acceptance(self) -> float:
        """The share of drafted tokens that is expected to be accepted."""
        return self._right / self._judged if self._judged else 0.0

    def length(
        self, whole: Iterable[tuple[int, ...]], lead: int, rest: Iterable[tuple[int, ...]]
    ) -> int:
        """How many tokens to draft next; 0 for none.

        Args:
            whole: The tracks of a plain round.
            lead: The voice that drafts.
            rest: The tracks that judge a draft.
        """
        if self.fixed is not None:
            return self.fixed
        if self._judged < _ENOUGH:
            return 0
        whole, rest = list(whole), list(rest)
        plain = sum(self._seconds.get((key, 1), 0.0) for key in whole)
        if not plain:
            return 0
        a = min(self.acceptance, 0.995)
        best, speed = 0, _GAIN / plain
        for g in LENGTHS:
            tokens = (1 - a ** (g + 1)) / (1 - a)
            drafting = (g + 1) * self._expected((lead,), 1, whole)
            judging = sum(self._expected(key, g + 1, whole) for key in rest)
            if tokens / (drafting + judging) > speed:
                best, speed = g, tokens / (drafting + judging)
        return best

    def _expected(self, key: tuple[int, ...], tokens: int, whole: list[tuple[int, ...]]) -> float:
        """Seconds of a pass: measured, or guessed from another of the same voices or with more."""
        known = self._seconds.get((key, tokens))
        if known is not None:
            return known
        near = [n for k, n in self._seconds if k == key and n > 1]
        if near and tokens > 1:
            closest = min(near, key=lambda n: abs(n - tokens))
            scale = (1 + _SLOPE * (tokens - 1)) / (1 + _SLOPE * (closest - 1))
            return self._seconds[key, closest] * scale
        one = self._seconds.get((key, 1))
        if one is None:
            around = next((k for k in whole if set(key) <= set(k)), key)
            one = self._seconds.get((around, 1), 0.0)
        return one * (1 + _SLOPE * (tokens - 1))
