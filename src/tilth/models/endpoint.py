"""The endpoint engine: any server that speaks the OpenAI protocol.

Requests run at the same time up to a bound, are tried again where that helps, and every answer goes
to the cache as it comes. A row that finally fails is a completion with ``finish="error"`` and its
reason; it is counted in :attr:`EndpointEngine.failed` and asked again by the next run.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from tilth.cost import Ledger
from tilth.data.example import Message
from tilth.errors import EngineError
from tilth.models.answers import AnswerCache
from tilth.models.calls import Caller, RowFailed
from tilth.models.digits import EndpointNext
from tilth.models.engine import Ability, Completion, Sampling, Score, require
from tilth.models.progress import row_bar
from tilth.models.reference import Reference, digest, resolve
from tilth.seeds import derive

if TYPE_CHECKING:
    import httpx

__all__ = ["EndpointEngine"]

_T = TypeVar("_T")
_EMBEDDED_AT_ONCE = 64


class EndpointEngine(EndpointNext):
    """An :class:`~tilth.models.engine.Engine` over HTTP.

    Args:
        ref: ``openai:MODEL@http://host:port/v1``.
        concurrency: Requests under way at once.
        retries: How often a failed request is tried again.
        timeout: Seconds for one try.
        first_wait: Seconds before the first new try; every further wait is twice as long.
        logprobs: Whether the server gives the log-probabilities of a prompt (``echo`` with
            ``logprobs`` on ``/completions``, as vLLM does); `score` needs it.
        embeddings: Whether the server has ``/embeddings``; `embed` needs it.
        prices: What a million tokens read and a million tokens written cost, for the ledger.
        cache: A JSONL file of answers; see :class:`~tilth.models.answers.AnswerCache`.
        progress: Show a progress bar where standard error is a terminal.
        ledger: Books tokens, requests and money.

    Attributes:
        failed: How many rows ended without an answer.

    Example:
        >>> engine = EndpointEngine("openai:tiny@http://localhost:8000/v1", concurrency=4)
        >>> sorted(engine.can)
        ['chat', 'complete']
    """

    def __init__(
        self,
        ref: str | Reference,
        *,
        concurrency: int = 8,
        retries: int = 6,
        timeout: float = 120.0,
        first_wait: float = 0.5,
        logprobs: bool = False,
        embeddings: bool = False,
        prices: tuple[float, float] = (0.0, 0.0),
        cache: Path | str | None = None,
        progress: bool = True,
        ledger: Ledger | None = None,
    ) -> None:
        reference = ref if isinstance(ref, Reference) else resolve(ref)
        if reference.kind != "endpoint":
            raise EngineError(
                "this is not an endpoint", str(reference), "write openai:MODEL@http://host:port/v1"
            )
        for name, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if value < least:
                raise EngineError(f"{name} is {value}", fix=f"use at least {least}")
        self.reference = str(reference)
        self.ledger = ledger or Ledger()
        self.failed = 0
        asked: dict[Ability, bool] = {"score": logprobs, "embed": embeddings}
        more = [ability for ability, offered in asked.items() if offered]
        self.can: frozenset[Ability] = frozenset(["chat", "complete", *more])
        self._model = reference.base
        self._concurrency = concurrency
        self._prices = prices
        self._progress = progress
        self._cache = AnswerCache(cache, digest(reference))
        self._caller = Caller(
            reference.url, retries, timeout, first_wait, lambda: self.ledger.add(requests=1)
        )

    def chat(
        self,
        conversations: Sequence[list[Message]],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """The next assistant turn of each conversation, by the server's own template.

        Raises:
            EngineError: The server cannot be reached, or refuses the key or the model.
        """
        asked = [[{"role": m["role"], "content": m["content"]} for m in c] for c in conversations]
        return self._answers("chat", "chat/completions", "messages", asked, sampling, seeds=seeds)

    def complete(
        self,
        texts: Sequence[str],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """The continuation of each plain text.

        Raises:
            EngineError: The server cannot be reached, or refuses the key or the model.
        """
        return self._answers(
            "complete", "completions", "prompt", list(texts), sampling, seeds=seeds
        )

    def _answers(
        self,
        form: str,
        path: str,
        field: str,
        asked: list[Any],
        sampling: Sampling,
        *,
        seeds: Sequence[int] | None,
    ) -> list[Completion]:
        seeds = range(len(asked)) if seeds is None else seeds
        if len(seeds) != len(asked):
            raise EngineError(f"{len(seeds)} seeds for {len(asked)} rows", fix="give one per row")
        keys = [self._cache.key(form, a, sampling, s) for a, s in zip(asked, seeds, strict=True)]

        async def one(client: httpx.AsyncClient, i: int) -> Completion:
            payload = {"model": self._model, field: asked[i], **_settings(sampling, seeds[i])}
            rng = random.Random(derive(seeds[i], "wait", i))
            try:
                answer = await self._caller.post(client, path, payload, rng)
                done = self._completion(answer, sampling)
            except RowFailed as error:
                return Completion("", "error", 0, 0, error=str(error))
            self._cache.put(keys[i], done)
            return done

        results = self._each(keys, one, f"{form} {self.reference}")
        failed = [r for r in results if r.finish == "error"]
        if failed:
            self.failed += len(failed)
            logging.getLogger(__name__).warning(
                "%d of %d rows have no answer; the first: %s",
                len(failed),
                len(results),
                failed[0].error,
            )
        return results

    def _completion(self, answer: dict[str, Any], sampling: Sampling) -> Completion:
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            reason = choice.get("finish_reason")
            usage = answer.get("usage") or {}
            read, new = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise RowFailed("the answer lacks choices[0] with a text") from None
        dear = (read * self._prices[0] + new * self._prices[1]) / 1e6
        self.ledger.add(tokens_read=read, tokens_generated=new, money=dear)
        if reason not in ("stop", "length", None):
            raise RowFailed(f"the server ended the answer: {reason}")
        text = text or ""
        cuts = [at for s in sampling.stop if (at := text.find(s)) >= 0]
        finish: Literal["stop", "length"] = "length" if reason == "length" and not cuts else "stop"
        return Completion(text[: min(cuts)] if cuts else text, finish, read, new)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """The log-probability of each continuation after its prompt.

        The server cuts the whole text into tokens; counted are those that end inside the
        continuation, with the white space at the prompt's end.

        Raises:
            EngineError: The engine was made without ``logprobs=True``, or a row has no score.
        """
        require(self, "score")
        pairs = list(pairs)
        keys = [self._cache.key("score", list(p)) for p in pairs]

        async def one(client: httpx.AsyncClient, i: int) -> Score:
            prompt, text = pairs[i]
            payload = {"model": self._model, "prompt": prompt + text, "max_tokens": 1}
            payload |= {"echo": True, "logprobs": 1, "temperature": 0.0}
            try:
                answer = await self._caller.post(client, "completions", payload, random.Random(i))
                score = _score_of(answer, len(prompt.rstrip()), len(prompt + text))
            except RowFailed as error:
                raise EngineError(f"no score: {error}", where=f"row {i}") from None
            self.ledger.add(tokens_read=score.tokens)
            self._cache.put(keys[i], score)
            return score

        return self._each(keys, one, f"score {self.reference}")

    def score_chat(self, conversations: Sequence[list[Message]]) -> list[Score]:
        """Always an error: the protocol has no log-probabilities of a given turn."""
        require(self, "score_chat")
        return []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows ``[N, d]`` of float32 from the server's embedding model.

        Raises:
            EngineError: The engine was made without ``embeddings=True``, or a row has none.
        """
        require(self, "embed")
        parts = [
            list(texts[i : i + _EMBEDDED_AT_ONCE]) for i in range(0, len(texts), _EMBEDDED_AT_ONCE)
        ]

        async def one(client: httpx.AsyncClient, i: int) -> np.ndarray:
            payload = {"model": self._model, "input": parts[i]}
            try:
                answer = await self._caller.post(client, "embeddings", payload, random.Random(i))
                rows = sorted(answer["data"], key=lambda row: row["index"])
                found_ND = np.array([row["embedding"] for row in rows], dtype=np.float32)
            except (RowFailed, KeyError, TypeError, ValueError) as error:
                raise EngineError(f"no embeddings: {error}", where=f"part {i}") from None
            if found_ND.ndim != 2 or len(found_ND) != len(parts[i]):
                raise EngineError("the server left out embeddings", where=f"part {i}")
            return found_ND

        if not parts:
            return np.zeros((0, 0), dtype=np.float32)
        found = self._each([""] * len(parts), one, f"embed {self.reference}")
        rows_ND = np.concatenate(found)
        return rows_ND / np.maximum(np.linalg.norm(rows_ND, axis=1, keepdims=True), 1e-12)

    def _each(
        self,
        keys: list[str],
        one: Callable[[httpx.AsyncClient, int], Awaitable[_T]],
        title: str,
    ) -> list[_T]:
        """Every row's result in order; known answers are not asked for again."""
        results: list[_T | None] = [self._cache.get(key) for key in keys]
        open_rows = iter([i for i, known in enumerate(results) if known is None])
        missing = results.count(None)

        async def work(advance: Callable[[int], None]) -> None:
            async with self._caller.client() as client, asyncio.TaskGroup() as group:

                async def worker() -> None:
                    for i in open_rows:
                        results[i] = await one(client, i)
                        advance(1)

                for _ in range(min(self._concurrency, missing)):
                    group.create_task(worker())

        if missing:
            with row_bar(title, missing, self._progress and sys.stderr.isatty()) as advance:
                try:
                    _run(work(advance))
                except ExceptionGroup as group:  # what one worker raised has ended the others
                    raise group.exceptions[0] from None
        return [r for r in results if r is not None]


def _settings(sampling: Sampling, seed: int) -> dict[str, Any]:
    """The sampling in the protocol's words; `top_k` is an extension that vLLM and others know."""
    settings: dict[str, Any] = {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed % 2**31,  # some servers read 32 bits
    }
    if sampling.stop:
        settings["stop"] = list(sampling.stop)
    if sampling.top_k:
        settings["top_k"] = sampling.top_k
    return settings


def _score_of(answer: dict[str, Any], start: int, end: int) -> Score:
    """The score of the characters from `start` to `end` of an echoed text."""
    try:
        found = answer["choices"][0]["logprobs"]
        values, offsets = found["token_logprobs"], found["text_offset"]
    except (KeyError, IndexError, TypeError):
        raise RowFailed("the server gives no log-probabilities of the prompt") from None
    ends = [*offsets[1:], end]
    counted = [v for v, a, b in zip(values, offsets, ends, strict=True) if b > start and a < end]
    if any(v is None for v in counted):
        raise RowFailed("the text's first token has no log-probability; give a prompt")
    return Score(float(sum(counted)), len(counted))


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end, also where a loop is running already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    errors: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
