"""``tilth decode`` and ``tilth chat``: any model reference answers, composed ones too."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tilth.cli import _console as console
from tilth.data.example import Message
from tilth.errors import EngineError, RecipeError, TilthWarning

if TYPE_CHECKING:
    from tilth.decode._engine import ComposedEngine
    from tilth.models import Engine, Sampling

__all__ = ["add_chat", "add_decode"]

Reference = "seedling:teacher"
Tokens = Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 is greedy.")]
TopP = Annotated[float, typer.Option(help="Mass of the likeliest tokens to draw from.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(help="Of the first answer; the others count on.")]


def add_decode(app: typer.Typer, about: str) -> None:
    """Makes the commands of the verb ``decode`` answer prompts too."""
    app.callback(
        invoke_without_command=True,
        help=f"{about} With --model it answers prompts; alone it lists its methods.",
        epilog=f"Example: tilth decode --model {Reference} --prompt 'How much is 2 and 3?'",
    )(_decode)


def add_chat(app: typer.Typer) -> None:
    """Adds ``tilth chat`` to `app`."""
    app.command("chat", epilog=f"Example: tilth chat {Reference}", rich_help_panel="Models")(chat)


def _decode(
    context: typer.Context,
    *,
    model: Annotated[str | None, typer.Option(help="A model reference.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="What to ask; repeatable.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A file: a prompt a line, or JSON Lines.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write JSON Lines here.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what the reference means, and stop.")
    ] = False,
    max_new_tokens: Tokens = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at once; speed only.")] = 32,
    device: Device = "auto",
) -> None:
    if context.invoked_subcommand is not None:
        return
    if model is None:
        from tilth.cli._methods import list_methods

        list_methods("decode")
        return
    if explain:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TilthWarning)  # they stand among the notes
            opened = _opened(model, device)
        _explain(opened)
        return
    from tilth.decode.prompts import read_prompts
    from tilth.models import Sampling, engine

    asked: list[list[Message]] = [[{"role": "user", "content": text}] for text in prompt or ()]
    asked += read_prompts(prompts) if prompts else []
    if not asked:
        raise RecipeError(
            "there is nothing to answer", where="tilth decode", fix="give --prompt or --prompts"
        )
    answering = engine(model, batch_size=batch_size, device=device)
    sampling = Sampling(max_new_tokens, temperature, top_p)
    said = answering.chat(asked, sampling, range(seed, seed + len(asked)))
    rows = [
        {"prompt": turns[-1]["content"], "output": c.text, "finish": c.finish, "generator": model}
        for turns, c in zip(asked, said, strict=True)
    ]
    if out is not None:
        from tilth.artefacts import write_atomically

        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(out, lines)
        console.out().print(f"[green]✓[/] {len(rows)} answers: {out}")
        return
    for row in rows:
        console.out().print(f"{row['prompt']}\n  → {row['output']}", markup=False)


def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model reference.")],
    *,
    system: Annotated[str, typer.Option(help="What the model is told first.")] = "",
    max_new_tokens: Tokens = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Talk to a model in the terminal. /clear begins anew, /quit, Ctrl-C or Ctrl-D ends."""
    from tilth.models import Sampling, engine, resolve

    sampling = Sampling(max_new_tokens, temperature, top_p)
    local = resolve(model).kind != "endpoint"
    answering = _opened(model, device) if local else engine(model)
    first: list[Message] = [{"role": "system", "content": system}] if system else []
    turns = list(first)
    while (asked := _asked()) is not None:
        if asked == "/clear":
            turns = list(first)
            continue
        turns.append({"role": "user", "content": asked})
        try:
            text = _answer(answering, turns, sampling, seed)
        except EngineError as error:  # most often the conversation has outgrown the model
            console.explain(error)
            console.err().print("this question was left out; /clear begins anew")
            turns.pop()
            continue
        turns.append({"role": "assistant", "content": text})
        seed += 1


def _asked() -> str | None:
    """The next line that is not empty; None at the end."""
    while True:
        try:
            line = input("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return None
        if line in ("/quit", "/exit"):
            return None
        if line:
            return line


def _answer(
    model: Engine | ComposedEngine, turns: Sequence[Message], sampling: Sampling, seed: int
) -> str:
    """Prints the answer as it is written, where the model can stream."""
    from tilth.decode._engine import ComposedEngine

    if not isinstance(model, ComposedEngine):
        (said,) = model.chat([list(turns)], sampling, [seed])
        print(said.error or said.text)
        return said.text
    text = ""
    try:
        for piece in model.stream([list(turns)], sampling, [seed]):
            print(piece.text, end="", flush=True)
            text += piece.text
    except KeyboardInterrupt:
        print(" [interrupted]", end="")
    print()
    return text


def _opened(model: str, device: str) -> ComposedEngine:
    from tilth.decode.engine import open_composed

    return open_composed(model, device=device, progress=False)


def _explain(model: ComposedEngine) -> None:
    """Prints roles, weights, filter, vocabulary, notes and rules."""
    ensemble = model.ensemble
    composition, weights = ensemble.composition, ensemble.composition.weights()
    rows = [
        (
            role.name + (" (lead)" if role.name == composition.lead else ""),
            f"{weights.get(role.name, 0.0):+g}",
            role.prompt,
            str(role.model),
        )
        for role in composition.roles
    ]
    console.table(rows, "role", "weight", "reads", "model")
    networks = len({id(voice.network) for voice in ensemble.voices})
    filtered = "" if composition.filter == "none" else f" ({composition.mass:g})"
    ends = ensemble.tokenizer.convert_ids_to_tokens(sorted(ensemble.chat_ends))
    console.out().print(
        f"computed: {', '.join(voice.name for voice in ensemble.voices)}; models loaded: "
        f"{networks}; tokens: {ensemble.plan.vocabulary:,}; filter: {composition.filter}"
        f"{filtered}; an answer ends with: {' '.join(ends)}",
        markup=False,
    )
    computed = {voice.name for voice in ensemble.voices}
    if rest := [role.name for role in composition.roles if role.name not in computed]:
        console.out().print(
            f"not computed apart: {', '.join(rest)} (the same model stands elsewhere, or the "
            "weights come to nothing)"
        )
    for note in ensemble.notes:
        console.out().print(f"[bold yellow]note:[/] {escape(note)}")
    if ensemble.rules is not None:
        console.table(ensemble.rules.table(), "rule", "weight", "text", "id", "token")
