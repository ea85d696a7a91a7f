"""Training data that leaves something out: what implicit instruction tuning trains on.

Four transforms of Hewitt et al. 2024, "Instruction Following without Instruction Tuning"
(arXiv:2409.14254): answers without their instructions, answers with other rows' instructions,
answers that do not begin by repeating the instruction; the fourth, rows of a single narrow task, is
:mod:`tilth.data.single_task`. Each keeps ``meta`` and names the rows it came from in
``meta["parents"]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from tilth.data.example import Example, Message
from tilth.data.forms import BLANKED
from tilth.seeds import stream

__all__ = ["derangement", "no_rephrase", "rephrases", "response_only", "shuffled_instructions"]

_WORD = re.compile(r"[^\W\d_]{4,}|\d+")  # what carries content: numbers and words of four letters
_SENTENCE = re.compile(r"[.!?:;](?=\s|$)|\n")
_SHARE, _LEAST = 0.6, 3


def response_only(row: Example) -> Example:
    """The row with the content of every user turn blank; the turns themselves stay.

    Answers, system turns and the number of turns are unchanged, so that the template still writes
    its tags. ``meta`` says that the blank is meant, and the row can be read again.

    Example:
        >>> response_only(Example.pair("2 + 2?", "4")).messages[0]
        {'role': 'user', 'content': ''}
    """
    messages: list[Message] = [
        {"role": m["role"], "content": "" if m["role"] == "user" else m["content"]}
        for m in row.messages
    ]
    meta = {**row.meta, BLANKED: True, "method": "response_only", "parents": [row.id]}
    return Example(messages, meta)


def shuffled_instructions(
    rows: Sequence[Example], seed: int = 89, epochs: int = 1, *, official: bool = False
) -> Iterator[Example]:
    """Every answer behind another row's question, paired anew in each epoch.

    What an answer follows (all turns before the last answer) comes from another row.

    Args:
        rows: The rows.
        seed: Names the pairings; 89 in the official script, whose own draws are not reproduced.
        epochs: How often all rows are given out; ``meta["epoch"]`` counts from 0.
        official: A plain permutation, under which about one row in all keeps its own question;
            otherwise none does where that is possible.
    """
    codes: dict[str, int] = {}
    prompts = np.array([codes.setdefault(row.prompt, len(codes)) for row in rows], np.int64)
    for epoch in range(epochs):
        rng = stream(seed, "shuffled_instructions", epoch)
        source = rng.permutation(len(rows)) if official else derangement(prompts, rng)
        for row, giver in zip(rows, source.tolist(), strict=True):
            asked = rows[giver]
            turns = [*_before_answer(asked), _last_answer(row)]
            meta = {**row.meta, "method": "shuffled_instructions", "parents": [row.id, asked.id]}
            yield Example(turns, {**meta, "epoch": epoch})


def rephrases(row: Example) -> bool:
    """Whether the answer begins by saying the instruction again.

    A label in ``meta["rephrases"]`` decides where there is one (the paper had GPT-4 label its
    rows). Otherwise, our choice: it does where the answer goes on after its first sentence, and of
    that sentence's content words and numbers at least three, and at least six in ten, stand in the
    question.

    Example:
        >>> rephrases(Example.pair("Which plants grow tall in shade?",
        ...                        "Plants that grow tall in shade are few. Ferns do."))
        True
    """
    if "rephrases" in row.meta:
        return bool(row.meta["rephrases"])
    first, rest = _opening(row.answer)
    words = set(_WORD.findall(first.casefold()))
    shared = words & set(_WORD.findall(row.prompt.casefold()))
    return bool(rest) and len(shared) >= max(_LEAST, _SHARE * len(words))


def no_rephrase(rows: Iterable[Example], *, cut: bool = False) -> Iterator[Example]:
    """The rows whose answers do not begin by repeating the instruction.

    Args:
        rows: The rows.
        cut: Keep the other rows too, without the sentence that repeats.
    """
    for row in rows:
        if not rephrases(row):
            yield row
        elif cut and (rest := _opening(row.answer)[1]):
            answer: Message = {"role": "assistant", "content": rest}
            meta = {**row.meta, "method": "no_rephrase", "parents": [row.id]}
            yield replace(row, messages=[*_before_answer(row), answer], meta=meta, id="")


def derangement(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random permutation p with ``values[p[i]] != values[i]`` at as many i as possible.

    A random permutation is repaired: a row i that got its own value a swaps with a random row j
    that neither has nor got a. At most ``2m - 1`` rows have or got a (m: how often a occurs), so
    such a row exists while ``2m <= N``, and no swap makes a new conflict.

    Args:
        values: int [N], equal codes for equal values.
        rng: The only randomness.

    Returns:
        int [N].

    Example:
        >>> derangement(np.array([0, 1]), np.random.default_rng(0)).tolist()
        [1, 0]
    """
    source = rng.permutation(len(values))
    for i in np.flatnonzero(values[source] == values):
        own = values[i]
        if values[source[i]] != own:
            continue  # an earlier swap has mended it
        j = _partner(values, source, own, rng)
        if j is not None:
            source[i], source[j] = source[j], source[i]
    return source


def _partner(
    values: np.ndarray, source: np.ndarray, own: int, rng: np.random.Generator
) -> int | None:
    for j in rng.integers(len(values), size=32):  # almost always enough, and needs no pass over N
        if values[j] != own and values[source[j]] != own:
            return int(j)
    free = np.flatnonzero((values != own) & (values[source] != own))
    return int(rng.choice(free)) if len(free) else None


def _opening(answer: str) -> tuple[str, str]:
    """The first sentence of an answer, and the rest."""
    text = answer.strip()
    end = _SENTENCE.search(text)
    return (text[: end.end()], text[end.end() :].strip()) if end else (text, "")


def _last(row: Example) -> int:
    return max(i for i, message in enumerate(row.messages) if message["role"] == "assistant")


def _before_answer(row: Example) -> list[Message]:
    return row.messages[: _last(row)]


def _last_answer(row: Example) -> Message:
    return row.messages[_last(row)]
