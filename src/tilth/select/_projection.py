"""Random projections of gradients: inner products kept on average, the matrix never held.

A gradient of P weights becomes D numbers whose inner products are, on average over the signs, those
of the gradients. The matrix is drawn anew, block by block, from a seed and the weights' names, so
that it is the same for every row, in every process, after every interruption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch

from tilth.seeds import stream

__all__ = ["Kind", "Projection"]

Kind = Literal["sparse", "dense"]

NONZERO = 4  # signs per weight under "sparse"; our choice
BLOCK = {"sparse": 1 << 20, "dense": 1 << 11}  # weights whose part of the matrix is drawn at once
KEPT = 1 << 25  # entries up to which the drawn parts are kept in memory


class Projection:
    """Maps per-row gradients of named weights to `dimensions` numbers.

    Args:
        sizes: Weights by name, in the order in which they count.
        dimensions: D. Where there are no more weights than that, they are copied and not projected.
        kind: ``dense``: a sign for every weight and dimension (Rademacher). ``sparse``: each weight
            goes, with a sign, to four dimensions drawn by lot. Both keep inner products on average
            and with an error of about ``1 / sqrt(D)``; sparse costs D / 4 times less.
        seed: Names the matrix.
    """

    def __init__(
        self, sizes: Mapping[str, int], dimensions: int, *, kind: Kind = "sparse", seed: int = 0
    ) -> None:
        self.sizes = dict(sizes)
        total = sum(self.sizes.values())
        self.copies = total <= dimensions
        self.dimensions = total if self.copies else dimensions
        self.kind = kind
        self.seed = seed
        starts = np.cumsum([0, *self.sizes.values()])
        self._start = dict(zip(self.sizes, starts.tolist(), strict=False))
        entries = total * (NONZERO if kind == "sparse" else dimensions)
        self._kept: dict[tuple[str, int], tuple[torch.Tensor, ...]] | None = (
            {} if entries <= KEPT else None
        )

    def add(self, to_BD: torch.Tensor, name: str, gradients_BP: torch.Tensor) -> None:
        """Adds the part of the weights `name` to the projections of a batch of rows."""
        if self.copies:
            start = self._start[name]
            to_BD[:, start : start + self.sizes[name]] += gradients_BP
            return
        for number, (first, last) in enumerate(self._blocks(self.sizes[name])):
            part = self._part(name, number, last - first, to_BD.device)
            block_BP = gradients_BP[:, first:last]
            if self.kind == "dense":
                to_BD.addmm_(block_BP, part[0].float(), alpha=self.dimensions**-0.5)
                continue
            places, signs = part
            for place_P, sign_P in zip(places, signs, strict=True):
                signed_BP = block_BP * (sign_P * NONZERO**-0.5)
                to_BD.scatter_add_(1, place_P.expand_as(signed_BP), signed_BP)

    def _blocks(self, size: int) -> Iterator[tuple[int, int]]:
        step = BLOCK[self.kind]
        for first in range(0, size, step):
            yield first, min(first + step, size)

    def _part(
        self, name: str, number: int, size: int, device: torch.device
    ) -> tuple[torch.Tensor, ...]:
        """The part of the matrix for one block: signs, and under sparse where they stand."""
        known = None if self._kept is None else self._kept.get((name, number))
        if known is not None:
            return known
        rng = stream(self.seed, "projection", self.kind, name, number)
        shape = (size, self.dimensions) if self.kind == "dense" else (NONZERO, size)
        bits = np.unpackbits(
            np.frombuffer(rng.bytes(-(-shape[0] * shape[1] // 8)), np.uint8),
            count=shape[0] * shape[1],
        )
        signs = torch.from_numpy(bits.reshape(shape).astype(np.int8) * 2 - 1).to(device)
        part: tuple[torch.Tensor, ...] = (signs,)
        if self.kind == "sparse":
            places = torch.from_numpy(rng.integers(0, self.dimensions, shape)).to(device)
            part = (places, signs)
        if self._kept is not None:
            self._kept[name, number] = part
        return part
