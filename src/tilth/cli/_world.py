"""``tilth seedlings`` and ``tilth almanac``: the little world and the models that know it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tilth.cli import _console as console
from tilth.errors import RecipeError, nearest

__all__ = ["add"]

Seed = Annotated[int, typer.Option(help="Names an independent sequence of items.")]


def add(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    seedlings = typer.Typer(
        help="The small models that ship with tilth: list them, or train them again.",
        invoke_without_command=True,
        epilog="Example: tilth seedlings train --help",
    )
    seedlings.callback()(list_seedlings)
    seedlings.command("train", epilog="Example: tilth seedlings train small large --out grown")(
        train
    )
    app.add_typer(seedlings, name="seedlings", rich_help_panel="The almanac")

    almanac = typer.Typer(
        help="Look into the little world: its skills, items, exams and pages.",
        no_args_is_help=True,
        epilog="Example: tilth almanac item word_problems --level 2",
    )
    for command, example in (
        (skills, "tilth almanac skills"),
        (item, "tilth almanac item word_problems --level 2"),
        (exam, "tilth almanac exam --skills facts,lists --per-level 2 --seed 101"),
        (page, "tilth almanac page"),
    ):
        almanac.command(epilog=f"Example: {example}")(command)
    app.add_typer(almanac, name="almanac", rich_help_panel="The almanac")


def list_seedlings(
    context: typer.Context,
    card: Annotated[
        str | None, typer.Option(metavar="NAME", help="Print the whole card of one.")
    ] = None,
) -> None:
    """List the seedlings with what their cards say."""
    from tilth.models.reference import SEEDLINGS

    if context.invoked_subcommand is not None:
        return
    folders = {path.parent.name: path.parent for path in sorted(SEEDLINGS.glob("*/config.json"))}
    if card is not None and card not in folders:
        raise RecipeError(
            f"no seedling is called {card!r}",
            fix=nearest(card, folders) or f"there are: {', '.join(folders) or 'none'}",
        )
    if card is not None:
        console.out().print((folders[card] / "README.md").read_text("utf-8"), markup=False)
    elif folders:
        console.table([_seedling(f) for f in folders.values()], "reference", "size", "shape", "is")
    else:
        console.out().print(
            f"no seedlings lie in {SEEDLINGS}; make them with `tilth seedlings train`"
        )


def _seedling(folder: Path) -> Sequence[str]:
    """Reference, size, shape and the first sentence of the card of one seedling."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    shape = f"{config['num_hidden_layers']} layers x {config['hidden_size']}"
    readme = folder / "README.md"
    body = readme.read_text("utf-8").rpartition("\n---\n")[2] if readme.exists() else ""
    told = [line for line in body.splitlines() if line.strip() and not line.startswith("#")]
    return f"seedling:{folder.name}", f"{size / 2**20:.1f} MiB", shape, (told or [""])[0]


def train(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Which; all by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write them.")] = Path("seedlings"),
    seed: Annotated[int | None, typer.Option(help="The world's seed.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda, for the pre-training.")] = "cpu",
) -> None:
    """Train the seedlings from scratch; the same seed gives the same weights."""
    from tilth.almanac.world import WORLD_SEED
    from tilth.apps.seedlings.train import NAMES, train_seedlings

    world = WORLD_SEED if seed is None else seed
    with console.resumable():
        train_seedlings(out, names or NAMES, seed=world, device=device, say=console.say)


def skills() -> None:
    """List the skills, their levels, and the score of blind guessing."""
    from tilth.almanac.skills import SKILLS

    rows = [
        (skill.name, ", ".join(map(str, skill.levels)), f"{skill.chance:.2f}", _about(skill))
        for skill in SKILLS.values()
    ]
    console.table(rows, "skill", "levels", "chance", "what it asks")


def _about(skill: object) -> str:
    return (type(skill).__doc__ or "").strip().partition("\n")[0]


def item(  # noqa: PLR0917  typer names every one of them
    skill: Annotated[str, typer.Argument(help="A skill, e.g. word_problems.")],
    level: Annotated[int, typer.Option(help="1 is the easiest.")] = 1,
    index: Annotated[int, typer.Option(help="The first item to show.")] = 0,
    count: Annotated[int, typer.Option(help="How many to show.")] = 1,
    split: Annotated[str, typer.Option(help="corpus, train, validation, tuning or testing.")] = (
        "train"
    ),
    seed: Seed = 0,
) -> None:
    """Show items of a skill: question, worked answer, answer."""
    from tilth.almanac.exams import skills_named
    from tilth.almanac.skills import SKILLS, SPLITS

    (name,) = skills_named([skill])
    chosen = SKILLS[name]
    if level not in chosen.levels:
        raise RecipeError(
            f"{name} has no level {level}",
            fix=f"its levels are {', '.join(map(str, chosen.levels))}",
        )
    named = [known for known in SPLITS if known == split]
    if not named:
        raise RecipeError(f"there is no split {split!r}", fix=f"known: {', '.join(SPLITS)}")
    for number in range(index, index + count):
        _show_item(chosen.item(number, level=level, split=named[0], seed=seed))


def exam(
    skills: Annotated[str, typer.Option(help="Comma-separated; all by default.")] = "",
    per_level: Annotated[int, typer.Option(help="Questions per skill and level.")] = 1,
    seed: Annotated[int, typer.Option(help="The test seed that names the exam.")] = 101,
    tuning: Annotated[
        bool, typer.Option("--tuning", help="The exam of a tuning seed instead.")
    ] = False,
) -> None:
    """Show an exam as a model gets it, with the answers."""
    from tilth.almanac.exams import exam as draw
    from tilth.seeds import TestSeed, TuningSeed

    names = [name.strip() for name in skills.split(",") if name.strip()]
    for one in draw(names or None, per_level, TuningSeed(seed) if tuning else TestSeed(seed)):
        _show_item(one)


def page(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="An entity; all names by default.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only entities of this kind, when listing.")
    ] = None,
) -> None:
    """Show the almanac's page about an entity, or list the pages."""
    from tilth.almanac.documents import page as read
    from tilth.almanac.documents import pages
    from tilth.almanac.world import RELATIONS

    if kind is not None and kind not in (kinds := {k for k, _ in RELATIONS.values()}):
        raise RecipeError(f"there are no pages of kind {kind!r}", fix=f"known: {sorted(kinds)}")
    known = [listed for listed, _ in pages(kind)]
    if name is None:
        console.out().print("\n".join(known), markup=False)
    elif name in known:
        console.out().print(read(name), markup=False)
    else:
        fix = nearest(name, known) or "`tilth almanac page` lists every name"
        raise RecipeError(f"the almanac has no page {name!r}", fix=fix)


def _show_item(one: object) -> None:
    from tilth.almanac.skills import Item

    assert isinstance(one, Item)
    lines = [("", one.id), ("question", one.prompt), ("worked", one.worked), ("answer", one.answer)]
    for label, text in lines:
        if text:
            console.out().print(f"{label:>9}  {text}" if label else text, markup=False)
    console.out().print()
