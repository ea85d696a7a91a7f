"""``tilth select length --pool pool.jsonl --count 500 --out chosen``: a command per method.

The options are a method's settings: name, type, default and help come from its own fields, so that
a new method has its command line without a line here. Only the method that is asked for is
imported.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.markup import escape

from tilth._disk import whole_file
from tilth.artefacts import Artefact, digest_of
from tilth.cli import _console as console
from tilth.errors import ArtefactError
from tilth.marked_yaml import parse_value
from tilth.method import Input, Method
from tilth.registry import VERBS, methods
from tilth.seeds import SeedPlan
from tilth.validate import build

__all__ = ["commands", "list_methods"]

_OUT = {
    False: "The folder to write; it becomes an artefact.",
    True: "The folder to write; it becomes an artefact. NAME.jsonl: also its rows as that file.",
}
_SAMPLE = {"rows": "pool.jsonl", "model": "seedling:small", "scores": "scores"}


def commands(verb: str, words: Sequence[str]) -> typer.Typer:
    """The commands of one verb.

    Args:
        verb: The verb.
        words: The command line; the method that it names gets its options, the others a line.
    """
    app = typer.Typer(
        help=f"{VERBS[verb]} `tilth {verb}` lists its methods.",
        invoke_without_command=True,
        rich_markup_mode="rich",
        epilog=f"Example: tilth {verb} METHOD --help",
    )

    @app.callback()
    def listing(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            list_methods(verb)

    if words and words[0] == verb:
        for entry in methods(verb).values():
            if entry.name in words:
                _add(app, entry.load())
            else:
                app.command(entry.name, help=escape(entry.summary()))(list_methods)
    return app


def list_methods(verb: str = "") -> None:
    """Lists the methods of a verb."""
    listed = [(entry.name, entry.summary()) for entry in methods(verb).values()]
    if listed:
        console.table(listed, verb, VERBS[verb])
    else:
        console.out().print(f"no method of the verb {verb!r} is installed yet")


def _add(app: typer.Typer, method: type[Method]) -> None:
    """Adds the command of `method`, with an option for every setting."""
    words = f"tilth {method.verb} {method.name}"
    needed = [
        f"{_flag(name)} {_sample(name, info)}"
        for name, info in method.model_fields.items()
        if info.is_required() or name in method.shown
    ]
    app.command(
        method.name,
        help=escape(_about(method)),
        epilog=escape(f"Example: {' '.join([words, *needed])} --out {method.name}-1"),
    )(_command(method))


def _about(method: type[Method]) -> str:
    """The docstring for a terminal: whole paragraphs, no code marks, no example."""
    text = inspect.cleandoc(method.__doc__ or "").partition("\nExample:")[0]
    text = re.sub(r":\w+:`~?|``", "`", text)
    return "\n\n".join(map(_paragraph, text.strip().split("\n\n")))


def _paragraph(part: str) -> str:
    """A paragraph as one line; a formula or a table, which is indented, keeps its lines."""
    lines = part.split("\n")
    if all(line.startswith("    ") for line in lines):
        return "\n".join(["\b", *(line[2:] for line in lines)])
    return " ".join(lines)


def _command(method: type[Method]) -> Callable[..., None]:
    """The function behind a method's command, with the signature that typer reads."""

    def command(**given: Any) -> None:
        out, seed = given.pop("out"), given.pop("seed")
        plan = SeedPlan(root=seed)
        if method.judges:
            testing = parse_value(f"[{given.pop('test_seeds')}]", "--test-seeds")
            plan = SeedPlan.of(seed, tuning=[], testing=testing)
        settings = {
            name: _value(method.model_fields[name], text, _flag(name))
            for name, text in given.items()
            if text is not None
        }
        made = build(method, settings, f"tilth {method.verb} {method.name}")
        folder, file = _places(method, out)
        if estimate := console.amounts(made.estimate()):
            console.out().print(f"estimated cost: {escape(estimate)}", style="dim")
        with console.resumable():
            artefact = made.to(folder, plan=plan, say=console.say)
        if file is not None:
            _copy_rows(artefact, folder, file)
        _tell(artefact, folder, file)

    options = [_option(name, info) for name, info in method.model_fields.items()]
    own = [
        _parameter("out", Path, _OUT[method.kind == "rows"], metavar="FOLDER"),
        _parameter("seed", int, "The root seed.", default=0),
    ]
    if method.judges:
        default = ",".join(str(int(s)) for s in SeedPlan().testing)
        own.append(_parameter("test_seeds", str, "Seeds that only judge.", default=default))
    parameters = sorted([*options, *own], key=lambda p: p.default is not inspect.Parameter.empty)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _places(method: type[Method], out: Path) -> tuple[Path, Path | None]:
    """The artefact's folder, and the file for its rows where `out` names one.

    ``chosen.jsonl`` stands for the folder ``chosen`` and the file ``chosen.jsonl`` beside it.

    Raises:
        ArtefactError: The file is there already and no artefact of ours beside it.
    """
    if out.suffix != ".jsonl" or method.kind != "rows":
        return out, None
    folder = out.with_suffix("")
    if out.exists() and not (folder / "manifest.json").is_file():
        raise ArtefactError(
            "this file already holds something else",
            where=str(out),
            fix="choose another name, or move it away",
        )
    return folder, out


def _copy_rows(artefact: Artefact, folder: Path, file: Path) -> None:
    """Writes the artefact's rows to `file`, unless they stand there already.

    Raises:
        ArtefactError: The file holds other rows.
    """
    rows = artefact.path("rows.jsonl")
    if not file.exists():
        with whole_file(file) as copy, rows.open("rb") as original:
            shutil.copyfileobj(original, copy)
    elif digest_of(file) != digest_of(rows):
        raise ArtefactError(
            f"this file holds other rows than those of {folder}",
            where=str(file),
            fix="choose another name, or move it away",
        )


def _tell(artefact: Artefact, folder: Path, file: Path | None) -> None:
    """What was made, from what, at what cost; of a selection also the page that tells why."""
    manifest, out = artefact.manifest, console.out()
    how = "found finished" if artefact.cached else "made"
    out.print(f"[green]✓[/] {how}: {escape(str(folder))}")
    if manifest.funnel:
        steps = " → ".join(f"{stage} {rows:,}" for stage, rows in manifest.funnel)
        out.print(f"  rows    {escape(steps)}")
    out.print(f"  metrics {escape(console.one_line(manifest.metrics, 20))}")
    out.print(f"  cost    {escape(console.amounts(manifest.cost))}")
    if file is not None:
        out.print(f"  rows in {escape(str(file))}")
    if "summary.json" in manifest.files and manifest.method.startswith("select."):
        from tilth.report.selection import write

        page = write(folder, folder.with_name(f"{folder.name}.html"))
        out.print(f"report: {escape(str(page))}", style="bold")


def _parameter(
    name: str, kind: Any, text: str, default: Any = inspect.Parameter.empty, **more: Any
) -> inspect.Parameter:
    flag = more.pop("flag", _flag(name))
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer.Option(flag, help=escape(text), **more)],
    )


def _option(name: str, info: FieldInfo) -> inspect.Parameter:
    """A setting as an option; it is given as text, and the method itself checks it."""
    text = info.description or ""
    if info.is_required():
        return _parameter(name, str, text, metavar=_type_name(info))
    default = info.get_default(call_default_factory=True)
    if default is not None:
        text += f" [default: {_shown(default)}]"
    if info.annotation is bool:
        flag = f"{_flag(name)}/--no-{_flag(name)[2:]}"
        return _parameter(name, bool | None, text, None, flag=flag)
    return _parameter(name, str | None, text, None, metavar=_type_name(info))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shown(default: Any) -> str:
    if isinstance(default, list | tuple):
        return ",".join(map(str, default)) or "none"
    return str(default) if default != "" else "empty"


def _sample(name: str, info: FieldInfo) -> str:
    kind = _kind(info)
    if kind == "rows" and not info.is_required():
        return f"{name}.jsonl"
    return _SAMPLE.get(kind, "FOLDER") if kind else _type_name(info)


def _kind(info: FieldInfo) -> str:
    """What an input is, optional or not; empty for any other setting."""
    marks = [*info.metadata]
    for part in get_args(info.annotation):
        marks += get_args(part)[1:] if get_origin(part) is Annotated else ()
    return next((mark.kind for mark in marks if isinstance(mark, Input)), "")


def _types(annotation: Any) -> list[Any]:
    """The plain types, origins and literals of an annotation, unions taken apart."""
    origin = get_origin(annotation)
    if origin is None or origin is Literal or origin in (list, tuple, dict):
        return [annotation]
    if origin is Annotated:
        return _types(get_args(annotation)[0])
    return [found for part in get_args(annotation) for found in _types(part)]


def _type_name(info: FieldInfo) -> str:
    """A short name of the type for the help, e.g. ``INTEGER`` or ``longest|shortest``."""
    plain = not {list, tuple, dict} & {get_origin(kind) or kind for kind in _types(info.annotation)}
    if plain and (kind_of := _kind(info)):
        return kind_of.upper()
    names = []
    for kind in _types(info.annotation):
        origin = get_origin(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.append("KIND:NAME=VALUE,...")
        elif origin is Literal:
            names += [str(choice) for choice in get_args(kind)]
        elif origin is dict or kind is dict:
            names.append("NAME=VALUE,...")
        elif origin in (list, tuple) or kind in (list, tuple):
            names.append("A,B,...")
        elif kind is not type(None):
            names.append({int: "INTEGER", float: "NUMBER", str: "TEXT"}.get(kind, "VALUE"))
    return "|".join(dict.fromkeys(names))


def _value(info: FieldInfo, text: str | bool, flag: str) -> Any:
    """The value that `text` means: text where text is expected, else read as in a recipe."""
    kinds = _types(info.annotation)
    choices = [choice for k in kinds if get_origin(k) is Literal for choice in get_args(k)]
    if isinstance(text, bool) or text in choices or str in kinds:
        return text
    if text[:1] != "{" and any(isinstance(k, type) and issubclass(k, BaseModel) for k in kinds):
        return text  # the short form, which the settings themselves read
    origins = {get_origin(kind) or kind for kind in kinds}
    if text[:1] not in "[{":
        if dict in origins:
            pairs = (pair.partition("=") for pair in text.split(",") if pair)
            return {name.strip(): parse_value(value, flag) for name, _, value in pairs}
        if origins & {list, tuple}:
            return [parse_value(item, flag) for item in text.split(",") if item]
    return parse_value(text, flag)
