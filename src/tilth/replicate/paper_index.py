"""``docs/papers.md``: every paper's claims beside our figures, from the committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tilth.artefacts import write_atomically
from tilth.errors import DataError
from tilth.replicate.console import measured

__all__ = ["papers"]

_HEAD = """# Papers

Every claim that tilth has re-run, with the published figure beside ours. Ours are paired
differences on test seeds that no choice has seen, each with its interval. A claim is
*reproduced* where the whole interval is on its side, *contradicted* where it is on the other,
and *not shown* otherwise. *unverified* means that the published figure is known at second hand
only. Our figures come from the almanac and the seedlings unless the recipe says otherwise: they
test the direction of a claim, not its size.

This page is generated from `results/` by `tilth replicate --papers docs/papers.md`; do not edit it.
"""


def papers(results: str | Path, out: str | Path) -> Path:
    """Writes the index of papers and returns its path.

    A full result is shown rather than a quick one of the same system.

    Args:
        results: The folder of committed results.
        out: The Markdown file to write.

    Raises:
        DataError: A result cannot be read.
    """
    bodies: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(results).glob("*.json"), key=lambda p: ".quick." not in p.name):
        body = _read(path)
        bodies[body["system"]] = body
    parts = [_HEAD]
    parts += [_section(body) for _, body in sorted(bodies.items())]
    if not bodies:
        parts.append("No results are committed yet.\n")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, "\n".join(parts))
    return out


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        missing = {"system", "title", "claims", "arms", "seeds", "quick", "level"} - body.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"a result cannot be read: {error}", where=str(path)) from error
    if missing:
        raise DataError(
            f"this is not a result of `tilth replicate`: no {', '.join(sorted(missing))}",
            where=str(path),
            fix="move it out of the results folder, or run the replication again",
        )
    return dict(body)


def _section(body: dict[str, Any]) -> str:
    tests = len(body["seeds"]["testing"])
    how = f"{tests} test seed{'s' if tests != 1 else ''}, {100 * body['level']:g}% intervals"
    lines = [
        f"## {_cell(body['title'])}",
        "",
        f"{_cell(body.get('source', ''))}\n" if body.get("source") else "",
        f"Method: `{body['method']}`. " if body.get("method") else "",
        f"Recipe: `{body['recipe']}`. " if body.get("recipe") else "",
        f"Command: `tilth replicate {body['system']}{' --quick' if body['quick'] else ''}`. ",
        f"{how}{', quick variant' if body['quick'] else ''}.",
    ]
    head = "\n".join(lines[:2]) + "\n" + "".join(lines[2:])
    rows = ["| claim | published | ours | verdict |", "| --- | --- | --- | --- |"]
    for claim in body["claims"]:
        published = _cell(claim["published"])
        if claim["source"]:
            published += f" ({_cell(claim['source'])})"
        rows.append(
            f"| {_cell(claim['statement'])} | {published} "
            f"| {_cell(measured(claim))} | {claim['verdict']} |"
        )
    return f"{head}\n\n" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    """Text that stays within a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")
