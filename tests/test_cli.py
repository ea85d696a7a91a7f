"""The command line: light, helpful, honest exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import plug_in
import pytest

from tilth import registry
from tilth.cli import main
from tilth.registry import VERBS

HEAVY = [
    *["torch", "transformers", "datasets", "peft", "trl", "accelerate"],
    *["scipy", "sklearn", "matplotlib", "pandas", "pyarrow"],
]
RECIPE = """\
name: garden
steps:
  - {id: write, do: generate.sow, with: {count: 4}}
  - {id: keep, do: select.sieve, with: {data: "${steps.write}"}}
"""
COMMANDS = [
    *VERBS,
    *["run", "validate", "report", "methods", "env", "replicate", "seedlings", "almanac"],
]


@pytest.fixture(autouse=True)
def garden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(plug_in.install(tmp_path / "site")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    registry._all.cache_clear()
    (tmp_path / "garden.yaml").write_text(RECIPE)
    yield tmp_path
    registry._all.cache_clear()


def tilth(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tilth", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_word_becomes_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decode", "--model", "rules:seedling:small", "--prompt", "x"]) == 1
    assert "rules:seedling:small" in capsys.readouterr().err


# --- light ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["methods"],
        ["validate", "garden.yaml"],
        ["run", "garden.yaml", "--dry-run"],
        ["select"],
        ["select", "sieve", "--help"],
        ["select", "length", "--help"],
        ["tune", "sft", "--help"],
        ["replicate", "--help"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(words: list[str]) -> None:
    code = (
        "import sys; from tilth.cli import main; code = main(sys.argv[1:]);"
        f"heavy = set({HEAVY}) & set(sys.modules);"
        "sys.exit(code or (f'imported: {heavy}' if heavy else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_only_the_chosen_method_is_imported(garden: Path) -> None:
    source = "raise RuntimeError('imported')\n\n\nclass Bad:\n    '''Bad.'''\n"
    (garden / "broken.py").write_text(source)
    info = garden / "site" / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tilth.select]\nbad = broken:Bad\n")
    sys.path.insert(0, str(garden))
    try:
        registry._all.cache_clear()
        assert main(["select"]) == 0
        assert main(["select", "sieve", "--help"]) == 0
        assert "broken" not in sys.modules
    finally:
        sys.path.remove(str(garden))


# --- help -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example: tilth" in text
    assert command in text


def test_the_first_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f" {command} " in text for command in COMMANDS)
    assert "tilth run recipes/quickstart.yaml" in text
    assert main(["--version"]) == 0


def test_options_come_from_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "sieve", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Keeps every n-th row." in text
    assert "Keep every n-th row. [default: 2]" in text
    assert "INTEGER" in text
    assert "--no-strict" in text
    assert "Example: tilth select sieve --data pool.jsonl --out" in text


def test_a_formula_keeps_its_lines_and_an_example_can_be_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["evaluate", "refusal", "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "p_predict  = geometric mean of the likeliest tokens' probabilities" in lines
    assert any("--validation" in line and "ROWS" in line for line in lines)
    example = " ".join(lines).partition("Example: ")[2]
    assert "--data pool.jsonl --validation validation.jsonl --out refusal-1" in example


def test_a_verb_lists_its_methods_or_says_that_it_has_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["select"]) == 0
    assert "Keeps every n-th row." in capsys.readouterr().out
    ours = registry.methods()
    only = {name: entry for name, entry in ours.items() if entry.verb == "tune"}
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_all", lambda: only)
        assert main(["select"]) == 0
        assert "no method of the verb 'select' is installed yet" in capsys.readouterr().out
        assert main(["methods", "select"]) == 0
        assert main(["methods"]) == 0
        assert "tune.graft" in capsys.readouterr().out


# --- one method -----------------------------------------------------------------------------


def test_a_method_runs_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "sow", "--count", "6", "--low", "1e1", "--out", "sown"]) == 0
    assert main(["select", "sieve", "--data", "sown", "--words", "a,b", "--no-strict"]) == 2
    words = ["select", "sieve", "--data", "sown", "--words", "a,b", "--no-strict", "--out", "kept"]
    assert main(words) == 0
    manifest = json.loads(Path("kept/manifest.json").read_text())
    settings = {"data": "sown", "every": 2, "words": ["a", "b"], "strict": False}
    assert manifest["settings"] == settings
    text = capsys.readouterr().out
    assert "rows_out=3" in text
    assert main(["evaluate", "weigh", "--data", "kept", "--test-seeds", "7,8", "--out", "w"]) == 0
    assert json.loads(Path("w/manifest.json").read_text())["seeds"]["testing"] == [7, 8]
    arms = ["--arms", "one=w,two=w"]
    assert main(["evaluate", "balance", "--baseline", "w", *arms, "--out", "b"]) == 0
    assert json.loads(Path("b/comparison.json").read_text()) == {"one": 0.0, "two": 0.0}


def test_wrong_usage_of_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "sow", "--cuont", "6", "--out", "x"]) == 2
    assert "--count" in capsys.readouterr().err
    assert main(["generate", "sew"]) == 2
    assert "'sow'" in capsys.readouterr().err
    assert main(["generate", "sow", "--count", "many", "--out", "x"]) == 1
    told = capsys.readouterr().err
    assert "'count': input should be a valid integer" in told
    assert "where: tilth generate sow" in told
    assert main(["select", "sieve", "--data", "nowhere.jsonl", "--out", "x"]) == 1
    assert "no such file" in capsys.readouterr().err
    assert not Path("x").exists()


# --- recipes --------------------------------------------------------------------------------


def test_run_then_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "garden.yaml", "keep.every=3", "--runs", "out"]
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "tokens_generated=4" in text
    assert "to run, after write" in text
    assert "2 of 2 steps to run" in text
    assert not Path("out").exists()
    assert main([*words, "--no-report"]) == 0
    text = capsys.readouterr().out
    assert "1/2 write generate.sow  ran" in text
    assert "rows_out=2" in text
    assert main([*words, "--no-report"]) == 0
    assert "1/2 write generate.sow  cached" in capsys.readouterr().out
    assert main([*words, "--dry-run"]) == 0
    assert "0 of 2 steps to run" in capsys.readouterr().out


def test_the_report_is_written_and_can_be_rebuilt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "garden.yaml"]) == 0
    page = Path("runs/garden/report.html")
    assert "report.html" in capsys.readouterr().out
    page.unlink()
    assert main(["report", "runs/garden"]) == 0
    assert page.exists()
    assert main(["report", "nowhere"]) == 1


def test_validate_says_what_is_wrong_in_three_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "garden.yaml"]) == 0
    assert "2 steps are in order (write, keep)" in capsys.readouterr().out
    assert main(["validate", "garden.yaml", "keep.evry=3"]) == 1
    caught = capsys.readouterr()
    assert caught.out == ""
    assert "error: step 'keep': select.sieve has no setting 'evry'" in caught.err
    assert "where: override 'keep.evry=3'" in caught.err
    assert "fix:   did you mean 'every'?" in caught.err
    assert main(["validate", "nowhere.yaml"]) == 1
    assert main(["validate"]) == 2
    assert main(["methods", "selct"]) == 1
    assert "did you mean 'select'?" in capsys.readouterr().err
    assert main(["plant"]) == 2


def test_no_traceback_unless_asked_for() -> None:
    done = tilth("validate", "nowhere.yaml")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "no such recipe" in done.stderr
    done = tilth("validate", "nowhere.yaml", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_ctrl_c_says_how_to_go_on(garden: Path) -> None:
    fifo = garden / "fifo"
    os.mkfifo(fifo)  # the step waits for its input until it is interrupted
    (garden / "waits.yaml").write_text(
        "name: waits\nsteps:\n  - {id: keep, do: select.hold, with: {}}\n"
    )
    (garden / "hold.py").write_text(
        "from typing import ClassVar\nfrom tilth.method import Method\n\n"
        "class Hold(Method):\n    '''Waits.'''\n"
        "    verb: ClassVar = 'select'\n    name: ClassVar = 'hold'\n    kind: ClassVar = 'rows'\n"
        f"    def run(self, work):\n        open({str(fifo)!r}).read()\n"
    )
    info = garden / "site" / "hold-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hold\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tilth.select]\nhold = hold:Hold\n")
    running = subprocess.Popen(
        [sys.executable, "-m", "tilth", "run", "waits.yaml"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(garden), *sys.path])},
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background makes them ignore the interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    state = garden / "runs" / "waits" / "run.json"
    while not state.exists() or '"running"' not in state.read_text().partition('"steps"')[2]:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    time.sleep(0.2)  # from the note on disk into the step
    running.send_signal(signal.SIGINT)
    _, told = running.communicate()
    assert running.returncode == 130, told
    assert "resume with the same command" in told
    assert json.loads(state.read_text())["status"] == "interrupted"


# --- the world ------------------------------------------------------------------------------


def test_the_almanac_can_be_looked_into(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["almanac", "skills"]) == 0
    assert "word_problems" in capsys.readouterr().out
    assert main(["almanac", "item", "word_problems", "--level", "2"]) == 0
    first = capsys.readouterr().out
    assert "word_problems/2/train/0/0" in first
    assert main(["almanac", "item", "word_problems", "--level", "2"]) == 0
    assert capsys.readouterr().out == first
    assert main(["almanac", "item", "word_problem"]) == 1
    assert "did you mean 'word_problems'?" in capsys.readouterr().err
    assert main(["almanac", "item", "lists", "--level", "99"]) == 1
    assert main(["almanac", "item", "lists", "--split", "trial"]) == 1
    capsys.readouterr()
    assert main(["almanac", "exam", "--skills", "lists", "--seed", "101"]) == 0
    assert "lists/1/testing/101/0" in capsys.readouterr().out
    assert main(["almanac", "page"]) == 0
    name = capsys.readouterr().out.splitlines()[0]
    assert main(["almanac", "page", name]) == 0
    assert capsys.readouterr().out.startswith(name)
    assert main(["almanac", "page", f"{name}x"]) == 1
    assert f"did you mean {name!r}?" in capsys.readouterr().err
    assert main(["almanac", "page", "--kind", "stars"]) == 1


def test_seedlings_and_claims_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["seedlings"]) == 0
    assert "seedling" in capsys.readouterr().out
    assert main(["seedlings", "--card", "nobody"]) == 1
    assert "no seedling is called 'nobody'" in capsys.readouterr().err
    assert main(["replicate", "nothing"]) == 1
    assert "no replication called 'nothing'" in capsys.readouterr().err


def test_env_tells_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("tilth", "python", "torch", "cores", "memory", "gpu"))
