"""Log-probabilities of given texts under a composed model.

Axes: B rows, T positions, V tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tilth.decode._combine import combine
from tilth.decode._ensemble import Ensemble
from tilth.decode._rule_scores import RuleScores
from tilth.models.engine import Score
from tilth.models.generation import left_padded

__all__ = ["Text", "score", "scoring_batches"]

_LOGITS_AT_ONCE = 2**26  # floats: 256 MiB of logits of each voice per scoring batch


@dataclass
class Text:
    """A text to score.

    Attributes:
        heads: Voice to what stands before it.
        tail: Its tokens, the same for every voice.
        seen: Tokens that rules count as seen before it.
    """

    heads: dict[int, list[int]]
    tail: list[int]
    seen: list[int]

    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(map(len, self.heads.values())) + len(self.tail)


def scoring_batches(
    order: Sequence[int], texts: Sequence[Text], batch_size: int, vocabulary: int
) -> Iterator[list[int]]:
    """Batches of at most `batch_size` texts whose logits fit into memory."""
    batch: list[int] = []
    longest = 0
    for i in order:
        longest = max(longest, len(texts[i].tail) + 1)
        full = (len(batch) + 1) * longest * vocabulary > _LOGITS_AT_ONCE
        if batch and (len(batch) == batch_size or full):
            yield batch
            batch, longest = [], len(texts[i].tail) + 1
        batch.append(i)
    if batch:
        yield batch


def score(ensemble: Ensemble, texts: Sequence[Text]) -> list[Score]:
    """The log-probability of each text, in one pass of every voice.

    A token that ends an answer counts as any of them, where models disagree on which it is.

    Raises:
        EngineError: A role computes NaN.
    """
    keep = max(len(text.tail) for text in texts) + 1
    logits: dict[int, torch.Tensor] = {}
    for voice in ensemble.voices:
        network = voice.network
        whole = [text.heads[voice.index] + text.tail for text in texts]
        ids_BT, mask_BT = left_padded(whole, 0, network.forward.device)
        network.wear([voice.adapter], len(texts))
        output = network.forward(ids_BT, mask_BT, keep=min(keep, ids_BT.shape[1]), use_cache=False)
        logits[voice.index] = output.logits[:, :-1]
    scores = []
    for row, text in enumerate(texts):
        if not text.tail:
            scores.append(Score(0.0, 0))
            continue
        own = {v: x[row, -len(text.tail) :] for v, x in logits.items()}
        scores.append(Score(_logprob(ensemble, own, text), len(text.tail)))
    return scores


def _logprob(ensemble: Ensemble, own: dict[int, torch.Tensor], text: Text) -> float:
    plan = ensemble.plan
    targets_T = torch.tensor(text.tail, device=next(iter(own.values())).device)
    rules_TV = None
    if ensemble.rules is not None:
        state = RuleScores(ensemble.rules, plan.vocabulary, [text.seen], device=targets_T.device)
        rules_TV = state.ahead(targets_T[None, :-1])[0]
    log_TV = combine(own, plan, rules_TV).log_softmax(-1)
    if plan.ends_joined:
        ends = torch.tensor(plan.ends, device=targets_T.device)
        targets_T = torch.where(torch.isin(targets_T, ends), ends[0], targets_T)
    return float(log_TV.gather(1, targets_T[:, None]).double().sum())
