"""Selection by gradients: rows whose training step would go where the queries' gradients point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tilth.data import Rows, decontaminate, read
from tilth.errors import DataError
from tilth.method import DataRef, ModelRef, Work
from tilth.models.sizes import parameters_of, rows_and_tokens
from tilth.select._selector import Ranking, Selector, read_beside

__all__ = ["LESS"]


class LESS(Selector):
    """Chooses the rows whose gradients agree best with those of the queries.

    With checkpoints k of weight w_k, the projected gradient g_k(v) of a query v, and the step
    a_k(d) that Adam would make for a row d, as the same projection of

        (b1 m + (1 - b1) g) / (sqrt(b2 v + (1 - b2) g^2) + eps)

    with Adam's own m and v at that checkpoint, the influence of d on v is

        S[v, d] = sum over k of  w_k cos(g_k(v), a_k(d))

    and rows are chosen by their highest S over the queries. Gradients are those of LoRA weights,
    for the mean loss of a row's answer tokens (LESS, as it is used for comparison by Ivison et al.
    2025, arXiv:2503.01807: 3 checkpoints, projections to 8,192 numbers, normalised, 12 rows per
    gradient batch; LoRA of rank 128, alpha 512 and dropout 0.1, from their scripts).

    Without ``checkpoints`` a LoRA adapter on all linear layers is first trained on ``warmup_rows``
    rows drawn by lot, and the state after each epoch is a checkpoint, weighing as much as the mean
    learning rate of its epoch: rows, rate, batch size and targets are our choice. Your own
    ``checkpoints`` are LoRA adapters (``REF+ADAPTER``, or artefacts of ``tune.sft``), weighed by
    ``learning_rates``; where ``optimizer.safetensors`` lies beside an adapter, with
    ``WEIGHT//exp_avg`` and ``WEIGHT//exp_avg_sq``, Adam's state is read from there, else rows count
    with their plain gradient, which is said.

    ``rule``: ``global_top`` takes the highest first; ``round_robin`` lets queries take turns, or
    tasks where queries name one in the meta field ``task``; ``mean_max`` averages over tasks.
    ``projection: sparse`` is our choice: a dense matrix of signs costs 2,048 times as many
    additions and keeps inner products no better to speak of.

    Example:
        >>> LESS(pool="pool.jsonl", queries="dev.jsonl").to("chosen")   # doctest: +SKIP
    """

    name: ClassVar = "less"
    example: ClassVar[dict[str, Any]] = {
        "pool": "{rows}",
        "queries": "{rows}",
        "count": 2,
        "model": "{model}",
        "warmup_rows": 4,
        "epochs": 2,
        "lora_rank": 2,
        "batch_size": 2,
        "dimensions": 64,
    }

    queries: DataRef = Field(description="What the model should get good at, with answers.")
    model: ModelRef = Field("seedling:small", description="The model whose gradients count.")
    checkpoints: list[ModelRef] = Field([], description="Your own LoRA checkpoints of it.")
    learning_rates: list[float] = Field([], description="Weights of these; empty: all the same.")
    rule: Literal["global_top", "round_robin", "mean_max"] = Field(
        "global_top", description="How queries share the rows."
    )
    task: str = Field("task", description="Meta field of a query that names its task.")
    dimensions: int = Field(8192, ge=8, description="Numbers of a projected gradient.")
    projection: Literal["sparse", "dense"] = Field("sparse", description="How it is projected.")
    max_length: int = Field(2048, ge=16, description="Tokens of a row that count.")
    gradient_batch: int = Field(12, ge=1, description="Rows per gradient batch.")
    warmup_rows: int = Field(1000, ge=1, description="Rows that the warm-up learns from.")
    epochs: int = Field(3, ge=1, description="Epochs of the warm-up, one checkpoint each.")
    learning_rate: float = Field(2e-4, gt=0, description="Highest of the warm-up.")
    batch_size: int = Field(16, ge=1, description="Rows per step of the warm-up.")
    lora_rank: int = Field(128, ge=1, description="Rank of the LoRA matrices of the warm-up.")
    lora_alpha: float = Field(512, gt=0, description="Their scale: alpha / rank.")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="Dropout on their input.")

    def estimate(self) -> dict[str, float]:
        """The warm-up, and a forward and a backward pass over the pool per checkpoint."""
        rows, tokens = rows_and_tokens(self.pool)
        if not rows:
            return {}
        passes = len(self.checkpoints) or self.epochs
        weights = parameters_of(self.model)
        trained = 0.0
        if not self.checkpoints:
            trained = tokens / rows * min(rows, self.warmup_rows) * self.epochs
        return {
            "tokens_trained": float(round(trained)),
            "tokens_read": float(round(tokens * passes)),
            "flops": weights * (6.0 * trained + 4.0 * tokens * passes),
        }

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """The order of the rule.

        Raises:
            DataError: There are no queries, or a query or a row has no gradient.
            ModelError: The model has no weights here, or a checkpoint no LoRA adapter.
        """
        from tilth.select._influence import influence
        from tilth.select.targeted import TargetedOrder

        queries = self._own_queries(read_beside(self.queries, work), work)
        names = _names(queries, self.task)
        texts = {name: query.prompt for name, query in zip(names, queries, strict=True)}
        repeats = {hit.index: hit.item for hit in decontaminate(pool, texts).found}
        if repeats:
            work.say(f"{len(repeats)} rows of the pool repeat a query")
        found = influence(self, pool, allowed, queries, work)
        usable = np.setdiff1d(allowed, found.empty)
        if not len(usable):
            raise DataError("no row has an answer token within max_length", where=self.pool)
        tasks = [name.rpartition("/")[0] or name for name in names]
        width = float(np.linalg.norm(found.scores[usable].astype(np.float64), axis=1).max())
        order = TargetedOrder(
            np.eye(len(names), len(names) + 1),
            _unit(found.scores, width),
            tasks=tasks,
            rule=self.rule,
            allowed=usable,
        )
        best = np.where(np.isnan(found.scores), -np.inf, found.scores)
        highest, which = best.max(axis=1), best.argmax(axis=1)
        pulled: dict[int, tuple[int, int]] = {}

        def first(count: int) -> np.ndarray:
            pulls = order.first(count)
            turns = zip(pulls.queries.tolist(), pulls.rounds.tolist(), strict=True)
            pulled.update(zip(pulls.rows.tolist(), turns, strict=True))
            return pulls.rows

        empty = set(found.empty)

        def reason(row: int, kept: bool) -> str:
            if row in empty:
                return f"no answer token within {self.max_length} tokens"
            query = names[pulled[row][0]] if kept else names[which[row]]
            value = found.scores[row, names.index(query)]
            return f"influence {value:.4g} on query {query}" + ("" if kept else ", its highest")

        def details(row: int) -> Mapping[str, Any]:
            if row not in pulled:
                return {}
            query, turn = pulled[row]
            told = {"query": names[query], "round": turn}
            return {**told, "repeats_query": repeats[row]} if row in repeats else told

        notes = ["whether the chosen rows make a better model: an evaluation step must say that"]
        if not found.adam:
            notes.append("Adam's state was not known: rows counted with their plain gradient")
        if empty:
            notes.append(f"{len(empty)} rows have no answer token within max_length")
        return Ranking(
            first,
            reason,
            scores=np.where(np.isfinite(highest), highest, np.nan),
            name="influence",
            details=details,
            vectors=found.sketch,
            queries=texts,
            metrics={
                "queries": len(names),
                "rows_repeating_queries": len(repeats),
                "checkpoint_weights": [round(weight, 6) for weight in found.weights],
                "adam": found.adam,
                "dimensions": found.dimensions,
                "without_answer_token": len(empty),
            },
            notes=tuple(notes),
        )

    def _own_queries(self, queries: Rows, work: Work) -> Rows:
        """The queries that repeat no held-out item.

        Raises:
            DataError: All of them do.
        """
        if self.held_out is None:
            return queries
        found = decontaminate(queries, read(self.held_out, require="prompt"))
        if not found.kept:
            raise DataError(
                f"all {len(queries)} queries repeat held-out items",
                where=self.queries,
                fix="queries and test items must be different questions",
            )
        if found.found:
            work.say(f"{len(found.found)} queries repeat held-out items and are left out")
        return queries.select(found.kept)


def _names(queries: Rows, field: str) -> list[str]:
    """``task/number`` for every query, or its number where it names no task."""
    tasks = [query.meta.get(field) for query in queries]
    return [f"{task}/{i}" if task is not None else str(i) for i, task in enumerate(tasks)]


def _unit(scores: np.ndarray, width: float) -> np.ndarray:
    """Unit rows whose products with the axes are the scores, all scaled alike.

    The kernels of :mod:`tilth.select.targeted` rank unit rows by their products with queries. With
    an axis per query and one more number that fills a row up to length one, these are the scores.
    """
    scaled = np.nan_to_num(scores.astype(np.float64) / (width or 1.0))
    rest = np.sqrt(np.maximum(0.0, 1.0 - np.square(scaled).sum(axis=1)))
    return np.column_stack([scaled, rest])
