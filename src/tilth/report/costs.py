"""The cost table: every step's ledger, in the columns that anything was booked in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilth.cost import Ledger
from tilth.report import numbers
from tilth.report.reading import RunView

__all__ = ["cost_table", "total_cost"]

# What the table calls an amount, and how it writes the number.
_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds": ("time", numbers.duration),
    "cpu_seconds": ("CPU time", numbers.duration),
    "peak_memory_bytes": ("peak memory", numbers.bytes_text),
    "tokens_read": ("tokens read", numbers.amount),
    "tokens_generated": ("written", numbers.amount),
    "tokens_trained": ("trained", numbers.amount),
    "flops": ("FLOPs", numbers.amount),
    "bytes_sent": ("bytes sent", numbers.bytes_text),
    "requests": ("requests", numbers.amount),
    "money": ("money", numbers.amount),
}
_ALWAYS = ("seconds", "cpu_seconds", "peak_memory_bytes", "flops")


def total_cost(run: RunView) -> Ledger:
    """All steps together: amounts add up, peak memory is the largest one."""
    total = Ledger()
    for step in run.steps:
        total.merge(Ledger.from_dict(step.manifest.cost))
    return total


def cost_table(run: RunView) -> dict[str, Any]:
    """``columns`` (headings), ``rows`` (step, cells), ``total`` (cells) and ``cached`` (step ids).

    Time, memory and FLOPs have their column always, other amounts where a step booked any.
    """
    total = total_cost(run).as_dict()
    columns = [c for c in _COLUMNS if c in _ALWAYS or total[c]]

    def cells(cost: dict[str, Any]) -> list[str]:
        return [_COLUMNS[c][1](cost[c]) if cost.get(c) else "" for c in columns]

    return {
        "columns": [_COLUMNS[c][0] for c in columns],
        "rows": [(s, cells(s.manifest.cost)) for s in run.steps if s.done],
        "total": cells(total),
        "cached": [s.id for s in run.steps if s.cached],
    }
