"""The page of a whole run, of failed and partial ones, and of hostile data."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_fixture import EVIL, RunBuilder, example_rows, quickstart_run, score_rows

import tilth.report
from tilth.errors import ArtefactError
from tilth.method import Outcome

VOID = {"meta", "br", "img", "hr", "input", "link"}


class Page(HTMLParser):
    """The structure of a page; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["title"]):
            self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quickstart_run(tmp_path_factory.mktemp("run") / "quickstart").finish()


@pytest.fixture(scope="module")
def page(run_folder: Path) -> str:
    return tilth.report.write(run_folder).read_text(encoding="utf-8")


def test_the_page_opens_with_the_verdict(page: str) -> None:
    words = Page(page).words()
    verdict = re.search(r"tuned beats base by (\S+) \[(\S+), (\S+)\] on 5 test seeds\.", words)
    assert verdict
    assert 0 < float(verdict[2]) < float(verdict[1]) < float(verdict[3])
    assert words.index(verdict[0]) < words.index("Scores")
    assert "tuned is above base_plain as well" in words
    assert "tuned is above shuffled as well" in words


def test_it_holds_everything_that_was_promised(page: str) -> None:
    words = Page(page).words()
    for part in (
        "The same question, twice",
        "Where the rows went",
        "too like an earlier one",
        "teacher: seedling:teacher",
        "parents: 9f3a01c2, 77ab4410",
        "412 k",
        "Whether the written answers are true.",
        "Root seed 0",
        "101, 102, 103, 104, 105",
        "learning_rate",
        "0.002",
        "3.11.2",
        "mean rouge",
        "total",
    ):
        assert part in words


def test_it_needs_nothing_but_itself(page: str) -> None:
    assert not re.search(r"""\b(src|href)\s*=\s*["'](?!#)""", page)
    assert "url(http" not in page
    assert "@import" not in page
    assert "@font-face" not in page
    assert not Page(page).of("script")
    assert "default-src 'none'" in page


def test_no_path_of_this_machine_is_told(page: str, run_folder: Path) -> None:
    assert str(run_folder.parent) not in page


def test_paths_in_settings_lose_their_folders(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "paths")
    settings = {"data": "/home/ann/secret/rows.jsonl", "url": "openai:m@http://host:80/v1/x"}
    rows = {"rows.jsonl": example_rows(1, "select.random")}
    run.step("keep", "select.random", "rows", rows, settings=settings)
    words = Page(tilth.report.write(run.finish()).read_text(encoding="utf-8")).words()
    assert "…/rows.jsonl" in words
    assert "secret" not in words
    assert "openai:m@http://host:80/v1/x" in words


def test_it_is_accessible(page: str) -> None:
    found = Page(page)
    assert found.of("html") == [{"lang": "en"}]
    assert len(found.of("h1")) == 1
    assert len(found.of("h2")) >= 6
    assert len(found.of("table")) == len(found.of("caption"))
    for svg in found.of("svg"):
        assert svg.get("role") == "img" or svg.get("aria-hidden") == "true"
    pictures = [s["aria-label"] for s in found.of("svg") if s.get("role") == "img"]
    assert any("tuned 0." in (p or "") for p in pictures)
    assert any("Training loss" in (p or "") for p in pictures)
    assert all(th.get("scope") for th in found.of("th"))
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"]).lstrip("#") for a in found.of("a")}
    assert targets <= set(ids)


def test_it_reads_on_a_phone_and_in_the_dark(page: str) -> None:
    assert "width=device-width" in page
    assert "prefers-color-scheme: dark" in page
    assert page.count('class="for-phone"') == 2
    assert "var(--accent)" in page
    assert not re.search(r"#0[1-5]0[2-6]0[3-7]", page)  # no stand-in colour is left


def test_the_same_run_gives_the_same_bytes(run_folder: Path, page: str) -> None:
    assert tilth.report.write(run_folder).read_text(encoding="utf-8") == page


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    run = quickstart_run(tmp_path / "evil", evil=True)
    rows = [
        {**r, "skill": EVIL, "output": EVIL, "prompt": "\x00\x1b[31m$x_$"}
        for r in score_rows("tuned", 0.5)
    ]
    run.step("odd", EVIL, "scores", {"scores.jsonl": rows})
    run.steps[-1]["id"] = EVIL
    folder = run.finish(name=EVIL)
    page = tilth.report.write(folder).read_text(encoding="utf-8")
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert not Page(page).of("script")
    assert "\x00" not in page
    assert "\x1b" not in page


def test_hostile_names_are_inert_in_plots(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "plots")
    rows = score_rows("tuned", 0.5)
    for n, row in enumerate(rows):
        row["skill"] = EVIL if n % 2 else '$\\frac{"x"}$'
    run.step("exam", "evaluate.exams", "scores", {"scores.jsonl": rows})
    page = tilth.report.write(run.finish()).read_text(encoding="utf-8")
    assert EVIL not in page
    assert not Page(page).of("script")
    assert "frac" in page


def test_an_interval_that_includes_zero_is_said_so(tmp_path: Path) -> None:
    folder = quickstart_run(tmp_path / "open", tuned=0.12).finish()
    words = Page(tilth.report.write(folder).read_text(encoding="utf-8")).words()
    assert "No difference shown: tuned minus base is" in words
    assert "the interval includes 0" in words
    assert "beats" not in words


def test_a_loss_is_called_a_loss(tmp_path: Path) -> None:
    folder = quickstart_run(tmp_path / "worse", tuned=-0.3).finish()
    words = Page(tilth.report.write(folder).read_text(encoding="utf-8")).words()
    assert "tuned is worse than base" in words


def test_a_failed_run_names_its_step(tmp_path: Path) -> None:
    run = quickstart_run(tmp_path / "failed", upto="tuned")
    run.steps += [
        {
            "id": "tuned",
            "do": "tune.sft",
            "artefact": "",
            "status": "failed",
            "error": "the loss became NaN at step 12",
        },
        {"id": "exam", "do": "evaluate.exams", "artefact": "", "status": "waiting"},
    ]
    words = Page(tilth.report.write(run.finish("failed")).read_text(encoding="utf-8")).words()
    assert "The step tuned (tune.sft) failed, so there is no verdict." in words
    assert "the loss became NaN at step 12" in words
    assert "Where the rows went" in words
    assert "exam evaluate.exams · waiting" in words


def test_a_run_killed_at_once_still_has_a_page(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "killed")
    run.steps.append({"id": "write", "do": "generate.x", "artefact": "", "status": "running"})
    words = Page(tilth.report.write(run.finish("running")).read_text(encoding="utf-8")).words()
    assert "has not finished" in words


def test_a_damaged_artefact_is_named(tmp_path: Path) -> None:
    run = quickstart_run(tmp_path / "damaged", upto="tuned")
    folder = run.finish()
    manifest = folder / run.steps[0]["artefact"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.2134567", "0.9"))
    words = Page(tilth.report.write(folder).read_text(encoding="utf-8")).words()
    assert "The step write (generate.self_instruct) cannot be read" in words


def test_a_recipe_without_comparison_shows_its_scores(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "exam-only", "exam-only")
    rows = score_rows("base", 0.4)
    run.step("exam", "evaluate.exams", "scores", {"scores.jsonl": rows})
    words = Page(tilth.report.write(run.finish()).read_text(encoding="utf-8")).words()
    assert "compares nothing" in words
    assert "600 items of 5 test seeds" in words
    assert "word problems" in words


def test_refusals_have_their_curve_and_table(tmp_path: Path) -> None:
    def share(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    run = RunBuilder(tmp_path / "refusals", "refusals")
    for name, coverage, threshold in (("wise", 0.5, 0.625), ("mute", 0.0, None)):
        metrics = {
            "coverage": share(coverage),
            "willing_accuracy": share(0.75),
            "over_refusal": share(0.125),
            "refuse_by": "p_sure" if threshold else "words",
            "threshold": threshold,
        }
        curve = [
            {"threshold": 1 - n / 999, "coverage": n / 999, "risk": 0.3} for n in range(1, 999)
        ]
        files = {"scores.jsonl": score_rows(name, 0.4), "curve.jsonl": curve}
        run.step(name, "evaluate.refusal", "scores", files, Outcome(metrics=metrics))
    text = tilth.report.write(run.finish()).read_text(encoding="utf-8")
    words = Page(text).words()
    assert "answers by p_sure from 0.625 words" in words
    assert "right, of what is answered 0.75 [0.65, 0.85]" in words
    assert "refused of their answerable twins 0.12 [0.02, 0.23]" in words
    assert "average precision" not in words, "a row that no step has is left out"
    assert "wise answers 0.50 of the questions, 0.25 of them wrongly; mute answers nothing" in text


def test_a_recipe_of_rows_only(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "rows-only")
    rows = example_rows(2, "select.random")
    run.step("keep", "select.random", "rows", {"rows.jsonl": rows}, Outcome())
    found = Page(tilth.report.write(run.finish()).read_text(encoding="utf-8"))
    assert "A sack holds 3 kg" in found.words()
    assert not found.of("figure")


def test_a_row_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "cut")
    folder = Path(
        run.step(
            "tuned",
            "tune.sft",
            "model",
            {"metrics.jsonl": [{"step": 1, "loss": 2.0}], "model/x.json": {}},
        )
    )
    path = folder / "metrics.jsonl"
    path.chmod(0o644)
    path.write_text(path.read_text() + '{"step": 2, "lo')
    assert "2 to 2 in 1 steps" in Page(tilth.report.write(run.finish()).read_text()).words()


def test_a_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"no run\.json"):
        tilth.report.write(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ArtefactError, match="cannot be read"):
        tilth.report.write(tmp_path)


def test_the_import_is_light() -> None:
    heavy = ["torch", "transformers", "datasets", "peft", "scipy", "sklearn", "matplotlib"]
    code = (
        "import sys, json, tilth.report, tilth.replicate; "
        f"print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert json.loads(done.stdout) == []


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser (chromium)")
@pytest.mark.slow
def test_a_browser_shows_it(run_folder: Path, page: str, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={shot}",
            "--window-size=420,3000",
            (run_folder / "report.html").resolve().as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert shot.stat().st_size > 20_000
