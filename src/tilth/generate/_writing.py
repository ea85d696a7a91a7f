"""The two prompt sets of self-instruct: English for real models, compact for the seedlings.

A prompt set asks a teacher for new instructions, reads them from its text, and asks for the answer
to each. The seedlings' set speaks the almanac's teaching turns, one instruction a turn; the English
set follows Wang et al.: a numbered list, then one instance per instruction, output first for
classification tasks and input first for all others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from tilth.data.example import Message
from tilth.models import Completion, Engine, Sampling

__all__ = ["Answered", "Compact", "English", "Writer"]


@dataclass(frozen=True)
class Answered:
    """An instruction's instance: what the row will say, or why there is none.

    Attributes:
        prompt: The instruction with its input.
        answer: The teacher's answer.
        fault: Why it cannot be used; empty where it can.
    """

    prompt: str
    answer: str
    fault: str = ""


class Writer(Protocol):
    """A prompt set."""

    strict: bool
    """Whether the rules about English wording apply."""

    def instruction(self, prompt: str) -> str:
        """What of a seed's prompt is shown as an example."""
        ...

    def ask(self, examples: Sequence[str]) -> str:
        """The prompt that asks for new instructions like `examples`."""
        ...

    def read(self, text: str, unfinished: bool) -> list[str]:
        """The instructions in the teacher's text."""
        ...

    def answer(
        self, teacher: Engine, tasks: Sequence[str], seeds: Sequence[int], tokens: int
    ) -> list[Answered]:
        """The teacher's greedy answer to each task; `seeds` name the draws, one per task."""
        ...


def _user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _fault(completion: Completion) -> str:
    if completion.finish == "error":
        return "the teacher failed"
    return "answer unfinished" if completion.finish == "length" else ""


class Compact:
    """Teaching turns of the almanac: the teacher writes one instruction, then simply answers it."""

    strict = False

    def instruction(self, prompt: str) -> str:
        """The whole prompt."""
        return prompt.strip()

    def ask(self, examples: Sequence[str]) -> str:
        """A ``write`` turn."""
        from tilth.almanac.teaching import turn

        return turn("write", examples=list(examples))

    def read(self, text: str, unfinished: bool) -> list[str]:
        """The whole text, unless it was cut off."""
        return [] if unfinished else [text.strip()]

    def answer(
        self, teacher: Engine, tasks: Sequence[str], seeds: Sequence[int], tokens: int
    ) -> list[Answered]:
        """One greedy turn per task."""
        said = teacher.chat([_user(t) for t in tasks], Sampling(max_new_tokens=tokens), seeds)
        return [
            Answered(task, c.text.strip(), _fault(c)) for task, c in zip(tasks, said, strict=True)
        ]


class English:
    """A numbered list of tasks, then one instance of each (Wang et al. 2022, tables 5 to 8)."""

    strict = True
    new_per_prompt = 8  # the code stops at item 16 after 8 examples

    def instruction(self, prompt: str) -> str:
        """The first paragraph: a seed's input follows after a blank line."""
        return re.split(r"\n\s*\n", prompt.strip(), maxsplit=1)[0]

    def ask(self, examples: Sequence[str]) -> str:
        """Asks to continue a numbered list."""
        shown = "\n".join(f"{i}. {_one_line(e)}" for i, e in enumerate(examples, 1))
        first, last = len(examples) + 1, len(examples) + self.new_per_prompt
        return (
            f"Here is the start of a varied series of tasks for an assistant:\n\n{shown}\n\n"
            f"Continue the series with tasks {first} to {last}. Each task must be understandable "
            "on its own, answerable in text alone, and unlike the others in subject and wording. "
            "Write only the numbered list, one task per line, without answers."
        )

    def read(self, text: str, unfinished: bool) -> list[str]:
        """The list's items; the last one is left out where the text was cut off."""
        parts = re.split(r"(?:^|\n)\s*\d{1,3}\s*[.):]\s+", "\n" + text)[1:]
        items = [re.split(r"\n\s*\n", part, maxsplit=1)[0] for part in parts]
        items = [_one_line(item).strip(" *") for item in items]
        return [item for item in (items[:-1] if unfinished else items) if item]

    def answer(
        self, teacher: Engine, tasks: Sequence[str], seeds: Sequence[int], tokens: int
    ) -> list[Answered]:
        """Asks whether each is a classification, then for an instance, output or input first."""
        kinds = teacher.chat(
            [_user(_IS_CLASSIFICATION.format(task=t)) for t in tasks],
            Sampling(max_new_tokens=3),  # the code's 3 tokens are enough for yes or no
            seeds,
        )
        labelled = [k.text.strip().lower().startswith("yes") for k in kinds]
        said = teacher.chat(
            [
                _user((_OUTPUT_FIRST if label else _INPUT_FIRST).format(task=t))
                for t, label in zip(tasks, labelled, strict=True)
            ],
            Sampling(max_new_tokens=tokens),
            seeds,
        )
        return [
            (_output_first if label else _input_first)(task, completion, seed)
            for task, label, completion, seed in zip(tasks, labelled, said, seeds, strict=True)
        ]


_IS_CLASSIFICATION = """\
Can a task be regarded as a classification task, with a small set of possible answers?

Task: Decide whether the sentence is a question or a statement.
Classification: yes

Task: Plan a vegetable garden for a family of four.
Classification: no

Task: Which of three given fertilisers suits acid soil?
Classification: yes

Task: Rewrite the paragraph in simpler words.
Classification: no

Task: {task}
Answer with yes or no only.
Classification:"""

_INPUT_FIRST = """\
Task: {task}

Give one example of this task, done well. If the task needs an input, make up a concrete one; \
otherwise write none. Use exactly this form:
Input: the input, or none
Output: the right output for it"""

_OUTPUT_FIRST = """\
Task: {task}

This task has a small set of possible outputs. For every possible output, first name the output, \
then make up an input for which it is right. Use exactly this form for each:
Output: one possible output
Input: an input for which this output is right"""

_FIELD = re.compile(r"^\s*\**(Input|Output|Class label)\**\s*:\**[ \t]*", re.IGNORECASE | re.M)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fields(text: str) -> list[tuple[str, str]]:
    """``(name, value)`` of every labelled field, in order."""
    parts = _FIELD.split(text)
    names = [("output" if n.lower() == "class label" else n.lower()) for n in parts[1::2]]
    return list(zip(names, (value.strip() for value in parts[2::2]), strict=True))


def _joined(task: str, given: str) -> str:
    absent = given.strip(" .<>()").casefold() in ("", "none", "n/a", "no input", "not needed")
    return task if absent else f"{task}\n\n{given}"


def _input_first(task: str, completion: Completion, seed: int) -> Answered:
    fault = _fault(completion)
    fields = dict(reversed(_fields(completion.text)))  # the first of each name
    if not fault and "output" not in fields:
        fault = "no instance in the answer"
    return Answered(_joined(task, fields.get("input", "")), fields.get("output", ""), fault)


def _output_first(task: str, completion: Completion, seed: int) -> Answered:
    fields = _fields(completion.text)
    pairs = [
        (given, output)
        for (first, output), (second, given) in pairwise(fields)
        if (first, second) == ("output", "input")
    ]
    if completion.finish == "length":
        pairs = pairs[:-1]  # the last one was cut off
    if not pairs:
        return Answered(task, "", _fault(completion) or "no instance in the answer")
    # The first label is nearly always the positive one: a draw keeps the labels balanced.
    given, output = pairs[int(np.random.default_rng(seed).integers(len(pairs)))]
    return Answered(_joined(task, given), output)
