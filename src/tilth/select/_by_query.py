"""What all selections by similarity to queries share: the index, the leakage check, the reasons."""

from __future__ import annotations

import json
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tilth.data import Rows, decontaminate, read
from tilth.data.example import Example
from tilth.errors import DataError
from tilth.method import DataRef, Outcome, Work
from tilth.models.embedding import Embedder, Part
from tilth.models.progress import row_bar
from tilth.models.sizes import reading, rows_and_tokens
from tilth.select._selector import Ranking, Selector, read_beside
from tilth.select.index import Filled, Index, Store, rows_in
from tilth.select.targeted import TargetedOrder

__all__ = ["ByQuery"]

_OFF_UNIT = 0.01  # how far a stored row's length may lie from 1; float16 stays within 0.001
_BLOCK = 65_536  # rows of the pool that are compared with the queries at once


@dataclass(frozen=True)
class _Queries:
    """The queries that are asked.

    Attributes:
        names: A name of each, all different.
        rows: The queries.
        vectors: float32 [Q, D], unit rows.
        tasks: The task of each; None where every query takes turns of its own.
    """

    names: list[str]
    rows: list[Example]
    vectors: np.ndarray
    tasks: list[str] | None


class ByQuery(Selector):
    """Base of the selections by similarity to queries; a subclass says how a row is embedded."""

    queries: DataRef = Field(description="Labelled examples of what the model shall be good at.")
    index: str = Field(
        "", description="Folder of the pool's embeddings, made or reused; empty: for this run only."
    )
    rule: Literal["round_robin", "global_top", "mean_max"] = Field(
        "round_robin", description="How rows are taken: queries or tasks in turn, or by one score."
    )
    task: str = Field(
        "task", description="Meta field that names a query's task; without it, or with one task, "
        "every query takes turns."
    )  # fmt: skip
    part: Part = Field("full", description="What of a conversation is embedded.")
    max_length: int = Field(2048, ge=8, description="Longest row in tokens; of a query each part.")
    batch_size: int = Field(32, ge=1, description="Rows per batch.")
    store: Store = Field("float32", description="Type of the stored embeddings.")

    reads: ClassVar[str] = "model"

    @abstractmethod
    def reader(self, work: Work) -> Embedder:
        """What embeds the rows."""

    def estimate(self) -> dict[str, float]:
        """One pass of the model over the rows of the pool that are not in the index yet."""
        whole = reading(self.pool, str(getattr(self, self.reads)))
        rows, _ = rows_and_tokens(self.pool)
        open_share = max(0.0, 1 - rows_in(self.index) / rows) if rows and self.index else 1.0
        return {name: amount * open_share for name, amount in whole.items()}

    def run(self, work: Work) -> Outcome:
        """As for every selection, with the rows per query among the metrics.

        Raises:
            DataError: There are no queries, or none is left; a row cannot be embedded.
            ArtefactError: The index was made with another model or other settings.
        """
        outcome = super().run(work)
        summary = json.loads((work.folder / "summary.json").read_text("utf-8"))
        shares = {query["name"]: query["rows"] for query in summary["queries"]}
        chosen = max(1, outcome.metrics["rows_out"])
        largest = max(shares.values(), default=0) / chosen
        work.say(f"{len(shares)} queries; the one that pulled most rows pulled {largest:.0%}")
        more = {"rows_by_query": shares, "largest_query_share": round(largest, 4)}
        return replace(outcome, metrics={**outcome.metrics, **more})

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """The order in which the queries pull rows."""
        asked, dropped = self._without_leaks(read_beside(self.queries, work), work)
        reader = self.reader(work)
        index = Index(self.index or work.scratch / "index", reader.identity, store=self.store)
        shown = sys.stderr.isatty()
        with row_bar(f"embed {getattr(self, self.reads)}", len(pool), shown) as advance:
            filled = index.fill(
                pool, reader, batch_size=self.batch_size, say=work.say, advance=advance
            )
        vectors = index.rows(filled.places, work.scratch)
        queries, empty = self._embedded(asked, reader, work)
        usable = np.setdiff1d(allowed, np.fromiter(filled.refused, int, len(filled.refused)))
        if not len(usable):
            raise DataError(
                "no row of the pool can be embedded",
                where=self.pool,
                fix=next(iter(filled.refused.values()), "look at the pool"),
            )
        if filled.refused:
            why = Counter(filled.refused.values())
            work.say(f"{len(filled.refused)} rows cannot be chosen: " + _counted(why))
        order = TargetedOrder(
            queries.vectors, vectors, tasks=queries.tasks, rule=self.rule, allowed=usable
        )
        repeats = self._in_pool(pool, queries, work)
        scores, nearest, lengths = _similarities(vectors, queries, self.rule)
        self._check(pool, usable[~(np.abs(lengths[usable] - 1) < _OFF_UNIT)], index)
        scores[list(filled.refused)] = np.nan
        told = _Told(order, queries, scores, nearest, filled, repeats)
        return Ranking(
            told.first,
            reason=told.reason,
            scores=scores,
            name="similarity",
            details=told.details,
            vectors=vectors,
            queries={n: r.prompt for n, r in zip(queries.names, queries.rows, strict=True)},
            metrics={
                "queries": len(queries.names),
                "tasks": len(set(queries.tasks or [])),
                "queries_repeating_held_out": dropped,
                "queries_without_answer": empty,
                "rows_repeating_queries": len(repeats),
                "rows_refused": len(filled.refused),
                "rows_repeated": len(pool) - filled.different,
                "index_rows_new": filled.new,
                "index_rows_reused": filled.reused,
                "index_tokens": filled.tokens,
            },
        )

    def _check(self, pool: Rows, broken: np.ndarray, index: Index) -> None:
        """Refuses stored embeddings that are zero, not a number, or otherwise no unit rows."""
        if len(broken):
            ids = ", ".join(pool[i].id for i in broken[:5].tolist())
            raise DataError(
                f"{len(broken)} rows of the index are zero, not a number or not unit rows: {ids}",
                where=str(index.folder),
                fix="remove the folder; the pool is then embedded again",
            )

    def _without_leaks(self, rows: Rows, work: Work) -> tuple[list[Example], int]:
        """The queries that repeat no test item; the others go to ``leakage.jsonl``.

        Raises:
            DataError: All of them do.
        """
        if self.held_out is None:
            return list(rows), 0
        found = decontaminate(rows, read(self.held_out, require="prompt")).found
        _report(
            work,
            [
                {"what": "query repeats held-out item", "query": _name(rows[hit.index]),
                 "item": hit.item, "words": hit.ngram, "covered": hit.covered}
                for hit in found
            ],
        )  # fmt: skip
        if found:
            work.say(f"{len(found)} queries repeat held-out items and are left out: leakage.jsonl")
        leaks = {hit.index for hit in found}
        kept = [row for i, row in enumerate(rows) if i not in leaks]
        if not kept:
            raise DataError(
                f"all {len(rows)} queries repeat held-out items",
                where=self.queries,
                fix="queries and test items must be different questions",
            )
        return kept, len(found)

    def _in_pool(self, pool: Rows, queries: _Queries, work: Work) -> dict[int, str]:
        """Row of the pool -> the query that it repeats, word for word or nearly."""
        texts = {n: r.prompt for n, r in zip(queries.names, queries.rows, strict=True)}
        found = decontaminate(pool, texts).found
        _report(
            work,
            [
                {"what": "row repeats query", "row": hit.index, "id": hit.id, "query": hit.item,
                 "words": hit.ngram, "covered": hit.covered}
                for hit in found
            ],
        )  # fmt: skip
        if found:
            work.say(f"{len(found)} rows of the pool repeat a query: leakage.jsonl")
        return {hit.index: hit.item for hit in found}

    def _embedded(
        self, rows: Sequence[Example], reader: Embedder, work: Work
    ) -> tuple[_Queries, int]:
        """The queries with their vectors, and how many had nothing to embed.

        Raises:
            DataError: None has, one is not a number, or only some have a task.
        """
        prepared = reader.prepare(rows, query=True)
        why = Counter(p.refused for p in prepared if p.refused)
        kept = [i for i, p in enumerate(prepared) if not p.refused]
        if why:
            work.say(f"{sum(why.values())} queries are left out: {_counted(why)}")
        if not kept:
            raise DataError(
                f"no query can be used: {_counted(why)}",
                where=self.queries,
                fix="give queries with prompts and answers that fit max_length",
            )
        vectors = np.zeros((len(kept), reader.dims), np.float32)
        order = sorted(range(len(kept)), key=lambda i: (-prepared[kept[i]].tokens, i))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            vectors[batch] = reader.embed([prepared[kept[i]] for i in batch])
        chosen = [rows[i] for i in kept]
        names = _names(chosen)
        return _Queries(names, chosen, vectors, self._tasks(chosen, names)), sum(why.values())

    def _tasks(self, rows: list[Example], names: list[str]) -> list[str] | None:
        tasks = [row.meta.get(self.task) for row in rows] if self.task else []
        if len(set(tasks) - {None}) < (2 if None not in tasks else 1):
            return None
        if None in tasks:
            raise DataError(
                f"the query {names[tasks.index(None)]} names no {self.task}, others do",
                where=f"{self.queries}: meta.{self.task}",
                fix="name the task of every query, or set task to nothing",
            )
        return [str(task) for task in tasks]


@dataclass
class _Told:
    """Answers why a row was chosen or left; it learns of pulls as the order is read."""

    order: TargetedOrder
    queries: _Queries
    scores: np.ndarray
    nearest: np.ndarray
    filled: Filled
    repeats: Mapping[int, str]
    pulled: dict[int, tuple[int, int]] = field(default_factory=dict)

    def first(self, count: int) -> np.ndarray:
        """The first `count` rows; their scores become those that they were pulled by."""
        pulls = self.order.first(count)
        turns = zip(pulls.rows.tolist(), pulls.queries.tolist(), pulls.rounds.tolist(), strict=True)
        self.pulled = {row: (query, turn) for row, query, turn in turns}
        self.scores[pulls.rows] = pulls.scores
        return pulls.rows

    def details(self, row: int) -> dict[str, Any]:
        """The query, its task, the round, the similarity; the nearest query of a row left."""
        if row in self.filled.refused:
            return {}
        query, turn = self.pulled.get(row, (int(self.nearest[row]), 0))
        told: dict[str, Any] = {"query": self.queries.names[query]}
        if self.queries.tasks:
            told["task"] = self.queries.tasks[query]
        if turn:
            told["round"] = turn
        told["similarity"] = round(float(self.scores[row]), 6)
        if row in self.repeats:
            told["repeats_query"] = self.repeats[row]
        return told

    def reason(self, row: int, kept: bool) -> str:
        """One sentence."""
        if row in self.filled.refused:
            return f"cannot be chosen: {self.filled.refused[row]}"
        query, turn = self.pulled.get(row, (int(self.nearest[row]), 0))
        score, name = self.scores[row], self.queries.names[query]
        whose = f" of task {self.queries.tasks[query]}" if self.queries.tasks else ""
        if kept:
            return f"pulled by query {name}{whose} in round {turn}: similarity {score:.4f}"
        return f"nearest to query {name}{whose}: similarity {score:.4f}, not reached"


def _similarities(
    vectors: np.ndarray, queries: _Queries, rule: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per row its similarity float64 [N], nearest query int [N] and length [N], up to rounding.

    The similarity is the highest for a query; under ``mean_max`` the mean over tasks of these.
    """
    tasks = queries.tasks or queries.names
    groups = [[i for i, task in enumerate(tasks) if task == name] for name in dict.fromkeys(tasks)]
    scores, nearest = np.empty(len(vectors)), np.empty(len(vectors), np.int64)
    lengths = np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(vectors)))
        block = np.asarray(vectors[part], np.float32)
        lengths[part] = np.sqrt(np.einsum("nd,nd->n", block, block))
        products = block @ queries.vectors.T
        nearest[part] = products.argmax(1)
        if rule == "mean_max":
            scores[part] = np.mean([products[:, group].max(1) for group in groups], axis=0)
        else:
            scores[part] = products.max(1)
    return scores, nearest, lengths


def _name(row: Example) -> str:
    """What a row is called in reports: the name that its file gives it, else its content id."""
    return str(row.meta.get("item", row.meta.get("source_id", row.id)))


def _names(rows: Sequence[Example]) -> list[str]:
    """Different names, also where a query is given twice."""
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        name = _name(row)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return names


def _counted(why: Mapping[str, int]) -> str:
    return "; ".join(f"{count:,} x {told}" for told, count in why.items())


def _report(work: Work, lines: list[dict[str, Any]]) -> None:
    """Adds to ``leakage.jsonl``, which is there even where nothing leaked."""
    with (work.folder / "leakage.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
