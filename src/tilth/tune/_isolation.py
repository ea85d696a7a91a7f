"""Proof that a model keeps packed documents apart, asked of the model itself before training.

Whether positions that begin anew separate documents depends on the architecture, the attention
implementation, and on there being no cache. A forward pass of two short rows is the plain answer.
"""

from __future__ import annotations

import torch
from torch import nn

from tilth.errors import TrainingError

__all__ = ["isolates_documents", "require_isolation"]

_LENGTHS = (5, 7, 4)
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_COARSE = 0.05  # bf16 and fp16 round at about 1 % of a logit; another document moves it further


def isolates_documents(model: nn.Module, vocabulary: int) -> bool:
    """Whether logits of packed documents equal those of the documents alone.

    False too where the model takes no positions.

    Args:
        model: A causal language model; left in the mode in which it came.
        vocabulary: Ids below it may be used.
    """
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    documents = [
        torch.randint(0, vocabulary, (1, n), generator=generator).to(parameter.device)
        for n in _LENGTHS
    ]
    orders = ((0, 1, 2), (2, 1, 0))  # two rows: some implementations pack a single row only
    packed = torch.cat([torch.cat([documents[i] for i in order], 1) for order in orders])
    positions = torch.stack(
        [torch.cat([torch.arange(_LENGTHS[i]) for i in order]) for order in orders]
    ).to(parameter.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            together = model(input_ids=packed, position_ids=positions, use_cache=False).logits
            alone = [model(input_ids=d, use_cache=False).logits[0].float() for d in documents]
    except TypeError:  # a forward without position_ids or use_cache
        return False
    finally:
        model.train(training)
    expected = torch.stack([torch.cat([alone[i] for i in order]) for order in orders])
    tolerance = _TOLERANCE.get(parameter.dtype, _COARSE) * float(expected.abs().max())
    return bool((together.float() - expected).abs().max() <= tolerance)


def require_isolation(model: nn.Module, vocabulary: int) -> None:
    """Refuses a model that lets packed documents see each other.

    Raises:
        TrainingError: It does; the other ways of batching are named.
    """
    if not isolates_documents(model, vocabulary):
        name = type(model).__name__
        raise TrainingError(
            f"{name} cannot keep packed documents apart: a token sees the documents before its own",
            where="batching: packed",
            fix="use batching: grouped, or the attention implementation 'sdpa' where it exists",
        )
