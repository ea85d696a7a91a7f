"""``docs/papers.md``: every paper's claims beside our figures, from the committed results.

Beside it ``docs/papers/SYSTEM.md`` for each system, with the arms' own numbers, and in
``docs/images/papers`` the figures that its replication declares.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tilth.artefacts import write_atomically
from tilth.errors import DataError
from tilth.replicate.console import measured
from tilth.replicate.pages.drawing import draw
from tilth.replicate.pages.markdown import cell, table
from tilth.replicate.pages.page import command, interval_note, paper_page, published
from tilth.report import numbers

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
    """Writes the index of papers, a page per system and their figures; returns the index.

    The pages stand in a folder named after `out`, ``docs/papers/SYSTEM.md`` of ``docs/papers.md``,
    the figures in ``docs/images/papers``. A full result is shown rather than a quick one of the
    same system. The same results give the same bytes.

    Args:
        results: The folder of committed results.
        out: The Markdown file to write.

    Raises:
        DataError: A result cannot be read, or `out` has no ending.
    """
    out = Path(out)
    if not out.suffix:  # the folder of the pages has the same name without it
        raise DataError(
            "the index of papers needs an ending", where=str(out), fix=f"write to {out.name}.md"
        )
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(Path(results).glob("*.json"), key=lambda p: ".quick." not in p.name):
        body = _read(path)
        found[body["system"]] = (path, body)
    parts = [_HEAD]
    for _, (path, body) in sorted(found.items()):
        parts.append(_section(body, _page(path, body, out).relative_to(out.parent).as_posix()))
    if not found:
        parts.append("No results are committed yet.\n")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, "\n".join(parts))
    return out


def _page(path: Path, body: dict[str, Any], out: Path) -> Path:
    """Writes a system's page and figures; returns the page."""
    page = out.with_suffix("") / f"{body['system']}.md"
    pictures = out.parent / "images" / out.stem
    page.parent.mkdir(parents=True, exist_ok=True)
    images = {}
    for plot in body.get("plots", []):
        pictures.mkdir(parents=True, exist_ok=True)
        picture = pictures / f"{body['system']}-{plot['name']}.svg"
        write_atomically(picture, draw(plot, body["arms"], interval_note(body)))
        images[plot["name"]] = _link(picture, page)
    text = paper_page(body, result=_link(path, page), index=_link(out, page), images=images)
    write_atomically(page, text)
    return page


def _link(target: Path, page: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()


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


def _section(body: dict[str, Any], page: str) -> str:
    tests = numbers.counted(len(body["seeds"]["testing"]), "test seed")
    how = f"{tests}, {100 * body['level']:g}% intervals"
    lines = [
        f"{cell(body['source'])}\n" if body.get("source") else "",
        f"Method: `{body['method']}`. " if body.get("method") else "",
        f"Recipe: `{body['recipe']}`. " if body.get("recipe") else "",
        f"Command: `{command(body)}`. ",
        f"{how}{', quick variant' if body['quick'] else ''}.\n",
        f"Arms, figures, choices and cost: [{body['system']}]({page}).",
    ]
    rows = []
    for claim in body["claims"]:
        shown = cell(measured(claim))
        rows.append([cell(claim["statement"]), published(claim), shown, claim["verdict"]])
    claims = table(["claim", "published", "ours", "verdict"], rows)
    return f"## {cell(body['title'])}\n\n{''.join(lines)}\n\n{claims}"
