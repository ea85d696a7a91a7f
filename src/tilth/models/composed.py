"""The written form of composed models: ``KIND:key=value,key=value``.

    eft:base=seedling:large,expert=runs/x/artefacts/tuned-1,anti=seedling:small,weight=1.0

A composed model answers with the product of several models' distributions. This module knows how
such a reference is written and which of its keys name models and files; what it means is known to
:mod:`tilth.decode`, which opens it by the name in :data:`OPENER`. A comma separates only where a
key and ``=`` follow, so that a path may hold one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tilth.errors import ModelError, nearest

__all__ = ["FORMS", "OPENER", "Form", "Parsed", "located", "parse"]

OPENER = "tilth.decode.engine:open_composed"
"""``module:function`` that makes an engine of a composed reference; a name, so that this floor does
not import the one above."""

_COMMON = ("draft", "acceptance")
_PAIRS = ("others", "filter", "mass", "extrapolate", *_COMMON)


@dataclass(frozen=True)
class Form:
    """What a kind of composed model is written with.

    Attributes:
        models: Keys that name models; all are needed.
        files: Keys that name a file; needed.
        settings: Keys that may be left out.
        may_rules: Whether ``rules=FILE`` may be added.
    """

    models: tuple[str, ...]
    files: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    may_rules: bool = True

    def known(self) -> tuple[str, ...]:
        """Every key."""
        rules = ("rules", *_RULES) if self.may_rules or "rules" in self.files else ()
        return tuple(dict.fromkeys((*self.models, *self.files, *self.settings, *rules)))


_RULES = ("scope", "official_hole", "strict")

FORMS: dict[str, Form] = {
    "eft": Form(("base", "expert", "anti"), settings=("weight", "amplification", *_PAIRS)),
    "dexperts": Form(("base", "expert", "anti"), settings=("alpha", *_PAIRS)),
    "interpolate": Form(("base", "first", "second", "anti"), settings=("lambda", *_PAIRS)),
    "contrastive": Form(("expert", "amateur"), settings=("alpha", "prompt", *_COMMON)),
    "guidance": Form(("model",), settings=("scale", *_COMMON)),
    "rules": Form(("base",), ("rules",), ("prompt", *_COMMON)),
}
"""The kinds of composed models; see :mod:`tilth.decode.composition` for what each computes."""

_WHOLE = re.compile(r"(?P<form>[a-z_]+):(?P<fields>[a-z_]+=.*)", re.DOTALL)
_BEGUN = re.compile(r"(?P<form>[A-Za-z_]+)\s*[:(]")
_NEXT = re.compile(r",(?=[a-z_]+=)")


@dataclass(frozen=True)
class Parsed:
    """A composed reference taken apart.

    Attributes:
        form: Its kind, a key of :data:`FORMS`.
        fields: Key and text, in the order written.
    """

    form: str
    fields: dict[str, str]

    def part(self, keys: tuple[str, ...]) -> dict[str, str]:
        """The fields with those keys that are there."""
        return {key: self.fields[key] for key in keys if key in self.fields}


def parse(ref: str) -> Parsed | None:
    """A composed reference taken apart; None where `ref` is not written as one.

    Raises:
        ModelError: It is one, but its kind or a key is not known, is missing, or stands twice.

    Example:
        >>> parse("rules:base=seedling:small,rules=published").fields["base"]
        'seedling:small'
        >>> parse("seedling:small") is None
        True
    """
    whole = _WHOLE.fullmatch(ref.strip())
    if whole is None:
        begun = _BEGUN.match(ref.strip())
        if begun is not None and begun["form"].lower() in FORMS:
            raise ModelError(
                "a composed model is written as a kind, a colon, and key=value pairs with commas",
                where=ref,
                fix=f"write {_sample(begun['form'].lower())}",
            )
        return None
    name = whole["form"]
    if name not in FORMS:
        raise ModelError(
            f"no composed model is of the kind {name!r}",
            where=ref,
            fix=nearest(name, FORMS) or f"the kinds are {', '.join(FORMS)}",
        )
    form = FORMS[name]
    fields: dict[str, str] = {}
    for piece in _NEXT.split(whole["fields"]):
        key, _, text = piece.partition("=")
        if key in fields or not text:
            problem = "stands twice" if text else "has no value"
            raise ModelError(f"{key!r} {problem}", where=ref, fix=f"write {name}:key=value,...")
        if key not in form.known():
            raise ModelError(
                f"a composed model of the kind {name!r} has no {key!r}",
                where=ref,
                fix=nearest(key, form.known()) or f"it has {', '.join(form.known())}",
            )
        fields[key] = text
    missing = [key for key in (*form.models, *form.files) if key not in fields]
    if missing:
        raise ModelError(f"{missing[0]!r} is missing", where=ref, fix=f"write {_sample(name)}")
    return Parsed(name, fields)


def _sample(name: str) -> str:
    """A reference of that kind, with dots for what it names."""
    form = FORMS[name]
    return f"{name}:" + ",".join(f"{key}=..." for key in (*form.models, *form.files))


def located(ref: str, place: Callable[[str], str]) -> str:
    """`ref` with `place` applied to every model, adapter and file that it names.

    Example:
        >>> located("eft:base=b,expert=b+e,anti=b,weight=0.5", lambda name: f"/runs/{name}")
        'eft:base=/runs/b,expert=/runs/b+/runs/e,anti=/runs/b,weight=0.5'
    """
    parsed = parse(ref)
    if parsed is None:
        return "+".join(place(piece) for piece in ref.split("+"))
    form = FORMS[parsed.form]
    fields = dict(parsed.fields)
    for key, text in fields.items():
        if key in form.models:
            fields[key] = located(text, place)
        elif key in (*form.files, "rules"):
            fields[key] = place(text)
    return f"{parsed.form}:" + ",".join(f"{key}={text}" for key, text in fields.items())
