"""The decoding loop: a batch of prompts in, tokens out, each row as if it were alone.

Axes: B rows, T positions, V tokens.

Prompts are padded on the left and every row counts its own positions, so that all rows write in the
last column. A row that is finished leaves the batch at once, its part of the key-value cache too.
Rounding differs with the company a row keeps; where it could change a choice (see
:mod:`tilth.models.choice`) the row is computed once more alone and decided on that. In float32 an
answer therefore does not depend on the batch; in half precision, where rounding is a thousand times
coarser, this is not done and near ties may fall differently.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tilth.models.choice import choose
from tilth.models.engine import Sampling

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Forward", "Row", "StopTexts", "continuation", "end_ids", "generate", "left_padded"]

_AS_WRITTEN = {"clean_up_tokenization_spaces": False}

_ROUNDING = 5e-5
"""Margins up to this are decided on the row alone: at least ten times the float32 rounding of
logits up to about 20 (our choice)."""


@dataclass
class Row:
    """One answer under way.

    Attributes:
        index: Its place in the caller's list.
        prompt: Token ids of the prompt.
        limit: How many tokens it may get.
        draws: Uniform draws, one per step; empty for greedy choice.
        new: The tokens so far, the stop token included.
        finish: Why it ended.
    """

    index: int
    prompt: list[int]
    limit: int
    draws: np.ndarray
    new: list[int] = field(default_factory=list)
    finish: str = ""


class Forward:
    """A model's forward pass with only the arguments that its architecture takes."""

    def __init__(self, model: PreTrainedModel) -> None:
        import torch

        self.model = model
        self.device = model.device
        takes = inspect.signature(model.forward).parameters
        self._positions = "position_ids" in takes
        self._keep = "logits_to_keep" in takes
        self.exact = model.dtype in (torch.float32, torch.float64)

    def __call__(
        self,
        ids_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        *,
        keep: int,
        cache: Any = None,
        **more: Any,
    ) -> Any:
        """The model's output; its logits are those of the last `keep` positions.

        Args:
            ids_BT: The new tokens.
            mask_BT: 1 for tokens, 0 for padding, over past and new positions.
            keep: Positions whose logits are needed.
            cache: The past.
            more: Passed on.
        """
        arguments: dict[str, Any] = {**self._read(ids_BT, mask_BT), **more}
        if cache is not None:
            arguments["past_key_values"] = cache
        if self._keep:
            arguments["logits_to_keep"] = keep
        output = self.model(**arguments, return_dict=True)
        output.logits = output.logits[:, -keep:]
        return output

    def hidden(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """The last hidden states ``[B, T, d]``, after the model's final norm."""
        body = self.model.base_model  # without the head, and without every layer's states
        arguments = self._read(ids_BT, mask_BT)
        return body(**arguments, use_cache=False, return_dict=True).last_hidden_state

    def _read(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> dict[str, Any]:
        """The input, with every row counting its own positions."""
        arguments: dict[str, Any] = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if self._positions:
            positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
            arguments["position_ids"] = positions_BT[:, -ids_BT.shape[1] :]
        return arguments

    def alone(self, ids: list[int]) -> torch.Tensor:
        """Logits ``[1, V]`` after `ids`, from one pass without padding, cache or company."""
        import torch

        ids_BT = torch.tensor([ids], device=self.device)
        return self(ids_BT, torch.ones_like(ids_BT), keep=1, use_cache=False).logits[:, -1]


def left_padded(
    rows: list[list[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask ``[B, T]`` with the padding on the left."""
    import torch

    longest = max(map(len, rows))
    ids_BT = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for i, row in enumerate(rows):
        ids_BT[i, longest - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask_BT[i, longest - len(row) :] = 1
    return ids_BT.to(device), mask_BT.to(device)


def generate(
    forward: Forward,
    rows: list[Row],
    sampling: Sampling,
    stop_ids: frozenset[int],
    ends: Callable[[Row], bool],
) -> Iterator[Row]:
    """Decodes one batch and yields every row as it ends.

    Args:
        forward: The model.
        rows: The batch; no prompt is empty.
        sampling: The rule of choice.
        stop_ids: Tokens that end a row.
        ends: Whether a stop text ends the row; asked after every token.
    """
    import torch

    if not rows:
        return
    ids_BT, mask_BT = left_padded([r.prompt for r in rows], 0, forward.device)
    cache = None
    while rows:
        output = forward(ids_BT, mask_BT, keep=1, cache=cache, use_cache=True)
        cache = output.past_key_values
        chosen_B = _choose(forward, output.logits[:, -1], rows, sampling)
        going = []
        for i, (row, token) in enumerate(zip(rows, chosen_B.tolist(), strict=True)):
            row.new.append(token)
            if token in stop_ids or ends(row):
                row.finish = "stop"
            elif len(row.new) >= row.limit:
                row.finish = "length"
            else:
                going.append(i)
        yield from (r for r in rows if r.finish)
        if len(going) < len(rows):
            rows = [rows[i] for i in going]
            if not rows:
                return
            kept_B = torch.tensor(going, device=forward.device)
            mask_BT = mask_BT[kept_B]
            cache.batch_select_indices(kept_B)
        ids_BT = torch.tensor([[r.new[-1]] for r in rows], device=forward.device)
        mask_BT = torch.cat([mask_BT, torch.ones_like(ids_BT)], dim=1)


def _choose(
    forward: Forward, logits_BV: torch.Tensor, rows: list[Row], sampling: Sampling
) -> np.ndarray:
    draws_B = np.array([r.draws[len(r.new)] if len(r.draws) else 0.0 for r in rows])
    chosen_B, margins_B = choose(logits_BV, sampling, draws_B)
    if forward.exact:
        for i in np.flatnonzero(margins_B < _ROUNDING):
            row = rows[i]
            alone_BV = forward.alone(row.prompt + row.new)
            chosen_B[i] = choose(alone_BV, sampling, draws_B[i : i + 1])[0][0]
    return chosen_B


class StopTexts:
    """Whether a row has just written one of the stop texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        # A token is at least a byte, so the stop's bytes and a few more tokens hold all of it.
        self._tail = max((len(s.encode()) for s in stop), default=0) + 4

    def __call__(self, row: Row) -> bool:
        if not self._stop:
            return False
        tail = continuation(self._tokenizer, row.prompt, row.new[-self._tail :])
        return any(s in tail for s in self._stop)


def continuation(tokenizer: PreTrainedTokenizerBase, prompt: list[int], new: list[int]) -> str:
    """The text of `new` behind `prompt`, with the space that a decoder drops at a text's start."""

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, **_AS_WRITTEN))

    before, both = text(prompt[-1:]), text(prompt[-1:] + new)
    joins = before and both.startswith(before) and "\ufffd" not in before
    return both[len(before) :] if joins else text(new)


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokenizer's end token and those that the model's generation settings list."""
    config = model.generation_config
    listed = config.eos_token_id if config is not None else None
    ids = listed if isinstance(listed, list) else [listed]
    return frozenset(i for i in [tokenizer.eos_token_id, *ids] if i is not None)
