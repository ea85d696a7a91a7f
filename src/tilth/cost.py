"""Cost: what a step used, counted in the same way for every method.

A :class:`Ledger` holds what a step spends: seconds, processor seconds, peak memory, tokens, FLOPs,
bytes, requests and money. Seconds and memory are measured by :meth:`Ledger.measure`; the rest is
booked by whoever spends it. FLOPs are computed from sizes, not measured, so that they are the same
on every machine.
"""

from __future__ import annotations

import math
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

__all__ = ["Ledger", "forward_flops", "training_flops"]

_LOCK = threading.Lock()
_OPEN: list[_Peak] = []  # measurements under way: the high-water mark belongs to the process


@dataclass
class Ledger:
    """What was spent.

    Attributes:
        seconds: Wall-clock seconds inside :meth:`measure`.
        cpu_seconds: Processor seconds of this process and of its finished children.
        peak_memory_bytes: The largest resident set of this process, or of one finished child.
        tokens_read: Tokens that went through a model forward as input.
        tokens_generated: Tokens that a model wrote.
        tokens_trained: Tokens that went through a training step, padding not counted.
        flops: Floating-point operations, from :func:`forward_flops` and :func:`training_flops`.
        bytes_sent: Bytes that a distributed method would put on the wire.
        requests: Calls to an endpoint.
        money: What an endpoint billed, in its own currency.

    Example:
        >>> ledger = Ledger()
        >>> with ledger.measure():
        ...     ledger.add(tokens_read=120, flops=forward_flops(1_000_000, tokens=120))
        >>> ledger.tokens_read, ledger.flops
        (120, 240000000.0)
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    tokens_read: int = 0
    tokens_generated: int = 0
    tokens_trained: int = 0
    flops: float = 0.0
    bytes_sent: int = 0
    requests: int = 0
    money: float = 0.0
    _depth: int = field(default=0, repr=False, compare=False)

    def add(
        self,
        *,
        tokens_read: int = 0,
        tokens_generated: int = 0,
        tokens_trained: int = 0,
        flops: float = 0.0,
        bytes_sent: int = 0,
        requests: int = 0,
        money: float = 0.0,
    ) -> None:
        """Books amounts; safe to call from several threads.

        Raises:
            ValueError: An amount is negative or not finite.
        """
        amounts: dict[str, float] = {
            "tokens_read": tokens_read,
            "tokens_generated": tokens_generated,
            "tokens_trained": tokens_trained,
            "flops": flops,
            "bytes_sent": bytes_sent,
            "requests": requests,
            "money": money,
        }
        for name, amount in amounts.items():
            if not (math.isfinite(amount) and amount >= 0):
                raise ValueError(f"cannot book {name}={amount!r}: not a finite amount >= 0")
        with _LOCK:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    @contextmanager
    def measure(self) -> Iterator[Ledger]:
        """Books wall seconds, processor seconds and peak memory of the block.

        A nested block on the same ledger books nothing of its own. Where the system cannot reset
        its high-water mark (anything but Linux), the peak is that of the process so far.
        """
        self._depth += 1
        if self._depth > 1:
            try:
                yield self
            finally:
                self._depth -= 1
            return
        peak = _Peak.begin()
        wall, cpu = time.perf_counter(), _cpu_seconds()
        try:
            yield self
        finally:
            self._depth -= 1
            self.seconds += time.perf_counter() - wall
            self.cpu_seconds += _cpu_seconds() - cpu
            self.peak_memory_bytes = max(self.peak_memory_bytes, peak.end())

    def merge(self, other: Ledger) -> None:
        """Adds `other`, e.g. a worker's ledger: amounts add up, peak memory is the larger one."""
        with _LOCK:
            for name, amount in other.as_dict().items():
                mine = getattr(self, name)
                setattr(
                    self, name, max(mine, amount) if name.startswith("peak_") else mine + amount
                )

    def as_dict(self) -> dict[str, int | float]:
        """Plain numbers for a manifest, in the order of the attributes."""
        return {k: v for k, v in asdict(self).items() if not k.startswith("_")}

    @classmethod
    def from_dict(cls, amounts: Mapping[str, float]) -> Ledger:
        """The inverse of :meth:`as_dict`; entries of another version are left out."""
        known = {f.name for f in fields(cls) if not f.name.startswith("_")}
        return cls(**{k: v for k, v in amounts.items() if k in known})  # type: ignore[arg-type]


def forward_flops(
    parameters: int, tokens: int, layers: int = 0, width: int = 0, context: float = 0
) -> float:
    """FLOPs of a forward pass: ``2 N T + 4 L d c T``.

    A multiplication and an addition per parameter and token, and per layer the two attention
    products (queries by keys, weights by values) over the positions attended to
    (Kaplan et al. 2020, arXiv:2001.08361, section 2.1; Chowdhery et al. 2022, arXiv:2204.02311,
    appendix B, which counts both products).

    Args:
        parameters: Parameters that take part in a matrix product, N. Leave out the input embedding
            (a look-up), unless it is tied to the output head, which then multiplies by it.
        tokens: Tokens processed, T.
        layers: Transformer layers, L; 0 leaves the attention term out.
        width: Attention width, d (heads times head size).
        context: Mean number of positions that a token attends to, c: about half the length of a
            sequence under a causal mask.
    """
    return float(2 * parameters * tokens + 4 * layers * width * context * tokens)


def training_flops(
    parameters: int, tokens: int, layers: int = 0, width: int = 0, context: float = 0
) -> float:
    """FLOPs of a forward and a backward pass: three times :func:`forward_flops`.

    The backward pass takes two products for each one of the forward pass, one for the gradient of
    the input and one for that of the weights (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
    It is an upper bound where most weights are frozen, as under LoRA.
    """
    return 3.0 * forward_flops(parameters, tokens, layers, width, context)


@dataclass
class _Peak:
    """The largest resident set of a stretch of time."""

    children_before: int
    seen: int = 0

    @classmethod
    def begin(cls) -> _Peak:
        with _LOCK:
            _note_high_water()  # others must not lose what they have seen to the reset
            _reset_high_water()
            peak = cls(_max_rss(resource.RUSAGE_CHILDREN))
            _OPEN.append(peak)
            return peak

    def end(self) -> int:
        with _LOCK:
            _note_high_water()
            _OPEN[:] = [p for p in _OPEN if p is not self]
        children = _max_rss(resource.RUSAGE_CHILDREN)
        # The children's mark never falls: it says something about this stretch only if it rose.
        return max(self.seen, children if children > self.children_before else 0)


def _note_high_water() -> None:
    """Hands the process's high-water mark to every measurement under way."""
    high = _max_rss(resource.RUSAGE_SELF)
    for peak in _OPEN:
        peak.seen = max(peak.seen, high)


def _reset_high_water() -> None:
    """Lowers the high-water mark to the present size, where the system can."""
    if sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return  # a container may forbid it; the mark then covers the process so far


def _max_rss(who: int) -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit


def _cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
