"""The engine of a composed model: what :class:`~tilth.models.local.LocalEngine` is for one model.

Rows are sorted by length, batched, and answered in the order in which they were asked; the same
input with the same seed gives the same answer for any batch size and any length of draft (with
``acceptance=rejection`` for one length). Answers go to the cache as they end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tilth.cost import Ledger
from tilth.data.example import Message
from tilth.decode._asked import Asked, Piece, asked_chat, asked_text, plain_turns
from tilth.decode._ensemble import Ensemble, assemble
from tilth.decode._networks import Networks
from tilth.decode._pace import Pace
from tilth.decode._rounds import Decoding
from tilth.decode._rows import Job, Said
from tilth.decode._scoring import Text, score, scoring_batches
from tilth.decode._tracks import Voice
from tilth.decode.composition import Composition
from tilth.errors import DataError, EngineError
from tilth.models.answers import AnswerCache
from tilth.models.engine import Ability, Completion, Sampling, Score
from tilth.models.generation import StopTexts
from tilth.models.progress import row_bar
from tilth.models.tokens import TextIds
from tilth.seeds import stream

__all__ = ["ComposedEngine"]

LongPrompts = Literal["error", "cut"]

_ONE_THREAD = 8_000_000  # parameters up to which more threads cost more than they bring


class ComposedEngine:
    """An :class:`~tilth.models.engine.Engine` on several models that answer as one.

    Args:
        composition: What is combined.
        networks: Where the models are loaded, and shared with other compositions.
        digest: The content digest of the reference, part of the cache's keys.
        batch_size: Rows per batch.
        threads: Processor threads while it works; by default one where no model has more than 8
            million parameters, and torch's own number otherwise.
        long_prompts: What to do with a prompt that does not fit a model's context window: ``error``
            names the row, ``cut`` drops its beginning for that model.
        cache: A JSONL file of answers.
        progress: Show a progress bar where standard error is a terminal.
        ledger: Books tokens and FLOPs.

    Attributes:
        ensemble: The loaded composition, with its notes and the resolution of its rules.
        pace: Drafts made and accepted.
    """

    can: frozenset[Ability] = frozenset(("chat", "complete", "score", "score_chat"))

    def __init__(
        self,
        composition: Composition,
        networks: Networks,
        *,
        digest: str = "",
        batch_size: int = 32,
        threads: int | None = None,
        long_prompts: LongPrompts = "error",
        cache: Path | str | None = None,
        progress: bool = True,
        ledger: Ledger | None = None,
    ) -> None:
        if batch_size < 1:
            raise EngineError(f"batch_size is {batch_size}", fix="use at least 1")
        self.networks = networks
        self.ensemble: Ensemble = assemble(composition, networks)
        self.reference = composition.reference
        self.ledger = ledger or Ledger()
        self.batch_size, self.long_prompts = batch_size, long_prompts
        self.pace = Pace(composition.draft)
        self._bar = progress and sys.stderr.isatty()
        self._cache = AnswerCache(cache, digest)
        largest = max(voice.network.parameters for voice in self.ensemble.voices)
        self._threads = threads or (1 if largest <= _ONE_THREAD else None)
        self._text_ids = TextIds(self.ensemble.tokenizer)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that writes the answers."""
        return self.ensemble.tokenizer

    @property
    def notes(self) -> tuple[str, ...]:
        """What was warned of when the models were combined."""
        return self.ensemble.notes

    def recomposed(self, composition: Composition) -> ComposedEngine:
        """Another composition on the same loaded models, without a cache: what a slider moves."""
        return ComposedEngine(
            composition,
            self.networks,
            batch_size=self.batch_size,
            threads=self._threads,
            long_prompts=self.long_prompts,
            progress=False,
            ledger=self.ledger,
        )

    # Answers

    def chat(
        self,
        conversations: Sequence[list[Message]],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """The next assistant turn of each conversation.

        Raises:
            DataError: A chat template refuses a conversation.
            EngineError: A prompt does not fit a context window, or a role computes NaN.
        """
        return self._answers(asked_chat(self.ensemble, conversations, sampling, seeds))

    def complete(
        self,
        texts: Sequence[str],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """The continuation of each plain text, which every role reads as it stands.

        Raises:
            EngineError: A prompt does not fit a context window, or a role computes NaN.
        """
        return self._answers(asked_text(self.ensemble, texts, sampling, seeds))

    def stream(
        self,
        conversations: Sequence[list[Message]],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
        *,
        top: int = 0,
    ) -> Iterator[Piece]:
        """Answers as they are written; the rows take turns.

        Closing the iterator stops the work. The texts of a row's pieces together are the text that
        :meth:`chat` gives. The cache is neither asked nor filled.

        Args:
            conversations: As in :meth:`chat`.
            sampling: How to choose tokens.
            seeds: One per row; without them row `i` has seed `i`.
            top: How many of the likeliest alternatives to report with every token.
        """
        yield from self._pieces(asked_chat(self.ensemble, conversations, sampling, seeds), top)

    def stream_text(
        self,
        texts: Sequence[str],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
        *,
        top: int = 0,
    ) -> Iterator[Piece]:
        """Continuations as they are written; see :meth:`stream`."""
        yield from self._pieces(asked_text(self.ensemble, texts, sampling, seeds), top)

    def _jobs(self, rows: Asked, indices: Sequence[int]) -> list[Job]:
        """The rows with those indices, the longest first."""
        sampling, voices = rows.sampling, self.ensemble.voices
        wanted = sampling.max_new_tokens
        jobs = []
        for i in indices:
            prompts = {
                v.index: self._fitted(rows.prompts[i][v.index], v, 1, wanted, i) for v in voices
            }
            rooms = [(v.network.window or sys.maxsize) - len(prompts[v.index]) for v in voices]
            limit = min(wanted, *rooms)
            draws = accepts = np.empty(0)
            if sampling.temperature:
                draws = stream(rows.seeds[i], "answer").random(limit)
                accepts = stream(rows.seeds[i], "accept").random(2 * limit + 2)
            own = prompts.get(self.ensemble.plan.lead, prompts[voices[0].index])
            jobs.append(
                Job(i, own, limit, draws, prompts=prompts, seen=rows.seen[i], accepts=accepts)
            )
        return sorted(jobs, key=lambda job: (-max(map(len, job.prompts.values())), job.index))

    def _decoding(self, rows: Asked, *, details: bool = False, top: int = 0) -> Decoding:
        ensemble = self.ensemble
        return Decoding(
            ensemble.voices,
            ensemble.ending(chat=rows.form == "chat"),
            rows.sampling,
            rows.ends,
            StopTexts(self.tokenizer, rows.sampling.stop),
            ensemble.rules,
            self.pace,
            ensemble.composition.acceptance,
            details,
            top,
        )

    def _answers(self, rows: Asked) -> list[Completion]:
        pairs = zip(rows.rows, rows.seeds, strict=True)
        keys = [self._cache.key(rows.form, row, rows.sampling, seed) for row, seed in pairs]
        results: list[Completion | None] = [self._cache.get(key) for key in keys]
        jobs = self._jobs(rows, [i for i, known in enumerate(results) if known is None])
        with self._working(f"{rows.form} {self.reference}", len(jobs)) as advance:
            for start in range(0, len(jobs), self.batch_size):
                for said in self._decoding(rows).run(jobs[start : start + self.batch_size]):
                    job = said.row
                    if job.finish:
                        done = rows.completion(job, self.tokenizer)
                        self._cache.put(keys[job.index], done)
                        results[job.index] = done
                        self._book(len(job.prompt) + len(job.new) - 1, len(job.new))
                        advance(1)
        return [r for r in results if r is not None]

    def _pieces(self, rows: Asked, top: int) -> Iterator[Piece]:
        jobs = self._jobs(rows, range(len(rows.rows)))
        for start in range(0, len(jobs), self.batch_size):
            decoding = self._decoding(rows, details=True, top=top)
            saying = decoding.run(jobs[start : start + self.batch_size])
            while (said := self._next(saying)) is not None:
                if said.row.finish:
                    self._book(len(said.row.prompt) + len(said.row.new) - 1, len(said.row.new))
                yield rows.piece(said, self.tokenizer)

    def _next(self, saying: Iterator[Said]) -> Said | None:
        """The next that is said; between two the caller's threads and modes are in force."""
        with self._working("", 0):
            return next(saying, None)

    # Log-probabilities

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """The log-probability of each continuation after its prompt, as of a local engine.

        Raises:
            EngineError: A pair does not fit a context window, or a role computes NaN.
        """
        texts = []
        for prompt, text in pairs:
            head = prompt.rstrip()
            tail = self._text_ids(prompt[len(head) :] + text, "text" if head else "start")
            texts.append(Text(self.ensemble.texts(head), tail, self.ensemble.seen_in_text(head)))
        return self._scores("score", [list(pair) for pair in pairs], texts)

    def score_chat(self, conversations: Sequence[list[Message]]) -> list[Score]:
        """The log-probability of each last assistant turn, its end mark included.

        Raises:
            DataError: A conversation does not end with an assistant turn.
            EngineError: A conversation does not fit a context window, or a role computes NaN.
        """
        ensemble = self.ensemble
        texts = []
        for i, conversation in enumerate(conversations):
            if not conversation or conversation[-1]["role"] != "assistant":
                raise DataError(
                    "the conversation does not end with an assistant turn", where=f"row {i}"
                )
            encoded = ensemble.form.encode(conversation)
            first, end = encoded.spans[-1]
            asked = conversation[:-1]
            heads, seen = ensemble.prompts(asked), ensemble.seen_in_chat(asked)
            texts.append(Text(heads, encoded.input_ids[first:end], seen))
        return self._scores("score_chat", plain_turns(conversations), texts)

    def _scores(self, form: str, asked: list[Any], texts: list[Text]) -> list[Score]:
        keys = [self._cache.key(form, a) for a in asked]
        results: list[Score | None] = [self._cache.get(key) for key in keys]
        order = [i for i, known in enumerate(results) if known is None]
        for i in order:
            room = len(texts[i].tail)
            for voice in self.ensemble.voices:
                head = texts[i].heads[voice.index]
                texts[i].heads[voice.index] = self._fitted(head, voice, room, room, i)
        order.sort(key=lambda i: (-texts[i].length(), i))
        batches = scoring_batches(order, texts, self.batch_size, self.ensemble.plan.vocabulary)
        with self._working(f"score {self.reference}", len(order)) as advance:
            for batch in batches:
                found = score(self.ensemble, [texts[i] for i in batch])
                self._cache.put_all(zip([keys[i] for i in batch], found, strict=True))
                for i, one in zip(batch, found, strict=True):
                    results[i] = one
                    self._book(len(texts[i].heads[self.ensemble.voices[0].index]) + one.tokens)
                advance(len(batch))
        return [r for r in results if r is not None]

    # What they share

    def _start(self) -> list[int]:
        tokenizer = self.tokenizer
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        if start is None:
            raise EngineError("an empty text needs a beginning or end token", where=self.reference)
        return [start]

    def _fitted(self, ids: list[int], voice: Voice, room: int, wanted: int, row: int) -> list[int]:
        """`ids` such that `room` more tokens fit; with ``cut``, such that `wanted` do."""
        ids, window = ids or self._start(), voice.network.window
        if window is None or len(ids) + room <= window:
            return ids
        if self.long_prompts == "error":
            raise EngineError(
                f"the text has {len(ids) + room} tokens, the role {voice.name!r} reads at most "
                f"{window}",
                where=f"row {row} of {self.reference}",
                fix="shorten it; from Python, long_prompts='cut' drops its beginning",
            )
        return ids[-max(1, window - max(room, wanted)) :]

    def _book(self, read: int, written: int = 0) -> None:
        flops = self.ensemble.flops(read, read / 2)
        self.ledger.add(tokens_read=read, tokens_generated=written, flops=flops)

    @contextmanager
    def _working(self, title: str, rows: int) -> Iterator[Callable[[int], None]]:
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            with torch.inference_mode(), row_bar(title, rows, self._bar and rows > 0) as advance:
                yield advance
        finally:
            torch.set_num_threads(before)
