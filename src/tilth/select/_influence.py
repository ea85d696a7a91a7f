"""Influence of pool rows on queries: cosines of gradients over several checkpoints, in shards.

Gradients are projected, compared with those of the queries at once, and forgotten: a shard keeps
one number per row and query, and a short sketch of each gradient for the map. A killed run computes
only the shards that are missing.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file

from tilth.artefacts import write_atomically
from tilth.cost import forward_flops, training_flops
from tilth.data import Rows
from tilth.errors import DataError, RecipeError
from tilth.method import Work
from tilth.models.load import counted_parameters, load
from tilth.models.progress import row_bar
from tilth.models.reference import resolve
from tilth.select._gradients import Gradients, Moments, Row, encoded, lora_layers
from tilth.select._projection import Projection
from tilth.select._warmup import Recipe, adapted, load_epoch, train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tilth.select.less import LESS

__all__ = ["Influence", "influence"]

SHARD = 512  # rows between two files; our choice
SKETCH = 256  # numbers per row that the map is drawn from
ONE_THREAD = 8_000_000  # parameters up to which more threads cost more than they bring


@dataclass(frozen=True)
class Influence:
    """What the gradients say.

    Attributes:
        scores: float32 [N, Q]; NaN for rows without an answer token within ``max_length``.
        sketch: float32 [N, S] unit rows: gradients at the last checkpoint, shortened at random.
        empty: Rows without an answer token.
        weights: Of the checkpoints, their sum is 1.
        adam: Whether every checkpoint had Adam's state.
        dimensions: Of the projected gradients.
    """

    scores: np.ndarray
    sketch: np.ndarray
    empty: list[int]
    weights: list[float]
    adam: bool
    dimensions: int


Opened = tuple[Any, dict[str, Moments] | None]
"""A PEFT model with the weights of one checkpoint, and Adam's state where it is known."""

Opener = Callable[[], Opened]


def influence(settings: LESS, pool: Rows, rows: np.ndarray, queries: Rows, work: Work) -> Influence:
    """Scores `rows` of `pool` for every query; see :class:`tilth.select.less.LESS`."""
    base, tokenizer = load(settings.model)
    threads = 1 if counted_parameters(base) <= ONE_THREAD else torch.get_num_threads()
    with _threads(threads):
        return _Run(settings, pool, rows, work, base, tokenizer).finish(queries)


@dataclass(frozen=True)
class _Checkpoint:
    """A PEFT model with the weights of a checkpoint, Adam's state if known, and the projection."""

    model: Any
    moments: dict[str, Moments] | None
    projection: Projection


@dataclass(frozen=True)
class _Run:
    """One run; `rows` are those of `pool` that are scored."""

    settings: LESS
    pool: Rows
    rows: np.ndarray
    work: Work
    base: Any
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def longest(self) -> int:
        """Tokens of a row that count: the model's context may be shorter than the setting."""
        window: int | None = getattr(self.base.config, "max_position_embeddings", None)
        return min(self.settings.max_length, window or self.settings.max_length)

    @cached_property
    def parameters(self) -> int:
        """Weights of the base model that take part in a product."""
        return counted_parameters(self.base)

    def finish(self, queries: Rows) -> Influence:
        """Every checkpoint in turn, every shard of it, and all together."""
        settings = self.settings
        asked = [self._query(i, queries) for i in range(len(queries))]
        opened, weights = self._own() if settings.checkpoints else self._warmed()
        scores = np.zeros((len(self.pool), len(asked)), np.float64)
        sketch = np.zeros((len(self.pool), 0), np.float32)
        dimensions, adam = 0, True
        for number, (opener, weight) in enumerate(zip(opened, weights, strict=True)):
            model, moments = opener()
            sizes = {name: layer.weight.numel() for name, layer in lora_layers(model).items()}
            projection = Projection(
                sizes,
                settings.dimensions,
                kind=settings.projection,
                seed=self.work.derive("projection"),
            )
            here = _Checkpoint(model, moments, projection)
            found, sketch = self._checkpoint(number, here, asked)
            scores += weight * found
            dimensions, adam = projection.dimensions, adam and moments is not None
        empty = self.rows[np.isnan(scores[self.rows]).any(axis=1)].tolist()
        return Influence(scores.astype(np.float32), sketch, empty, weights, adam, dimensions)

    # Checkpoints

    def _own(self) -> tuple[list[Opener], list[float]]:
        """The user's checkpoints and their weights."""
        settings = self.settings
        rates = settings.learning_rates or [1.0] * len(settings.checkpoints)
        if len(rates) != len(settings.checkpoints):
            raise RecipeError(
                f"{len(rates)} learning rates for {len(settings.checkpoints)} checkpoints",
                where="learning_rates",
                fix="give one per checkpoint, or none: then all weigh the same",
            )

        def opener(ref: str) -> Opened:
            model, _ = load(ref, merge=False)
            return model, _moments(model, ref)

        openers: list[Opener] = [partial(opener, ref) for ref in settings.checkpoints]
        return openers, [rate / sum(rates) for rate in rates]

    def _warmed(self) -> tuple[list[Opener], list[float]]:
        """A warm-up on rows drawn by lot, and a checkpoint after each of its epochs."""
        settings, work = self.settings, self.work
        drawn = np.sort(work.stream("warm-up").permutation(self.rows)[: settings.warmup_rows])
        rows = [row for i in drawn if (row := self._encoded(int(i))) is not None]
        if not rows:
            raise DataError("no row has an answer token to learn from", where=settings.pool)
        recipe = Recipe(
            settings.lora_rank,
            settings.lora_alpha,
            settings.lora_dropout,
            settings.learning_rate,
            settings.epochs,
            settings.batch_size,
            work.derive("warm-up"),
        )
        model = adapted(self.base, recipe)
        work.say(f"warm-up on {len(rows):,} rows, {settings.epochs} epochs")
        tokens = train(model, rows, recipe, work.scratch)
        work.ledger.add(tokens_trained=tokens, flops=training_flops(self.parameters, tokens))
        rates = np.array_split(recipe.rates(len(rows)), settings.epochs)
        means = [float(np.mean(part)) for part in rates]

        def opener(number: int) -> Opened:
            return model, load_epoch(model, work.scratch / f"epoch-{number + 1}.safetensors")

        openers: list[Opener] = [partial(opener, number) for number in range(settings.epochs)]
        return openers, [mean / sum(means) for mean in means]

    # Gradients

    def _checkpoint(
        self, number: int, here: _Checkpoint, queries: list[Row]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cosines with every query [N, Q], and the sketches [N, S], from the shards."""
        shards = [self.rows[i : i + SHARD] for i in range(0, len(self.rows), SHARD)]
        files = [self.work.scratch / f"shard-{number}-{i:06d}.npz" for i in range(len(shards))]
        title = f"gradients, checkpoint {number + 1}"
        with row_bar(title, len(self.rows), sys.stderr.isatty()) as advance:
            if not all(file.exists() for file in files):
                # Queries are compared as they are; only what trains is seen through Adam.
                wanted = self._gradients(replace(here, moments=None), queries, "query")
                for shard, file in zip(shards, files, strict=True):
                    if not file.exists():
                        self._shard(shard, file, here, wanted)
                    advance(len(shard))
        found = np.full((len(self.pool), len(queries)), np.nan)
        sketch = np.zeros((len(self.pool), min(SKETCH, here.projection.dimensions)), np.float32)
        for shard, file in zip(shards, files, strict=True):
            with np.load(file) as kept:
                found[shard], sketch[shard] = kept["scores"], kept["sketch"]
        return found, sketch

    def _shard(
        self, shard: np.ndarray, file: Path, here: _Checkpoint, wanted_QD: np.ndarray
    ) -> None:
        rows = [self._encoded(int(i)) for i in shard]
        there = [n for n, row in enumerate(rows) if row is not None]
        units_BD = self._gradients(here, [row for row in rows if row is not None], "row")
        scores = np.full((len(shard), len(wanted_QD)), np.nan, np.float32)
        scores[there] = units_BD @ wanted_QD.T
        sketch = np.zeros((len(shard), min(SKETCH, here.projection.dimensions)), np.float32)
        sketch[there] = self._shortened(units_BD)
        buffer = io.BytesIO()
        np.savez(buffer, scores=scores, sketch=sketch)
        write_atomically(file, buffer.getvalue())

    def _gradients(self, here: _Checkpoint, rows: Sequence[Row], what: str) -> np.ndarray:
        """Unit gradients float32 [B, D] of rows, computed in batches of like length."""
        found = np.zeros((len(rows), here.projection.dimensions), np.float32)
        order = sorted(range(len(rows)), key=lambda i: (-len(rows[i][0]), i))
        maker = Gradients(here.model, here.projection, here.moments)
        try:
            for start in range(0, len(order), self.settings.gradient_batch):
                batch = order[start : start + self.settings.gradient_batch]
                found[batch] = maker([rows[i] for i in batch])
        finally:
            maker.close()
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1) | ~found.any(axis=1))
        if len(bad):
            raise DataError(
                f"{len(bad)} gradients are zero or not finite, the first is of {what} {bad[0]}",
                where=f"{self.settings.model}: ids {rows[bad[0]][0][:12]} ...",
                fix="a model that answers with NaN, or that nothing can move, has no gradients",
            )
        flops = 2 * forward_flops(self.parameters, maker.tokens)
        self.work.ledger.add(tokens_read=maker.tokens, flops=flops)
        return found

    def _shortened(self, units_BD: np.ndarray) -> np.ndarray:
        """A random sketch of unit rows, itself of unit rows: signs by lot, then folded."""
        dimensions = units_BD.shape[1]
        if dimensions <= SKETCH:
            return units_BD
        signs = self.work.stream("sketch").choice(np.array([-1, 1], np.float32), dimensions)
        wide = np.pad(units_BD * signs, ((0, 0), (0, -dimensions % SKETCH)))
        folded = wide.reshape(len(wide), -1, SKETCH).sum(axis=1)
        lengths = np.linalg.norm(folded, axis=1, keepdims=True)
        return folded / np.maximum(lengths, np.finfo(np.float32).tiny)

    # Rows

    def _encoded(self, index: int) -> Row | None:
        return encoded(self.tokenizer, self.pool[index].messages, self.longest)

    def _query(self, index: int, queries: Rows) -> Row:
        row = encoded(self.tokenizer, queries[index].messages, self.longest)
        if row is None:
            raise DataError(
                f"query {index} has no answer token within {self.longest} tokens",
                where=str(queries.path),
                fix="shorten it, or raise max_length",
            )
        return row


def _moments(model: Any, ref: str) -> dict[str, Moments] | None:
    """Adam's state from ``optimizer.safetensors`` beside an adapter, where there is one."""
    adapters = resolve(ref).adapters
    file = adapters[-1] / "optimizer.safetensors" if adapters else None
    if file is None or not file.is_file():
        return None
    tensors = load_file(file)
    layers = lora_layers(model)
    missing = [
        n for n in layers if f"{n}//exp_avg" not in tensors or f"{n}//exp_avg_sq" not in tensors
    ]
    if missing:
        raise DataError(
            f"the optimiser's state lacks {len(missing)} of {len(layers)} weights, "
            f"the first is {missing[0]}//exp_avg",
            where=str(file),
            fix="save exp_avg and exp_avg_sq of every LoRA weight, or remove the file",
        )
    return {
        name: Moments(
            tensors[f"{name}//exp_avg"].to(layer.weight.device),
            tensors[f"{name}//exp_avg_sq"].to(layer.weight.device),
        )
        for name, layer in layers.items()
    }


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
