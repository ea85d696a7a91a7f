"""How a question is put, how its answer ends, and how a model is asked whether it is sure of it.

One :class:`Renderer` makes the ids of everything: what the untouched model is asked, what it is
tuned on, and what the tuned model is asked at the end. All of it is put together from the same
pieces (prompt, answer, certainty question, certainty word), each turned into ids apart, so that a
training text is the very token sequence that prompt, generated answer and question make later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tilth.data.questions import Question
from tilth.errors import ModelError, RecipeError, nearest
from tilth.models.chat import chat_format
from tilth.models.reference import resolve
from tilth.models.tokens import TextIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "TOLD",
    "WORDINGS",
    "Form",
    "Renderer",
    "Tail",
    "Wording",
    "as_answer",
    "tuned_with",
    "wording_named",
]

Form = Literal["plain", "chat"]

TOLD = "refusal.json"
"""The file beside a refusal-aware model that says how it was asked."""


@dataclass(frozen=True)
class Tail:
    """A question put after the answer, and the two ways to go on that are weighed.

    Attributes:
        name: ``sure`` or ``true``.
        text: The question, as it stands behind the mark that ends the answer.
        yes: The continuation whose share is the score, with its space.
        no: The other one.
    """

    name: str
    text: str
    yes: str
    no: str


@dataclass(frozen=True)
class Wording:
    """The fixed words around a question and its answer.

    Attributes:
        name: Its name.
        prompt: The plain form, behind the context; ``{question}`` stands for question and choices.
        end: What ends an answer; decoding stops there.
        sure: What asks for certainty, up to the word that is weighed.
        close: What ends the text after the certainty word.
        true: What asks whether the answer is true, for the test-time baseline P(True).
    """

    name: str
    prompt: str
    end: str
    sure: str
    close: str
    true: str

    def tail(self, name: Literal["sure", "true"]) -> Tail:
        """The question `name` with its two continuations."""
        if name == "sure":
            return Tail("sure", self.sure, " sure", " unsure")
        return Tail("true", self.true, " True", " False")


_OWN = "Is this accurate, and does it come from what you know yourself?"

WORDINGS: dict[str, Wording] = {
    w.name: w
    for w in (
        Wording(
            "lines",
            "Question: {question}\nAnswer:",
            "\n",
            f"{_OWN} I am",
            ".",
            "Is this answer True or False? It is",
        ),
        Wording(
            "sentence",
            "Question: {question} Answer:",
            ".",
            f" {_OWN} I am",
            ".",
            " Is this answer True or False? It is",
        ),
        Wording("short", "Question: {question}\nAnswer:", "\n", "Answer:", ".", "Answer:"),
    )
}
"""``sentence`` is laid out as in R-Tuning: one line, and a full stop ends the answer, which cuts
"U.S." short. ``lines`` ends an answer with its line instead. ``short`` has no words around the
certainty but those that a model of few tokens knows from before an answer. All words are ours."""


def wording_named(name: str) -> Wording:
    """The wording called `name`.

    Raises:
        RecipeError: There is none; the nearest is named.
    """
    if name not in WORDINGS:
        raise RecipeError(
            f"there is no wording {name!r}",
            where="wording",
            fix=nearest(name, WORDINGS) or f"known: {', '.join(WORDINGS)}",
        )
    return WORDINGS[name]


def as_answer(text: str, wording: Wording) -> str:
    """An answer without the mark that ends it, which is put behind every answer anyway."""
    return text.removesuffix(wording.end).rstrip()


class Renderer:
    """Ids of questions, answers and tails, with one tokenizer, in one wording and form.

    Args:
        tokenizer: Any fast tokenizer.
        wording: The words.
        form: ``plain``: the wording's prompt as plain text; ``chat``: the question is a user turn
            in the tokenizer's chat template, and answer and certainty are the assistant's turn.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, wording: Wording, form: Form = "plain"
    ) -> None:
        self.tokenizer, self.wording, self.form = tokenizer, wording, form
        self._ids = TextIds(tokenizer)
        self._chat = chat_format(tokenizer) if form == "chat" else None
        self.stop_ids = self._chat.stop_ids if self._chat else frozenset[int]()

    def prompt(self, question: Question) -> list[int]:
        """Everything before the answer."""
        if self._chat is not None:
            return self._chat.encode(
                [{"role": "user", "content": question.asked}], add_generation_prompt=True
            ).input_ids
        before = f"{question.context}\n" if question.context else ""
        text = before + self.wording.prompt.format(question=question.body)
        # What opens a text is put before it; a question that spells a special token stays text.
        ids: list[int] = self.tokenizer(text, split_special_tokens=True).input_ids
        closed = ids[-1:] == [self.tokenizer.eos_token_id]  # some tokenizers end every text
        return ids[:-1] if closed else ids

    def answer(self, text: str) -> list[int]:
        """The ids of an answer behind its prompt."""
        if self._chat is None:
            return self._ids(f" {text}", "text")
        turns = self._chat.encode(
            [{"role": "user", "content": "?"}, {"role": "assistant", "content": text}]
        )
        first, end = turns.spans[-1]
        ids = turns.input_ids[first:end]
        return ids[:-1] if ids and ids[-1] in self.stop_ids else ids

    def end(self) -> list[int]:
        """The ids of the mark that ends an answer."""
        return self._ids(self.wording.end, "text")

    def tail(self, tail: Tail) -> list[int]:
        """The ids of the end mark and the question behind an answer."""
        return [*self.end(), *self._ids(tail.text, "text")]

    def pair(self, tail: Tail, single: bool = False) -> tuple[list[int], list[int]]:
        """The ids of both continuations of `tail`.

        Args:
            tail: The question.
            single: Only their first tokens, as the official code weighs them.

        Raises:
            ModelError: Both begin with the same token, and only that is to be weighed.
        """
        yes, no = self._ids(tail.yes, "text"), self._ids(tail.no, "text")
        if not single:
            return yes, no
        if yes[0] == no[0]:
            raise ModelError(
                f"{tail.yes!r} and {tail.no!r} begin with the same token "
                f"{self.tokenizer.convert_ids_to_tokens(yes[0])!r}",
                where="certainty_tokens: first",
                fix="weigh the whole words: certainty_tokens: all",
            )
        return yes[:1], no[:1]

    def ending(self) -> list[int]:
        """What ends a text with a certainty: the full stop, and the mark behind it."""
        return [*self._ids(self.wording.close, "text"), *self.mark()]

    def mark(self) -> list[int]:
        """The special token that ends the turn, or the text; none where there is none."""
        end = self.tokenizer.eos_token_id
        marks = sorted(self.stop_ids - {end}) or ([] if end is None else [end])
        return marks[:1]


def tuned_with(ref: str) -> dict[str, Any]:
    """How a refusal-aware model was asked when it was tuned; empty for any other model.

    Args:
        ref: A model reference; what lies beside its weights or its last adapter is read.
    """
    reference = resolve(ref)
    folders = [*reference.adapters]
    folders += [reference.folder] if reference.kind == "folder" else []
    for folder in reversed(folders[: len(reference.adapters)] or folders):
        path = folder / TOLD
        if path.is_file():
            told: dict[str, Any] = json.loads(path.read_text("utf-8"))
            return told
    return {}
