"""The page of a selection: why each row was chosen or left, in one self-contained file.

Everything stands in the artefact's ``summary.json`` and manifest; the page draws it. Its one small
script searches and turns the pages of the list of rows; without scripts all rows are shown.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from tilth.artefacts import Artefact, write_atomically
from tilth.errors import ArtefactError
from tilth.report import numbers
from tilth.report.page import environment, printable
from tilth.report.selection_plots import histogram, point_map

__all__ = ["write"]

WHY = {
    "chosen": "chosen",
    "rank": "others were preferred",
    "similar": "too similar to a chosen row",
    "cap": "its source was full",
    "held_out": "repeats a held-out item",
}
"""What each ``why`` of ``selection.jsonl`` means, in the order in which they are shown."""


def write(folder: str | Path, page: str | Path) -> Path:
    """Writes the page of the selection in `folder` to the file `page`, and returns its path.

    Args:
        folder: An artefact of any ``select`` method.
        page: The HTML file to write.

    Raises:
        ArtefactError: `folder` is no artefact, or no selection's.

    Example:
        >>> write("chosen", "chosen.html")                              # doctest: +SKIP
        PosixPath('chosen.html')
    """
    artefact = Artefact.open(folder, verify=False)
    try:
        summary = json.loads(artefact.path("summary.json").read_text(encoding="utf-8"))
    except (ArtefactError, OSError, ValueError) as error:
        raise ArtefactError(
            "this artefact holds no readable summary of a selection",
            where=str(artefact.folder),
            fix="name the folder that a select method wrote",
        ) from error
    here = files("tilth.report")
    script = here.joinpath("selection.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment(artefact.folder.parent).from_string(
        here.joinpath("selection.html").read_text(encoding="utf-8")
    )
    rendered = template.render(
        css=here.joinpath("style.css").read_text(encoding="utf-8"),
        own_css=here.joinpath("selection.css").read_text(encoding="utf-8"),
        script=script,
        script_digest=digest,
        **_view(artefact, summary),
    )
    write_atomically(page, printable(rendered))
    return Path(page)


def _view(artefact: Artefact, summary: dict[str, Any]) -> dict[str, Any]:
    manifest = artefact.manifest
    return {
        "name": artefact.folder.name,
        "manifest": manifest,
        "summary": summary,
        "reasons": _reasons(summary),
        "names": WHY,
        "sources": _sources(summary),
        "queries": _queries(summary),
        "leaks": _leaks(manifest.settings, manifest.metrics, summary),
        "key_figures": _key_figures(manifest.cost, summary),
        "score_plots": _score_plots(summary),
        "nearest_plots": _nearest_plots(summary),
        "map_plots": _map_plots(summary),
        "shown": [_row(line) for line in summary["shown"]],
    }


def _reasons(summary: dict[str, Any]) -> list[dict[str, Any]]:
    total = max(summary["rows"], 1)
    return [
        {"why": why, "label": label, "rows": rows, "share": rows / total}
        for why, label in WHY.items()
        if (rows := summary["why"].get(why, 0))
    ]


def _sources(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Per source its share of the pool and of the chosen rows; none where no row names one."""
    if set(summary["sources"]) <= {""}:
        return []
    total, chosen = max(summary["rows"], 1), max(summary["chosen"], 1)
    return [
        {
            "name": name or "(none named)",
            "rows": rows,
            "kept": kept,
            "of_pool": rows / total,
            "of_chosen": kept / chosen,
        }
        for name, (rows, kept) in summary["sources"].items()
    ]


def _queries(summary: dict[str, Any]) -> list[dict[str, Any]]:
    total = max(sum(query["rows"] for query in summary["queries"]), 1)
    return [{**query, "share": query["rows"] / total} for query in summary["queries"]]


def _leaks(settings: dict[str, Any], metrics: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """What is known of test items in the pool and of queries among either."""
    told = []
    if not settings.get("held_out"):
        told.append(
            "Test items were not looked for: no held-out file was given. Name it as held_out, and "
            "rows that repeat an item are listed here and left out."
        )
    else:
        name = Path(str(settings["held_out"])).name
        rows = _counted(summary["why"].get("held_out", 0), "row of the pool", "rows of the pool")
        told.append(f"{rows} repeated an item of {name} and left the pool before the choice.")
    for key, one, many, what in (
        ("queries_repeating_held_out", "query", "queries", "repeated a test item and left as well"),
        ("rows_repeating_queries", "row of the pool", "rows of the pool",
         "repeat a query: what was chosen for it may be the query itself"),
    ):  # fmt: skip
        if metrics.get(key):
            told.append(f"{_counted(metrics[key], one, many)} {what}.")
    return told


def _counted(count: int, one: str, many: str) -> str:
    number = f"{count:,}" if count else "No"
    return f"{number} {one if count == 1 else many}"


def _key_figures(cost: dict[str, float], summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """``(label, figure, small print)``."""
    share = summary["chosen"] / max(summary["rows"], 1)
    figures = [("chosen", f"{summary['chosen']:,}", f"{share:.2%} of the pool")]
    nearest = summary.get("nearest")
    if nearest and "chosen" in nearest["median"]:
        figures.append(
            ("nearest chosen", numbers.score(nearest["median"]["chosen"]), "median similarity")
        )
    if cost.get("seconds"):
        small = f"{numbers.duration(cost.get('cpu_seconds', 0))} of CPU"
        figures.append(("time", numbers.duration(cost["seconds"]), small))
    if cost.get("flops"):
        figures.append(("computation", numbers.amount(cost["flops"]), "FLOPs"))
    return figures


def _score_plots(summary: dict[str, Any]) -> list[str]:
    score = summary.get("score")
    if not score:
        return []
    said = f"Distribution of {score['name']} over the pool and over the chosen rows."
    parts = {"pool": score["pool"], "chosen": score["chosen"]}
    return histogram(score["edges"], parts, score["name"], said)


def _nearest_plots(summary: dict[str, Any]) -> list[str]:
    nearest = summary.get("nearest")
    if not nearest:
        return []
    medians = ", ".join(f"{name} {value:.2f}" for name, value in nearest["median"].items())
    said = f"Similarity to the nearest chosen row; medians: {medians}."
    parts = {"left": nearest["left"], "chosen": nearest["chosen"]}
    return histogram(nearest["edges"], parts, "cosine similarity to the nearest chosen row", said)


def _map_plots(summary: dict[str, Any]) -> list[str]:
    points = summary.get("map")
    if not points:
        return []
    said = f"A map of {len(points['row']):,} rows, {sum(points['chosen']):,} of them chosen."
    return point_map(points["x"], points["y"], points["chosen"], said)


def _row(line: dict[str, Any]) -> dict[str, Any]:
    """A row of the list, with its details in words."""
    known = {"row", "id", "source", "kept", "rank", "score", "why", "reason", "turns", "like"}
    details = [f"{k.replace('_', ' ')} {numbers.value_text(v)}" for k, v in line.items()
               if k not in known]  # fmt: skip
    return {**line, "details": details, "label": WHY[line["why"]]}
