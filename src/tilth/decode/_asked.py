"""What is asked of a composed model, and the texts that its rows become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tilth.data.example import Message
from tilth.decode._ensemble import Ensemble
from tilth.decode._rows import Job, Said
from tilth.errors import EngineError
from tilth.models.engine import Completion, Sampling
from tilth.models.generation import continuation

__all__ = ["Asked", "Piece", "asked_chat", "asked_text", "plain_turns"]


@dataclass(frozen=True)
class Piece:
    """A part of an answer under way.

    Attributes:
        row: Which of the rows asked for.
        text: The text that is now certain; a part of a character waits for the rest, and what could
            become a text that ends the answer waits too.
        tokens: The new tokens.
        logprobs: Their log-probabilities under the composed distribution.
        parts: The same under each role's own distribution, by its name.
        top: Per token the likeliest alternatives, ``(id, log-probability)``.
        finish: ``stop`` or ``length`` with the last piece, else empty.
    """

    row: int
    text: str
    tokens: list[int]
    logprobs: list[float]
    parts: dict[str, list[float]]
    top: list[list[tuple[int, float]]]
    finish: str = ""


@dataclass
class Asked:
    """Rows as they are asked.

    Attributes:
        form: How.
        rows: What makes the key of each answer.
        prompts: Per row the prompt of every voice.
        seen: Per row the tokens that rules count as seen.
        sampling: How to choose tokens.
        seeds: One per row.
        answer: The answer in the text that a row became.
        ends: Tokens that end a row.
    """

    form: Literal["chat", "complete"]
    rows: list[Any]
    prompts: list[dict[int, list[int]]]
    seen: list[list[int]]
    sampling: Sampling
    seeds: Sequence[int]
    answer: Callable[[str], str]
    ends: frozenset[int]
    _told: dict[int, int] = field(default_factory=dict)

    def text(self, job: Job, tokenizer: Any) -> str:
        """The answer as far as it goes."""
        new = job.new[:-1] if job.new[-1] in self.ends else job.new
        text = continuation(tokenizer, job.prompt, new)
        cuts = [at for stop in self.sampling.stop if (at := text.find(stop)) >= 0]
        return self.answer(text[: min(cuts)] if cuts else text)

    def completion(self, job: Job, tokenizer: Any) -> Completion:
        """A finished row."""
        finish: Literal["stop", "length"] = "stop" if job.finish == "stop" else "length"
        return Completion(self.text(job, tokenizer), finish, len(job.prompt), len(job.new))

    def piece(self, said: Said, tokenizer: Any) -> Piece:
        """What a row has just said, with the text that has become certain."""
        job = said.row
        text = self.text(job, tokenizer)
        if not job.finish:
            text = text.rstrip("\ufffd")
            held = max((_overlap(text, stop) for stop in self.sampling.stop), default=0)
            text = text[: len(text) - held]
        before = self._told.get(job.index, 0)
        self._told[job.index] = max(before, len(text))
        details = (said.tokens, said.logprobs, said.parts, said.top)
        return Piece(job.index, text[before:], *details, job.finish)


def asked_chat(
    ensemble: Ensemble,
    conversations: Sequence[list[Message]],
    sampling: Sampling,
    seeds: Sequence[int] | None,
) -> Asked:
    """Conversations that wait for an answer.

    Raises:
        DataError: A chat template refuses a conversation.
    """
    plain = ensemble.lead.prompt == "plain"
    return Asked(
        "chat",
        plain_turns(conversations),
        [ensemble.prompts(conversation) for conversation in conversations],
        [ensemble.seen_in_chat(conversation) for conversation in conversations],
        replace(sampling, stop=(*sampling.stop, *ensemble.stop_texts)),
        _one_per_row(seeds, len(conversations)),
        (lambda text: text.removeprefix(" ")) if plain else ensemble.form.answer,
        ensemble.chat_ends,
    )


def asked_text(
    ensemble: Ensemble, texts: Sequence[str], sampling: Sampling, seeds: Sequence[int] | None
) -> Asked:
    """Plain texts that wait to be continued."""
    return Asked(
        "complete",
        list(texts),
        [ensemble.texts(text) for text in texts],
        [ensemble.seen_in_text(text) for text in texts],
        sampling,
        _one_per_row(seeds, len(texts)),
        str,
        ensemble.text_ends,
    )


def plain_turns(conversations: Sequence[list[Message]]) -> list[list[dict[str, str]]]:
    """Roles and contents alone, for a key."""
    return [[{"role": m["role"], "content": m["content"]} for m in c] for c in conversations]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` could begin `stop`."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)


def _one_per_row(seeds: Sequence[int] | None, rows: int) -> Sequence[int]:
    if seeds is None:
        return range(rows)
    if len(seeds) != rows:
        raise EngineError(f"{len(seeds)} seeds for {rows} rows", fix="give one seed per row")
    return seeds
