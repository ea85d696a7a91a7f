"""Finding methods: listing without importing, nearest names, honest errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import plug_in
import pytest

from tilth import registry
from tilth.errors import RecipeError, TilthError
from tilth.registry import VERBS, Entry, load, methods


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = plug_in.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    registry._all.cache_clear()
    yield folder
    registry._all.cache_clear()


def test_a_plug_in_is_found_beside_our_own_methods() -> None:
    assert load("select.sieve") is plug_in.Sieve
    assert {"select.length", "select.sieve"} <= methods("select").keys()
    assert all(entry.verb == "select" for entry in methods("select").values())
    assert [*dict.fromkeys(e.verb for e in methods().values())] == [
        verb for verb in VERBS if methods(verb)
    ]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("select.seive", "did you mean 'select.sieve'?"),
        ("sieve", "did you mean 'select.sieve'?"),
        ("tune.sieve", "did you mean 'select.sieve'?"),
        ("zzz.qqq", "`tilth methods` lists them all"),
    ],
)
def test_an_unknown_method_names_the_nearest(wrong: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(wrong)
    assert wrong in caught.value.problem
    assert hint in caught.value.fix


def test_the_summary_is_read_without_importing_the_method() -> None:
    code = (
        "import sys; from tilth.registry import methods;"
        "lines = [e.summary() for e in methods().values()];"
        "assert all(lines) and len(lines) > 5, lines;"
        "made = [e.target.split(':')[0] for e in methods().values()];"
        "assert not set(made) & set(sys.modules), 'a method was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Entry("select", "sieve", "plug_in:Sieve").summary() == "Keeps every n-th row."


def test_a_broken_plug_in_is_named() -> None:
    gone = Entry("select", "gone", "no_such_module:Gone")
    assert "not installed" in gone.summary()
    with pytest.raises(TilthError, match="cannot be imported"):
        gone.load()
    with pytest.raises(TilthError, match="is not a Method"):
        Entry("select", "install", "plug_in:install").load()
    with pytest.raises(TilthError, match="calls itself"):
        Entry("select", "riddle", "plug_in:Sieve").load()


def test_two_packages_with_one_name_are_an_error(installed: Path) -> None:
    info = installed / "another-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tilth.select]\nsieve = other:Sieve\n")
    registry._all.cache_clear()
    with pytest.raises(TilthError, match="two packages register"):
        methods()
