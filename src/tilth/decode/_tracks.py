"""Tracks: the caches of a composition, one per network, all ragged alike.

Axes: B rows, T positions, V tokens; N = voices of a track times B, voice after voice.

A *voice* is a network with an adapter and a way of putting the prompt. Voices of one network run in
one batch, a *track*. Prompts differ between voices, the answer's tokens do not, so that every track
grows by the same columns; each has its own mask and counts its own positions.

After a round of drafting rows keep different numbers of tokens. Columns that no row keeps are cut
off; a column that only some keep is hidden from the others by the mask, and once enough are hidden
the cache is packed again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tilth.decode._networks import Network
from tilth.models.generation import left_padded

__all__ = ["Track", "Voice"]

_LOOSE = 48  # hidden columns that are carried along before a cache is packed (our choice)


@dataclass(frozen=True)
class Voice:
    """A network with an adapter and a way of putting the prompt.

    Attributes:
        index: Its number in the composition.
        name: The first role that speaks with it.
        network: The network.
        adapter: What its rows wear.
        prompt: How a conversation is put to it.
        tokenizer_of: The role whose tokenizer writes its prompts.
    """

    index: int
    name: str
    network: Network
    adapter: str
    prompt: str


class Track:
    """Voices of one network that advance together.

    Args:
        voices: The voices.
        prompts: Per voice the prompt of every row; none is empty.

    Attributes:
        seconds: How long the last pass took.
    """

    def __init__(self, voices: Sequence[Voice], prompts: Sequence[Sequence[list[int]]]) -> None:
        self.voices = tuple(voices)
        self.rows = len(prompts[0])
        self._network = voices[0].network
        everything = [prompt for of_voice in prompts for prompt in of_voice]
        device = self._network.forward.device
        self._fresh, self._mask_NT = left_padded(everything, 0, device)
        self._whole = bool(self._mask_NT.all())
        self._cache: Any = None
        self.seconds = 0.0

    @property
    def key(self) -> tuple[int, ...]:
        """Names the voices, for the clock."""
        return tuple(voice.index for voice in self.voices)

    def begin(self) -> dict[int, torch.Tensor]:
        """Reads the prompts; logits ``[B, 1, V]`` by voice."""
        return self._pass(self._fresh, keep=1)

    def run(
        self, ids_BT: torch.Tensor, used_BT: torch.Tensor | None = None
    ) -> dict[int, torch.Tensor]:
        """Reads more tokens of the answer; logits ``[B, T, V]`` by voice.

        Args:
            ids_BT: The tokens.
            used_BT: 0 where a row has fewer; such columns are hidden.
        """
        used_BT = torch.ones_like(ids_BT) if used_BT is None else used_BT.to(ids_BT.dtype)
        self._whole = self._whole and bool(used_BT.all())
        if len(self.voices) > 1:
            used_BT, ids_BT = (x.repeat(len(self.voices), 1) for x in (used_BT, ids_BT))
        self._mask_NT = torch.cat([self._mask_NT, used_BT], dim=1)
        return self._pass(ids_BT, keep=ids_BT.shape[1])

    def _pass(self, ids_NT: torch.Tensor, keep: int) -> dict[int, torch.Tensor]:
        self._network.wear([voice.adapter for voice in self.voices], self.rows)
        device = ids_NT.device
        # A processor is shared with others: the thread's own time is steadier than the clock.
        clock = time.thread_time if device.type == "cpu" else time.perf_counter
        started = clock()
        # Without padding no mask is needed, and the library need not build one in every pass.
        more: dict[str, Any] = {"attention_mask": None} if self._whole else {}
        output = self._network.forward(
            ids_NT, self._mask_NT, keep=keep, cache=self._cache, use_cache=True, **more
        )
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.seconds = clock() - started
        self._cache = output.past_key_values
        parts = output.logits.split(self.rows)
        return {voice.index: part for voice, part in zip(self.voices, parts, strict=True)}

    @property
    def can_roll_back(self) -> bool:
        """Whether tokens can be taken back: full attention with a plain cache."""
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def take_back(self, extra_B: torch.Tensor) -> None:
        """Forgets the last `extra_B` columns of every row.

        Args:
            extra_B: How many; rows with fewer keep theirs.
        """
        whole = int(extra_B.min())
        if whole:
            self._cache.crop(-whole)
            self._mask_NT = self._mask_NT[:, :-whole]
        extra_B = extra_B - whole
        most = int(extra_B.max())
        if not most:
            return
        columns = torch.arange(most, 0, -1, device=extra_B.device)
        hidden_BT = columns[None, :] <= extra_B[:, None]
        tail_NT = self._mask_NT[:, -most:]
        tail_NT[hidden_BT.repeat(len(self.voices), 1)] = 0
        self._whole = False
        self._pack()

    def _pack(self) -> None:
        """Moves hidden columns out of the cache once there are many."""
        width = self._mask_NT.shape[1]
        longest = int(self._mask_NT.sum(1).max())
        if width - longest < _LOOSE:
            return
        order_NT = torch.sort(self._mask_NT, dim=1, stable=True).indices[:, width - longest :]
        self._mask_NT = self._mask_NT.gather(1, order_NT)
        for layer in self._cache.layers:
            index = order_NT[:, None, :, None].expand(-1, layer.keys.shape[1], -1, 1)
            layer.keys = layer.keys.gather(2, index.expand(-1, -1, -1, layer.keys.shape[-1]))
            layer.values = layer.values.gather(2, index.expand(-1, -1, -1, layer.values.shape[-1]))

    def keep(self, going_B: torch.Tensor) -> None:
        """Only these rows go on."""
        voices = torch.arange(len(self.voices), device=going_B.device)
        kept_N = (voices[:, None] * self.rows + going_B[None, :]).flatten()
        self.rows = len(going_B)
        self._mask_NT = self._mask_NT[kept_N]
        self._whole = bool(self._mask_NT.all())
        self._cache.batch_select_indices(kept_N)

    def parted(self, voice: int) -> list[Track]:
        """The track of one voice alone, and that of the others; itself where it is alone."""
        if len(self.voices) == 1:
            return [self]
        at = next(i for i, own in enumerate(self.voices) if own.index == voice)
        others = [i for i in range(len(self.voices)) if i != at]
        return [self._of([at]), self._of(others)]

    def _of(self, places: list[int]) -> Track:
        rows_N = torch.cat([torch.arange(i * self.rows, (i + 1) * self.rows) for i in places]).to(
            self._mask_NT.device
        )
        part = self._empty([self.voices[i] for i in places])
        part._mask_NT = self._mask_NT[rows_N]
        part._whole = bool(part._mask_NT.all())
        part._cache = _selected(self._cache, [rows_N])
        return part

    def joined(self, other: Track) -> Track:
        """One track of the voices of both, in the order of their numbers."""
        both = [*self.voices, *other.voices]
        order = sorted(range(len(both)), key=lambda i: both[i].index)
        whole = self._empty([both[i] for i in order])
        rows_N = torch.cat([torch.arange(i * self.rows, (i + 1) * self.rows) for i in order])
        width = max(self._mask_NT.shape[1], other._mask_NT.shape[1])
        masks = [_widened(track._mask_NT, width) for track in (self, other)]
        whole._mask_NT = torch.cat(masks)[rows_N.to(masks[0].device)]
        whole._whole = bool(whole._mask_NT.all())
        whole._cache = _stacked(self._cache, other._cache, width, rows_N)
        return whole

    def _empty(self, voices: list[Voice]) -> Track:
        track = object.__new__(Track)
        track.__dict__ = {**self.__dict__, "voices": tuple(voices)}
        return track


def _widened(mask_NT: torch.Tensor, width: int) -> torch.Tensor:
    return torch.nn.functional.pad(mask_NT, (width - mask_NT.shape[1], 0))


def _selected(cache: Any, rows: list[torch.Tensor]) -> Any:
    """A cache of its own with some rows of `cache`."""
    from transformers.cache_utils import DynamicCache

    pairs = [(layer.keys[rows[0]], layer.values[rows[0]]) for layer in cache.layers]
    return DynamicCache(pairs)


def _stacked(one: Any, other: Any, width: int, rows_N: torch.Tensor) -> Any:
    from transformers.cache_utils import DynamicCache

    def both(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        padded = [torch.nn.functional.pad(x, (0, 0, width - x.shape[2], 0)) for x in (a, b)]
        return torch.cat(padded)[rows_N.to(a.device)]

    pairs = [
        (both(a.keys, b.keys), both(a.values, b.values))
        for a, b in zip(one.layers, other.layers, strict=True)
    ]
    return DynamicCache(pairs)
