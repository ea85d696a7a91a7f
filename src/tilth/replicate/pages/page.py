"""``docs/papers/SYSTEM.md``: all that a result holds, arm by arm, for the reader of one paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tilth.replicate.pages.drawing import undrawn
from tilth.replicate.pages.markdown import cell, code, table
from tilth.replicate.pages.tables import described, estimate_text, scored
from tilth.report import numbers

__all__ = ["command", "interval_note", "paper_page", "published"]

Body = Mapping[str, Any]


def paper_page(body: Body, *, result: str, index: str, images: Mapping[str, str]) -> str:
    """The page of one result, as Markdown.

    Args:
        body: The content of ``results/SYSTEM.json``.
        result: Link to that file, from the page.
        index: Link to the index of papers.
        images: Name of a figure -> link to its file.
    """
    quick = " These are the figures of the quick variant." if body["quick"] else ""
    parts = [
        f"# {cell(body['title'])}\n",
        f"{cell(body['source'])}\n" if body.get("source") else "",
        "This page is generated from the [result](" + result + ") by `tilth replicate --papers "
        f"docs/papers.md`; do not edit it. All papers: [papers]({index}).{quick}\n",
        _how_to_run(body),
        _claims(body),
        _figures(body, images),
        _arms(body),
        _choices(body),
        _cost(body),
        _origin(body),
        _failed(body),
        _open(body),
    ]
    return "\n".join(part for part in parts if part)


def command(body: Body) -> str:
    """What makes this result."""
    return f"tilth replicate {body['system']}{' --quick' if body['quick'] else ''}"


def published(claim: Mapping[str, Any]) -> str:
    """The published figure of a claim, and where it stands."""
    source = f" ({cell(claim['source'])})" if claim["source"] else ""
    return cell(claim["published"]) + source


def interval_note(body: Body) -> str:
    """What the bars of a figure are."""
    tests = numbers.counted(len(body["seeds"]["testing"]), "test seed")
    level = f"{100 * body['level']:g}\N{NO-BREAK SPACE}%"
    return f"Means and {level} intervals over {tests}"


def _how_to_run(body: Body) -> str:
    seeds = body["seeds"]
    shorter = "" if body["quick"] else f"{command(body)} --quick  # fewer seeds and smaller cells\n"
    lines = ["## How to run it\n", f"```sh\n{command(body)}\n{shorter}```\n"]
    facts = []
    if body.get("recipe"):
        facts.append(f"- The recipe to start from: {code(body['recipe'])}")
    if body.get("method"):
        facts.append(f"- What of tilth it exercises: {code(body['method'])}")
    for kind, purpose in (("tuning", "which may choose"), ("testing", "which judge once")):
        listed = ", ".join(str(seed) for seed in seeds[kind]) or "none"
        facts.append(f"- {'Tuning' if kind == 'tuning' else 'Test'} seeds, {purpose}: {listed}")
    return "\n".join([*lines, *facts]) + "\n"


def _claims(body: Body) -> str:
    counted = Counter(claim["verdict"] for claim in body["claims"])
    told = ", ".join(
        f"{counted[verdict]} {verdict}"
        for verdict in ("reproduced", "not shown", "contradicted")
        if counted[verdict]
    )
    rows = []
    for claim in body["claims"]:
        ours = estimate_text(claim["estimate"], sign=True) if claim["estimate"] else "none"
        rows.append(
            [
                cell(claim["statement"]),
                f"{code(claim['direction'])} by {code(claim['metric'])}",
                published(claim),
                ours,
                f"**{claim['verdict']}**: {cell(claim['why'])}",
            ]
        )
    head = ["claim", "judged by", "published", "ours", "verdict"]
    return (
        f"## Claims\n\nOf {len(body['claims'])} claims: {told or 'none judged'}. *Ours* is the "
        "paired difference that decides; of an ordered list of arms its weakest step.\n\n"
        f"{table(head, rows)}"
    )


def _figures(body: Body, images: Mapping[str, str]) -> str:
    plots = body.get("plots", [])
    if not plots:
        return ""
    lines = ["## Figures\n"]
    for plot in plots:
        described_axes = f"{plot['y_label']} over {plot['x_label']}"
        alt = f"{plot['title']}: {described_axes}".replace("[", "(").replace("]", ")")
        lines.append(f"![{cell(alt)}]({images[plot['name']]})\n")
        missing = undrawn(plot, body["arms"])
        if missing:
            lines.append(f"Not drawn, for want of a score: {', '.join(map(code, missing))}.\n")
    return "\n".join(lines)


def _arms(body: Body) -> str:
    measured = body.get("metrics", {})
    lines = ["## Arms\n", described(body["arms"])]
    if measured:
        lines += ["### What is measured\n"]
        lines += [f"- {code(name)}: {cell(what)}" for name, what in measured.items()]
        lines += [""]
    lines += ["### Scores\n", f"{interval_note(body)}.\n"]
    return "\n".join([*lines, *scored(body["arms"])])


def _choices(body: Body) -> str:
    lines = ["## Chosen on tuning seeds\n"]
    if not body.get("choices"):
        lines.append("No arm had candidates to choose among.\n")
    for choice in body.get("choices", []):
        rows = []
        for number, candidate in enumerate(choice["candidates"]):
            chosen = number == choice["chosen"]
            mean = candidate["mean"]
            shown = "failed" if mean is None else numbers.score(mean, 3)
            rows.append(
                [
                    code(numbers.setting(candidate["settings"])),
                    f"**{shown}**" if chosen else shown,
                    "**chosen**" if chosen else "",
                ]
            )
        lines.append(f"{code(choice['arm'])}, by the mean of {code(choice['metric'])}:\n")
        lines.append(table(["candidate", f"mean of {code(choice['metric'])}", ""], rows))
    if body.get("module"):
        told = code(body["module"])
        lines.append(f"What was fixed by hand beforehand is told in the docstring of {told}.\n")
    return "\n".join(lines)


def _cost(body: Body) -> str:
    cost = body["cost"]
    shown = (
        ("CPU time", "cpu_seconds", numbers.duration),
        ("time of all cells, one after the other", "seconds", numbers.duration),
        ("most memory of a cell", "peak_memory_bytes", numbers.bytes_text),
        ("tokens read", "tokens_read", numbers.amount),
        ("tokens generated", "tokens_generated", numbers.amount),
        ("tokens trained", "tokens_trained", numbers.amount),
        ("FLOPs", "flops", numbers.amount),
        ("requests", "requests", numbers.amount),
        ("money", "money", numbers.amount),
    )
    rows = [[name, written(cost[key])] for name, key, written in shown if cost.get(key)]
    rows.append(["cells", str(body["cells"])])
    if "machine" in body:
        rows.append(["worker processes", str(body["machine"]["workers"])])
    return (
        "## Cost\n\nOf all cells, as if each had run alone: what arms share is charged to each."
        f"\n\n{table(['what', 'how much'], rows)}"
    )


def _origin(body: Body) -> str:
    lines = []
    if "machine" in body:
        machine = body["machine"]
        threads = numbers.counted(machine["threads_per_worker"], "thread")
        lines.append(
            f"- {machine['processors']} processors, {machine['workers']} worker processes of "
            f"{threads}"
        )
    versions = [f"{name} {cell(version)}" for name, version in body.get("versions", {}).items()]
    if versions:
        lines.append(f"- {', '.join(versions)}")
    if body.get("started") and body.get("finished"):
        lines.append(f"- From {_minute(body['started'])} to {_minute(body['finished'])}")
    return "## Machine and versions\n\n" + "\n".join(lines) + "\n" if lines else ""


def _minute(moment: str) -> str:
    """``2026-11-22 16:37`` of a time stamp in UTC."""
    return f"{moment[:10]} {moment[11:16]} UTC"


def _failed(body: Body) -> str:
    if not body.get("failed"):
        return ""
    rows = [[code(f["arm"]), str(f["seed"]), cell(f["error"])] for f in body["failed"]]
    return f"## Failed cells\n\n{table(['arm', 'seed', 'error'], rows)}"


def _open(body: Body) -> str:
    if not body.get("not_measured"):
        return ""
    lines = "\n".join(f"- {cell(sentence)}" for sentence in body["not_measured"])
    return f"## What was not measured\n\n{lines}\n"
