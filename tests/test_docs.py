"""What the documentation says is true: its commands parse, its links lead somewhere, its code runs.

The walk-through of CONTRIBUTING is carried out: the file, the registration line and the recipe are
taken from the page, and the method must pass the conformance suite.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.testing import CliRunner

import tilth
from tilth import registry
from tilth.cli import _app, main
from tilth.data import FORMS
from tilth.models import reference
from tilth.recipe import Recipe
from tilth.registry import methods
from tilth.run import run

ROOT = Path(__file__).parents[1]
SOURCE = Path(tilth.__file__).parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
PLACEHOLDER = "/path/to/"
"""Stands for a file of the reader; such a command is read and not run."""
LOOKS = ("methods", "validate", "almanac", "run")
"""Commands that only look, with ``--dry-run`` where they would work: these are really run."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(text_of(page)) if kind == language]


def shown(page: Path) -> Iterator[str]:
    """Every command line on a page: in blocks, in recipes' comments, and within a sentence."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.partition("  #")[0].strip()
    prose = BLOCK.sub("", text_of(page))
    yield from (" ".join(code.split()) for code in re.findall(r"`((?:tilth|make) [^`]+)`", prose))


def in_recipe(path: Path) -> Iterator[str]:
    comment = "\n".join(
        line.removeprefix("#").strip()
        for line in text_of(path).splitlines()
        if line.startswith("#")
    )
    yield from (line for line in comment.replace("\\\n", " ").splitlines() if "tilth run" in line)


COMMANDS = sorted(
    {line for page in PAGES for line in shown(page)}
    | {line for path in (ROOT / "recipes").glob("*.yaml") for line in in_recipe(path)}
)
TILTH = [line for line in COMMANDS if line.startswith("tilth ")]
MAKE = [line for line in COMMANDS if line.startswith("make ")]


@pytest.fixture
def seedlings(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny random model in the place of each seedling."""
    folder = tmp_path / "seedlings"
    for name in ("small", "large", "teacher"):
        shutil.copytree(tiny, folder / name)
    monkeypatch.setattr(reference, "SEEDLINGS", folder)
    return folder


@pytest.mark.parametrize("line", TILTH)
def test_a_command_parses(line: str, contributed: str) -> None:
    words = shlex.split(line)[1:]
    asked = [*words, "--help"]
    result = CliRunner().invoke(_app(asked), asked)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", [x for x in TILTH if x.split()[1] in LOOKS and len(x.split()) > 2])
def test_a_command_that_only_looks_works(
    line: str,
    seedlings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)[1:]
    if words[0] == "run":
        if PLACEHOLDER in line:
            assert Recipe.read(words[1], words[2:])
            return
        words = [*words, *(["--dry-run"] * ("--dry-run" not in words)), "--runs", str(tmp_path)]
    assert main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("line", MAKE)
def test_a_target_of_make_exists(line: str) -> None:
    makefile = text_of(ROOT / "Makefile")
    for target in line.split()[1:]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make has no target {target}"


@pytest.mark.parametrize(
    ("page", "target"),
    [(page, target) for page in PAGES for target in sorted(set(LINK.findall(text_of(page))))],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_the_readme_is_short_and_the_guide_names_every_page() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= 175
    guide = LINK.findall(text_of(ROOT / "docs" / "README.md"))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= set(guide)


# --- names ----------------------------------------------------------------------------------


def _public_modules() -> list[Path]:
    return [
        path
        for path in sorted(SOURCE.rglob("*.py"))
        if not any(part.startswith("_") for part in path.relative_to(SOURCE).with_suffix("").parts)
    ]


@pytest.mark.parametrize(
    "path", _public_modules(), ids=lambda path: str(path.relative_to(SOURCE).with_suffix(""))
)
def test_public_functions_and_classes_have_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_bytes())
    listed: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = set(ast.literal_eval(node.value))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert node.name not in listed or ast.get_docstring(node), f"{node.name} says nothing"


def _sections() -> dict[str, str]:
    parts = re.split(r"^### `([\w.]+)`$", text_of(ROOT / "docs" / "methods.md"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _shared(verb: str) -> str:
    """What stands above the first method of a verb, where its members share settings."""
    page = text_of(ROOT / "docs" / "methods.md")
    return page.partition(f"\n## {verb.capitalize()}\n")[2].partition("\n##")[0]


def test_every_method_has_its_section() -> None:
    assert set(_sections()) == set(methods())


@pytest.mark.parametrize("name", sorted(_sections()))
def test_the_settings_of_a_section_are_the_methods(name: str) -> None:
    settings = methods()[name].load().model_fields
    rows = []
    shared = "" if name == "select.score" else _shared(name.partition(".")[0])  # chooses nothing
    for text in (shared, _sections()[name]):
        table = text.partition("| setting |")[2].partition("\n\n")[0]
        rows += re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE)
    assert rows
    for setting, default in rows:
        assert setting in settings, f"{name} has no setting {setting}"
        info = settings[setting]
        if default == "required":
            assert info.is_required(), setting
        elif default.startswith("`"):
            assert default.strip("`") == str(info.default), setting
        else:  # in words: "none", "empty", "by adapter"
            assert not info.get_default(call_default_factory=True), setting
    required = {setting for setting, info in settings.items() if info.is_required()}
    assert required <= {setting for setting, _ in rows}


def test_every_form_of_data_is_listed() -> None:
    page = text_of(ROOT / "docs" / "models-and-data.md").partition("| form | columns |")[2]
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(FORMS)


# --- code -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "number"),
    [
        (page, number)
        for page in PAGES
        if page.name != "CONTRIBUTING.md"
        for number in range(len(blocks(page, "python")))
    ],
    ids=lambda value: value.name if isinstance(value, Path) else str(value),
)
def test_a_block_of_python_runs(
    page: Path, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page, "python")[number], str(page), "exec"), {"__name__": "block"})


@pytest.mark.parametrize("number", range(len(blocks(ROOT / "docs" / "recipes.md", "yaml"))))
def test_a_recipe_of_the_guide_is_in_order(number: int, seedlings: Path, tmp_path: Path) -> None:
    from tilth.validate import validate

    shutil.copytree(ROOT / "recipes" / "own-data", tmp_path / "own-data")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(blocks(ROOT / "docs" / "recipes.md", "yaml")[number])
    assert validate(Recipe.read(recipe))


@pytest.fixture
def contributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The method of CONTRIBUTING, installed as its page says; gives its name."""
    page = ROOT / "CONTRIBUTING.md"
    (code,), (line,) = blocks(page, "python"), blocks(page, "toml")
    ((group, points),) = tomllib.loads(line)["project"]["entry-points"].items()
    ((name, target),) = points.items()
    module = target.partition(":")[0]
    folder = tmp_path / "site"
    info = folder / "contributed-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: contributed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    (folder / f"{module.rpartition('.')[2]}.py").write_text(code)
    verb = importlib.import_module(module.rpartition(".")[0])
    monkeypatch.setattr(verb, "__path__", [*verb.__path__, str(folder)])
    monkeypatch.syspath_prepend(str(folder))
    registry._all.cache_clear()
    yield f"{group.removeprefix('tilth.')}.{name}"
    registry._all.cache_clear()


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The conformance suite as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "conformance"))
    return importlib.import_module("test_methods")


def test_the_method_of_the_walk_through_conforms(
    suite: ModuleType, contributed: str, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    pairs = (suite.Example.pair(question, answer).as_dict() for question, answer in suite.PAIRS)
    rows.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    bench = suite.Bench(tmp_path / "bench", {"rows": str(rows)})
    suite.test_it_says_what_it_is(contributed)
    suite.test_it_refuses_an_unknown_setting(contributed, bench)
    suite.test_its_settings_cannot_change(contributed, bench)
    suite.test_its_artefact_is_whole_and_tells_where_it_comes_from(contributed, bench)
    suite.test_the_same_seed_gives_the_same_bytes(contributed, bench)
    suite.test_interrupted_equals_uninterrupted(contributed, bench)
    suite.test_an_empty_input_is_told(contributed, "pool", bench)
    suite.test_one_bad_row_is_put_aside_and_counted(contributed, "pool", bench)


def test_the_method_of_the_walk_through_has_its_command(
    contributed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, _, name = contributed.partition(".")
    pool = ROOT / "recipes" / "own-data" / "train.jsonl"
    options = ["--pool", str(pool), "--count", "3", "--out", str(tmp_path / "chosen")]
    assert main([verb, name, *options]) == 0, capsys.readouterr().err
    words = [
        json.loads(line)["meta"]["scores"]["different words"]
        for line in (tmp_path / "chosen" / "rows.jsonl").read_text("utf-8").splitlines()
    ]
    answers = (json.loads(line)["answer"] for line in text_of(pool).splitlines())
    every = sorted(len(set(answer.lower().split())) for answer in answers)
    assert sorted(words) == every[-3:]


@pytest.mark.integration
def test_the_recipe_of_the_walk_through_runs(contributed: str, tiny: Path, tmp_path: Path) -> None:
    (body,) = blocks(ROOT / "CONTRIBUTING.md", "yaml")
    shutil.copytree(ROOT / "recipes" / "own-data", tmp_path / "own-data")
    path = tmp_path / "recipe.yaml"
    path.write_text(body)
    assert contributed in [step["do"] for step in yaml.safe_load(body)["steps"]]
    small = [f"model={tiny}", "seeds.testing=[101]"]
    for arm in ("keep", "control"):
        small += [f"{arm}.count=4", f"{arm}_tuned.max_steps=1", f"{arm}_tuned.adapter.rank=2"]
        small += [f"{arm}_tuned.batch_size=2", f"{arm}_exam.skills=[lists]"]
        small += [f"{arm}_exam.per_level=1", f"{arm}_exam.max_new_tokens=2"]
    result = run(Recipe.read(path, small), tmp_path / "run", say=lambda line: None)
    verdict = json.loads(result.artefacts["verdict"].path("comparison.json").read_text("utf-8"))
    assert set(verdict["arms"]) == {"random", "vocabulary"}
