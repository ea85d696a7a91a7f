"""The texts of refusal-aware tuning: what stands behind each question, and what is learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tilth.data.example import Example, Message
from tilth.data.questions import Question
from tilth.data.refusals import REFUSALS
from tilth.errors import DataError
from tilth.models.probe import ProbeRow
from tilth.models.wording import Renderer, Wording, as_answer
from tilth.tune._corpus import Encoded

__all__ = ["Loss", "Text", "Texts", "Unsure", "encoded", "texts_of"]

Texts = Literal["padding", "replace", "plain"]
Unsure = Literal["gold", "model_prediction", "omit"]
Loss = Literal["text", "completion"]


@dataclass(frozen=True)
class Text:
    """One training text.

    Attributes:
        question: The question.
        answer: What stands behind it; empty where it is left out.
        certainty: ``sure``, ``unsure``, or empty where no certainty is stated.
    """

    question: Question
    answer: str
    certainty: Literal["sure", "unsure", ""]

    def example(self, wording: Wording) -> Example:
        """The text as a row to look at; answer and certainty are in fields of their own too."""
        said = self.answer
        if self.certainty:
            said = f"{said}{wording.end}{wording.sure} {self.certainty}{wording.close}"
        turns: list[Message] = [
            {"role": "user", "content": self.question.asked},
            {"role": "assistant", "content": said},
        ]
        told = {"question": self.question.id, "answer": self.answer, "certainty": self.certainty}
        return Example(turns, {"method": "tune.refusal", **told})


def texts_of(
    questions: Sequence[Question],
    rows: Sequence[ProbeRow],
    sure: np.ndarray,
    *,
    texts: Texts,
    unsure: Unsure,
    rng: np.random.Generator,
) -> list[Text]:
    """A training text for every question.

    Args:
        questions: The questions.
        rows: Their probe rows.
        sure: Their labels.
        texts: ``padding``: answer and certainty; ``replace``: a refusal instead of what is unsure;
            ``plain``: the answer alone, whatever the label.
        unsure: What stands as the answer where the label is unsure and texts are padded.
        rng: Draws the refusals.

    Raises:
        DataError: A right answer that the text needs is missing; the question is named.
    """
    return [
        _text(q, row, bool(known), texts=texts, unsure=unsure, rng=rng)
        for q, row, known in zip(questions, rows, sure, strict=True)
    ]


def _text(
    question: Question,
    row: ProbeRow,
    sure: bool,
    *,
    texts: Texts,
    unsure: Unsure,
    rng: np.random.Generator,
) -> Text:
    if texts == "replace" and not sure:
        return Text(question, REFUSALS[int(rng.integers(len(REFUSALS)))], "")
    if texts == "padding" and not sure and unsure != "gold":
        return Text(question, row.prediction if unsure == "model_prediction" else "", "unsure")
    if not question.golds:
        raise DataError(
            "a question has no right answer, and its text needs one",
            where=f"question {question.id}",
            fix="give its answer, or leave it out",
        )
    if texts != "padding":
        return Text(question, question.golds[0], "")
    return Text(question, question.golds[0], "sure" if sure else "unsure")


def encoded(texts: Sequence[Text], renderer: Renderer, loss: Loss) -> Iterator[Encoded]:
    """Ids and targets of every text.

    With ``text`` every token is a target, the question included; with ``completion`` the answer,
    the mark that ends it, and the certainty word with its end.
    """
    end = renderer.end()
    asks = renderer.wording.tail("sure")
    tail = renderer.tail(asks)[len(end) :]
    words = dict(zip(("sure", "unsure"), renderer.pair(asks), strict=True))
    for text in texts:
        answer = as_answer(text.answer, renderer.wording)
        parts = [(renderer.prompt(text.question), False)]
        parts += [(renderer.answer(answer), True)] if answer else []
        parts.append((end, bool(answer)))
        if text.certainty:
            parts += [(tail, False), (words[text.certainty], True), (renderer.ending(), True)]
        else:
            parts.append((renderer.mark(), True))
        ids = [token for part, _ in parts for token in part]
        targets = [loss == "text" or learnt for part, learnt in parts for _ in part]
        yield ids, targets
