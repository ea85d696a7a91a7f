"""What a composed model computes: terms of log-probabilities, a filter, and rules.

Every kind of composed model is one product of experts. With ``s`` the log-probabilities of a model
for the next token (in float32, over the vocabulary that all share),

    log p(token) = sum over terms of weight * s(token) + rules(token) - log Z

taken token by token. The kinds are short forms:

===============  ===================================================================================
``eft``          base + weight (expert - anti): emulated fine-tuning (Mitchell et al. 2023,
                 arXiv:2310.12962); with ``amplification`` b instead: expert + b (base - anti)
``dexperts``     base + alpha (expert - anti): DExperts (Liu et al. 2021, arXiv:2105.03023), proxy
                 tuning (Liu et al. 2024, arXiv:2401.08565); on raw logits the same distribution
``interpolate``  base + lambda (first - anti) + (1 - lambda) (second - anti)
``contrastive``  expert - amateur, where the expert gives a token at least alpha of its greatest
                 probability (Li et al. 2022, arXiv:2210.15097)
``guidance``     scale * asked + (1 - scale) * unasked: classifier-free guidance with the question
                 left empty (Sanchez et al. 2023, arXiv:2306.17806)
``rules``        base + rules: the rule adapter (Hewitt et al. 2024, arXiv:2409.14254)
===============  ===================================================================================

Scaling up is ``eft`` with a base larger than expert and anti-expert, scaling down with a smaller
one; with equal sizes base and anti-expert cancel, and the expert itself answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from tilth.errors import ModelError, nearest
from tilth.models.reference import Reference

__all__ = ["Acceptance", "Composition", "Filter", "Prompt", "Role", "Term", "composition_of"]

Prompt = Literal["chat", "plain", "unasked"]
"""How a role reads a conversation: in the chat template, as question-and-answer text, or in the
chat template with every user turn left empty."""

Filter = Literal["none", "top_p_weights", "top_p_final", "plausibility"]
"""Which tokens the terms may move; see :mod:`tilth.decode._combine`."""

Acceptance = Literal["coupled", "rejection"]


@dataclass(frozen=True)
class Role:
    """One model in one part.

    Attributes:
        name: What it is called in the reference and in errors.
        model: The model.
        prompt: How it reads a conversation.
    """

    name: str
    model: Reference
    prompt: Prompt = "chat"


@dataclass(frozen=True)
class Term:
    """A role's share of the sum."""

    role: str
    weight: float


@dataclass(frozen=True)
class Composition:
    """A composed model before anything is loaded.

    Attributes:
        reference: Its reference, in errors.
        roles: The models.
        terms: Their weights.
        lead: The role that says how an answer is written and ends, and that drafts.
        filter: See :data:`Filter`.
        mass: The filter's number: the mass of ``top_p_...``, the share of ``plausibility``.
        rules: A rule file; None for none.
        scope: What the rules count as seen; None leaves it to the file.
        official_hole: Stop the ramp where the published code stops it; None leaves it to the file.
        strict: A rule without a token in this vocabulary is an error.
        draft: Draft tokens a round: None chooses by the measured speed, 0 never drafts.
        acceptance: How drafts are accepted; see :mod:`tilth.decode._rounds`.
    """

    reference: str
    roles: tuple[Role, ...]
    terms: tuple[Term, ...]
    lead: str
    filter: Filter = "none"
    mass: float = 1.0
    rules: Path | None = None
    scope: Literal["response", "turn"] | None = None
    official_hole: bool | None = None
    strict: bool = False
    draft: int | None = None
    acceptance: Acceptance = "coupled"

    def role(self, name: str) -> Role:
        """The role of that name."""
        return next(role for role in self.roles if role.name == name)

    def weights(self) -> dict[str, float]:
        """Role to weight; a role without a term has none."""
        found: dict[str, float] = {}
        for term in self.terms:
            found[term.role] = found.get(term.role, 0.0) + term.weight
        return found


def composition_of(reference: Reference) -> Composition:
    """The composition that a reference means; a plain local model is one role of weight 1.

    Raises:
        ModelError: A number is out of its range, or a word is not known; the key is named.
    """
    if reference.kind == "endpoint":
        raise ModelError(
            "an endpoint can be neither combined nor served here",
            where=str(reference),
            fix="it tells no log-probabilities of all tokens: use a local model",
        )
    if reference.kind != "composed":
        only = Role("model", reference)
        return Composition(str(reference), (only,), (Term("model", 1.0),), "model")
    read = _Read(reference)
    made = _KINDS[reference.base](read)
    return read.common(made)


@dataclass(frozen=True)
class _Read:
    """Reads the settings of one reference."""

    reference: Reference

    def error(self, key: str, problem: str, fix: str) -> ModelError:
        return ModelError(f"{key!r} {problem}", where=str(self.reference), fix=fix)

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A finite number between `low` and `high`, both included."""
        text = self.reference.settings.get(key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high):
            most = f"and at most {high:g}" if math.isfinite(high) else "and finite"
            raise self.error(key, f"is {text}", f"use a number of at least {low:g} {most}")
        return value

    def delta(self, key: str, default: float) -> float:
        """A weight in [0, 1]; beyond only where ``extrapolate=yes`` says that it is meant."""
        if self.flag("extrapolate"):
            return self.number(key, default, -math.inf, math.inf)
        try:
            return self.number(key, default, 0.0, 1.0)
        except ModelError as error:
            error.fix = (
                "use a number from 0 to 1; extrapolate=yes allows others: below 0 the tuning is "
                "reversed, and what the expert was tuned to refuse may come back"
            )
            raise error from None

    def word(self, key: str, default: str, known: tuple[str, ...]) -> str:
        text = self.reference.settings.get(key, default)
        if text not in known:
            raise self.error(key, f"is {text!r}", nearest(text, known) or f"use {', '.join(known)}")
        return text

    def flag(self, key: str) -> bool:
        return self.word(key, "no", ("yes", "no", "true", "false")) in ("yes", "true")

    def role(self, key: str, prompt: Prompt) -> Role:
        return Role(key, self.reference.models[key], prompt)

    def prompt(self, key: str, default: Prompt) -> Prompt:
        word = self.word(key, default, ("chat", "plain"))
        return "plain" if word == "plain" else "chat"

    def of_pairs(self, made: Composition, default: Filter = "none") -> Composition:
        """`made` with the filter that the reference asks for."""
        name = self.word("filter", default, get_args(Filter))
        # 0.95 is our choice; 0.1 is the plausibility of Li et al. 2022.
        mass = self.number("mass", 0.1 if name == "plausibility" else 0.95, 0.0, 1.0)
        return replace(made, filter=name, mass=mass)  # type: ignore[arg-type]

    def common(self, made: Composition) -> Composition:
        """`made` with what every kind understands."""
        settings = self.reference.settings
        draft = settings.get("draft", "auto")
        if draft != "auto" and not (draft.isdigit() and int(draft) <= 64):
            raise self.error("draft", f"is {draft!r}", "use auto, 0 (never), or up to 64 tokens")
        acceptance = self.word("acceptance", "coupled", get_args(Acceptance))
        if acceptance == "rejection" and draft in ("auto", "0"):
            raise self.error(
                "acceptance",
                "is 'rejection', whose answers depend on the length of the draft",
                "give that length too, for instance draft=4",
            )
        scope = (
            self.word("scope", "response", ("response", "turn")) if "scope" in settings else None
        )
        hole = self.flag("official_hole") if "official_hole" in settings else None
        return replace(
            made,
            draft=None if draft == "auto" else int(draft),
            acceptance=acceptance,  # type: ignore[arg-type]
            rules=self.reference.files.get("rules"),
            scope=scope,  # type: ignore[arg-type]
            official_hole=hole,
            strict=self.flag("strict"),
        )

    def made(
        self, lead: str, weights: Mapping[str, float], prompts: Mapping[str, Prompt]
    ) -> Composition:
        roles = tuple(self.role(key, prompts.get(key, "chat")) for key in self.reference.models)
        terms = tuple(Term(role, weight) for role, weight in weights.items())
        return Composition(str(self.reference), roles, terms, lead)


def _eft(read: _Read) -> Composition:
    others = read.prompt("others", "plain")
    if {"weight", "amplification"} <= set(read.reference.settings):
        raise read.error("amplification", "stands beside 'weight'", "give one of the two")
    w = read.delta("weight", 1.0)
    b = read.number("amplification", 1.0, 0.0, math.inf)
    weights = {"base": b, "expert": w, "anti": -w * b}
    return read.of_pairs(read.made("expert", weights, {"base": others, "anti": others}))


def _dexperts(read: _Read) -> Composition:
    others, alpha = read.prompt("others", "plain"), read.delta("alpha", 1.0)
    weights = {"base": 1.0, "expert": alpha, "anti": -alpha}
    return read.of_pairs(read.made("expert", weights, {"base": others, "anti": others}))


def _interpolate(read: _Read) -> Composition:
    others, share = read.prompt("others", "plain"), read.delta("lambda", 0.5)
    weights = {"base": 1.0, "first": share, "second": 1.0 - share, "anti": -1.0}
    return read.of_pairs(read.made("first", weights, {"base": others, "anti": others}))


def _contrastive(read: _Read) -> Composition:
    prompt = read.prompt("prompt", "chat")
    both: dict[str, Prompt] = {"expert": prompt, "amateur": prompt}
    made = read.made("expert", {"expert": 1.0, "amateur": -1.0}, both)
    # 0.1 is the value of Li et al. 2022.
    return replace(made, filter="plausibility", mass=read.number("alpha", 0.1, 0.0, 1.0))


def _guidance(read: _Read) -> Composition:
    # 1.5 is our choice, in the middle of what Sanchez et al. 2023 try.
    scale = read.number("scale", 1.5, 0.0, math.inf)
    model = read.reference.models["model"]
    roles = (Role("asked", model), Role("unasked", model, "unasked"))
    terms = (Term("asked", scale), Term("unasked", 1.0 - scale))
    return Composition(str(read.reference), roles, terms, "asked")


def _rules(read: _Read) -> Composition:
    return read.made("base", {"base": 1.0}, {"base": read.prompt("prompt", "chat")})


_KINDS: dict[str, Callable[[_Read], Composition]] = {
    "eft": _eft,
    "dexperts": _dexperts,
    "interpolate": _interpolate,
    "contrastive": _contrastive,
    "guidance": _guidance,
    "rules": _rules,
}
