"""What a model answers, how probable that was to it, and how sure it says it is.

One prefill per question serves everything: the greedy answer is decoded, the same key-value cache
is extended by each certainty question, cut back, and repeated for the sampled answers. The model's
own generation settings are never consulted: greedy means the likeliest token.

Axes: B rows, T positions, V tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tilth.cost import Ledger, forward_flops
from tilth.data.questions import Question
from tilth.models.choice import choose
from tilth.models.engine import Sampling
from tilth.models.generation import Forward, continuation, end_ids, left_padded
from tilth.models.load import counted_parameters
from tilth.models.wording import Renderer, Tail
from tilth.seeds import stream

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Answered", "Asker", "entropy_of"]

_CLOSE_CALL = 5e-5
"""Margins up to this are decided on the row alone, as :mod:`tilth.models.generation` does."""


@dataclass(frozen=True)
class Answered:
    """What a model made of one question.

    Attributes:
        text: The greedy answer without what ended it; a letter for a choice question.
        p_predict: Geometric mean over the answer's tokens of the probability of the likeliest
            token; of a choice the share of its letter among the letters; of an empty answer the
            probability of the token that ended it.
        logprob: Sum of the log-probabilities of the answer's tokens.
        tokens: Tokens of the answer; 0 marks an empty one.
        finish: ``stop``, or ``length`` where the limit cut it.
        entropy: In nats: exact over the letters of a choice, over the strings of the sampled
            answers otherwise; None where neither was asked for.
        samples: The sampled answers.
        shares: Per tail the probability of its first continuation among the two; ``refusal`` is
            the probability of all refusals together, where they were given.
        written: Tokens that were generated, those of the samples included.
    """

    text: str
    p_predict: float
    logprob: float
    tokens: int
    finish: str
    entropy: float | None
    samples: tuple[str, ...]
    shares: dict[str, float]
    written: int


def entropy_of(answers: Sequence[str]) -> float:
    """The entropy in nats of answers grouped by their exact string.

    Example:
        >>> round(entropy_of(["a", "a", "b", "b"]), 4)
        0.6931
    """
    shares = np.array(list(Counter(answers).values())) / len(answers)
    return max(0.0, float(-(shares * np.log(shares)).sum()))  # one group gives -0.0


@dataclass
class _Under:
    """A question under way."""

    question: Question
    prompt: list[int]
    new: list[int]
    best: list[float]  # log-probability of the likeliest token at each step
    finish: str = ""
    stop_logprob: float = 0.0
    prefix: str = ""  # what the stopping token says before the stop
    entropy: float | None = None
    drawn: int = 0  # tokens of its sampled answers
    letter: str = ""  # the choice that it made


class Asker:
    """Asks a loaded model; see the module's docstring.

    Args:
        model: A causal language model in evaluation mode.
        renderer: Its renderer.
        max_new_tokens: Tokens of an answer.
        tails: What is asked after the answer.
        single_token: Weigh only the first tokens of a tail's continuations.
        refusals: Answers whose probabilities are added up to the share ``refusal``.
        samples: Sampled answers to open questions; choices need none.
        temperature: Of the sampled answers.
        seed: Names the draws, together with the question's id.
        ledger: Books tokens and FLOPs.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        renderer: Renderer,
        *,
        max_new_tokens: int = 15,
        tails: Sequence[Tail] = (),
        single_token: bool = False,
        refusals: Sequence[str] = (),
        samples: int = 0,
        temperature: float = 0.7,
        seed: int = 0,
        ledger: Ledger | None = None,
    ) -> None:
        self.model, self.renderer = model, renderer
        self.max_new_tokens, self.samples = max_new_tokens, samples
        self.sampling = Sampling(max_new_tokens, temperature)
        self.seed = seed
        self.ledger = ledger or Ledger()
        self.tails = {
            tail.name: (renderer.tail(tail), renderer.pair(tail, single_token)) for tail in tails
        }
        self.refusals = [[*renderer.answer(text), *renderer.end()] for text in refusals]
        self._forward = Forward(model)
        self._parameters = counted_parameters(model)
        self._stop_ids = end_ids(model, renderer.tokenizer) | renderer.stop_ids
        self._window: int | None = getattr(model.config, "max_position_embeddings", None)

    def too_long(self, question: Question) -> str:
        """Why `question` does not fit the model's context with its answer and tails, or ``""``."""
        tails = [len(ids) + max(map(len, pair)) for ids, pair in self.tails.values()]
        prompt = len(self.renderer.prompt(question))
        room = self.max_new_tokens + max(tails, default=0)
        room = max(room, *map(len, self.refusals), 0)
        if self._window is None or prompt + room <= self._window:
            return ""
        return (
            f"a prompt of {prompt:,} tokens, with {room} for its answer, does not fit the model's "
            f"context of {self._window:,}"
        )

    def __call__(self, questions: Sequence[Question]) -> list[Answered]:
        """One batch of questions, all of them choices or none."""
        import torch

        rows = [_Under(q, self.renderer.prompt(q), [], []) for q in questions]
        with torch.inference_mode():
            ids_BT, mask_BT = left_padded([r.prompt for r in rows], 0, self._forward.device)
            output = self._forward(ids_BT, mask_BT, keep=1, use_cache=True)
            cache, first_BV = output.past_key_values, output.logits[:, -1].float()
            cache.activate_past_recording()  # so that windowed layers can be cut back too
            refused_B = self._refused(first_BV, cache, mask_BT)
            if questions[0].choices:
                mask = self._pick(rows, first_BV, cache, mask_BT)
            else:
                mask = self._decode(rows, first_BV, cache, mask_BT)
            shares = {**self._weigh(rows, cache, mask), **refused_B}
            drawn: list[tuple[str, ...]] = [()] * len(rows)
            if self.samples and not questions[0].choices:
                cache.crop(-(mask.shape[1] - mask_BT.shape[1]))
                drawn = self._sample(rows, first_BV, cache, mask_BT)
        return [
            self._answered(row, drawn[i], {name: s[i] for name, s in shares.items()})
            for i, row in enumerate(rows)
        ]

    # The answer

    def _pick(
        self, rows: list[_Under], logits_BV: torch.Tensor, cache: Any, mask_BT: torch.Tensor
    ) -> torch.Tensor:
        """The likeliest letter of each row, which is then fed; all its tokens count."""
        logs_BV = logits_BV.log_softmax(-1)
        letters = max((row.question.letters for row in rows), key=len)
        ids = {a: self.renderer.answer(a) for a in letters}
        said = {a: self._continued(ids[a], logs_BV, cache, mask_BT) for a in letters}
        for i, row in enumerate(rows):
            logs = np.array([said[a][i] for a in row.question.letters])
            logs -= np.logaddexp.reduce(logs)
            best = int(np.argmax(logs))
            row.letter = row.question.letters[best]
            row.new, row.best, row.finish = ids[row.letter], [float(logs[best])], "stop"
            row.entropy = max(0.0, float(-(np.exp(logs) * logs).sum()))
        mask_BT, _ = self._feed([r.new for r in rows], cache, mask_BT, keep=1)
        return mask_BT

    def _decode(
        self, rows: list[_Under], logits_BV: torch.Tensor, cache: Any, mask_BT: torch.Tensor
    ) -> torch.Tensor:
        """Greedy answers; a row that is finished stays, its later columns masked."""
        greedy = Sampling(self.max_new_tokens)
        for _ in range(self.max_new_tokens):
            chosen_B, margins_B = choose(logits_BV, greedy, np.zeros(len(rows)))
            logs_B = logits_BV.log_softmax(-1).amax(-1).double().cpu().numpy()
            fed: list[list[int]] = []
            for i, row in enumerate(rows):
                fed.append([])
                if row.finish:
                    continue
                token = int(chosen_B[i])
                if self._forward.exact and margins_B[i] < _CLOSE_CALL:
                    alone_BV = self._forward.alone(row.prompt + row.new)
                    token = int(alone_BV.argmax())
                if self._ends(row, token):
                    row.finish, row.stop_logprob = "stop", float(logs_B[i])
                    continue
                row.new.append(token)
                row.best.append(float(logs_B[i]))
                fed[i] = [token]
                if len(row.new) == self.max_new_tokens:
                    row.finish = "length"
            if not any(fed):
                break
            mask_BT, output = self._feed(fed, cache, mask_BT, keep=1)
            logits_BV = output.logits[:, -1].float()
        return mask_BT

    def _ends(self, row: _Under, token: int) -> bool:
        """Whether `token` ends the row; keeps what it says before the mark that ends an answer."""
        if token in self._stop_ids:
            return True
        tail = continuation(self.renderer.tokenizer, row.prompt + row.new, [token])
        row_end = self.renderer.wording.end
        if row_end not in tail:
            return False
        row.prefix = tail.partition(row_end)[0]
        return True

    def _feed(
        self, new: list[list[int]], cache: Any, mask_BT: torch.Tensor, keep: int
    ) -> tuple[torch.Tensor, Any]:
        """Appends `new` to every row, padded on the left: the longer mask and the output."""
        import torch

        ids_BT, more_BT = left_padded(new, 0, self._forward.device)
        mask_BT = torch.cat([mask_BT, more_BT], dim=1)
        return mask_BT, self._forward(ids_BT, mask_BT, keep=keep, cache=cache, use_cache=True)

    # How sure it is of it

    def _weigh(
        self, rows: list[_Under], cache: Any, mask_BT: torch.Tensor
    ) -> dict[str, list[float]]:
        """Per tail and row the share of the first continuation; the cache is left as it came."""
        shares: dict[str, list[float]] = {}
        for name, (tail, pair) in self.tails.items():
            fed = [[*self._prefix(row), *tail] for row in rows]
            asked_BT, output = self._feed(fed, cache, mask_BT, keep=1)
            logs_BV = output.logits[:, -1].float().log_softmax(-1)
            yes_B, no_B = (self._continued(c, logs_BV, cache, asked_BT) for c in pair)
            shares[name] = (1 / (1 + np.exp(np.clip(no_B - yes_B, -700, 700)))).tolist()
            cache.crop(-(asked_BT.shape[1] - mask_BT.shape[1]))
        return shares

    def _prefix(self, row: _Under) -> list[int]:
        return self.renderer.answer(row.prefix.strip()) if row.prefix.strip() else []

    def _continued(
        self, ids: list[int], logs_BV: torch.Tensor, cache: Any, mask_BT: torch.Tensor
    ) -> np.ndarray:
        """The log-probability of `ids` behind every row."""
        total_B = logs_BV[:, ids[0]].double().cpu().numpy()
        if len(ids) > 1:
            head = len(ids) - 1
            _, output = self._feed([ids[:-1]] * len(logs_BV), cache, mask_BT, keep=head)
            rest_BTV = output.logits.float().log_softmax(-1)
            for t, token in enumerate(ids[1:]):
                total_B = total_B + rest_BTV[:, t, token].double().cpu().numpy()
            cache.crop(-head)
        return total_B

    def _refused(
        self, logits_BV: torch.Tensor, cache: Any, mask_BT: torch.Tensor
    ) -> dict[str, list[float]]:
        """Per row the probability that the answer is one of the refusals, word for word."""
        if not self.refusals:
            return {}
        logs_BV = logits_BV.log_softmax(-1)
        said = [self._continued(ids, logs_BV, cache, mask_BT) for ids in self.refusals]
        return {"refusal": np.exp(np.logaddexp.reduce(said)).tolist()}

    # Sampled answers

    def _sample(
        self, rows: list[_Under], first_BV: torch.Tensor, cache: Any, mask_BT: torch.Tensor
    ) -> list[tuple[str, ...]]:
        """The sampled answers of each row, from the prompt's part of the cache."""
        import torch

        k, limit = self.samples, self.max_new_tokens
        cache.batch_repeat_interleave(k)
        mask_BT = mask_BT.repeat_interleave(k, dim=0)
        logits_BV = first_BV.repeat_interleave(k, dim=0)
        under = [_Under(r.question, r.prompt, [], []) for r in rows for _ in range(k)]
        draws = [
            stream(self.seed, "sample", r.question.id, j).random(limit)
            for r in rows
            for j in range(k)
        ]
        going = list(range(len(under)))
        for step in range(limit):
            drawn_B = np.array([draws[n][step] for n in going])
            chosen_B, margins_B = choose(logits_BV, self.sampling, drawn_B)
            kept = []
            for i, n in enumerate(going):
                row, token = under[n], int(chosen_B[i])
                if self._forward.exact and margins_B[i] < _CLOSE_CALL:
                    alone_BV = self._forward.alone(row.prompt + row.new)
                    token = int(choose(alone_BV, self.sampling, drawn_B[i : i + 1])[0][0])
                if not self._ends(row, token):
                    row.new.append(token)
                    kept.append(i)
            going = [going[i] for i in kept]
            if not going or step == limit - 1:
                break
            kept_B = torch.tensor(kept, device=self._forward.device)
            cache.batch_select_indices(kept_B)
            fed = [[under[n].new[-1]] for n in going]
            mask_BT, output = self._feed(fed, cache, mask_BT[kept_B], keep=1)
            logits_BV = output.logits[:, -1].float()
        texts = [self._text(row) for row in under]
        for i, row in enumerate(rows):
            row.drawn = sum(len(u.new) for u in under[i * k : (i + 1) * k])
        return [tuple(texts[i * k : (i + 1) * k]) for i in range(len(rows))]

    # What is said about it

    def _text(self, row: _Under) -> str:
        return (continuation(self.renderer.tokenizer, row.prompt, row.new) + row.prefix).strip()

    def _answered(
        self, row: _Under, samples: tuple[str, ...], shares: dict[str, float]
    ) -> Answered:
        text = row.letter or self._text(row)
        mean = sum(row.best) / len(row.best) if row.best else row.stop_logprob
        entropy = entropy_of(samples) if samples else row.entropy
        return Answered(
            text=text,
            p_predict=math.exp(mean),
            logprob=sum(row.best) if row.best else row.stop_logprob,
            tokens=len(row.new),
            finish=row.finish or "length",
            entropy=entropy,
            samples=samples,
            shares=shares,
            written=len(row.new) + row.drawn,
        )

    def book(self, question: Question, answered: Answered) -> None:
        """Books what an answer costs, also where an earlier attempt has paid for it."""
        config = self.model.config
        tails = sum(len(ids) for ids, _ in self.tails.values())
        tails += sum(map(len, self.refusals))
        read = len(self.renderer.prompt(question)) + tails + answered.written
        flops = forward_flops(
            self._parameters, read, config.num_hidden_layers, config.hidden_size, read / 2
        )
        self.ledger.add(tokens_read=read, tokens_generated=answered.written, flops=flops)
