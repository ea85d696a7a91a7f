"""The page of a paper and its figures, from a result alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tilth.errors import DataError, RecipeError
from tilth.replicate import Curve, Frontier, load, names, papers
from tilth.replicate.pages.drawing import draw, undrawn
from tilth.replicate.pages.tables import estimate_text, scored
from tilth.stats import Estimate

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "results").glob("*.json"))


def estimate(value: float, half: float = 0.05) -> dict[str, Any]:
    return Estimate(value, value - half, value + half, 0.95, 3, 60, "bootstrap").as_dict()


def arm(name: str, role: str = "method", **scores: float) -> dict[str, Any]:
    found = {metric: estimate(value) for metric, value in scores.items()}
    return {"name": name, "what": f"What {name} is.", "role": role, "settings": {}, "scores": found}


ARMS = [
    arm("manure", yield_=0.8, cost=0.5),
    arm("lime", "baseline", yield_=0.6, cost=0.1),
    arm("sand", "control", yield_=0.2, cost=0.12),
    arm("dose-0", share=0.1),
    arm("dose-0.5", share=0.4),
    arm("dose-2", share=0.7),
    arm("manure.wet", yield_=0.9),
    arm("manure.dry", yield_=0.31),
    arm("lime.wet", "baseline", yield_=0.7),
]
PLOTS = (
    Curve(
        name="dose",
        title="More helps more",
        lines={"dose & <depth>": ("dose-0", "dose-0.5", "dose-2")},
        x=(0, 0.5, 2),
        x_label="dose (kg)",
        y_label="share",
        metric="share",
    ),
    Frontier(
        name="worth",
        title="What it yields for what it costs",
        x_metric="cost",
        y_metric="yield_",
        x_label="cost (share)",
        y_label="yield (share)",
        path=("lime", "manure"),
        beside=("sand",),
        labels={"lime": "lime of the $hill$"},
    ),
)


def body(**more: Any) -> dict[str, Any]:
    claim = {
        "statement": "manure | helps",
        "direction": "|manure - lime| < 0.1",
        "metric": "yield_",
        "published": "+0.3",
        "source": "Table 2",
        "verdict": "reproduced",
        "estimate": estimate(0.2),
        "why": "the interval lies above 0",
        "differences": [],
    }
    settings = [{"depth": 1, "kind": "horse"}, {"depth": 2, "kind": "cow"}, {"depth": 3}]
    means = [0.25, 0.625, None]
    tried = [{"settings": s, "mean": m} for s, m in zip(settings, means, strict=True)]
    choice = {"arm": "manure", "metric": "yield_", "candidates": tried, "chosen": 1}
    return {
        "schema": 1,
        "system": "field",
        "title": "What a field needs",
        "source": "Nobody 2026",
        "method": "select.length",
        "recipe": "recipes/field.yaml",
        "quick": False,
        "claims": [claim],
        "arms": ARMS,
        "choices": [choice],
        "seeds": {"root": 0, "tuning": [1, 2], "testing": [11, 12, 13]},
        "level": 0.95,
        "cost": {"seconds": 75.0, "cpu_seconds": 62.0, "tokens_read": 41_200, "flops": 3.07e12},
        "cells": 8,
        "failed": [{"arm": "lime", "seed": 11, "error": "flooded"}],
        "machine": {"processors": 2, "workers": 3, "threads_per_worker": 1},
        "versions": {"tilth": "0.1.0", "torch": "2.13.0"},
        "not_measured": ["Other fields."],
        "module": "farm.field",
        "metrics": {"share": "Share of what grows."},
        "plots": [plot.as_dict() for plot in PLOTS],
        "started": "2026-11-22T16:37:07.716+00:00",
        "finished": "2026-11-22T16:45:18.128+00:00",
        **more,
    }


def written(tmp_path: Path, content: dict[str, Any]) -> Path:
    """The page of a result, with its index and figures beside it."""
    results = tmp_path / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "field.json").write_text(json.dumps(content))
    index = papers(results, tmp_path / "docs" / "papers.md")
    assert "[field](papers/field.md)" in index.read_text()
    return tmp_path / "docs" / "papers" / "field.md"


def test_every_arm_and_every_metric_stands_on_the_page(tmp_path: Path) -> None:
    page = written(tmp_path, body()).read_text()
    for one in ARMS:
        whole, _, part = one["name"].partition(".")
        name = one["name"] if whole == "dose-0" else whole
        assert f"| `{name}` |" in page
        assert part in page
        for metric, found in one["scores"].items():
            assert f"`{metric}`" in page
            assert estimate_text(found) in page
    assert "- `.wet`: What manure.wet is." in page
    assert "- `share`: Share of what grows." in page


def test_what_was_chosen_what_it_cost_and_what_failed_are_told(tmp_path: Path) -> None:
    page = written(tmp_path, body()).read_text()
    assert "| `depth: 1, kind: horse` | 0.250 |  |" in page
    assert "| `depth: 2, kind: cow` | **0.625** | **chosen** |" in page
    assert "| `depth: 3` | failed |  |" in page
    assert r"`\|manure - lime\| < 0.1` by `yield_`" in page
    for line in (
        "Of 1 claims: 1 reproduced.",
        "tilth replicate field --quick",
        "Tuning seeds, which may choose: 1, 2",
        "Test seeds, which judge once: 11, 12, 13",
        "| CPU time | 1\u202fmin 02\u202fs |",
        "| tokens read | 41.2\u202fk |",
        "| FLOPs | 3.07\u202fT |",
        "| worker processes | 3 |",
        "torch 2.13.0",
        "From 2026-11-22 16:37 UTC to 2026-11-22 16:45 UTC",
        "| `lime` | 11 | flooded |",
        "- Other fields.",
        "docstring of `farm.field`",
    ):
        assert line in page


def test_links_lead_somewhere_and_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    pages = [written(tmp_path / place, body()) for place in ("one", "two")]
    links = re.findall(r"\]\(([^)\s]+)\)", pages[0].read_text())
    assert len(links) == 4  # result, index, two figures
    assert all((pages[0].parent / link).is_file() for link in links)
    trees = [
        {
            path.relative_to(page.parents[1]): path.read_bytes()
            for path in page.parents[1].rglob("*")
            if path.is_file()
        }
        for page in pages
    ]
    assert trees[0] == trees[1]
    assert len(trees[0]) == 4


def test_the_index_needs_an_ending_since_its_folder_has_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"papers\.md"):
        papers(tmp_path, tmp_path / "papers")
    assert not list(tmp_path.iterdir())


def test_a_result_of_before_has_its_page_too(tmp_path: Path) -> None:
    old = body(seeds={"tuning": [], "testing": [7]}, cost={"seconds": 12.0}, source="", recipe="")
    for late in ("plots", "metrics", "module", "machine", "versions", "started", "choices"):
        del old[late]
    old["arms"] = [{k: v for k, v in one.items() if k != "what"} for one in ARMS]
    page = written(tmp_path, old).read_text()
    assert "## Figures" not in page
    assert "No arm had candidates" in page
    assert "Tuning seeds, which may choose: none" in page
    assert not (tmp_path / "docs" / "images").exists()


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: str(plot.name))
def test_a_figure_is_whole_xml_with_every_label_and_both_schemes(plot: Curve | Frontier) -> None:
    svg = draw(plot.as_dict(), ARMS, "Means & intervals")
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    said = [" ".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("}text")]
    labels = plot.lines if isinstance(plot, Curve) else ("lime of the $hill$", "manure", "sand")
    for text in (*labels, plot.title, plot.x_label, plot.y_label, "Means & intervals"):
        assert text in said
    assert "prefers-color-scheme: dark" in svg
    assert "<metadata" not in svg
    colors = set(re.findall(r"(?:fill|stroke): #[0-9a-f]{6}(?=[;\"])", svg))
    assert all(f'[style*="{color}"]' in svg for color in colors), "a colour has no dark form"


def test_arms_without_a_score_are_named_and_not_drawn(tmp_path: Path) -> None:
    arms = [{**one, "scores": {}} if one["name"] in ("dose-0.5", "sand") else one for one in ARMS]
    assert undrawn(PLOTS[0].as_dict(), arms) == ["dose-0.5"]
    assert "sand" not in draw(PLOTS[1].as_dict(), arms, "")
    page = written(tmp_path, body(arms=arms)).read_text()
    assert "Not drawn, for want of a score: `dose-0.5`." in page
    assert "Without any score: `sand`, `dose-0.5`." in page


def test_figures_of_nothing_and_of_one_place_are_drawn() -> None:
    nothing = [{**one, "scores": {}} for one in ARMS]
    same = [arm(one["name"], one["role"], yield_=0.5, cost=0.5, share=3.0) for one in ARMS]
    for plot in PLOTS:
        assert ElementTree.fromstring(draw(plot.as_dict(), nothing, "")) is not None
    said = "".join(ElementTree.fromstring(draw(PLOTS[1].as_dict(), same, "")).itertext())
    assert "lime of the $hill$, manure, sand" in said  # points in one place share a label


def test_wide_tables_are_cut_by_family() -> None:
    exams = {f"{metric}_{exam}": 0.5 for exam in ("in", "out") for metric in "abcd"}
    tables = scored([arm("one", top=0.5, **exams), arm("two", top=0.5), arm("far", other=0.5)])
    heads = [table.splitlines()[0] for table in tables]
    assert heads == [
        "| arm | `top` |",
        "| arm | `a_in` | `b_in` | `c_in` | `d_in` |",
        "| arm | `a_out` | `b_out` | `c_out` | `d_out` |",
        "| arm | `other` |",
    ]
    assert ["two" in table for table in tables] == [True, False, False, False]


def test_large_numbers_are_shortened() -> None:
    assert estimate_text(estimate(36_168.2, 1800)) == "36.2\u202fk [34.4\u202fk,\u00a038.0\u202fk]"
    assert estimate_text(estimate(-1500.0, 20), sign=True).startswith("\N{MINUS SIGN}1.50\u202fk")
    assert estimate_text(estimate(0.5), sign=True) == "+0.50 [0.45,\u00a00.55]"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: replace(PLOTS[0], x=(1, 2)),
        lambda: replace(PLOTS[0], scale="log"),
        lambda: replace(PLOTS[0], lines={}),
        lambda: replace(PLOTS[1], labels={"clay": "clay"}),
        lambda: replace(PLOTS[1], path=(), beside=(), labels={}),
        lambda: replace(load("quickstart"), plots=PLOTS[1:]),
        lambda: replace(load("eft"), plots=load("eft").plots * 2),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused(wrong: Any) -> None:
    with pytest.raises(RecipeError):
        wrong()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.stem))
def test_a_committed_result_declares_what_its_replication_does(path: Path) -> None:
    found = json.loads(path.read_text("utf-8"))
    assert found["system"] in names()
    declared = load(found["system"])
    again = f"run `tilth replicate {found['system']}` again: finished cells are kept"
    assert found["plots"] == [plot.as_dict() for plot in declared.plots], again
    assert found["metrics"] == dict(declared.metrics), again
    drawn = [arm for plot in found["plots"] for arm in undrawn(plot, found["arms"])]
    assert not drawn


def test_the_committed_pages_are_those_of_the_committed_results(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(ROOT / "results")  # so that links come out alike
    index = papers(tmp_path / "results", tmp_path / "docs" / "papers.md")
    fresh = sorted(index.parent.rglob("*.*"))
    committed = [ROOT / "docs" / path.relative_to(index.parent) for path in fresh]
    for ours, theirs in zip(fresh, committed, strict=True):
        if ours.suffix == ".md":  # the bytes of figures are those of one version of matplotlib
            assert ours.read_text() == theirs.read_text(), "run `make papers`"
        else:
            assert theirs.is_file(), "run `make papers`"
    kept = [*(ROOT / "docs" / "papers").iterdir(), *(ROOT / "docs/images/papers").iterdir()]
    assert set(kept) == set(committed) - {ROOT / "docs" / "papers.md"}, "a page of no result"
