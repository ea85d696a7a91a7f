"""The engine of a composed model: what :class:`~tilth.models.local.LocalEngine` is for one model.

Rows are sorted by length, batched, and answered in the order in which they were asked; the same
input with the same seed gives the same answer for any batch size and any length of draft (with
``acceptance=rejection`` for one length). Answers go to the cache as they end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tilth.cost import Ledger
from tilth.data.example import Message
from tilth.decode._combine import combine
from tilth.decode._ensemble import Ensemble, assemble
from tilth.decode._networks import Networks
from tilth.decode._pace import Pace
from tilth.decode._rounds import Decoding, Job, Said
from tilth.decode._rule_scores import RuleScores
from tilth.decode.composition import Composition
from tilth.errors import DataError, EngineError
from tilth.models.answers import AnswerCache
from tilth.models.engine import Ability, Completion, Sampling, Score
from tilth.models.generation import Row, StopTexts, continuation, left_padded
from tilth.models.progress import row_bar
from tilth.models.tokens import TextIds
from tilth.seeds import stream

__all__ = ["ComposedEngine", "Piece"]

LongPrompts = Literal["error", "cut"]

_ONE_THREAD = 8_000_000  # parameters up to which more threads cost more than they bring
_LOGITS_AT_ONCE = 2**26  # floats: 256 MiB of logits of each voice per scoring batch


@dataclass(frozen=True)
class Piece:
    """A part of an answer under way.

    Attributes:
        row: Which of the rows asked for.
        text: The text that is now certain; a part of a character waits for the rest.
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
class _Asked:
    """Rows as they are asked: what makes their key, and their prompts by voice."""

    form: Literal["chat", "complete"]
    asked: list[Any]
    prompts: list[dict[int, list[int]]]
    seen: list[list[int]]
    sampling: Sampling
    seeds: Sequence[int]
    answer: Callable[[str], str]
    ends: frozenset[int] = frozenset()
    writing: dict[int, str] = field(default_factory=dict)


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
        return self._answers(self._asked_chat(conversations, sampling, seeds))

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
        return self._answers(self._asked_text(texts, sampling, seeds))

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
        yield from self._pieces(self._asked_chat(conversations, sampling, seeds), top)

    def stream_text(
        self,
        texts: Sequence[str],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
        *,
        top: int = 0,
    ) -> Iterator[Piece]:
        """Continuations as they are written; see :meth:`stream`."""
        yield from self._pieces(self._asked_text(texts, sampling, seeds), top)

    def _asked_chat(
        self,
        conversations: Sequence[list[Message]],
        sampling: Sampling,
        seeds: Sequence[int] | None,
    ) -> _Asked:
        ensemble = self.ensemble
        stop = replace(sampling, stop=(*sampling.stop, *ensemble.stop_texts))
        prompts = [ensemble.prompts(conversation) for conversation in conversations]
        seen: list[list[int]] = [[] for _ in conversations]
        if ensemble.rules is not None and ensemble.rules.rules.scope == "turn":
            lead = ensemble.lead
            seen = [lead.turn(c, lead.chat(c)) for c in conversations]
        plain = ensemble.lead.prompt == "plain"
        answer = (lambda text: text.removeprefix(" ")) if plain else ensemble.form.answer
        ends = ensemble.chat_ends
        asked = [[{"role": m["role"], "content": m["content"]} for m in c] for c in conversations]
        drawn = _one_per_row(seeds, len(asked))
        return _Asked("chat", asked, prompts, seen, stop, drawn, answer, ends)

    def _asked_text(
        self, texts: Sequence[str], sampling: Sampling, seeds: Sequence[int] | None
    ) -> _Asked:
        ensemble = self.ensemble
        prompts = [ensemble.texts(text) for text in texts]
        seen: list[list[int]] = [[] for _ in texts]
        if ensemble.rules is not None and ensemble.rules.rules.scope == "turn":
            seen = [ensemble.lead.text(text) for text in texts]
        drawn = _one_per_row(seeds, len(texts))
        ends = ensemble.text_ends
        return _Asked("complete", list(texts), prompts, seen, sampling, drawn, str, ends)

    def _jobs(self, rows: _Asked, indices: Sequence[int]) -> list[Job]:
        sampling, voices = rows.sampling, self.ensemble.voices
        jobs = []
        for i in indices:
            prompts = {
                v.index: self._fitted(rows.prompts[i][v.index], v.network.window, sampling, i)
                for v in voices
            }
            windows = [(v.network.window or sys.maxsize) - len(prompts[v.index]) for v in voices]
            limit = min(sampling.max_new_tokens, *windows)
            greedy = sampling.temperature == 0
            seed = rows.seeds[i]
            draws = np.empty(0) if greedy else stream(seed, "answer").random(limit)
            accepts = np.empty(0) if greedy else stream(seed, "accept").random(2 * limit + 2)
            lead = prompts.get(self.ensemble.plan.lead, prompts[voices[0].index])
            jobs.append(Job(i, lead, limit, draws, [], "", prompts, rows.seen[i], accepts))
        return sorted(jobs, key=lambda job: (-max(map(len, job.prompts.values())), job.index))

    def _decoding(self, rows: _Asked, *, details: bool = False, top: int = 0) -> Decoding:
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

    def _answers(self, rows: _Asked) -> list[Completion]:
        pairs = zip(rows.asked, rows.seeds, strict=True)
        keys = [self._cache.key(rows.form, a, rows.sampling, s) for a, s in pairs]
        results: list[Completion | None] = [self._cache.get(key) for key in keys]
        jobs = self._jobs(rows, [i for i, known in enumerate(results) if known is None])
        with self._working(f"{rows.form} {self.reference}", len(jobs)) as advance:
            for start in range(0, len(jobs), self.batch_size):
                for said in self._decoding(rows).run(jobs[start : start + self.batch_size]):
                    job = said.row
                    if not job.finish:
                        continue
                    done = self._completion(job, rows)
                    self._cache.put(keys[job.index], done)
                    results[job.index] = done
                    self._book_answer(job)
                    advance(1)
        return [r for r in results if r is not None]

    def _book_answer(self, job: Job) -> None:
        read = len(job.prompt) + len(job.new) - 1
        flops = self.ensemble.flops(read, read / 2)
        self.ledger.add(tokens_read=read, tokens_generated=len(job.new), flops=flops)

    def _completion(self, job: Row, rows: _Asked) -> Completion:
        finish: Literal["stop", "length"] = "stop" if job.finish == "stop" else "length"
        return Completion(self._text(job, rows), finish, len(job.prompt), len(job.new))

    def _text(self, job: Row, rows: _Asked) -> str:
        new = job.new[:-1] if job.new and job.new[-1] in rows.ends else job.new
        text = continuation(self.tokenizer, job.prompt, new)
        cuts = [at for stop in rows.sampling.stop if (at := text.find(stop)) >= 0]
        return rows.answer(text[: min(cuts)] if cuts else text)

    def _pieces(self, rows: _Asked, top: int) -> Iterator[Piece]:
        jobs = self._jobs(rows, range(len(rows.asked)))
        for start in range(0, len(jobs), self.batch_size):
            batch = jobs[start : start + self.batch_size]
            decoding = self._decoding(rows, details=True, top=top).run(batch)
            while (said := self._next(decoding)) is not None:
                yield self._piece(said, rows)
                if said.row.finish:
                    self._book_answer(said.row)

    def _next(self, decoding: Iterator[Said]) -> Said | None:
        """The next of what is said; threads and modes are as they were while the caller works."""
        with self._working("", 0):
            return next(decoding, None)

    def _piece(self, said: Said, rows: _Asked) -> Piece:
        job = said.row
        text = self._text(job, rows)
        if not job.finish:
            # What could still become a stop text, or the rest of a character, is held back.
            text = text.rstrip("\ufffd")
            held = max((_overlap(text, stop) for stop in rows.sampling.stop), default=0)
            text = text[: len(text) - held]
        before = rows.writing.get(job.index, "")
        rows.writing[job.index] = text
        new = text[len(before) :]
        return Piece(job.index, new, said.tokens, said.logprobs, said.parts, said.top, job.finish)

    # Log-probabilities

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """The log-probability of each continuation after its prompt; see the local engine."""
        ensemble = self.ensemble
        heads, tails, seen = [], [], []
        for prompt, text in pairs:
            head = prompt.rstrip()
            tails.append(self._text_ids(prompt[len(head) :] + text, "text" if head else "start"))
            heads.append(ensemble.texts(head))
            seen.append(ensemble.lead.text(head))
        return self._scores("score", [list(pair) for pair in pairs], heads, tails, seen)

    def score_chat(self, conversations: Sequence[list[Message]]) -> list[Score]:
        """The log-probability of each last assistant turn, its end mark included.

        Raises:
            DataError: A conversation does not end with an assistant turn.
        """
        ensemble = self.ensemble
        heads, tails, seen = [], [], []
        for i, conversation in enumerate(conversations):
            if not conversation or conversation[-1]["role"] != "assistant":
                raise DataError(
                    "the conversation does not end with an assistant turn", where=f"row {i}"
                )
            encoded = ensemble.form.encode(conversation)
            first, end = encoded.spans[-1]
            asked = conversation[:-1]
            heads.append(ensemble.prompts(asked))
            tails.append(encoded.input_ids[first:end])
            seen.append(ensemble.lead.turn(asked, ensemble.lead.chat(asked)))
        asked_of = [
            [{"role": m["role"], "content": m["content"]} for m in c] for c in conversations
        ]
        return self._scores("score_chat", asked_of, heads, tails, seen)

    def _scores(
        self,
        form: str,
        asked: list[Any],
        heads: list[dict[int, list[int]]],
        tails: list[list[int]],
        seen: list[list[int]],
    ) -> list[Score]:
        keys = [self._cache.key(form, a) for a in asked]
        results: list[Score | None] = [self._cache.get(key) for key in keys]
        order = [i for i, known in enumerate(results) if known is None]
        order.sort(key=lambda i: (-max(map(len, heads[i].values())) - len(tails[i]), i))
        for i in order:
            for voice in self.ensemble.voices:
                room = Sampling(max_new_tokens=max(1, len(tails[i])))
                head = heads[i][voice.index] or self._start()
                heads[i][voice.index] = self._fitted(
                    head, voice.network.window, room, i, whole=True
                )
        with self._working(f"score {self.reference}", len(order)) as advance:
            for batch in self._scoring_batches(order, tails):
                for i, score in zip(batch, self._score(batch, heads, tails, seen), strict=True):
                    results[i] = score
                    self._cache.put(keys[i], score)
                advance(len(batch))
        return [r for r in results if r is not None]

    def _scoring_batches(self, order: list[int], tails: list[list[int]]) -> Iterator[list[int]]:
        vocabulary = self.ensemble.plan.vocabulary
        batch: list[int] = []
        longest = 0
        for i in order:
            longest = max(longest, len(tails[i]) + 1)
            full = (len(batch) + 1) * longest * vocabulary > _LOGITS_AT_ONCE
            if batch and (len(batch) == self.batch_size or full):
                yield batch
                batch, longest = [], len(tails[i]) + 1
            batch.append(i)
        if batch:
            yield batch

    def _score(
        self,
        batch: list[int],
        heads: list[dict[int, list[int]]],
        tails: list[list[int]],
        seen: list[list[int]],
    ) -> list[Score]:
        ensemble = self.ensemble
        keep = max(len(tails[i]) for i in batch) + 1
        logits: dict[int, torch.Tensor] = {}
        for voice in ensemble.voices:
            whole = [heads[i][voice.index] + tails[i] for i in batch]
            ids_BT, mask_BT = left_padded(whole, 0, voice.network.forward.device)
            kept = min(keep, ids_BT.shape[1])
            voice.network.wear([voice.adapter], len(batch))
            logits[voice.index] = voice.network.forward(
                ids_BT, mask_BT, keep=kept, use_cache=False
            ).logits[:, :-1]
        scores = []
        for row, i in enumerate(batch):
            tail = tails[i]
            tokens = len(heads[i][ensemble.voices[0].index]) + len(tail)
            self.ledger.add(tokens_read=tokens, flops=ensemble.flops(tokens, tokens / 2))
            if not tail:
                scores.append(Score(0.0, 0))
                continue
            own = {v: x[row, -len(tail) :] for v, x in logits.items()}
            scores.append(Score(self._logprob(own, tail, seen[i]), len(tail)))
        return scores

    def _logprob(self, own: dict[int, torch.Tensor], tail: list[int], seen: list[int]) -> float:
        """The log-probability of `tail`; a token that ends an answer counts as any of them."""
        ensemble, plan = self.ensemble, self.ensemble.plan
        targets_T = torch.tensor(tail, device=next(iter(own.values())).device)
        rules_TV = None
        if ensemble.rules is not None:
            before = seen if ensemble.rules.rules.scope == "turn" else []
            state = RuleScores(ensemble.rules, plan.vocabulary, [before], device=targets_T.device)
            rules_TV = state.ahead(targets_T[None, :-1])[0]
        log_TV = combine(own, plan, rules_TV).log_softmax(-1)
        if plan.ends_joined:
            ends = torch.tensor(plan.ends, device=targets_T.device)
            targets_T = torch.where(torch.isin(targets_T, ends), ends[0], targets_T)
        return float(log_TV.gather(1, targets_T[:, None]).double().sum())

    # What they share

    def _start(self) -> list[int]:
        tokenizer = self.tokenizer
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        if start is None:
            raise EngineError("an empty text needs a beginning or end token", where=self.reference)
        return [start]

    def _fitted(
        self, ids: list[int], window: int | None, sampling: Sampling, row: int, whole: bool = False
    ) -> list[int]:
        """`ids` such that a token more fits, or all of `sampling`'s where `whole`."""
        ids = ids or self._start()
        room = sampling.max_new_tokens if whole else 1
        if window is None or len(ids) + room <= window:
            return ids
        if self.long_prompts == "error":
            raise EngineError(
                f"the text has {len(ids) + room} tokens, the model reads at most {window}",
                where=f"row {row} of {self.reference}",
                fix="shorten it, or set long_prompts='cut' to drop its beginning",
            )
        return ids[-max(1, window - sampling.max_new_tokens) :]

    @contextmanager
    def _working(self, title: str, rows: int) -> Iterator[Callable[[int], None]]:
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            with torch.inference_mode(), row_bar(title, rows, self._bar and rows > 0) as advance:
                yield advance
        finally:
            torch.set_num_threads(before)


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
