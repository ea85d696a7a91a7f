"""The arms of a result with their scores, in tables that a page can hold.

Arms that share a metric share a table. Where it would be wide, metrics of one family (one skill
each, one exam each) get a table of their own. Arms called ``ARM.PART``, where ``ARM`` is an arm,
are parts of that arm: a row per arm, a column per part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tilth.replicate.pages.markdown import cell, code, table
from tilth.report import numbers

__all__ = ["described", "estimate_text", "scored"]

WIDEST = 7  # columns of scores
_PART = re.compile(r"(.+?)\.([a-z][a-z0-9_\-]*)")  # no digit in front: "lambda-0.25" is an arm
_JOINED = "\N{NO-BREAK SPACE}"

Arm = Mapping[str, Any]


def described(arms: Sequence[Arm]) -> str:
    """Every arm with its role and what it is; parts are listed once, below."""
    whole, parts = _split(arms)
    rows = [[code(a["name"]), a["role"], cell(a.get("what", ""))] for a in whole]
    text = table(["arm", "role", "what it is"], rows)
    told = dict.fromkeys((_cut(name)[1], cell(a.get("what", ""))) for name, a in parts.items())
    if told:
        lines = [f"- `.{part}`: {what}" for part, what in told]
        text += "\nParts, measured of the arms named below:\n\n" + "\n".join(lines) + "\n"
    return text


def scored(arms: Sequence[Arm]) -> list[str]:
    """The tables of scores."""
    whole, parts = _split(arms)
    tables = []
    for group in _groups(whole):
        for metrics in _columns(group):
            rows = [
                [code(arm["name"]), *(_score(arm, metric) for metric in metrics)]
                for arm in group
                if any(metric in arm["scores"] for metric in metrics)
            ]
            tables.append(table(["arm", *map(code, metrics)], rows))
    silent = [code(arm["name"]) for arm in whole if not arm["scores"]]
    if silent:
        tables.append(f"Without any score: {', '.join(silent)}.\n")
    return tables + _part_tables(parts)


def estimate_text(estimate: Mapping[str, Any], *, sign: bool = False) -> str:
    """Value and interval; large numbers are shortened: ``36.2 k [35.0 k, 37.9 k]``.

    Where a column is narrow the line breaks before the interval and not within.

    Args:
        estimate: As stored in a result.
        sign: Write the sign of a positive value too: it is a difference.
    """
    value, low, high = (float(estimate[key]) for key in ("value", "low", "high"))
    if max(abs(low), abs(high)) < 100:
        return numbers.interval(dict(estimate), sign=sign).replace(", ", f",{_JOINED}")
    short = [numbers.amount(x).replace("-", "\N{MINUS SIGN}") for x in (value, low, high)]
    return f"{'+' if sign and value > 0 else ''}{short[0]} [{short[1]},{_JOINED}{short[2]}]"


def _split(arms: Sequence[Arm]) -> tuple[list[Arm], dict[str, Arm]]:
    """The arms themselves, and those that are parts of one."""
    known = {arm["name"] for arm in arms}
    parts = {
        arm["name"]: arm for arm in arms if _cut(arm["name"])[0] in known and _cut(arm["name"])[1]
    }
    return [arm for arm in arms if arm["name"] not in parts], parts


def _cut(name: str) -> tuple[str, str]:
    """``r-tuning`` and ``seen-16`` of ``r-tuning.seen-16``; an empty part where there is none."""
    found = _PART.fullmatch(name)
    return (found.group(1), found.group(2)) if found else (name, "")


def _groups(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Arms that share a metric, directly or by way of others, in their order."""
    groups: list[tuple[set[str], list[Arm]]] = []
    for arm in arms:
        metrics = set(arm["scores"])
        near = [group for group in groups if group[0] & metrics]
        if not near:
            groups.append((metrics, [arm]))
            continue
        first = near[0]
        for other in near[1:]:  # `arm` joins what was apart so far
            first[0].update(other[0])
            first[1].extend(other[1])
            groups.remove(other)
        first[0].update(metrics)
        first[1].append(arm)
    order = {arm["name"]: n for n, arm in enumerate(arms)}
    return [
        sorted(members, key=lambda a: order[a["name"]]) for metrics, members in groups if metrics
    ]


def _columns(arms: Sequence[Arm]) -> list[list[str]]:
    """The metrics of `arms`, per table; what belongs to no large family comes first."""
    metrics = list(dict.fromkeys(metric for arm in arms for metric in arm["scores"]))
    if len(metrics) <= WIDEST:
        return [metrics]
    families: dict[str, list[str]] = {}
    for metric in metrics:
        families.setdefault(_family(metric), []).append(metric)
    large = [members for members in families.values() if len(members) >= 3]
    rest = [metric for metric in metrics if not any(metric in members for members in large)]
    return [
        block[start : start + WIDEST]
        for block in (rest, *large)
        for start in range(0, len(block), WIDEST)
    ]


def _family(metric: str) -> str:
    """``score:`` of ``score:lists``, ``_id`` of ``right_id``."""
    head, colon, _ = metric.partition(":")
    return head + colon if colon else "_" + metric.rpartition("_")[2]


def _part_tables(parts: Mapping[str, Arm]) -> list[str]:
    by_metric: dict[str, list[tuple[str, str, Arm]]] = {}
    for name, arm in parts.items():
        whole, part = _cut(name)
        for metric in arm["scores"]:
            by_metric.setdefault(metric, []).append((whole, part, arm))
    tables = []
    for metric, found in by_metric.items():
        scores = {(whole, part): arm for whole, part, arm in found}
        columns = list(dict.fromkeys(part for _, part, _ in found))
        rows = [
            [
                code(whole),
                *(
                    _score(scores[whole, part], metric) if (whole, part) in scores else "–"
                    for part in columns
                ),
            ]
            for whole in dict.fromkeys(whole for whole, _, _ in found)
        ]
        head = [f"{code(metric)} of", *(code(f".{part}") for part in columns)]
        tables.append(table(head, rows))
    return tables


def _score(arm: Arm, metric: str) -> str:
    estimate = arm["scores"].get(metric)
    return estimate_text(estimate) if estimate else "–"
