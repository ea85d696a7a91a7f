"""Recipes: what may be said, and how every mistake is told with file, line and nearest word."""

from __future__ import annotations

from pathlib import Path

import plug_in
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth import registry
from tilth.errors import RecipeError, SeedError, TilthError
from tilth.marked_yaml import parse_value, read_yaml
from tilth.recipe import Recipe, leaves, references, substitute
from tilth.validate import as_yaml, validate

GOOD = """\
name: garden
data: pool.jsonl
seeds: {root: 7, tuning: [1], testing: [11, 12]}
steps:
  - {id: write, do: generate.sow, with: {count: 6}}
  - id: keep
    do: select.sieve
    with:
      data: ${steps.write}
      every: 2
  - {id: base, do: evaluate.weigh, with: {data: "${data}"}}
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
    (tmp_path / "pool.jsonl").write_text('{"n": 0, "x": 1.0}\n{"n": 1, "x": 2.0}\n')
    (tmp_path / "garden.yaml").write_text(GOOD)
    yield tmp_path
    registry._all.cache_clear()


def fails(text: str, *overrides: str, kind: type[TilthError] = RecipeError) -> TilthError:
    """The error of reading and validating `text`."""
    path = Path("wrong.yaml")
    path.write_text(text)
    with pytest.raises(kind) as caught:
        validate(Recipe.read(path, overrides))
    return caught.value


def test_a_good_recipe_is_read_and_valid() -> None:
    recipe = Recipe.read("garden.yaml")
    steps = validate(recipe)
    assert [one.step.id for one in steps] == ["write", "keep", "base", "exam", "verdict"]
    assert steps[4].needs == ("base", "exam")
    assert [int(s) for s in recipe.plan.testing] == [11, 12]
    assert recipe.where("steps", 1, "with", "every") == "garden.yaml:10"


def test_the_resolved_recipe_means_the_same_anywhere(garden: Path) -> None:
    text = as_yaml(validate(Recipe.read("garden.yaml", ["keep.every=3", "name=plot"])))
    again = garden / "elsewhere" / "recipe.yaml"
    again.parent.mkdir()
    again.write_text(text)
    recipe = Recipe.read(again)
    assert recipe.name == "plot"
    assert recipe.steps[1].settings["every"] == 3
    assert Path(recipe.data or "") == garden / "pool.jsonl"
    validate(recipe)


# --- files ----------------------------------------------------------------------------------


def test_a_missing_recipe() -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        Recipe.read("nowhere.yaml")
    with pytest.raises(RecipeError, match="a folder"):
        Recipe.read(".")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "null\n", "---\n"])
def test_an_empty_recipe(text: str) -> None:
    assert "empty" in fails(text).problem


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\nsteps: [\n", ":3"),
        ("name: a\n\tsteps: 3\n", ":2"),
        ("name: 'a\nsteps: b\n", "wrong.yaml"),
        ("name: !!python/object/apply:os.system [ls]\n", ":1"),
        ("name: a\n--- \nname: b\n", ":2"),
        ("name: @x\n", ":1"),
    ],
)
def test_broken_yaml_names_the_line(text: str, line: str) -> None:
    error = fails(text)
    assert "wrong.yaml" in error.where
    assert line in error.where


def test_not_text() -> None:
    Path("wrong.yaml").write_bytes(b"name: \xff\xfe\x00")
    with pytest.raises(RecipeError, match="UTF-8"):
        Recipe.read("wrong.yaml")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "3\n"])
def test_not_a_mapping(text: str) -> None:
    assert "mapping" in fails(text).problem


def test_a_key_twice_and_an_alias_of_itself() -> None:
    error = fails("name: a\nname: b\nsteps: []\n")
    assert (error.problem[8:], error.where) == ("'name' is given twice", "wrong.yaml:2")
    assert "alias" in fails("name: a\nsteps: &s\n  - *s\n").problem


# --- keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line", "hint"),
    [
        ("data: pool", "dta: pool", 2, "'data'"),
        ("root: 7", "rot: 7", 3, "'root'"),
        ("do: select.sieve", "doo: select.sieve", 7, "'do'"),
        ("      every: 2", "      evry: 2", 10, "'every'"),
        ("{count: 6}", "{cuont: 6}", 5, "'count'"),
        ("do: select.sieve", "do: select.seive", 7, "'select.sieve'"),
        ("${steps.write}", "${steps.wriet}", 9, "'steps.write'"),
        ("${data}", "${dta}", 11, "'data'"),
        ("data: pool.jsonl", "data: pol.jsonl", 11, "'pool.jsonl'"),
    ],
)
def test_a_slip_names_line_and_nearest_word(old: str, new: str, line: int, hint: str) -> None:
    error = fails(GOOD.replace(old, new))
    told = str(error)
    assert f"wrong.yaml:{line}" in told
    assert f"did you mean {hint}?" in told


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("{count: 6}", "{count: many}", 5, "'count': input should be a valid integer"),
        ("{count: 6}", "{count: 0}", 5, "greater than or equal to 1, not 0"),
        ("{count: 6}", "{form: of}", 5, "'plain' or 'off'"),
        ("root: 7", "root: seven", 3, "'seeds.root': input should be a valid integer"),
        ("tuning: [1]", "tuning: [1.5]", 3, "'seeds.tuning.0'"),
        ("id: keep", "id: kee p", 6, "'steps.1.id'"),
        ("      data: ${steps.write}\n", "", 8, "'data' is missing"),
        ("name: garden\n", "", 0, "'name' is missing"),
    ],
)
def test_a_wrong_value_names_the_key(old: str, new: str, line: int, said: str) -> None:
    told = str(fails(GOOD.replace(old, new)))
    assert said in told
    assert f"wrong.yaml{f':{line}' if line else ''}" in told


def test_no_steps() -> None:
    assert "at least 1" in str(fails("name: a\nsteps: []\n"))
    assert "'steps' is missing" in str(fails("name: a\n"))
    assert "'steps'" in str(fails("name: a\nsteps: 3\n"))


def test_all_mistakes_are_told_at_once() -> None:
    text = GOOD.replace("count: 6", "cuont: 6").replace("every: 2", "every: no way")
    told = str(fails(text))
    assert "2 problems" in told
    assert "wrong.yaml:5" in told
    assert "wrong.yaml:10" in told


# --- steps ----------------------------------------------------------------------------------


def test_two_steps_of_one_id() -> None:
    error = fails(GOOD.replace("id: exam", "id: base"))
    assert "two steps have the id 'base'" in error.problem
    assert error.where == "wrong.yaml:12, first at wrong.yaml:11"
    assert "cannot be called" in fails(GOOD.replace("id: keep", "id: seeds")).problem


def test_references_that_cannot_be_followed() -> None:
    later = fails(GOOD.replace("${steps.write}", "${steps.exam}"))
    assert "wait for each other" in later.problem  # exam needs keep
    later = fails(GOOD.replace('"${data}"', '"${steps.exam}"'))
    assert "refers to a later step" in later.problem
    assert "further up" in later.fix
    assert "refers to itself" in fails(GOOD.replace("${steps.write}", "${steps.keep}")).problem
    assert "no 'model'" in fails(GOOD.replace("${data}", "${model}")).problem


def test_a_reference_to_the_wrong_kind_of_artefact() -> None:
    error = fails(GOOD.replace('kept: "${steps.exam}"', 'kept: "${steps.keep}"'))
    assert "'arms.kept' expects scores" in error.problem
    assert "select.sieve) makes rows" in error.problem
    assert "base, exam" in error.fix
    assert error.where == "wrong.yaml:15"
    error = fails(GOOD.replace("every: 2", "words: ['${steps.write}']"))
    assert "'words.0' is not an input" in error.problem


def test_a_file_of_the_wrong_kind() -> None:
    plug_in.Sow(count=2).to("sown")
    text = GOOD.replace('kept: "${steps.exam}"', "kept: sown")
    assert "'sown' holds rows, not scores" in str(fails(text))
    text = GOOD.replace('kept: "${steps.exam}"', "kept: pool.jsonl")
    assert "'pool.jsonl' is not an artefact of kind scores" in str(fails(text))


def test_a_model_that_is_not_there() -> None:
    graft = "- {id: t, do: tune.graft, with: {data: pool.jsonl, model: %s}}\n"
    text = f"name: a\nsteps:\n  {graft}"
    assert "no seedling is called 'smal'" in str(fails(text % '"seedling:smal"'))
    error = fails(text % "./nowhere")
    assert "no such model folder" in error.problem
    assert error.where == "wrong.yaml:3"


# --- seeds ----------------------------------------------------------------------------------


def test_overlapping_seeds() -> None:
    error = fails(GOOD.replace("tuning: [1]", "tuning: [1, 11]"), kind=SeedError)
    assert "both tuning and testing" in error.problem
    assert "wrong.yaml:3" in error.where
    assert "twice" in fails(GOOD.replace("[11, 12]", "[11, 11]"), kind=SeedError).problem
    assert "outside" in fails(GOOD.replace("tuning: [1]", "tuning: [-1]"), kind=SeedError).problem


# --- overrides ------------------------------------------------------------------------------


def test_overrides_reach_every_key() -> None:
    recipe = Recipe.read(
        "garden.yaml",
        [
            *["name=plot", "seeds.root=9", "seeds.testing=[21]", "keep.every=3", "model=./m"],
            *["steps.write.with.low=1e-3", "verdict.arms.other=${steps.base}"],
            "exam.do=select.sieve",
        ],
    )
    assert (recipe.name, recipe.seeds.root, recipe.seeds.testing) == ("plot", 9, [21])
    assert recipe.steps[1].settings["every"] == 3
    assert recipe.steps[0].settings["low"] == 1e-3
    assert recipe.steps[4].settings["arms"]["other"] == "${steps.base}"
    assert recipe.steps[3].do == "select.sieve"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("keep.evry=3", "did you mean 'every'?"),
        ("kep.every=3", "did you mean 'keep'?"),
        ("steps.kep.every=3", "did you mean 'keep'?"),
        ("keep.every=many", "valid integer"),
        ("nme=x", "did you mean 'name'?"),
        ("keep=3", "say which setting"),
        ("keep.every", "key.path=value"),
        ("=3", "key.path=value"),
        ("name.first=x", "nothing inside"),
        ("keep.words=[a", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_named(override: str, said: str) -> None:
    told = str(fails(GOOD, override))
    assert said in told
    assert f"override {override!r}" in told


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(st.characters(categories=["L"]), min_size=1), inner, max_size=3
            )
        ),
        max_leaves=12,
    )
)
def test_plain_values_survive_the_marked_loader(value: object) -> None:
    text = yaml.safe_dump(value)
    assert parse_value(text, "here") == yaml.safe_load(text) == value


def test_numbers_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    path.write_text("a: 1e-3\nb: 2E5\nc: 3.5\nd: 1e\n1: one\n")
    marked = read_yaml(path)
    assert marked.value == {"a": 1e-3, "b": 2e5, "c": 3.5, "d": "1e", "1": "one"}
    assert marked.where("c", "deeper") == f"{path}:3"


def test_too_many_aliases_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for n in range(1, 8):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(RecipeError, match="more than"):
        read_yaml(path)


def test_references_inside_text() -> None:
    settings = {"a": ["${model}+${steps.x}", 3], "b": {"c": "plain"}}
    assert [v for _, v in leaves(settings)] == ["${model}+${steps.x}", 3, "plain"]
    assert references("${model}+${steps.x}") == ["model", "steps.x"]
    assert substitute(settings, str.upper)["a"] == ["MODEL+STEPS.X", 3]


SHIPPED = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_in_order(path: Path) -> None:
    recipe = Recipe.read(path)
    assert recipe.name == path.stem
    assert len(validate(recipe)) == len(recipe.steps)
    head = path.read_text().partition("name:")[0]
    assert f"tilth run recipes/{path.name}" in head, "the comment block gives the command"
