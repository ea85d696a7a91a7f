"""Asking many questions: loaded once, batched the same way every time, continued after a kill.

Batches follow from the list of questions alone, not from what an earlier attempt has answered, so
that an interrupted run ends in the same numbers to the last digit. Every batch is one line of a
file; a line that a kill tore off is asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilth.cost import Ledger
from tilth.data.questions import Question
from tilth.data.refusals import REFUSALS
from tilth.models.certainty import Answered, Asker
from tilth.models.load import load
from tilth.models.progress import row_bar
from tilth.models.reference import digest
from tilth.models.wording import Form, Renderer, as_answer, wording_named

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Asking", "answers_to", "fitting"]

_ONE_THREAD = 8_000_000  # parameters up to which more threads cost more than they bring


@dataclass(frozen=True)
class Asking:
    """How questions are asked.

    Attributes:
        wording: Name of the wording.
        form: ``plain`` or ``chat``.
        max_new_tokens: Tokens of an answer; 15 in R-Tuning's probes.
        tails: Names of what is asked afterwards: ``sure``, ``true``.
        single_token: Weigh only the first token of a tail's words.
        refusals: Add up the probabilities of tilth's refusals as answers.
        samples: Sampled answers to each open question.
        temperature: Of the sampled answers; 0.7 in R-Tuning's code.
        seed: Names their draws.
    """

    wording: str = "lines"
    form: Form = "plain"
    max_new_tokens: int = 15
    tails: tuple[str, ...] = ()
    single_token: bool = False
    refusals: bool = False
    samples: int = 0
    temperature: float = 0.7
    seed: int = 0

    def asker(self, ref: str, ledger: Ledger | None = None) -> Asker:
        """The model `ref` loaded, ready to be asked.

        Raises:
            ModelError: It cannot be loaded; an endpoint has no probabilities to read.
        """
        model, tokenizer = load(ref)
        words = wording_named(self.wording)
        return Asker(
            model,
            Renderer(tokenizer, words, self.form),
            max_new_tokens=self.max_new_tokens,
            tails=[words.tail(name) for name in self.tails],  # type: ignore[arg-type]
            single_token=self.single_token,
            refusals=tuple(as_answer(r, words) for r in REFUSALS) if self.refusals else (),
            samples=self.samples,
            temperature=self.temperature,
            seed=self.seed,
            ledger=ledger,
        )


def fitting(
    asker: Asker, questions: Sequence[Question]
) -> tuple[list[Question], list[tuple[Question, str]]]:
    """Questions that fit the model's context, and the others with their length; none is cut."""
    told = [asker.too_long(q) for q in questions]
    fit = [q for q, reason in zip(questions, told, strict=True) if not reason]
    long = [(q, reason) for q, reason in zip(questions, told, strict=True) if reason]
    return fit, long


def answers_to(
    asker: Asker,
    questions: Sequence[Question],
    *,
    ref: str,
    asking: Asking,
    cache: Path,
    batch_size: int = 64,
) -> list[Answered]:
    """One answer per question, in their order.

    Args:
        asker: From :meth:`Asking.asker`.
        questions: All of them fit the context.
        ref: The model's reference, whose content is part of the cache's key.
        asking: How they are asked.
        cache: The file of finished batches; kept where a kill does not reach it.
        batch_size: Questions in the model at once; another size may change last digits.
    """
    identity = {"model": digest(ref), "asking": asdict(asking)}
    known = _finished(cache)
    answers: dict[str, Answered] = {}
    with _threads(asker.model), cache.open("ab") as file:
        with row_bar(f"ask {ref}", len(questions), sys.stderr.isatty()) as advance:
            for batch in _batches(asker, questions, batch_size):
                key = _key(identity, batch)
                if key not in known:
                    known[key] = asker(batch)
                    line = {"key": key, "answers": [asdict(a) for a in known[key]]}
                    file.write(json.dumps(line).encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                for question, answered in zip(batch, known[key], strict=True):
                    answers[question.id] = answered
                    asker.book(question, answered)
                advance(len(batch))
    return [answers[q.id] for q in questions]


def _batches(asker: Asker, questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Open questions and choices apart, each longest first."""
    lengths = {q.id: len(asker.renderer.prompt(q)) for q in questions}
    for choices in (False, True):
        kind = [q for q in questions if bool(q.choices) == choices]
        kind.sort(key=lambda q: (-lengths[q.id], q.id))
        for start in range(0, len(kind), size):
            yield kind[start : start + size]


def _key(identity: Mapping[str, object], batch: Sequence[Question]) -> str:
    asked = [[q.id, q.text, q.context, q.choices] for q in batch]
    text = json.dumps([identity, asked], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _finished(cache: Path) -> dict[str, list[Answered]]:
    """The batches of earlier attempts; a torn last line is closed, the next stands alone."""
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        return {}
    content = cache.read_bytes()
    if content and not content.endswith(b"\n"):
        with cache.open("ab") as file:
            file.write(b"\n")
    known = {}
    for line in content.splitlines():
        try:
            row = json.loads(line)
            known[row["key"]] = [
                Answered(**{**a, "samples": tuple(a["samples"])}) for a in row["answers"]
            ]
        except (ValueError, KeyError, TypeError):
            continue  # torn by a kill: the batch is simply asked again
    return known


@contextmanager
def _threads(model: PreTrainedModel) -> Iterator[None]:
    """One thread for a small model, where more cost more than they bring."""
    import torch

    before = torch.get_num_threads()
    if model.num_parameters() <= _ONE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
