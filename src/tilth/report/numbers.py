"""How the reports write numbers: short, aligned, with a unit, never more digits than they earn."""

from __future__ import annotations

from typing import Any

__all__ = [
    "amount",
    "bytes_text",
    "counted",
    "decimals",
    "duration",
    "interval",
    "score",
    "setting",
    "value_text",
]

_MINUS = "\N{MINUS SIGN}"
_STEPS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def score(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """A score or a difference of scores with a true minus sign.

    Example:
        >>> score(-0.041, sign=True)
        '−0.04'
    """
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", _MINUS)


def decimals(estimate: dict[str, Any]) -> int:
    """Two decimals, or three where two would round a bound to a misleading 0.00."""
    return 3 if 0 < min(abs(estimate["low"]), abs(estimate["high"])) < 0.005 else 2


def interval(estimate: dict[str, Any], *, sign: bool = False) -> str:
    """``0.31 [0.28, 0.34]`` from an estimate as stored in ``comparison.json``."""
    digits = decimals(estimate)
    value = score(float(estimate["value"]), digits, sign=sign)
    low, high = (score(float(estimate[bound]), digits) for bound in ("low", "high"))
    return f"{value} [{low}, {high}]"


def amount(value: float) -> str:
    """A count with at most three significant digits: ``812``, ``41.2 k``, ``3.07 T``."""
    for size, letter in _STEPS:
        if abs(value) >= size * (0.9995 if size > 1e3 else 1):
            scaled = value / size
            digits = max(0, 2 - (len(f"{abs(scaled):.0f}") - 1))
            return f"{scaled:.{digits}f}\u202f{letter}"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def counted(count: int, noun: str) -> str:
    """``1 test seed``, ``5 test seeds``."""
    return f"{count} {noun}{'s' if count != 1 else ''}"


def bytes_text(value: float) -> str:
    """Bytes in binary units: ``412 MiB``."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            scaled = value / size
            return f"{scaled:.1f}\u202f{unit}" if scaled < 10 else f"{scaled:.0f}\u202f{unit}"
    return f"{value:.0f}\u202fB"


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``0.4 s``, ``38 s``, ``4 min 12 s``, ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f}\u202fs"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}\u202fs"
    if whole < 3600:
        return f"{whole // 60}\u202fmin {whole % 60:02d}\u202fs"
    return f"{whole // 3600}\u202fh {whole % 3600 // 60:02d}\u202fmin"


def value_text(value: Any) -> str:
    """A metric: integers with separators, other numbers to four significant digits.

    Estimates are shown as intervals.
    """
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        return interval(value)
    if isinstance(value, dict) and value:
        return ", ".join(f"{k}: {value_text(v)}" for k, v in value.items())
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return setting(value)


def setting(value: Any) -> str:
    """A setting as a person would type it in a recipe."""
    if isinstance(value, dict):
        return ", ".join(f"{k}: {setting(v)}" for k, v in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(v) for v in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
