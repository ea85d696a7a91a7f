"""A composition that is loaded: voices, prompts, the vocabulary that they share, and the rules."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from tilth.cost import forward_flops
from tilth.data.example import Message
from tilth.decode._checks import parent_problem, shared_vocabulary, warn
from tilth.decode._combine import Plan
from tilth.decode._networks import Networks
from tilth.decode._prompts import PLAIN_STOPS, Speaker
from tilth.decode._tracks import Voice
from tilth.decode.composition import Composition
from tilth.decode.rules import Resolution, read_rules, resolve_rules
from tilth.errors import ModelError
from tilth.models.chat import ChatFormat, chat_format
from tilth.models.load import load_tokenizer

__all__ = ["Ensemble", "assemble"]


@dataclass(frozen=True)
class Ensemble:
    """Everything that answering needs.

    Attributes:
        composition: What was asked for.
        voices: The voices, each of them with a weight or needed by the filter.
        plan: The composition in numbers.
        speakers: Voice to who puts its prompts.
        lead: Who puts the lead's prompts, writes and ends the answers.
        stop_texts: Texts that end an answer in chat.
        chat_ends: Tokens that end an answer in chat.
        text_ends: Tokens that end plain text.
        rules: The rules in this vocabulary; None without any.
        window: Positions that every voice reads.
        notes: What was warned of or left out.
    """

    composition: Composition
    voices: tuple[Voice, ...]
    plan: Plan
    speakers: dict[int, Speaker]
    lead: Speaker
    stop_texts: tuple[str, ...]
    chat_ends: frozenset[int]
    text_ends: frozenset[int]
    rules: Resolution | None
    window: int
    notes: tuple[str, ...] = field(default=())

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The lead's tokenizer."""
        return self.lead.tokenizer

    @property
    def form(self) -> ChatFormat:
        """The lead's chat format."""
        return self.lead.form

    def prompts(self, messages: Sequence[Message]) -> dict[int, list[int]]:
        """Every voice's prompt for a conversation."""
        return {v: speaker.chat(messages) for v, speaker in self.speakers.items()}

    def texts(self, text: str) -> dict[int, list[int]]:
        """Every voice's ids of a plain text."""
        return {v: speaker.text(text) for v, speaker in self.speakers.items()}

    def seen_in_chat(self, messages: Sequence[Message]) -> list[int]:
        """What rules count as seen before the answer to a conversation."""
        if self.rules is None or self.rules.rules.scope == "response":
            return []
        return self.lead.turn(messages, self.lead.chat(messages))

    def seen_in_text(self, text: str) -> list[int]:
        """What rules count as seen in a plain text, which has no turns."""
        if self.rules is None or self.rules.rules.scope == "response":
            return []
        return self.lead.text(text)

    def ending(self, *, chat: bool) -> Plan:
        """The plan with the tokens that end an answer in chat, or in plain text."""
        ends = self.chat_ends if chat else self.text_ends
        first = [i for i in self.plan.ends if i in ends]
        return replace(self.plan, ends=tuple(first))

    def flops(self, tokens: int, context: float) -> float:
        """FLOPs of `tokens` through every voice."""
        total = 0.0
        for voice in self.voices:
            config = voice.network.model.config
            size = (config.num_hidden_layers, config.hidden_size, context)
            total += forward_flops(voice.network.parameters, tokens, *size)
        return total


def assemble(composition: Composition, networks: Networks) -> Ensemble:
    """Loads what a composition needs.

    Raises:
        ModelError: A model cannot be loaded, or vocabularies differ.
    """
    weights = _merged(composition)
    needed = {name for name, weight in weights.items() if weight}
    filtered = composition.filter in ("top_p_weights", "plausibility")
    if filtered:
        needed.add(composition.lead)
    if not needed:
        raise ModelError(
            "all weights are zero", where=composition.reference, fix="give one a weight"
        )
    roles = {role.name: role for role in composition.roles}
    problem = parent_problem(composition)
    notes = [warn(problem)] if problem else []
    seats = networks.seats({name: role.model for name, role in roles.items() if name in needed})
    tokenizers = {name: load_tokenizer(role.model) for name, role in roles.items()}
    size, remark = shared_vocabulary(tokenizers, composition.lead)
    notes += [warn(remark)] if remark else []
    form = chat_format(tokenizers[composition.lead])
    lead = Speaker(tokenizers[composition.lead], roles[composition.lead].prompt, form)
    voices = [
        Voice(i, name, seats[name].network, seats[name].adapter, roles[name].prompt)
        for i, name in enumerate(n for n in roles if n in needed)
    ]
    index = {voice.name: voice.index for voice in voices}
    speakers = {v.index: Speaker(tokenizers[v.name], v.prompt, form) for v in voices}
    text_ends = frozenset(i for v in voices for i in v.network.ends if i < size)
    chat_ends = text_ends | {
        i for s in (lead, *speakers.values()) for i in s.form.stop_ids if i < size
    }
    own = sorted(form.stop_ids & chat_ends, key=lambda i: (i == lead.tokenizer.eos_token_id, i))
    notes += _disagreement(voices, lead)
    plan = Plan(
        weights={index[name]: weight for name, weight in weights.items() if weight},
        names={voice.index: voice.name for voice in voices},
        lead=index.get(composition.lead, -1),
        filter=composition.filter,
        mass=composition.mass,
        vocabulary=size,
        ends=(*own, *sorted(chat_ends - set(own))),
    )
    return Ensemble(
        composition,
        tuple(voices),
        plan,
        speakers,
        lead,
        stop_texts=PLAIN_STOPS if lead.prompt == "plain" else form.stop_texts,
        chat_ends=chat_ends,
        text_ends=text_ends,
        rules=_resolved(composition, tokenizers[composition.lead], chat_ends, notes),
        window=min(v.network.window or sys.maxsize for v in voices),
        notes=tuple(notes),
    )


def _merged(composition: Composition) -> dict[str, float]:
    """Weights with equal roles (one model, one prompt) counted together under the first name.

    With base and anti-expert the same model their weights cancel, and the expert answers alone.
    """
    weights = composition.weights()
    first: dict[object, str] = {}
    found: dict[str, float] = {}
    for role in composition.roles:
        same = (role.model.kind, role.model.base, role.model.adapters, role.prompt)
        name = first.setdefault(same, role.name)
        if role.name == composition.lead and name != role.name:
            first[same] = role.name
            found[role.name] = found.pop(name, 0.0)
            name = role.name
        found[name] = found.get(name, 0.0) + weights.get(role.name, 0.0)
    return {name: weight for name, weight in found.items() if abs(weight) > 1e-12}


def _disagreement(voices: Sequence[Voice], lead: Speaker) -> list[str]:
    """A remark where models end their answers with different tokens."""
    own = lead.form.stop_ids
    for voice in voices:
        if voice.name != "" and not own & voice.network.ends:
            return [
                warn(
                    f"the role {voice.name!r} ends its texts with other tokens than the answers' "
                    "own: any of them ends an answer, and all count as one"
                )
            ]
    return []


def _resolved(
    composition: Composition,
    tokenizer: PreTrainedTokenizerBase,
    ends: frozenset[int],
    notes: list[str],
) -> Resolution | None:
    if composition.rules is None:
        return None
    rules = read_rules(composition.rules)
    if composition.scope is not None:
        rules = rules.model_copy(update={"scope": composition.scope})
    if composition.official_hole is not None:
        rules = rules.model_copy(update={"official_hole": composition.official_hole})
    found = resolve_rules(rules, tokenizer, ends, strict=composition.strict)
    if found.missing:
        listed = ", ".join(repr(row.written) for row in found.missing)
        notes.append(
            warn(f"these texts of the rules are no single token and are skipped: {listed}")
        )
    return found
