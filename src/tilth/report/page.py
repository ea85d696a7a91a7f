"""The HTML report: one self-contained file that works from disk, in light and dark, on a phone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.artefacts import write_atomically
from tilth.report import numbers
from tilth.report.costs import cost_table, total_cost
from tilth.report.plots import Curve, Mark, line_style, loss_plot, marks, score_plot
from tilth.report.reading import RunView, StepView, json_rows, read_run
from tilth.report.refusals import refusals_of
from tilth.report.samples import before_after, rejections, samples_of
from tilth.report.scores import comparison_of
from tilth.report.verdict import Verdict, relation, verdict_of

if TYPE_CHECKING:
    import jinja2

__all__ = ["environment", "printable", "write"]


def write(run_folder: str | Path) -> Path:
    """Writes ``report.html`` into a run folder and returns its path.

    Works for a run that failed or was killed: what is there is shown, what is missing is named.

    Args:
        run_folder: A folder that ``tilth run`` made, with its ``run.json``.

    Raises:
        ArtefactError: `run_folder` holds no readable ``run.json``.

    Example:
        >>> write("runs/quickstart")                                    # doctest: +SKIP
        PosixPath('runs/quickstart/report.html')
    """
    run = read_run(run_folder)
    here = files("tilth.report")
    template = environment(run.folder).from_string(
        here.joinpath("page.html").read_text(encoding="utf-8")
    )
    page = template.render(
        css=here.joinpath("style.css").read_text(encoding="utf-8"),
        pages=_selections(run),
        **_view(run),
    )
    path = run.folder / "report.html"
    write_atomically(path, printable(page))
    return path


def environment(folder: Path) -> jinja2.Environment:
    """The template environment of all pages; paths below `folder` are shown without it."""
    import jinja2

    made = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(
        amount=numbers.amount,
        score=numbers.score,
        interval=numbers.interval,
        duration=numbers.duration,
        value=numbers.value_text,
        setting=lambda value: _local(numbers.setting(value), folder),
    )
    return made


def _selections(run: RunView) -> dict[str, str]:
    """Writes the page of every selection beside the report; its file name by step."""
    from tilth.report import selection

    pages = {}
    for step in run.of_kind("rows"):
        if step.do.startswith("select.") and step.folder and step.file("summary.json"):
            page = run.folder / f"selection-{step.id}.html"
            pages[step.id] = selection.write(step.folder, page).name
    return pages


def _view(run: RunView) -> dict[str, Any]:
    verdict = verdict_of(run)
    comparison = comparison_of(run)
    main = verdict.arm or next(iter(comparison.get("arms", {})), "")
    baseline = str(comparison.get("baseline", ""))
    drawn = marks(list(comparison.get("arms", {})), baseline, main)
    curves = [c for s in run.of_kind("model") if (c := _curve(s))]
    return {
        "run": run,
        "verdict": verdict,
        "comparison": comparison,
        "key_figures": _key_figures(run, verdict, comparison),
        "marks": drawn,
        "skills": _skill_table(comparison, main, baseline),
        "relation": relation,
        "score_plots": _score_plots(comparison, drawn),
        "refusals": refusals_of(run, main),
        "curves": _curve_key(curves, main),
        "loss_plots": _loss_plots(curves, main),
        "funnels": _funnels(run),
        "samples": [(s, found) for s in run.steps if (found := samples_of(s))],
        "pairs": before_after(run, verdict.arm, verdict.baseline) if verdict.arm else [],
        "costs": cost_table(run),
        "not_measured": _not_measured(run),
        "versions": _versions(run),
    }


def _key_figures(
    run: RunView, verdict: Verdict, comparison: dict[str, Any]
) -> list[tuple[str, str, str]]:
    """``(label, figure, small print)`` of the row under the verdict."""
    figures = []
    if verdict.arm:
        for label, arm in (("before", verdict.baseline), ("after", verdict.arm)):
            found = comparison["arms"].get(arm)
            if found:
                text = numbers.interval(found["estimate"])
                value, _, rest = text.partition(" ")
                figures.append((f"{label}: {arm}", value, rest))
    total = total_cost(run)
    if total.seconds:
        small = f"{numbers.duration(total.cpu_seconds)} of CPU"
        figures.append(("cost", numbers.duration(total.seconds), small))
    if total.flops:
        figures.append(("computation", numbers.amount(total.flops), "FLOPs"))
    return figures


def _score_plots(comparison: dict[str, Any], drawn: dict[str, Mark]) -> list[str]:
    if not comparison.get("arms"):
        return []
    metric = str(comparison.get("metric", "score"))
    return [score_plot(comparison["arms"], drawn, metric, narrow=n) for n in (False, True)]


def _skill_table(comparison: dict[str, Any], main: str, baseline: str) -> list[dict[str, Any]]:
    """A row per skill: the baseline's score, the claim's, their difference, the chance level."""
    arms = comparison.get("arms", {})
    if main not in arms:
        return []
    before = arms.get(baseline, {}).get("by_skill") or {}
    after = arms[main].get("by_skill") or {}
    differences = comparison.get("differences", {}).get(main, {}).get("by_skill") or {}
    chance = arms[main].get("chance") or {}
    return [
        {
            "skill": skill,
            "before": before.get(skill),
            "after": after.get(skill),
            "difference": _estimate(differences.get(skill)),
            "chance": chance.get(skill),
        }
        for skill in sorted({*before, *after})
    ]


def _estimate(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """The estimate of a difference, stored bare or beside its p-value."""
    return found.get("estimate", found) if found else None


def _curve(step: StepView) -> Curve | None:
    path = step.file("metrics.jsonl")
    if not path:
        return None
    points = [(r["step"], r["loss"]) for r in json_rows(path) if r.get("loss") is not None]
    if not points:
        return None
    return Curve(step.id, [float(s) for s, _ in points], [float(v) for _, v in points])


def _main_curve(curves: list[Curve], main: str) -> str:
    """The curve of the claim: that of the step named like its arm, else the first one."""
    return next((c.name for c in curves if c.name == main), curves[0].name)


def _loss_plots(curves: list[Curve], main: str) -> list[str]:
    if not curves:
        return []
    return [loss_plot(curves, _main_curve(curves, main), narrow=n) for n in (False, True)]


def _curve_key(curves: list[Curve], main: str) -> list[dict[str, Any]]:
    if not curves:
        return []
    first = _main_curve(curves, main)
    return [
        {
            "name": c.name,
            "main": c.name == first,
            "dash": line_style(number, c.name == first),
            "first": c.losses[0],
            "last": c.losses[-1],
            "steps": int(c.steps[-1]),
        }
        for number, c in enumerate(curves)
    ]


@dataclass(frozen=True)
class _Stage:
    label: str
    rows: int
    share: float


def _funnels(run: RunView) -> list[dict[str, Any]]:
    """Per step, what was read, rejected and kept, with the reasons."""
    largest = max((rows for s in run.steps for _, rows in s.manifest.funnel), default=0)
    shown = []
    for step in run.steps:
        stages, reasons = step.manifest.funnel, rejections(step)
        if stages or reasons:
            bars = [_Stage(label, n, n / largest if largest else 0) for label, n in stages]
            shown.append({"step": step, "stages": bars, "reasons": reasons})
    return shown


def _not_measured(run: RunView) -> list[tuple[str, str]]:
    """``(sentence, steps that say it)``."""
    said: dict[str, list[str]] = {}
    for step in run.steps:
        for sentence in step.manifest.not_measured:
            said.setdefault(sentence, []).append(step.id)
    return [(sentence, ", ".join(steps)) for sentence, steps in said.items()]


def _versions(run: RunView) -> list[tuple[str, str]]:
    versions = dict(run.record.get("versions") or {})
    for step in run.steps:
        for package, version in step.manifest.versions.items():
            versions.setdefault(package, version)
    return sorted((str(k), str(v)) for k, v in versions.items())


def _local(text: str, folder: Path) -> str:
    """Paths without the folders they lie in: a page that is shown around tells no disk's layout."""
    for root in (str(folder.resolve()), str(folder)):
        text = text.replace(root.rstrip("/") + "/", "")
    return re.sub(r"(?<![\w.:/~-])/(?:[^\s,/]+/)+", "…/", text)


def printable(page: str) -> str:
    """Control characters and lone surrogates from data are shown as such, not passed on."""
    page = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\N{REPLACEMENT CHARACTER}", page)
    return page.encode("utf-8", "replace").decode("utf-8")
