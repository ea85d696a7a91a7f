"""The local engine: a transformers model on this machine.

Rows are sorted by length, batched, and answered in the order in which they were asked. An answer is
a function of the model, the row, the sampling and the row's seed, never of the batch. Answers go to
the cache as they end, so that a killed run asks only for the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tilth.cost import Ledger, forward_flops
from tilth.data.example import Message
from tilth.errors import DataError, EngineError
from tilth.models.answers import AnswerCache
from tilth.models.chat import chat_format
from tilth.models.digits import LocalNext
from tilth.models.embedding import pooled
from tilth.models.engine import Ability, Completion, Sampling, Score
from tilth.models.generation import (
    Forward,
    Row,
    StopTexts,
    continuation,
    end_ids,
    generate,
    left_padded,
)
from tilth.models.load import Device, Dtype, counted_parameters, load
from tilth.models.progress import row_bar
from tilth.models.reference import Reference, digest, resolve
from tilth.models.tokens import TextIds
from tilth.seeds import stream

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["LocalEngine"]

LongPrompts = Literal["error", "cut"]

_ONE_THREAD = 8_000_000  # parameters up to which more threads cost more than they bring
_LOGITS_AT_ONCE = 2**26  # floats: 256 MiB of logits per scoring batch


class LocalEngine(LocalNext):
    """An :class:`~tilth.models.engine.Engine` on a loaded model.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        reference: Its name in errors.
        digest: Its content digest, part of the cache's keys; needed only with `cache`.
        batch_size: Rows per batch.
        threads: Processor threads while it works; by default one for a model of up to 8 million
            parameters and torch's own number above.
        long_prompts: What to do with a prompt that does not fit the context window: ``error`` names
            the row, ``cut`` drops its beginning.
        cache: A JSONL file of answers; see :class:`~tilth.models.answers.AnswerCache`.
        progress: Show a progress bar where standard error is a terminal.
        ledger: Books tokens and FLOPs.

    Example:
        >>> engine = LocalEngine.open("seedling:small", batch_size=8)        # doctest: +SKIP
        >>> engine.complete(["Question: How much is 2 and 3?\\nAnswer:"])    # doctest: +SKIP
    """

    can: frozenset[Ability] = frozenset(("chat", "complete", "score", "score_chat", "embed"))

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        reference: str = "",
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
        if cache is not None and not digest:
            raise EngineError("an answer cache needs the model's digest", where=reference)
        self.model, self.tokenizer = model, tokenizer
        self.reference = reference or str(model.config.name_or_path)
        self.ledger = ledger or Ledger()
        self.batch_size = batch_size
        self.long_prompts = long_prompts
        self._bar = progress and sys.stderr.isatty()
        self._forward = Forward(model)
        self._text_ids = TextIds(tokenizer)
        self._cache = AnswerCache(cache, digest)
        self._parameters = counted_parameters(model)
        self._threads = threads or (1 if self._parameters <= _ONE_THREAD else None)
        self._window: int | None = getattr(model.config, "max_position_embeddings", None)
        self._end_ids = end_ids(model, tokenizer)

    @classmethod
    def open(
        cls,
        ref: str | Reference,
        *,
        device: Device | str = "auto",
        dtype: Dtype = "auto",
        cache: Path | str | None = None,
        **options: Any,
    ) -> LocalEngine:
        """Loads a reference; `options` are those of the class."""
        reference = ref if isinstance(ref, Reference) else resolve(ref)
        model, tokenizer = load(reference, device, dtype)
        content = digest(reference) if cache is not None else ""
        return cls(
            model, tokenizer, reference=str(reference), digest=content, cache=cache, **options
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
            DataError: The chat template refuses a conversation.
            EngineError: A prompt does not fit the context window.
        """
        form = chat_format(self.tokenizer)
        prompts = [form.encode(c, add_generation_prompt=True).input_ids for c in conversations]
        stop = Sampling(**{**sampling.as_dict(), "stop": (*sampling.stop, *form.stop_texts)})
        asked = [[{"role": m["role"], "content": m["content"]} for m in c] for c in conversations]
        ends = self._end_ids | form.stop_ids
        return self._answers(
            "chat", asked, prompts, stop, seeds=seeds, stop_ids=ends, answer=form.answer
        )

    def complete(
        self,
        texts: Sequence[str],
        sampling: Sampling = Sampling(),
        seeds: Sequence[int] | None = None,
    ) -> list[Completion]:
        """The continuation of each plain text; special tokens that a text spells are special.

        Raises:
            EngineError: A prompt does not fit the context window.
        """
        prompts = [self._prompt_ids(t) for t in texts]
        return self._answers(
            "complete",
            list(texts),
            prompts,
            sampling,
            seeds=seeds,
            stop_ids=self._end_ids,
            answer=lambda text: text,
        )

    def _answers(
        self,
        form: str,
        asked: list[Any],
        prompts: list[list[int]],
        sampling: Sampling,
        *,
        seeds: Sequence[int] | None,
        stop_ids: frozenset[int],
        answer: Callable[[str], str],
    ) -> list[Completion]:
        seeds = _one_per_row(seeds, len(asked))
        keys = [self._cache.key(form, a, sampling, s) for a, s in zip(asked, seeds, strict=True)]
        results: list[Completion | None] = [self._cache.get(k) for k in keys]
        rows = []
        for i, prompt in enumerate(prompts):
            if results[i] is None:
                ids = self._fitted(prompt, 1, sampling.max_new_tokens, f"row {i}")
                limit = min(sampling.max_new_tokens, (self._window or sys.maxsize) - len(ids))
                greedy = sampling.temperature == 0
                draws = np.empty(0) if greedy else stream(seeds[i], "answer").random(limit)
                rows.append(Row(i, ids, limit, draws))
        rows.sort(key=lambda r: (-len(r.prompt), r.index))
        ends = StopTexts(self.tokenizer, sampling.stop)
        with self._working(f"{form} {self.reference}", len(rows)) as advance:
            for batch in _chunks(rows, self.batch_size):
                for row in generate(self._forward, batch, sampling, stop_ids, ends):
                    done = self._completion(row, sampling, stop_ids, answer)
                    self._cache.put(keys[row.index], done)
                    results[row.index] = done
                    read = len(row.prompt) + len(row.new) - 1
                    self._book(read, read / 2, tokens_generated=len(row.new))
                    advance(1)
        return [r for r in results if r is not None]

    def _completion(
        self,
        row: Row,
        sampling: Sampling,
        stop_ids: frozenset[int],
        answer: Callable[[str], str],
    ) -> Completion:
        new = row.new[:-1] if row.new[-1] in stop_ids else row.new
        text = continuation(self.tokenizer, row.prompt, new)
        cuts = [at for s in sampling.stop if (at := text.find(s)) >= 0]
        text = answer(text[: min(cuts)] if cuts else text)
        finish: Literal["stop", "length"] = "stop" if row.finish == "stop" else "length"
        return Completion(text, finish, len(row.prompt), len(row.new))

    # Log-probabilities

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """The log-probability of each continuation after its prompt.

        Prompt and continuation become ids apart, as they are when the prompt is given and the
        continuation is generated: white space at the prompt's end goes over to the continuation
        (``"Answer: " + "5"`` is scored as ``"Answer:" + " 5"``), and no token spans the boundary.
        An empty prompt is the beginning-of-text token, or the end token where there is none.

        Raises:
            EngineError: A pair does not fit the context window.
        """
        sequences = []
        for prompt, text in pairs:
            head = prompt.rstrip()
            tail = self._text_ids(prompt[len(head) :] + text, "text" if head else "start")
            sequences.append((self._prompt_ids(head), tail))
        return self._scores("score", [list(p) for p in pairs], sequences)

    def score_chat(self, conversations: Sequence[list[Message]]) -> list[Score]:
        """The log-probability of each last assistant turn, its end mark included.

        Raises:
            DataError: A conversation does not end with an assistant turn.
        """
        form = chat_format(self.tokenizer)
        sequences = []
        for i, conversation in enumerate(conversations):
            if not conversation or conversation[-1]["role"] != "assistant":
                raise DataError(
                    "the conversation does not end with an assistant turn", where=f"row {i}"
                )
            encoded = form.encode(conversation)
            first, end = encoded.spans[-1]
            sequences.append((encoded.input_ids[:first], encoded.input_ids[first:end]))
        asked = [[{"role": m["role"], "content": m["content"]} for m in c] for c in conversations]
        return self._scores("score_chat", asked, sequences)

    def _scores(
        self, form: str, asked: list[Any], sequences: list[tuple[list[int], list[int]]]
    ) -> list[Score]:
        keys = [self._cache.key(form, a) for a in asked]
        results: list[Score | None] = [self._cache.get(k) for k in keys]
        fitted = {}
        for i, (prompt, text) in enumerate(sequences):
            if results[i] is None:
                head = self._fitted(prompt or self._start(), len(text), 0, f"row {i}")
                fitted[i] = (head, text)
        order = sorted(fitted, key=lambda i: (-len(fitted[i][0]) - len(fitted[i][1]), i))
        with self._working(f"score {self.reference}", len(order)) as advance:
            for batch in self._scoring_batches(order, {i: len(t) for i, (_, t) in fitted.items()}):
                scores = self._score([fitted[i] for i in batch])
                for i, score in zip(batch, scores, strict=True):
                    results[i] = score
                # Together: the last digits depend on a batch's rows, so that none may be torn.
                self._cache.put_all(zip([keys[i] for i in batch], scores, strict=True))
                advance(len(batch))
        return [r for r in results if r is not None]

    def _scoring_batches(self, order: list[int], lengths: dict[int, int]) -> Iterator[list[int]]:
        """Batches of at most `batch_size` rows whose logits fit into memory."""
        vocabulary = self.model.config.vocab_size
        batch: list[int] = []
        longest = 0
        for i in order:
            longest = max(longest, lengths[i] + 1)
            floats = (len(batch) + 1) * longest * vocabulary
            if batch and (len(batch) == self.batch_size or floats > _LOGITS_AT_ONCE):
                yield batch
                batch, longest = [], lengths[i] + 1
            batch.append(i)
        if batch:
            yield batch

    def _score(self, sequences: list[tuple[list[int], list[int]]]) -> list[Score]:
        import torch

        whole = [head + text for head, text in sequences]
        keep = max(len(text) for _, text in sequences) + 1
        ids_BT, mask_BT = left_padded(whole, 0, self._forward.device)
        keep = min(keep, ids_BT.shape[1])
        logits_BTV = self._forward(ids_BT, mask_BT, keep=keep, use_cache=False).logits[:, :-1]
        scores = []
        for i, (head, text) in enumerate(sequences):
            self._book(len(head) + len(text), len(whole[i]) / 2)
            if not text:
                scores.append(Score(0.0, 0))
                continue
            own_TV = logits_BTV[i, -len(text) :].float()
            log_TV = torch.log_softmax(own_TV, dim=-1)
            targets_T = ids_BT[i, -len(text) :, None]
            scores.append(Score(float(log_TV.gather(1, targets_T).double().sum()), len(text)))
        return scores

    # Embeddings

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows ``[N, d]`` of float32: the mean of the text's last hidden states.

        Raises:
            EngineError: A text does not fit the context window.
        """
        rows = [
            self._fitted(self._prompt_ids(t) or self._start(), 0, 0, f"row {i}")
            for i, t in enumerate(texts)
        ]
        order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
        means_ND = np.zeros((len(rows), self.model.config.hidden_size), dtype=np.float32)
        with self._working(f"embed {self.reference}", len(rows)) as advance:
            for batch in _chunks(order, self.batch_size):
                ids_BT, mask_BT = left_padded([rows[i] for i in batch], 0, self._forward.device)
                states_BTD = self._forward.hidden(ids_BT, mask_BT)
                means_ND[batch] = pooled(states_BTD, mask_BT, "mean").cpu().numpy()
                for i in batch:
                    self._book(len(rows[i]), len(rows[i]) / 2)
                advance(len(batch))
        return means_ND

    # What they share

    def _prompt_ids(self, text: str) -> list[int]:
        return self.tokenizer(text).input_ids

    def _start(self) -> list[int]:
        start = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        if start is None:
            raise EngineError("an empty text needs a beginning or end token", where=self.reference)
        return [start]

    def _fitted(self, ids: list[int], room: int, wanted: int, where: str) -> list[int]:
        """`ids` such that `room` more tokens fit; with ``cut``, such that `wanted` do."""
        if not ids and room:
            ids = self._start()
        if self._window is None or len(ids) + room <= self._window:
            return ids
        if self.long_prompts == "error":
            raise EngineError(
                f"the text has {len(ids) + room} tokens, the model reads at most {self._window}",
                where=f"{where} of {self.reference}",
                fix="shorten it; from Python, long_prompts='cut' drops its beginning",
            )
        return ids[-max(1, self._window - max(room, wanted)) :]

    def _book(self, tokens: int, context: float, **more: int) -> None:
        config = self.model.config
        flops = forward_flops(
            self._parameters, tokens, config.num_hidden_layers, config.hidden_size, context
        )
        self.ledger.add(tokens_read=tokens, flops=flops, **more)

    @contextmanager
    def _working(self, title: str, rows: int) -> Iterator[Callable[[int], None]]:
        """Inference mode, the engine's threads, and a progress bar that counts rows."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            with torch.inference_mode(), row_bar(title, rows, self._bar and rows > 0) as advance:
                yield advance
        finally:
            torch.set_num_threads(before)


def _one_per_row(seeds: Sequence[int] | None, rows: int) -> Sequence[int]:
    if seeds is None:
        return range(rows)
    if len(seeds) != rows:
        raise EngineError(f"{len(seeds)} seeds for {rows} rows", fix="give one seed per row")
    return seeds


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
