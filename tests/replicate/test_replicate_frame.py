"""The frame with real worker processes: resuming, killed and failing cells, choices, results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from farm_experiment import FARM, PLAN, claim, harvest

from tilth.errors import RecipeError
from tilth.replicate import Arm, Greater, Replication, Result, load, names, replicate
from tilth.seeds import SeedPlan

TWO = (Arm("manure"), Arm("none", role="control"))
SMALL = replace(
    FARM,
    arms=TWO,
    claims=(claim(Greater("manure", "none")),),
    plan=SeedPlan.of(tuning=[1, 2], testing=[11, 12]),
)


class Farm:
    """A replication in a folder of its own."""

    def __init__(self, folder: Path, replication: Replication = SMALL) -> None:
        self.folder, self.replication = folder, replication
        self.home = folder / "runs" / "replicate" / "farm"
        self.said: list[str] = []

    def run(self, **options: Any) -> Result:
        self.said.clear()
        return replicate(
            self.replication,
            results=self.folder / "results",
            runs=self.folder / "runs",
            say=self.said.append,
            **options,
        )

    def trouble(self, cell: str, what: str) -> Path:
        path = self.home / "trouble" / cell
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(what)
        return path

    def calls(self) -> list[str]:
        return (self.home / "shared" / "calls.txt").read_text().splitlines()

    def cell(self, name: str) -> Path:
        (found,) = (self.home / "cells").glob(f"{name}-*")
        return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Farm, Result]:
    farm = Farm(tmp_path_factory.mktemp("farm"))
    return farm, farm.run()


def test_the_result_holds_verdict_seeds_versions_and_cost(finished: tuple[Farm, Result]) -> None:
    farm, result = finished
    body = json.loads((farm.folder / "results" / "farm.json").read_text())
    assert body == result.body
    assert result.complete
    assert result.verdicts == {"it holds": "reproduced"}
    (first,) = body["claims"]
    assert first["estimate"]["low"] > 0.2
    assert first["published"] == "+0.3"
    assert body["seeds"]["testing"] == [11, 12]
    assert body["quick"] is False
    assert body["cost"]["cpu_seconds"] > 0
    assert body["versions"]["numpy"]
    assert body["cells"] == 4
    assert {a["name"]: a["role"] for a in body["arms"]} == {"manure": "method", "none": "control"}


def test_cells_run_with_one_thread_and_their_own_log(finished: tuple[Farm, Result]) -> None:
    farm, result = finished
    assert result.body["arms"][0]["scores"]["threads"]["value"] == 1
    assert farm.cell("manure-testing-11").joinpath("log.txt").read_text() == "harvesting\n"
    assert os.environ.get("OMP_NUM_THREADS") == ENVIRONMENT


ENVIRONMENT = os.environ.get("OMP_NUM_THREADS")


def test_finished_cells_are_never_computed_twice(finished: tuple[Farm, Result]) -> None:
    farm, result = finished
    before = farm.calls()
    again = farm.run()
    assert farm.calls() == before
    assert again.body["claims"] == result.body["claims"]
    assert again.body["cost"] == result.body["cost"]
    assert farm.said == ["4 of 4 cells are there from an earlier run"]


def test_a_killed_worker_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    trouble = farm.trouble("manure-11", "killed")
    result = farm.run()
    assert not result.complete
    (failed,) = result.body["failed"]
    assert (failed["arm"], failed["seed"]) == ("manure", 11)
    assert "signal 9" in failed["error"]
    assert any("manure/11" in line and "FAILED" in line for line in farm.said)
    assert result.verdicts == {"it holds": "not shown"}
    assert "manure/11" in result.body["claims"][0]["why"]

    trouble.unlink()
    mended = farm.run()
    assert mended.complete
    assert mended.verdicts == {"it holds": "reproduced"}
    assert len(farm.calls()) == 5  # four cells, one of them twice


def test_a_failing_cell_keeps_its_reason(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    farm.trouble("none-12", "raises")
    result = farm.run()
    (failed,) = result.body["failed"]
    assert "the field is flooded" in failed["error"]
    assert "Traceback" in (farm.cell("none-testing-12") / "log.txt").read_text()


def test_a_damaged_cell_is_set_aside_and_computed_again(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    first = farm.run()
    path = farm.cell("none-testing-12") / "cell.json"
    path.write_text(path.read_text().replace('"seed": 12', '"seed": 13'))
    again = farm.run()
    assert any("none/12" in line and "damaged" in line for line in farm.said)
    assert len(farm.calls()) == 5
    assert path.with_suffix(".damaged.json").exists()
    assert again.body["claims"] == first.body["claims"]


def test_a_killed_command_takes_its_workers_along_and_continues(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    slow = [farm.trouble("none-11", "slow"), farm.trouble("none-12", "slow")]
    here = str(Path(__file__).parent)
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path[:0] = {[here, *sys.path]!r}\n"
        "if __name__ == '__main__':\n"
        "    from test_replicate_frame import Farm\n"
        "    from pathlib import Path\n"
        f"    Farm(Path({str(tmp_path)!r})).run()\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    cells = farm.home / "cells"
    deadline = time.monotonic() + 120
    while len(list(cells.glob("none-*/begun"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in slow:
        path.unlink()
    result = farm.run()  # would wait a minute for the sleeping workers' locks if they lived on
    assert result.complete
    assert sorted(farm.calls()).count("manure TestSeed 11") == 1


def test_settings_are_chosen_on_tuning_seeds_only(tmp_path: Path) -> None:
    gifts = ({"gift": 0.0}, {"gift": 0.2}, {"gift": 0.1})
    farm = Farm(
        tmp_path,
        replace(SMALL, arms=(Arm("manure", candidates=gifts), Arm("none"))),
    )
    result = farm.run()
    (choice,) = result.body["choices"]
    assert choice["chosen"] == 1
    assert [c["settings"] for c in choice["candidates"]] == [dict(g) for g in gifts]
    assert result.body["arms"][0]["settings"] == {"gift": 0.2}
    calls = farm.calls()
    assert {c for c in calls if "Tuning" in c} == {"manure TuningSeed 1", "manure TuningSeed 2"}
    assert sum("TestSeed" in c for c in calls) == 4
    assert result.body["cells"] == 10


def test_a_quick_result_never_replaces_a_full_one(tmp_path: Path) -> None:
    farm = Farm(tmp_path, replace(SMALL, quick_plan=SeedPlan.of(tuning=[1], testing=[12])))
    result = farm.run(quick=True)
    assert result.path.name == "farm.quick.json"
    assert result.body["quick"] is True
    assert result.body["seeds"]["testing"] == [12]
    assert result.body["arms"][0]["scores"]["score"]["items"] == 10


def test_quick_seeds_by_default() -> None:
    assert [int(s) for s in FARM.seeds(True).testing] == [11, 12]
    assert FARM.seeds(False) == PLAN


def test_a_replication_is_checked_when_it_is_made() -> None:
    with pytest.raises(RecipeError, match="did you mean 'manure'"):
        replace(FARM, claims=(claim(Greater("manur", "none")),))
    with pytest.raises(RecipeError, match="same name"):
        replace(FARM, arms=(*FARM.arms, Arm("salt")))
    with pytest.raises(RecipeError, match="stands in"):
        replace(FARM, system="orchard")
    with pytest.raises(RecipeError, match="top level"):
        replace(FARM, cell=lambda arm, seed, quick, folder: {"score": 1.0})
    with pytest.raises(RecipeError, match="name of an arm"):
        Arm("../up")


def test_settings_must_be_plain(tmp_path: Path) -> None:
    farm = Farm(tmp_path, replace(SMALL, arms=(Arm("manure", settings={"f": harvest}), TWO[1])))
    with pytest.raises(RecipeError, match="plain values"):
        farm.run()


def test_no_workers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="workers"):
        Farm(tmp_path).run(workers=0)


def test_systems_are_found_by_entry_point() -> None:
    if "quickstart" not in names():
        pytest.skip("the package is not installed here, only on the path")
    assert load("quickstart").system == "quickstart"
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        load("quikstart")
