"""How a teacher is asked to make an instruction harder or a response better, and what is accepted.

English prompts follow the shape of Deita's (arXiv 2312.15685, appendix E.2): a role, the goal, one
of several operators, how much to add, the words that must not show up. The wording is ours. The
seedlings' prompts are the almanac's teaching turns, with one operator each.
"""

from __future__ import annotations

import re
from typing import Protocol

from tilth.data.rating import Aspect
from tilth.models import Completion

__all__ = ["Evolver", "evolver", "fault"]


class Evolver(Protocol):
    """A prompt set for one aspect."""

    operators: tuple[str, ...]
    """Names of the operators; one is drawn for each step."""

    def ask(self, operator: str, prompt: str, answer: str) -> str:
        """The prompt that asks for the next variant."""
        ...


def evolver(aspect: Aspect, compact: bool) -> Evolver:
    """The prompt set."""
    return Compact(aspect) if compact else English(aspect)


class Compact:
    """Teaching turns: ``harder`` and ``improve``."""

    def __init__(self, aspect: Aspect) -> None:
        self.operators: tuple[str, ...] = ("harder",) if aspect == "complexity" else ("improve",)

    def ask(self, operator: str, prompt: str, answer: str) -> str:
        """One teaching turn."""
        from tilth.almanac.teaching import turn

        if operator == "harder":
            return turn("harder", task=prompt)
        return turn("improve", task=prompt, reply=answer)


_OPERATORS: dict[Aspect, dict[str, str]] = {
    "complexity": {
        "constrain": "Add one more constraint or requirement.",
        "deepen": "If it asks about some matter, make the inquiry deeper and broader.",
        "concretise": "Replace general concepts by more specific ones.",
        "reason": "If a few simple thoughts would solve it, ask explicitly for reasoning in "
        "several steps.",
    },
    "quality": {
        "help": "Make it more helpful to the user.",
        "relate": "Make it more relevant to the prompt.",
        "deepen": "Give it more depth.",
        "create": "Make it more creative.",
        "detail": "Give more detail.",
    },
}

_HARDER = """\
You are a prompt rewriter. Rewrite the given prompt into a version that is harder for strong chat \
models, but that is still reasonable, and that people understand and can answer.
Keep everything in it that is not plain text, such as tables and code, and keep its inputs.
Change it in this way: {operator}
Do not let it become wordy: add only 10 to 20 words. The words "given prompt" and "rewritten \
prompt" must not occur in it.

#Given prompt#:
{prompt}

#Rewritten prompt#:
"""

_BETTER = """\
You are a response rewriter. Rewrite the given response to the prompt into a better one that is \
still reasonable and that people understand.
Keep everything in it that is not plain text, such as tables and code.
Change it in this way: {operator}
Do not let it become wordy: add only 10 to 20 words. The words "given response" and "rewritten \
response" must not occur in it.

#Prompt#:
{prompt}

#Given response#:
{answer}

#Rewritten response#:
"""

_LABEL = re.compile(
    r"^\W*rewritten (prompt|response)\W*\n|^#rewritten (prompt|response)#:?\s*", re.I
)
_MARKERS = re.compile(r"(given|rewritten) (prompt|response)", re.IGNORECASE)


class English:
    """Four operators for complexity, five for quality (section 2.3 and 2.4)."""

    def __init__(self, aspect: Aspect) -> None:
        self.aspect: Aspect = aspect
        self.operators: tuple[str, ...] = tuple(_OPERATORS[aspect])

    def ask(self, operator: str, prompt: str, answer: str) -> str:
        """The rewriter's prompt, with an empty place at its end."""
        told = _OPERATORS[self.aspect][operator]
        if self.aspect == "complexity":
            return _HARDER.format(operator=told, prompt=prompt)
        return _BETTER.format(operator=told, prompt=prompt, answer=answer)


def fault(completion: Completion, before: list[str]) -> tuple[str, str]:
    """The new variant, and why it cannot be used; empty where it can.

    Args:
        completion: The teacher's answer; a label that it repeats first is not part of it.
        before: The variants so far, the newest last.
    """
    if completion.finish == "error":
        return "", "the teacher failed"
    text = _LABEL.sub("", completion.text.strip(), count=1).strip()
    if completion.finish == "length":
        return text, "unfinished"
    if not text:
        return text, "empty"
    known = {" ".join(variant.casefold().split()) for variant in before}
    if " ".join(text.casefold().split()) in known:
        return text, "unchanged"
    allowed = {m.group().casefold() for m in _MARKERS.finditer(before[0])}
    if any(m.group().casefold() not in allowed for m in _MARKERS.finditer(text)):
        return text, "marker words"
    return text, ""
