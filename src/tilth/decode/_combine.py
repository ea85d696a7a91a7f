"""The compositor: log-probabilities of several models to one score per token.

Axes: anything first, V tokens last.

Sums are formed in float32 of log-probabilities: half-precision differences of near-equal numbers
are noise, and filters must see each model's own distribution. A token that is impossible for a
model with a positive weight is impossible; for one with a negative weight it counts as that model's
least likely token, since a difference from minus infinity says nothing.

Filters, where p is the lead's distribution:

``top_p_weights``  Outside the smallest set with mass `mass` under p, a token keeps the lead's own
                   score, so that a noisy ratio lifts no junk.
``top_p_final``    Outside the smallest set with mass `mass` of the composed distribution, a token
                   is impossible.
``plausibility``   A token below `mass` times the greatest p is impossible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tilth.decode.composition import Filter
from tilth.errors import EngineError

__all__ = ["Plan", "combine", "log_probabilities"]

_NEVER = -1e4  # a probability of zero that can still be subtracted


@dataclass(frozen=True)
class Plan:
    """What :func:`combine` needs to know.

    Attributes:
        weights: Voice to weight; none is zero.
        names: Voice to the role's name, in errors.
        lead: The voice of the lead; it may be without weight where a filter asks for it.
        filter: The filter.
        mass: Its number.
        vocabulary: Tokens that all voices share; further logits are padding.
        ends: Tokens that end an answer, the lead's own first. With two voices or more they are one
            event: models agree on where an answer ends more than on the token that says so.
    """

    weights: Mapping[int, float]
    names: Mapping[int, str]
    lead: int
    filter: Filter
    mass: float
    vocabulary: int
    ends: tuple[int, ...]

    @property
    def ends_joined(self) -> bool:
        """Whether the tokens that end an answer count as one."""
        return len(self.weights) > 1 and len(self.ends) > 1

    @property
    def spread(self) -> float:
        """How much a rounding error of the logits can grow."""
        return max(1.0, sum(abs(w) for w in self.weights.values()))


def log_probabilities(logits: torch.Tensor, plan: Plan) -> torch.Tensor:
    """One voice's log-probabilities over the shared vocabulary, its ends joined where they are."""
    found = torch.log_softmax(logits[..., : plan.vocabulary].float(), dim=-1)
    if plan.ends_joined:
        ends = list(plan.ends)
        found[..., ends[0]] = torch.logsumexp(found[..., ends], dim=-1)
        found[..., ends[1:]] = _NEVER
    return found


def combine(
    logits: Mapping[int, torch.Tensor], plan: Plan, rules: torch.Tensor | None = None
) -> torch.Tensor:
    """The composed scores: log-probabilities up to a constant.

    Args:
        logits: Voice to logits ``[..., V]``; every voice of the plan, and the lead for a filter.
        plan: What to do.
        rules: What the rules add.

    Raises:
        EngineError: A role computes NaN.
    """
    terms = {v: log_probabilities(x, plan) for v, x in logits.items()}
    total = _sum(terms, plan)
    apart = plan.lead in terms and plan.lead not in plan.weights
    if apart or not bool(torch.isfinite(total).all()):
        _refuse_nan(terms, plan)
        total = _sum_with_impossible(terms, plan)
    if plan.filter == "top_p_weights":
        lead = terms[plan.lead]
        total = torch.where(_nucleus(lead, plan.mass), total, lead)
    elif plan.filter == "plausibility":
        lead = terms[plan.lead]
        least = lead.amax(-1, keepdim=True) + torch.tensor(plan.mass).log()
        total = total.masked_fill(lead < least, -torch.inf)
    if rules is not None:
        total = total + rules
    if plan.filter == "top_p_final":
        total = total.masked_fill(~_nucleus(total.log_softmax(-1), plan.mass), -torch.inf)
    if plan.ends_joined:
        total[..., list(plan.ends[1:])] = -torch.inf
    return total


def _sum(terms: Mapping[int, torch.Tensor], plan: Plan) -> torch.Tensor:
    (first, weight), *others = plan.weights.items()
    total = terms[first] * weight
    for voice, weight in others:
        total.add_(terms[voice], alpha=weight)
    return total


def _refuse_nan(terms: Mapping[int, torch.Tensor], plan: Plan) -> None:
    for voice, term in terms.items():
        if bool(torch.isnan(term).any()):
            raise EngineError(
                f"the role {plan.names[voice]!r} computes NaN",
                where="its logits",
                fix="its weights are damaged or its precision is too small: try dtype='float32'",
            )


def _sum_with_impossible(terms: Mapping[int, torch.Tensor], plan: Plan) -> torch.Tensor:
    total = torch.zeros_like(next(iter(terms.values())))
    impossible = None
    for voice, weight in plan.weights.items():
        term = terms[voice]
        never = torch.isneginf(term)
        if bool(never.any()):
            least = term.masked_fill(never, torch.inf).amin(-1, keepdim=True)
            term = torch.where(never, least, term)
            if weight > 0:
                impossible = never if impossible is None else impossible | never
        total = total.add(term, alpha=weight)
    return total if impossible is None else total.masked_fill(impossible, -torch.inf)


def _nucleus(log_p: torch.Tensor, mass: float) -> torch.Tensor:
    """True for the smallest set of the likeliest tokens with at least `mass`."""
    ordered, places = torch.sort(log_p, dim=-1, descending=True, stable=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    inside = before < mass
    inside[..., 0] = True  # a mass of 0 keeps the likeliest
    return torch.zeros_like(inside).scatter(-1, places, inside)
