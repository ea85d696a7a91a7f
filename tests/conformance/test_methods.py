"""What every method keeps, whoever wrote it: one suite over all registered methods.

A method takes part by being registered; its ``example`` settings are run on small fixtures. The
same seed gives the same bytes, an interrupted run ends like an uninterrupted one, inputs are
recorded, and bad input is told.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tilth.almanac.skills import SKILLS
from tilth.artefacts import Artefact, digest_of
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.method import Method, replaced
from tilth.registry import methods

NAMES = sorted(methods())
RESERVED = {"out", "seed", "test_seeds", "help", "debug"}
PAIRS = [
    ("How much is 2 and 3?", "2 + 3 = 5. The answer is 5."),
    ("Which pest troubles the variety Amber Gate?", "The aphid."),
    ("Sort the words pear, apple, fig.", "apple, fig, pear"),
    ("Write a function that doubles a number.", "def double(x):\n    return 2 * x"),
    ("When is barley sown?", "In early spring, when the soil is dry enough to walk on."),
    ("Name a crop that grows tall.", "Rye."),
    ("A farmer has 12 sheep and sells 4. How many are left?", "12 - 4 = 8. The answer is 8."),
    ("Say good morning to a neighbour.", "Good morning, neighbour! A fine day for the hay."),
    ("What is the opposite of wet?", "Dry."),
    ("Is rye taller than oats?", "Yes, rye stands taller than oats."),
    ("Count the letters of the word fig.", "3"),
    ("Which of plum, oak, pear is no fruit?", "oak"),
]


@dataclass
class Bench:
    """The fixtures, and the first result of every method, which several tests look at."""

    root: Path
    words: dict[str, str]
    results: dict[str, Artefact] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)

    def settings(self, method: type[Method]) -> dict[str, Any]:
        """The method's example with the fixtures in the place of their names."""
        filled: dict[str, Any] = _filled(method.example, self.words)
        return filled

    def first(self, name: str) -> tuple[Method, Artefact]:
        """The method with its example settings, and its result."""
        kind = methods()[name].load()
        method = kind(**self.settings(kind))
        if name not in self.results:
            with watching(self.root / name) as watch:
                self.results[name] = method.to(self.root / name / "first", seed=3, say=_quiet)
            self.writes[name] = watch.seen
        return method, self.results[name]


def _filled(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, words) for item in value]
    return value.format(**words) if isinstance(value, str) else value


def _quiet(line: str) -> None:
    """Says nothing."""


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Bench:
    root = tmp_path_factory.mktemp("conformance")
    rows = [Example.pair(q, a, skill="farm", level=1).as_dict() for q, a in PAIRS]
    skills = ("word_problems", "lists", "logic", "facts")
    items = [SKILLS[s].item(n, level=1, split="train") for s in skills for n in range(3)]
    seeds = [item.example().as_dict() for item in items]
    scores = [
        {
            "seed": seed,
            "item": f"farm/{n}",
            "skill": "farm",
            "level": 1,
            "score": float((n * seed) % 3 == 0),
            "prompt": question,
            "output": answer,
            "answer": answer,
        }
        for seed in (101, 102)
        for n, (question, answer) in enumerate(PAIRS)
    ]
    words = {
        "rows": _write(root / "rows.jsonl", rows),
        "seeds": _write(root / "seeds.jsonl", seeds),
        "model": str(tiny),
        "teacher": "seedling:teacher",  # a random model writes nothing that a method could keep
        "scores": _write(root / "scores.jsonl", scores),
    }
    return Bench(root, words)


# --- interruption ---------------------------------------------------------------------------


@dataclass
class Watch:
    """Counts what is written below a folder, and interrupts at the `stop`-th write."""

    folder: str
    stop: int | None
    seen: int = 0


_WATCH: list[Watch] = []


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: it sees every file that Python opens, makes or renames."""
    if not _WATCH or event not in ("open", "os.mkdir", "os.rename"):
        return
    if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return
    watch = _WATCH[-1]
    if not isinstance(arguments[0], str | os.PathLike):
        return
    path = os.path.abspath(os.fspath(arguments[0]))
    if not path.startswith(watch.folder) or "/.tilth/" in path:
        return
    watch.seen += 1
    if watch.seen == watch.stop:
        raise KeyboardInterrupt


sys.addaudithook(_on_event)


@contextmanager
def watching(folder: Path, stop: int | None = None) -> Iterator[Watch]:
    """Counts the writes below `folder`; raises KeyboardInterrupt in the `stop`-th one."""
    _WATCH.append(Watch(str(folder), stop))
    try:
        yield _WATCH[-1]
    finally:
        _WATCH.pop()


# --- the contract ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    entry = methods()[name]
    method = entry.load()
    assert method.summary() == entry.summary()
    assert method.summary().endswith("."), "the first line of the docstring is a sentence"
    assert method.example, "an example is what the suite, and a reader, can run"
    assert len(method.model_fields) <= 24, "about fifteen settings at most"
    for setting, info in method.model_fields.items():
        assert info.description, f"{setting} has no help sentence"
        assert setting not in RESERVED, f"{setting} is an option of every command"
    assert set(method.example) <= set(method.model_fields)


@pytest.mark.parametrize("name", NAMES)
def test_it_refuses_an_unknown_setting(name: str, bench: Bench) -> None:
    method = methods()[name].load()
    setting = max(method.model_fields, key=len)
    with pytest.raises(ValidationError, match=f"did you mean '{setting}'"):
        method(**bench.settings(method), **{f"{setting}x": 1})


@pytest.mark.parametrize("name", NAMES)
def test_its_settings_cannot_change(name: str, bench: Bench) -> None:
    kind = methods()[name].load()
    method = kind(**bench.settings(kind))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(method, next(iter(kind.model_fields)), None)
    assert method == kind(**bench.settings(kind)), "same settings, same method"


@pytest.mark.parametrize("name", NAMES)
def test_its_artefact_is_whole_and_tells_where_it_comes_from(name: str, bench: Bench) -> None:
    method, made = bench.first(name)
    artefact = Artefact.open(made.folder)
    assert artefact.digest == made.digest
    manifest = artefact.manifest
    assert (manifest.method, manifest.kind) == (name, method.kind)
    assert type(method)(**manifest.settings) == method
    inputs = {place: (ref, mark.digest(ref)) for place, ref, mark in method.references()}
    assert inputs, "a method without any input cannot be traced"
    recorded = {place: (e["ref"], e["digest"]) for place, e in manifest.inputs.items()}
    assert recorded == inputs
    assert manifest.seeds["testing"] == [] or method.judges
    assert manifest.cost["seconds"] > 0
    assert manifest.metrics, "a step says what it measured"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes(name: str, bench: Bench) -> None:
    method, first = bench.first(name)
    again = method.to(bench.root / name / "again", seed=3, say=_quiet)
    assert not again.cached
    assert again.manifest.files == first.manifest.files
    assert again.manifest.metrics == first.manifest.metrics
    assert again.manifest.key == first.manifest.key
    assert method.to(bench.root / name / "again", seed=3, say=_quiet).cached


@pytest.mark.parametrize("name", NAMES)
def test_interrupted_equals_uninterrupted(name: str, bench: Bench) -> None:
    method, first = bench.first(name)
    writes = bench.writes[name]
    folder = bench.root / name / "stopped"
    stopped = 0
    for stop in (writes // 4, writes // 2, writes * 3 // 4):
        with watching(folder.parent, max(1, stop)), suppress(KeyboardInterrupt):
            method.to(folder, seed=3, say=_quiet)
            break  # what was kept of the earlier attempts left too little to do
        assert not folder.exists()
        stopped += 1
    assert stopped, "it was never interrupted"
    ended = method.to(folder, seed=3, say=_quiet)
    assert ended.manifest.files == first.manifest.files
    assert ended.manifest.attempts == stopped + 1
    assert not list(folder.parent.glob("stopped.*")), "nothing is left of the broken attempts"


# --- bad input ------------------------------------------------------------------------------

INPUTS = [
    (name, field_name)
    for name in NAMES
    for field_name, kind in methods()[name].load().inputs().items()
    if kind in ("rows", "scores") and field_name in methods()[name].load().example
]


def _with_input(
    bench: Bench, name: str, field_name: str, change: Callable[[Path, Path], None]
) -> Method:
    """The method with one input changed by ``change(old, new)``."""
    kind = methods()[name].load()
    settings = bench.settings(kind)
    new = bench.root / name / f"{field_name}-{change.__name__}.jsonl"
    for place, ref, _ in kind(**settings).references():
        if place.split(".")[0] == field_name:
            new.parent.mkdir(parents=True, exist_ok=True)
            change(Path(ref), new)
            settings = replaced(settings, {place: str(new)})
    return kind(**settings)


def empty(old: Path, new: Path) -> None:
    new.write_text("")


def one_bad_row(old: Path, new: Path) -> None:
    bad = {"messages": [{"role": "user", "content": None}]}
    new.write_text(old.read_text() + json.dumps(bad) + "\n")


@pytest.mark.parametrize(("name", "field_name"), INPUTS)
def test_an_empty_input_is_told(name: str, field_name: str, bench: Bench) -> None:
    method = _with_input(bench, name, field_name, empty)
    folder = bench.root / name / f"from-empty-{field_name}"
    with pytest.raises(DataError) as caught:
        method.to(folder, say=_quiet)
    assert f"{field_name}-empty.jsonl" in str(caught.value)
    assert not folder.exists()


ROWS = [(n, f) for n, f in INPUTS if methods()[n].load().inputs()[f] == "rows"]


@pytest.mark.parametrize(("name", "field_name"), ROWS)
def test_one_bad_row_is_put_aside_and_counted(name: str, field_name: str, bench: Bench) -> None:
    method = _with_input(bench, name, field_name, one_bad_row)
    said: list[str] = []
    made = method.to(bench.root / name / f"from-bad-{field_name}", seed=3, say=said.append)
    listed = [json.loads(line) for line in made.path("rejected.jsonl").read_text().splitlines()]
    name_of_input = f"{field_name}-one_bad_row.jsonl"
    (row,) = [row for row in listed if Path(row["file"]).name == name_of_input]
    old = {place: ref for place, ref, _ in bench.first(name)[0].references()}[field_name]
    assert row["line"] == len(Path(old).read_text().splitlines()) + 1
    assert row["reason"]
    assert any("1 rejected" in line or "1 of" in line for line in said), said
    assert digest_of(made.folder) == made.digest
