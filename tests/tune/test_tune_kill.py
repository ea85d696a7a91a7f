"""`kill -9` at any moment, then the same call: it goes on and ends in the same bytes.

The killed run is a real process. It shoots itself at an exact point through an audit hook of the
interpreter (a file is opened, a folder renamed), or a moment later, in the middle of a step.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tilth.artefacts import Artefact
from tilth.tune.sft import SFT

METHOD: dict[str, Any] = {
    "max_steps": 11,
    "batch_size": 3,
    "gradient_accumulation": 2,
    "learning_rate": 1e-2,
    "adapter": {"rank": 4, "dropout": 0.2},
    "save_every": 3,
    "log_every": 2,
}
POINTS = {
    "in the middle of a step": ("open", "metrics.jsonl", 4, 0.01),
    "while a log row is written": ("open", "metrics.jsonl", 3, 0.0),
    "during the first save, state not yet written": (
        "open",
        "3.partial/state.json",
        1,
        0.0,
    ),
    "during a save, manifest not yet written": (
        "open",
        "6.partial/manifest.json",
        1,
        0.0,
    ),
    "during a save, just before its name": ("os.rename", "6.partial", 1, 0.0),
    "while an old checkpoint is removed": ("shutil.rmtree", "step-00000003", 1, 0.0),
    "while the model is saved": ("open", "model/README.md", 1, 0.0),
}


def run(
    model: str, data: str, out: str, point: tuple[str, str, int, float] | None, **more: Any
) -> None:
    """Runs the method in this process, which kills itself at `point`; `more` are other settings.

    A point is an event, words in its first argument, how often it has to happen, and the seconds
    to wait then.
    """
    seen = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal seen
        if point is None or event != point[0] or point[1] not in str(given[0]):
            return
        seen += 1
        if seen == point[2]:
            threading.Timer(point[3], die).start() if point[3] else die()

    if point is not None:
        sys.addaudithook(watch)
    with Path(out).with_suffix(".said").open("a") as said:
        method = SFT(model=model, data=data, **{**METHOD, **more})
        method.to(out, say=lambda line: print(line, file=said, flush=True))


@pytest.fixture(scope="module")
def spawn() -> Any:
    """Starts :func:`run` in a fresh process that has the libraries loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tilth.tune._run", "tilth.tune._trainer"])

    def start(*given: Any, **more: Any) -> int:
        process = context.Process(target=run, args=given, kwargs=more)
        process.start()
        process.join(240)
        assert process.exitcode is not None, "the run hangs"
        return process.exitcode

    return start


@pytest.fixture(scope="module")
def whole(spawn: Any, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The uninterrupted run, on GPT-2: its own dropout draws random numbers too."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [
        f'{{"prompt": "How much is {i} and 1?", "completion": "It is {i + 1}.{" Yes." * (i % 4)}"}}'
        for i in range(1, 21)
    ]
    data = folder / "rows.jsonl"
    data.write_text("\n".join(rows) + "\n")
    assert spawn(str(models["gpt2"]), str(data), str(folder / "out"), None) == 0
    return str(models["gpt2"]), str(data), Artefact.open(folder / "out")


@pytest.mark.integration
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    spawn: Any, whole: Any, tmp_path: Path, point: str
) -> None:
    model, data, expected = whole
    out = tmp_path / "out"
    assert spawn(model, data, str(out), POINTS[point]) == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    assert spawn(model, data, str(out), None) == 0
    artefact = Artefact.open(out)
    assert artefact.manifest.files == expected.manifest.files
    assert artefact.manifest.metrics == expected.manifest.metrics
    said = out.with_suffix(".said").read_text()
    late = "removed" in point or "model is saved" in point or "manifest" in point
    assert ("continuing at step" in said) or not late


@pytest.mark.integration
@pytest.mark.parametrize("adapter", ["full", "bitfit", "adaptformer:dropout=0.2", "prompt"])
def test_what_is_trained_makes_no_difference(
    spawn: Any, whole: Any, tmp_path: Path, adapter: str
) -> None:
    """Each kind is saved and restored in a way of its own; LoRA's is tested above."""
    model, data, _ = whole
    settings = {"adapter": adapter, "max_steps": 5, "save_every": 2, "log_every": 1}
    assert spawn(model, data, str(tmp_path / "expected"), None, **settings) == 0
    killed = str(tmp_path / "out")
    assert spawn(model, data, killed, ("open", "metrics.jsonl", 5, 0.0), **settings) == (
        -signal.SIGKILL
    )
    assert spawn(model, data, killed, None, **settings) == 0
    assert "continuing at step 2 of 5" in Path(killed).with_suffix(".said").read_text()
    expected, resumed = (Artefact.open(tmp_path / name).manifest for name in ("expected", "out"))
    assert resumed.files == expected.files
    assert resumed.metrics == expected.metrics
