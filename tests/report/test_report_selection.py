"""The page of a selection: what it says, that it stands alone, and that hostile text is inert."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_fixture import EVIL, RunBuilder, example_rows

import tilth.report
from tilth.data import write_rows
from tilth.data.example import Example
from tilth.errors import ArtefactError
from tilth.method import Outcome
from tilth.report.selection import write
from tilth.select import Length


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def summary(text: str = "How tall is rye?") -> dict[str, Any]:
    """What a selection by queries with a diversity filter writes."""
    turns = {"turns": [["user", text], ["assistant", "Taller than oats."]]}
    line = {"id": "0f", "source": "flan", "score": 0.91, **turns}
    return {
        "rows": 2000,
        "chosen": 300,
        "why": {"rank": 1444, "chosen": 300, "similar": 237, "cap": 10, "held_out": 9},
        "sources": {"flan": [1200, 100], "sharegpt": [800, 200]},
        "queries": [{"name": f"gsm8k/{n}", "rows": 10 * n, "text": text} for n in range(30)],
        "shown": [
            {**line, "row": 4, "kept": True, "rank": 1, "why": "chosen", "reason": "pulled first",
             "query": "gsm8k/2", "round": 1},
            {**line, "row": 7, "kept": False, "rank": None, "why": "similar",
             "reason": "too like row 4", "similar_to": 4, "similarity": 0.95, "like": turns},
            {**line, "row": 9, "kept": False, "rank": None, "why": "held_out",
             "reason": "repeats held-out item 3"},
        ],
        "score": {"name": "similarity", "edges": [-0.1, 0.2, 0.5, 1.0], "pool": [5, 9, 2],
                  "chosen": [0, 1, 4]},
        "map": {"x": [0.1, -0.2, 0.3], "y": [0.0, 0.1, -0.3], "row": [4, 7, 9],
                "chosen": [1, 0, 0], "explained": [0.3, 0.2]},
        "nearest": {"edges": [0.0, 0.5, 1.0], "among": 300, "chosen": [3, 4], "left": [9, 1],
                    "median": {"chosen": 0.84, "left": 0.4}},
    }  # fmt: skip


def selection(folder: Path, text: str = "How tall is rye?", **settings: Any) -> Path:
    run = RunBuilder(folder)
    outcome = Outcome(
        {"rows_asked": 400, "rows_out": 300, "rows_repeating_queries": 2},
        [("kept", 300)],
        ["Whether the chosen rows make a better model."],
    )
    files = {"rows.jsonl": example_rows(3, "select"), "summary.json": summary(text)}
    given = {"pool": "/home/ann/pool.jsonl", "held_out": "/home/ann/test.jsonl", **settings}
    run.step("keep", "select.rds_plus", "rows", files, outcome, given, flops=3e12)
    return run.finish()


def artefact_of(run: Path) -> Path:
    return next((run / "artefacts").glob("keep-*"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("selection")
    made = write(artefact_of(selection(folder / "run")), folder / "chosen.html")
    return made.read_text(encoding="utf-8")


def test_it_says_what_was_chosen_and_why_the_rest_was_not(page: str) -> None:
    words = Page(page).words()
    for part in (
        "300 of 2,000 rows, chosen by select.rds_plus",
        "others were preferred",
        "too similar to a chosen row",
        "its source was full",
        "repeats a held-out item",
        "400 rows were asked for; 300 could be chosen",
        "9 rows of the pool repeated an item of test.jsonl",
        "2 rows of the pool repeat a query",
        "pulled first",
        "query gsm8k/2",
        "round 1",
        "similarity 0.95",
        "the chosen row that it is like",
        "66.7%",
        "The first 25 of 30",
        "gsm8k/29",
        "50% of their variance",
        "Whether the chosen rows make a better model.",
    ):
        assert part in words, part


def test_it_stands_alone_and_only_its_own_script_runs(page: str) -> None:
    assert not re.search(r"""\b(src|href)\s*=\s*["'](?!#)""", page)
    assert "url(" not in page
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "/home/ann" not in page


def test_it_is_accessible(page: str) -> None:
    found = Page(page)
    assert found.of("html") == [{"lang": "en"}]
    assert len(found.of("h1")) == 1
    assert len(found.of("table")) == len(found.of("caption"))
    assert all(th.get("scope") for th in found.of("th"))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in found.of("svg"))
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"]).lstrip("#") for a in found.of("a")}
    assert targets <= set(ids)
    assert len(found.of("label")) == len(found.of("input")) + len(found.of("select"))
    assert page.count('class="for-phone"') == 3
    assert "prefers-color-scheme: dark" in page


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    run = selection(tmp_path / "run", text=EVIL, source=EVIL)
    page = write(artefact_of(run), tmp_path / "page.html").read_text(encoding="utf-8")
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert len(Page(page).of("script")) == 1


def test_what_a_selection_does_not_have_is_left_out(tmp_path: Path) -> None:
    rows = (Example.pair(f"q{i}", "word " * (i + 1)) for i in range(9))
    write_rows(tmp_path / "pool.jsonl", rows)
    made = Length(pool=str(tmp_path / "pool.jsonl"), count=3).to(tmp_path / "out")
    page = write(made.folder, tmp_path / "out.html").read_text(encoding="utf-8")
    words = Page(page).words()
    assert "3 of 9 rows, chosen by select.length" in words
    assert "no held-out file was given" in words
    assert not {"sources", "queries", "map", "nearest"} & {h.get("id") for h in Page(page).of("h2")}
    assert write(made.folder, tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_the_report_of_a_run_leads_to_it(tmp_path: Path) -> None:
    run = selection(tmp_path / "run")
    report = tilth.report.write(run).read_text(encoding="utf-8")
    assert 'href="selection-keep.html"' in report
    assert "chosen by select.rds_plus" in Page((run / "selection-keep.html").read_text()).words()


def test_another_artefact_is_an_error(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "run")
    run.step("write", "generate.x", "rows", {"rows.jsonl": [{"x": 1}]})
    folder = next((run.finish() / "artefacts").glob("write-*"))
    with pytest.raises(ArtefactError, match="no readable summary of a selection"):
        write(folder, tmp_path / "page.html")
    with pytest.raises(ArtefactError, match="no such artefact"):
        write(tmp_path / "nothing", tmp_path / "page.html")


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser (chromium)")
@pytest.mark.slow
def test_in_a_browser_the_rows_can_be_searched(tmp_path: Path, page: str) -> None:
    asked = page.replace("if (bar) show();", 'find.value = "first pulled"; show();')
    digest = base64.b64encode(
        hashlib.sha256(re.findall(r"<script>(.*?)</script>", asked, re.DOTALL)[0].encode()).digest()
    ).decode()
    file = tmp_path / "page.html"
    file.write_text(re.sub(r"sha256-[^']+", f"sha256-{digest}", asked, count=1))
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
         "--dump-dom", file.as_uri()],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "1 to 1 of 1 shown rows" in done.stdout
