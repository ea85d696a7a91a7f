"""A selection in numbers small enough to draw: counts, histograms, a sample of rows, a map.

The report draws what stands here and reads nothing else, so that it needs neither the pool nor its
embeddings, however large they are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tilth.data import Rows
from tilth.data.example import Example

if TYPE_CHECKING:
    from tilth.select._selector import Ranking

__all__ = ["Summary"]

SHOWN = 120  # rows with their texts, for each answer to "why"; our choice, as are those below
LONGEST = 900  # characters of one shown text
DRAWN = 1500  # points of the map, chosen and left each
BINS = 40
COMPARED = 20_000  # chosen rows that the nearest is looked for among


class Summary:
    """Collects what the report shows, one row at a time.

    Args:
        rng: Draws the rows that are shown.
        ranking: The order that was followed.
        chosen: int [K], the chosen rows in order.
        total: Rows of the pool, N.
    """

    def __init__(
        self, rng: np.random.Generator, ranking: Ranking, chosen: np.ndarray, total: int
    ) -> None:
        self.rng, self.ranking, self.chosen, self.total = rng, ranking, chosen, total
        self.why: Counter[str] = Counter()
        self.sources: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.queries: Counter[str] = Counter()
        self.shown: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    def see(self, line: dict[str, Any], example: Example) -> None:
        """Counts a row, and keeps its texts where the lot falls on it (algorithm R)."""
        why = line["why"]
        self.why[why] += 1
        self.sources[line["source"]][0] += 1
        self.sources[line["source"]][1] += line["kept"]
        if line["kept"] and "query" in line:
            self.queries[str(line["query"])] += 1
        kept = self.shown[why]
        slot = len(kept) if len(kept) < SHOWN else int(self.rng.integers(self.why[why]))
        if slot < SHOWN:
            kept[slot : slot + 1] = [{**line, **_texts(example)}]

    def finish(self, pool: Rows) -> dict[str, Any]:
        """Everything, as plain values."""
        rows = [line for lines in self.shown.values() for line in lines]
        for line in rows:
            if "similar_to" in line:
                line["like"] = _texts(pool[int(line["similar_to"])])
        rows.sort(key=lambda line: (line["rank"] or self.total, line["row"]))
        queries = self.ranking.queries
        return {
            "rows": self.total,
            "chosen": len(self.chosen),
            "why": dict(self.why.most_common()),
            "sources": dict(sorted(self.sources.items(), key=lambda item: -item[1][1])),
            "queries": [
                {"name": name, "rows": self.queries[name], "text": _cut(queries.get(name, ""))}
                for name in [*queries, *(n for n in self.queries if n not in queries)]
            ],
            "shown": rows,
            "score": self._scores(),
            **self._drawn(),
        }

    def _scores(self) -> dict[str, Any] | None:
        """Histograms of the score over the pool and over the chosen rows, on the same edges."""
        scores = self.ranking.scores
        if scores is None:
            return None
        scores = np.asarray(scores, dtype=float)
        finite = scores[np.isfinite(scores)]
        if not len(finite):
            return None
        # The outermost half percent would squeeze all others into a few bars.
        low, high = np.quantile(finite, [0.005, 0.995])
        edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
        histograms = {
            name: np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0].tolist()
            for name, part in (("pool", finite), ("chosen", scores[self.chosen]))
        }
        return {"name": self.ranking.name, "edges": _round(edges), **histograms}

    def _drawn(self) -> dict[str, Any]:
        """The map and the nearest chosen rows, where there are embeddings."""
        vectors = self.ranking.vectors
        if vectors is None or len(self.chosen) == 0 or self.total < 3:
            return {"map": None, "nearest": None}
        is_chosen = np.zeros(self.total, bool)
        is_chosen[self.chosen] = True
        lots = [
            np.sort(self.rng.permutation(np.flatnonzero(part))[:DRAWN])
            for part in (is_chosen, ~is_chosen)
        ]
        rows = np.concatenate(lots)
        points = np.asarray(vectors[rows], dtype=np.float32)
        return {
            "map": _map(points, rows, is_chosen[rows]),
            "nearest": self._nearest(points, rows, is_chosen[rows]),
        }

    def _nearest(
        self, points: np.ndarray, rows: np.ndarray, is_chosen: np.ndarray
    ) -> dict[str, Any] | None:
        """Histograms of the similarity to the nearest chosen row, itself excepted."""
        vectors = self.ranking.vectors
        if vectors is None or len(self.chosen) < 2:
            return None
        among = np.sort(self.rng.permutation(self.chosen)[:COMPARED])
        best = np.full(len(rows), -np.inf, np.float32)
        for start in range(0, len(among), 2048):
            block = among[start : start + 2048]
            products = points @ np.asarray(vectors[block], dtype=np.float32).T
            products[rows[:, None] == block[None, :]] = -np.inf
            best = np.maximum(best, products.max(axis=1))
        edges = np.linspace(min(0.0, float(best.min())), 1.0, BINS + 1)
        parts = {"chosen": best[is_chosen], "left": best[~is_chosen]}
        return {
            "edges": _round(edges),
            "among": len(among),
            **{n: np.histogram(p.clip(-1, 1), edges)[0].tolist() for n, p in parts.items()},
            "median": {n: round(float(np.median(p)), 4) for n, p in parts.items() if len(p)},
        }


def _map(points: np.ndarray, rows: np.ndarray, is_chosen: np.ndarray) -> dict[str, Any]:
    """The points on their two principal components, and the share of variance of each."""
    centred = points - points.mean(axis=0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    # A component and its mirror image are the same: the largest weight decides on one of them.
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    places = (left * sizes * signs)[:, :2]
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    variance = sizes**2 / max(float((sizes**2).sum()), 1e-12)
    return {
        "x": _round(places[:, 0]),
        "y": _round(places[:, 1]),
        "row": rows.tolist(),
        "chosen": is_chosen.astype(int).tolist(),
        "explained": _round(variance[:2]),
    }


def _round(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]


def _texts(example: Example) -> dict[str, Any]:
    turns = [[m["role"], _cut(m["content"])] for m in example.messages]
    turns += [
        [name, _cut(text)]
        for name, text in (("chosen", example.chosen), ("rejected", example.rejected))
        if text is not None
    ]
    return {"turns": turns[:8]}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"
