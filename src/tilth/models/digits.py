"""The probabilities of a few next tokens, and the digit that a model means on average.

A scorer is a model that answers with one digit. Its whole opinion is in the probabilities of the
digits before it says one: :meth:`ReadsNext.next_tokens` reads them in one pass without generating,
and :func:`expected_digit` takes their mean. Both engines can do it: a local model from its logits,
an endpoint from its ``top_logprobs``.

Axes: N rows, B rows of a batch, K options.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tilth.cost import Ledger
from tilth.data.example import Message
from tilth.errors import EngineError
from tilth.models.answers import AnswerCache
from tilth.models.calls import Caller, RowFailed
from tilth.models.chat import ChatFormat, chat_format
from tilth.models.engine import Engine, NextTokens
from tilth.models.generation import Forward, left_padded

if TYPE_CHECKING:
    import httpx
    from transformers import PreTrainedTokenizerBase

__all__ = ["DIGITS", "EndpointNext", "LocalNext", "ReadsNext", "expected_digit", "next_reader"]

DIGITS = ("1", "2", "3", "4", "5", "6")
"""The scores of Deita: 1 to 5, and 6 for what is too much (arXiv 2312.15685, section 2.3)."""

_TOP = 20  # the most that the protocol lets one ask for


def expected_digit(logits_NK: np.ndarray, values: Sequence[float] | None = None) -> np.ndarray:
    """The mean of `values` under the softmax of the options alone: ``sum_k v_k p_k``.

    Args:
        logits_NK: Logits or log-probabilities; NaN where an option's is not known. It is left out,
            as if it had no probability.
        values: What the K options are worth; 1, 2, ..., K by default.

    Returns:
        Float64 ``[N]``; NaN for a row of which no option is known.

    Example:
        >>> expected_digit(np.array([[0.0, 1, 2, 3, 4, 5]])).round(5)
        array([5.43293])
    """
    logits_NK = np.asarray(logits_NK, dtype=np.float64)
    known_NK = ~np.isnan(logits_NK)
    worth_K = np.arange(1.0, logits_NK.shape[1] + 1) if values is None else np.asarray(values)
    safe_NK = np.where(known_NK, logits_NK, -np.inf)
    top_N1 = safe_NK.max(axis=1, keepdims=True)
    weights_NK = np.exp(safe_NK - np.where(np.isfinite(top_N1), top_N1, 0.0))
    total_N = weights_NK.sum(axis=1)
    means_N = (weights_NK @ worth_K) / np.where(total_N > 0, total_N, 1.0)
    return np.where(total_N > 0, means_N, np.nan)


class ReadsNext(ABC):
    """An engine that can say how probable each of a few next tokens is."""

    @abstractmethod
    def next_tokens(
        self, conversations: Sequence[list[Message]], options: Sequence[str] = DIGITS
    ) -> np.ndarray:
        """The log-probability of each option as the first token of the next assistant turn.

        Args:
            conversations: Each ends with a turn that is not the assistant's.
            options: At least two texts, each one token in this place.

        Returns:
            Float64 ``[N, K]`` over the whole vocabulary; NaN where it is not known (an endpoint
            lists only its likeliest tokens, or gave the row no answer). Equal to within rounding
            for any batch size, and the same bytes for the same one, also after a kill.

        Raises:
            EngineError: An option is not one token, or the engine cannot tell.
        """


def next_reader(engine: Engine) -> ReadsNext:
    """`engine` as one that reads next tokens.

    Raises:
        EngineError: It cannot.
    """
    if not isinstance(engine, ReadsNext):
        raise EngineError(
            "this model cannot say how probable its next tokens are",
            where=engine.reference,
            fix="use a local model, or an endpoint that gives top_logprobs",
        )
    return engine


def option_ids(form: ChatFormat, options: Sequence[str], where: str) -> tuple[list[int], list[int]]:
    """What every answer begins with (mostly nothing), and the token that tells the options apart.

    An answer is made into ids exactly as it is in training, so that the space that a template or a
    tokenizer puts before a first word is in its place.

    Raises:
        EngineError: The options do not differ in exactly one token each.
    """
    answers = []
    for option in options:
        encoded = form.encode(
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": option}]
        )
        first, end = encoded.spans[-1]
        answers.append(encoded.input_ids[first:end])
    start = _in_common(answers)
    rests = [ids[start:] for ids in answers]
    end = _in_common([ids[::-1] for ids in rests])
    tokens = [ids[: len(ids) - end] for ids in rests]
    for option, ids in zip(options, tokens, strict=True):
        if len(ids) != 1:
            raise EngineError(
                f"{option!r} is not one token of this tokenizer but {len(ids)}",
                where=where,
                fix="a scorer needs a tokenizer that writes each digit as one token",
            )
    return answers[0][:start], [ids[0] for ids in tokens]


def _in_common(rows: list[list[int]]) -> int:
    """How many first items all rows share."""
    shared = 0
    while all(len(row) > shared and row[shared] == rows[0][shared] for row in rows):
        shared += 1
    return shared


def _as_array(found: Sequence[NextTokens | None], options: Sequence[str]) -> np.ndarray:
    rows = [[math.nan if p is None else p for p in row.logprobs] for row in found if row]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(options))


def _checked(options: Sequence[str]) -> list[str]:
    if len(options) < 2 or len(set(options)) != len(options) or not all(options):
        raise EngineError(f"the options {list(options)} are not two or more different texts")
    return list(options)


class LocalNext(ReadsNext):
    """How a local model reads next tokens: from the logits behind the prompt."""

    reference: str
    batch_size: int
    tokenizer: PreTrainedTokenizerBase
    _forward: Forward
    _cache: AnswerCache

    @abstractmethod
    def _fitted(self, ids: list[int], room: int, wanted: int, where: str) -> list[int]: ...

    @abstractmethod
    def _book(self, tokens: int, context: float, **more: int) -> None: ...

    @abstractmethod
    def _working(self, title: str, rows: int) -> Any: ...

    def next_tokens(
        self, conversations: Sequence[list[Message]], options: Sequence[str] = DIGITS
    ) -> np.ndarray:
        """See :meth:`ReadsNext.next_tokens`.

        Batches follow from the list of all different rows, answered or not, and the answers of a
        batch are kept in one piece: a run that was killed goes on with the very batches of a whole
        one.
        """
        import torch

        options = _checked(options)
        form = chat_format(self.tokenizer)
        opening, ids_K = option_ids(form, options, self.reference)
        asked = [[{"role": m["role"], "content": m["content"]} for m in c] for c in conversations]
        keys = [self._cache.key("next", [a, options]) for a in asked]
        known = {key: self._cache.get(key) for key in keys}
        prompts: dict[str, list[int]] = {}
        for i, key in enumerate(keys):
            if key not in prompts:
                ids = form.encode(conversations[i], add_generation_prompt=True).input_ids
                prompts[key] = self._fitted(ids, len(opening), 0, f"row {i}") + opening
        order = sorted(prompts, key=lambda key: -len(prompts[key]))
        open_rows = sum(found is None for found in known.values())
        with self._working(f"digits {self.reference}", open_rows) as advance:
            for start in range(0, len(order), self.batch_size):
                batch = [k for k in order[start : start + self.batch_size] if known[k] is None]
                if not batch:
                    continue
                ids_BT, mask_BT = left_padded([prompts[k] for k in batch], 0, self._forward.device)
                logits_BV = self._forward(ids_BT, mask_BT, keep=1, use_cache=False).logits[:, -1]
                found_BK = torch.log_softmax(logits_BV.float(), dim=-1)[:, ids_K].cpu()
                rows = [NextTokens(tuple(row)) for row in found_BK.tolist()]
                known |= zip(batch, rows, strict=True)
                self._cache.put_all(zip(batch, rows, strict=True))
                for key in batch:
                    self._book(len(prompts[key]), len(prompts[key]) / 2)
                advance(len(batch))
        return _as_array([known[key] for key in keys], options)


class EndpointNext(ReadsNext):
    """How an endpoint reads next tokens: from the likeliest ones that the server lists."""

    reference: str
    failed: int
    ledger: Ledger
    _model: str
    _prices: tuple[float, float]
    _cache: AnswerCache
    _caller: Caller

    @abstractmethod
    def _each(self, keys: list[str], one: Any, title: str) -> list[Any]: ...

    def next_tokens(
        self, conversations: Sequence[list[Message]], options: Sequence[str] = DIGITS
    ) -> np.ndarray:
        """See :meth:`ReadsNext.next_tokens`."""
        options = _checked(options)
        asked = [[{"role": m["role"], "content": m["content"]} for m in c] for c in conversations]
        keys = [self._cache.key("next", [a, options]) for a in asked]

        async def one(client: httpx.AsyncClient, i: int) -> NextTokens:
            payload = {"model": self._model, "messages": asked[i], "max_tokens": 1}
            payload |= {"temperature": 0.0, "logprobs": True, "top_logprobs": _TOP}
            try:
                answer = await self._caller.post(
                    client, "chat/completions", payload, random.Random(i)
                )
            except RowFailed:
                self.failed += 1
                return NextTokens((None,) * len(options))
            usage = answer.get("usage") or {}
            read, new = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
            dear = (read * self._prices[0] + new * self._prices[1]) / 1e6
            self.ledger.add(tokens_read=read, tokens_generated=new, money=dear)
            found = _listed(answer, options, self.reference)
            self._cache.put(keys[i], found)
            return found

        return _as_array(self._each(keys, one, f"digits {self.reference}"), options)


def _listed(answer: dict[str, Any], options: list[str], where: str) -> NextTokens:
    """The options among the tokens that the server lists; " 4" and "4" are the same option."""
    try:
        listed = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        pairs = [(str(entry["token"]).strip(), float(entry["logprob"])) for entry in listed]
    except (KeyError, IndexError, TypeError, ValueError):
        raise EngineError(
            "the server gives no top_logprobs",
            where=where,
            fix="use a server that does (vLLM, for one), or a local model",
        ) from None
    found = []
    for option in options:
        same = [math.exp(p) for token, p in pairs if token == option]
        found.append(math.log(sum(same)) if sum(same) > 0 else None)
    return NextTokens(tuple(found))
