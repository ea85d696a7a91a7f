"""Running recipes: resume, kill -9 at any moment, isolation of seeds, honest state on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import plug_in
import pytest

from tilth import registry
from tilth.artefacts import Artefact, digest_of
from tilth.errors import ArtefactError, DataError, SeedError
from tilth.recipe import Recipe
from tilth.run import Progress, RunResult, plan, run
from tilth.seeds import SeedPlan

RECIPE = """\
name: garden
seeds: {root: 7, tuning: [1], testing: [11, 12]}
steps:
  - {id: write, do: generate.sow, with: {count: 6}}
  - {id: keep, do: select.sieve, with: {data: "${steps.write}"}}
  - {id: base, do: evaluate.weigh, with: {data: "${steps.write}"}}
  - {id: exam, do: evaluate.weigh, with: {data: "${steps.keep}"}}
  - id: verdict
    do: evaluate.balance
    with: {baseline: "${steps.base}", arms: {kept: "${steps.exam}"}}
"""


@pytest.fixture(autouse=True)
def garden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(plug_in.install(tmp_path / "site")))
    monkeypatch.chdir(tmp_path)
    registry._all.cache_clear()
    (tmp_path / "garden.yaml").write_text(RECIPE)
    yield tmp_path
    registry._all.cache_clear()


def go(*overrides: str, folder: str | None = None, **more: object) -> RunResult:
    recipe = Recipe.read("garden.yaml", overrides)
    return run(recipe, folder, say=lambda line: None, **more)  # type: ignore[arg-type]


def state(folder: str = "runs/garden") -> dict:
    return json.loads((Path(folder) / "run.json").read_text())


def cached(folder: str = "runs/garden") -> list[bool]:
    return [step["cached"] for step in state(folder)["steps"]]


def contents(result: RunResult) -> dict[str, str]:
    return {name: artefact.digest for name, artefact in result.artefacts.items()}


def test_a_run_leaves_everything_that_a_reader_needs() -> None:
    told: list[Progress] = []
    result = go(watch=told.append)
    assert result.folder == Path("runs/garden")
    record = state()
    assert record["status"] == "finished"
    assert [s["id"] for s in record["steps"]] == ["write", "keep", "base", "exam", "verdict"]
    assert {s["status"] for s in record["steps"]} == {"finished"}
    assert record["seeds"] == {"root": 7, "tuning": [1], "testing": [11, 12]}
    assert record["versions"]["tilth"]
    for step in record["steps"]:
        artefact = Artefact.open(result.folder / step["artefact"])
        assert artefact.manifest.step == step["id"]
    lines = (result.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [s["id"] for s in record["steps"]]
    assert [(p.index, p.record.id) for p in told[::2]] == [
        (n, s["id"]) for n, s in enumerate(record["steps"], start=1)
    ]
    again = Recipe.read(result.folder / "recipe.yaml")
    assert again.steps == Recipe.read("garden.yaml").steps


def test_lineage_names_every_input_with_its_digest() -> None:
    artefacts = go().artefacts
    inputs = artefacts["verdict"].manifest.inputs
    assert inputs.keys() == {"baseline", "arms.kept"}
    assert inputs["arms.kept"]["digest"] == artefacts["exam"].digest
    assert Path(inputs["arms.kept"]["ref"]) == artefacts["exam"].folder.absolute()


def test_a_finished_run_computes_nothing_again() -> None:
    first = contents(go())
    assert contents(go()) == first
    assert cached() == [True] * 5
    lines = (Path("runs/garden") / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 5


def test_only_what_depends_on_a_change_is_computed_again() -> None:
    go()
    go("keep.every=3")
    assert cached() == [True, False, True, False, False]
    go("seeds.testing=[11, 13]")  # concerns judges alone
    assert cached() == [True, True, False, False, False]
    go("seeds.tuning=[2]")  # any step may have chosen with them
    assert not any(cached())


def test_a_step_that_makes_the_same_bytes_stops_the_change() -> None:
    go()
    # Every second of six rows, or of five: the kept rows are the same three.
    go("write.count=5")
    assert cached() == [False, False, False, True, False]


def test_the_same_recipe_elsewhere_gives_the_same_bytes(garden: Path) -> None:
    first = contents(go())
    (garden / "far" / "away").mkdir(parents=True)
    assert contents(go(folder="far/away/run")) == first
    keys = [p.name for p in sorted((garden / "far/away/run/artefacts").iterdir())]
    assert keys == [p.name for p in sorted((garden / "runs/garden/artefacts").iterdir())]
    assert contents(go("seeds.root=8", folder="other")) != first


def test_a_failing_step_keeps_what_was_finished() -> None:
    Path("garden.yaml").write_text(
        RECIPE.replace('{data: "${steps.write}"}}', "{data: none.jsonl}}", 1)
    )
    Path("none.jsonl").write_text("")
    with pytest.raises(DataError) as caught:
        go()
    assert "there are no rows" in caught.value.problem
    assert caught.value.where.startswith("step 'keep' (select.sieve)")
    record = state()
    assert record["status"] == "failed"
    assert [s["status"] for s in record["steps"]] == ["finished", "failed"] + ["waiting"] * 3
    assert "there are no rows" in record["steps"][1]["error"]


def test_ctrl_c_is_noted_and_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: object, work: object) -> None:
        raise KeyboardInterrupt

    whole = contents(go(folder="whole"))
    with monkeypatch.context() as patch:
        patch.setattr(plug_in.Sieve, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            go()
    record = state()
    assert record["status"] == "interrupted"
    assert [s["status"] for s in record["steps"][:3]] == ["finished", "interrupted", "waiting"]
    assert contents(go()) == whole
    assert cached() == [True, False, False, False, False]


def test_a_step_that_does_not_judge_cannot_see_the_test_seeds() -> None:
    with pytest.raises(SeedError, match="only a final evaluation"):
        go("write.peek=true")
    manifest = go().artefacts["write"].manifest
    assert manifest.seeds["testing"] == []
    assert go().artefacts["exam"].manifest.seeds["testing"] == [11, 12]


def test_a_damaged_artefact_is_named_and_computed_again() -> None:
    result = go()
    before = contents(result)
    rows = result.artefacts["keep"].path("rows.jsonl")
    rows.chmod(0o644)
    rows.write_text("{}\n")
    said: list[str] = []
    again = run(Recipe.read("garden.yaml"), say=said.append)
    assert contents(again) == before
    assert any("rows.jsonl" in line and "set-aside" in line for line in said)
    assert cached() == [True, False, True, True, True]


def kill_at(point: str) -> int:
    """Runs the recipe in a process of its own that kills itself (-9) at `point`."""
    done = subprocess.run(
        [sys.executable, "-m", "tilth", "run", "garden.yaml", "--no-report"],
        env={**os.environ, "TILTH_TEST_KILL": point, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    return done.returncode


def test_kill_9_at_any_moment_ends_with_the_same_bytes() -> None:
    whole = contents(go(folder="whole"))
    for point in ("sow:0", "sow:2", "sow:5", "sow:written", "sieve"):
        assert kill_at(point) == -signal.SIGKILL, point
        assert state()["status"] == "running"
    scratch = list(Path("runs/garden/artefacts").glob("write-*.scratch"))
    assert not scratch, "scratch outlived its artefact"
    assert kill_at("nowhere") == 0
    assert contents(go()) == whole
    assert cached() == [True] * 5
    assert Artefact.open(next(Path("runs/garden/artefacts").glob("write-*"))).manifest.attempts == 5


def test_half_a_line_of_metrics_is_mended() -> None:
    go()
    path = Path("runs/garden/metrics.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    go()
    assert len(path.read_text().splitlines()) == 5


# --- the plan -------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_tells_keys_as_far_as_known() -> None:
    planned = plan(Recipe.read("garden.yaml"))
    assert not Path("runs").exists()
    assert [p.id for p in planned] == ["write", "keep", "base", "exam", "verdict"]
    assert planned[0].key
    assert planned[0].estimate == {"tokens_generated": 6.0}
    assert [p.waits_for for p in planned[1:]] == [
        ("write",),
        ("write",),
        ("keep",),
        ("base", "exam"),
    ]
    assert not any(p.key or p.finished for p in planned[1:])
    result = go()
    planned = plan(Recipe.read("garden.yaml"))
    assert all(p.finished for p in planned)
    assert [p.key for p in planned] == [a.manifest.key for a in result.artefacts.values()]
    changed = plan(Recipe.read("garden.yaml", ["keep.every=3"]))
    assert [p.finished for p in changed] == [True, False, True, False, False]
    assert changed[1].key
    assert not changed[3].key


# --- one method from Python -----------------------------------------------------------------


def test_a_method_runs_in_one_call_and_once(garden: Path) -> None:
    sown = plug_in.Sow(count=3).to("sown", seed=5, say=lambda line: None)
    assert sown.folder == garden / "sown"
    assert not sown.cached
    assert plug_in.Sow(count=3).to("sown", seed=5, say=lambda line: None).cached
    kept = plug_in.Sieve(data="sown").to("kept", say=lambda line: None)
    assert kept.manifest.inputs["data"] == {"ref": "sown", "digest": digest_of("sown")}
    plan = SeedPlan.of(3, tuning=[1], testing=[7])
    weighed = plug_in.Weigh(data="kept").to("weighed", plan=plan, say=lambda line: None)
    assert weighed.manifest.seeds["testing"] == [7]


def test_a_folder_of_something_else_is_never_touched(garden: Path) -> None:
    plug_in.Sow(count=3).to("sown", say=lambda line: None)
    before = digest_of("sown")
    with pytest.raises(ArtefactError, match="holds something else"):
        plug_in.Sow(count=4).to("sown")
    (garden / "mine").mkdir()
    (garden / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtefactError, match="holds something else"):
        plug_in.Sow(count=4).to("mine")
    assert (garden / "mine" / "thesis.txt").read_text() == "years of work"
    assert digest_of("sown") == before


def test_an_unknown_setting_is_refused_from_python_too() -> None:
    with pytest.raises(ValueError, match="did you mean 'every'"):
        plug_in.Sieve(data="x", evry=3)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_told(garden: Path) -> None:
    (garden / "locked").mkdir(mode=0o555)
    with pytest.raises(ArtefactError, match="cannot be made"):
        go(folder="locked/run")


def test_a_run_folder_that_cannot_be_made_is_told(garden: Path) -> None:
    (garden / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot be made"):
        go(folder="file/run")
