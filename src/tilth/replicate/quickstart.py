"""The quickstart as a replication: does tuning on self-written data beat the base model?

Each test seed writes its own data, trains its own model and sits exams that nothing before has
seen, so that the interval covers the randomness of data and training too, and not only that of the
exam. Two arms guard the claim: the base model in its own plain form with worked examples (so that
the gain is not only the chat form), and the same tuning on shuffled answers (so that the gain is
not only more training).

The cells run ``recipes/quickstart.yaml`` itself, each one the steps that its arm needs. Arms of one
seed share their artefacts, so that data is written once; each arm is still charged for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilth.cost import Ledger
from tilth.errors import RecipeError, nearest
from tilth.recipe import Recipe, leaves, references
from tilth.replicate.claims import Claim, Greater
from tilth.replicate.frame import Arm, Measured, Replication, shared_folder
from tilth.run import run
from tilth.seeds import Seed

__all__ = ["QUICKSTART", "cell", "part"]

RECIPE = "recipes/quickstart.yaml"


def cell(arm: Arm, seed: Seed, quick: bool, folder: Path) -> Measured:
    """Runs the recipe up to the scores of `arm` with everything drawn from `seed`.

    Args:
        arm: ``in_recipe`` of its settings is the arm's name in the recipe's comparison;
            ``overrides``, where given, are further ``key.path=value`` of the recipe.
        seed: Root of all random streams, and the one test seed.
        quick: Without effect: a quick replication has fewer seeds, its cells are whole.
        folder: Holds the cell's run folder; the artefacts are shared by the arms of a seed.

    Returns:
        One score per exam item, in the order of the items' names; ``score`` over all skills, and
        ``score:SKILL`` for each.
    """
    number = int(seed)
    overrides = [f"seeds.root={number}", f"seeds.testing=[{number}]"]
    overrides += arm.settings.get("overrides", [])
    recipe, step = part(Recipe.read(_recipe_file(), overrides), str(arm.settings["in_recipe"]))
    home = folder / "run"
    home.mkdir(exist_ok=True)
    artefacts, common = home / "artefacts", shared_folder(folder) / f"artefacts-{number}"
    common.mkdir(exist_ok=True)
    if not artefacts.is_symlink():
        artefacts.symlink_to(common.absolute(), target_is_directory=True)
    result = run(recipe, home)
    spent = Ledger()
    for artefact in result.artefacts.values():
        spent.merge(Ledger.from_dict(artefact.manifest.cost))
    return Measured(_scores(result.artefacts[step].path("scores.jsonl")), spent)


def part(recipe: Recipe, arm: str) -> tuple[Recipe, str]:
    """The steps that the scores of `arm` need, and the id of the step that writes them.

    Args:
        recipe: A recipe with an ``evaluate.compare`` step.
        arm: The baseline's name or an arm of that step.

    Raises:
        RecipeError: The recipe compares nothing, or has no such arm.
    """
    compared = next((s for s in recipe.steps if s.do == "evaluate.compare"), None)
    if compared is None:
        raise RecipeError(
            "the recipe compares nothing", where=recipe.name, fix="add a step evaluate.compare"
        )
    settings = compared.settings
    arms = {str(settings.get("baseline_name", "base")): settings["baseline"], **settings["arms"]}
    if arm not in arms:
        raise RecipeError(
            f"the recipe compares no arm called {arm!r}",
            where=f"{recipe.name}: step {compared.id!r}",
            fix=nearest(arm, arms) or f"it compares: {', '.join(arms)}",
        )
    (last,) = _steps_in(arms[arm])
    by_id = {step.id: step for step in recipe.steps}
    needed, open_ids = {last}, [last]
    while open_ids:
        found = set(_steps_in(by_id[open_ids.pop()].settings)) - needed
        needed |= found
        open_ids += found
    kept = [step for step in recipe.steps if step.id in needed]
    return recipe.model_copy(update={"steps": kept}), last


def _steps_in(value: Any) -> Iterator[str]:
    for _, leaf in leaves(value):
        for name in references(leaf):
            if name.startswith("steps."):
                yield name.removeprefix("steps.")


def _recipe_file() -> Path:
    """The recipe of the checkout that this module belongs to, or of the working directory."""
    places = [Path(__file__).parents[3] / RECIPE, Path(RECIPE)]
    for place in places:
        if place.is_file():
            return place
    raise RecipeError(
        f"{RECIPE} is not here", where=str(Path.cwd()), fix="run this in a checkout of tilth"
    )


def _scores(path: Path) -> dict[str, list[float]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    scores: dict[str, list[float]] = {"score": []}
    for row in sorted(rows, key=lambda row: str(row["item"])):
        scores["score"].append(float(row["score"]))
        scores.setdefault(f"score:{row['skill']}", []).append(float(row["score"]))
    return scores


def _claim(statement: str, better: str, worse: str) -> Claim:
    return Claim("quickstart", statement, Greater(better, worse), "none", "our own claim")


QUICKSTART = Replication(
    system="quickstart",
    title="From a page of instructions to a better model",
    source="Our own claim: the main job of this package.",
    method="generate.self_instruct, select.length, tune.sft, evaluate.exams",
    recipe=RECIPE,
    arms=(
        Arm(
            "tuned",
            "The base model, tuned with LoRA on what the teacher wrote.",
            settings={"in_recipe": "tuned"},
        ),
        Arm(
            "base-chat",
            "The base model, asked in the chat form.",
            "baseline",
            settings={"in_recipe": "base"},
        ),
        Arm(
            "base-plain",
            "The base model, asked in question-and-answer text with worked examples.",
            "baseline",
            settings={"in_recipe": "base_plain"},
        ),
        Arm(
            "shuffled",
            "Tuned on the same rows with another row's answer each.",
            "control",
            settings={"in_recipe": "shuffled"},
        ),
    ),
    claims=(
        _claim("The tuned model beats the base model in the chat form.", "tuned", "base-chat"),
        _claim("The tuned model beats the base model in its plain form.", "tuned", "base-plain"),
        _claim("The tuned model beats the one tuned on shuffled answers.", "tuned", "shuffled"),
    ),
    cell=cell,
    not_measured=(
        "Other base models than seedling:small, and tasks outside the almanac.",
        "The model that wrote the data is the same in all cells: its training seed is not varied.",
    ),
    metrics={
        "score": "Share of right answers over all skills of the exam.",
        "score:SKILL": "The same of one skill.",
    },
)
