"""The rule adapter: instructions followed with no training at all.

Hewitt et al. 2024 (arXiv:2409.14254) multiply a base model's next-token distribution with that of
three hand-written rules, which adds a score to its logits: the end of the answer grows likelier
with every token, fifteen tokens are made likelier or less likely, and a token that was seen loses.

Rules are written as texts and become tokens of whatever vocabulary they meet; the published code
holds the ids of one tokenizer. What a text became is in the :class:`Resolution`, and a text that is
no single token is named there and skipped, or an error under ``strict``.

    name: published
    scope: turn
    rules:
      - {kind: eos_ramp, weight: 15, range: 250}
      - {kind: token_bias, weight: -4, strings: ["<", " <", "|"]}
      - {kind: seen_penalty, weight: -1.5}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tilth.errors import DataError, ModelError, RecipeError, nearest
from tilth.marked_yaml import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tilth.models.tokens import TextIds

__all__ = ["Resolution", "Resolved", "Rule", "RuleSet", "Scope", "read_rules", "resolve_rules"]

Kind = Literal["eos_ramp", "token_bias", "seen_penalty", "start"]
Scope = Literal["response", "turn"]

_NEEDS_TOKENS: tuple[Kind, ...] = ("token_bias", "start")


class Rule(BaseModel):
    """One rule.

    Attributes:
        kind: ``eos_ramp`` adds ``weight * t / range`` to the tokens that end an answer, t tokens
            into it, and no more than `weight`; ``token_bias`` adds `weight` to its tokens;
            ``seen_penalty`` adds `weight` once to every token that was seen; ``start`` adds
            `weight` to its tokens for the first `range` tokens of the answer.
        weight: In units of log-probability.
        strings: Texts, each one token as it stands in the middle of a text; a leading space counts.
        tokens: Ids, or entries of the vocabulary as its file spells them.
        range: Tokens of the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    weight: float = Field(allow_inf_nan=False)
    strings: tuple[str, ...] = ()
    tokens: tuple[int | str, ...] = ()
    range: int = Field(0, ge=0)

    @field_validator("strings", "tokens", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return (value,) if isinstance(value, str | int) else value

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        names = bool(self.strings or self.tokens)
        if self.kind in _NEEDS_TOKENS and not names:
            raise ValueError(f"a rule {self.kind} needs strings or tokens")
        if self.kind == "seen_penalty" and names:
            raise ValueError("a rule seen_penalty is about every token: leave strings out")
        if self.kind in ("eos_ramp", "start") and not self.range:
            raise ValueError(f"a rule {self.kind} needs a range of at least 1 token")
        return self


class RuleSet(BaseModel):
    """Rules that act together.

    Attributes:
        name: What they are called.
        rules: The rules; their scores add up.
        scope: What ``seen_penalty`` has seen: the answer so far (the paper's text), or everything
            since the start of the user's turn (the published code, and the default).
        official_hole: Stop the ramp at its end, as the published code does, which then adds nothing
            from token `range` on. By default it stays at its top.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    rules: tuple[Rule, ...] = Field(min_length=1)
    scope: Scope = "turn"
    official_hole: bool = False


def read_rules(path: str | Path) -> RuleSet:
    """The rule set in a YAML file.

    Raises:
        RecipeError: The file cannot be read, or says what no rule understands; the key is named.
    """
    path = Path(path)
    body = read_yaml(path)
    try:
        return RuleSet.model_validate(body.value)
    except ValidationError as error:
        # A key that is not known explains why another one is missing.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        place = ".".join(map(str, first["loc"]))
        said, fix = first["msg"].removeprefix("Value error, "), ""
        if first["type"] == "extra_forbidden":
            said = "there is no such key"
            fix = nearest(place.rpartition(".")[2], [*Rule.model_fields, *RuleSet.model_fields])
        elif first["type"] == "literal_error":
            words = get_args(Kind) if place.endswith("kind") else ("turn", "response")
            fix = nearest(str(first["input"]), words)
        raise RecipeError(
            f"{place or 'the rules'}: {said}",
            where=body.where(*first["loc"]),
            fix=fix or "a rule is written {kind: ..., weight: ..., strings: [...]}",
        ) from error


@dataclass(frozen=True)
class Resolved:
    """What one token of one rule became.

    Attributes:
        kind: The rule's kind.
        weight: Its weight.
        written: The text, entry or id in the file.
        token: Its id; None where it has none.
        piece: The vocabulary's own spelling.
        range: The rule's range.
    """

    kind: Kind
    weight: float
    written: str
    token: int | None
    piece: str
    range: int = 0


@dataclass(frozen=True)
class Resolution:
    """A rule set in one vocabulary.

    Attributes:
        rules: The rule set.
        rows: A line per token of a rule; a rule about every token has one line.
        ends: The tokens that end an answer.
    """

    rules: RuleSet
    rows: tuple[Resolved, ...]
    ends: tuple[int, ...]

    @property
    def missing(self) -> tuple[Resolved, ...]:
        """Texts and entries that are no single token here, and so have no effect."""
        return tuple(row for row in self.rows if row.token is None and row.written)

    def table(self) -> list[tuple[str, str, str, str, str]]:
        """Kind, weight, text, id and vocabulary entry of every line, for a console."""
        return [
            (
                row.kind,
                f"{row.weight:+g}",
                repr(row.written) if row.written else "every token",
                "-" if row.token is None else str(row.token),
                row.piece or ("no single token: skipped" if row.written else ""),
            )
            for row in self.rows
        ]


def resolve_rules(
    rules: RuleSet,
    tokenizer: PreTrainedTokenizerBase,
    ends: Iterable[int],
    *,
    strict: bool = False,
) -> Resolution:
    """The tokens that the texts of a rule set are in one vocabulary.

    Args:
        rules: The rules.
        tokenizer: Its vocabulary.
        ends: The tokens that end an answer, which ``eos_ramp`` is about.
        strict: Refuse a text that is no single token.

    Raises:
        ModelError: ``strict``, and a text is no single token; or an id is outside the vocabulary.
    """
    from tilth.models.tokens import TextIds

    ids = TextIds(tokenizer)
    stops = tuple(sorted(ends))
    rows: list[Resolved] = []
    for rule in rules.rules:
        kind, weight, length = rule.kind, rule.weight, rule.range
        if kind == "eos_ramp" and not (rule.strings or rule.tokens):
            for end in stops:
                piece = str(tokenizer.convert_ids_to_tokens(end))
                rows.append(Resolved(kind, weight, "end of the answer", end, piece, length))
        elif kind == "seen_penalty":
            rows.append(Resolved(kind, weight, "", None, "", length))
        named = [(text, _of_text(text, ids)) for text in rule.strings]
        named += [(str(entry), _of_entry(entry, tokenizer)) for entry in rule.tokens]
        for written, token in named:
            piece = "" if token is None else str(tokenizer.convert_ids_to_tokens(token))
            rows.append(Resolved(kind, weight, written, token, piece, length))
    found = Resolution(rules, tuple(rows), stops)
    if strict and found.missing:
        raise ModelError(
            f"{len(found.missing)} texts of the rules are no single token of this vocabulary, the "
            f"first is {found.missing[0].written!r}",
            where=rules.name or "rules",
            fix="leave strict out to skip them, or write rules for this tokenizer",
        )
    return found


def _of_text(text: str, ids: TextIds) -> int | None:
    """The one token that `text` is in the middle of a text, or None."""
    try:
        found = ids(text, "text")
    except DataError:  # it joins with whatever stands before it: no token of its own
        return None
    return found[0] if len(found) == 1 else None


def _of_entry(entry: int | str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    if isinstance(entry, str):
        found: int | None = tokenizer.get_vocab().get(entry)
        return found
    if not 0 <= entry < len(tokenizer):
        raise ModelError(
            f"the token id {entry} is outside the vocabulary",
            where=f"a rule; the vocabulary has {len(tokenizer)} tokens",
            fix="write the token as a text, which fits any vocabulary",
        )
    return entry
