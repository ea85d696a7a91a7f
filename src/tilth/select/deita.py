"""Deita: complex instructions and good responses first, nothing twice."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from tilth.data import Rows
from tilth.errors import RecipeError
from tilth.method import ModelRef, Work
from tilth.models.prompts import Prompts
from tilth.models.sizes import reading
from tilth.select._asking import scored_rows
from tilth.select._scoring import FIELDS, Combine, Turns, TurnScores, combined, rated, stored
from tilth.select._selector import Ranking, Selector
from tilth.select._thinned import Thinned

__all__ = ["Deita"]


class Deita(Selector):
    """Goes through the rows by score and keeps each that is unlike all kept before (Deita).

    Liu et al. 2024 (arXiv 2312.15685, section 3.1). With complexity c_t of each instruction and
    quality q_t of each response, as the mean digit of two scorers or as the rows carry them,

        s = sum over turns t of  c_t q_t

    and in the order of falling s a row is kept where its highest cosine **similarity** to a kept
    row is at most ``threshold``, until ``count`` rows are kept. (The paper speaks of a distance
    there; its code rejects what is more *similar*, and nothing else gives a selection.) Equal
    scores keep their order in the pool.

    The parts alone are settings: one ``sort_key`` is complexity or quality alone; ``threshold:
    null`` is score only; ``order: random`` is the filter only; with ``near_mean: 2`` besides, the
    paper's control for diversity (appendix A), a random order of the rows whose score is within 2
    of the mean. ``turns: mean`` does not favour long dialogues, which a sum does.

    Sources: product, sum over turns, threshold 0.9 and the last token's state as embedding are
    those of the paper and its code (b279f2c); 6,000 and 10,000 rows its budgets. The embedder there
    is the model to be tuned, LLaMA-1-13B; with another one the threshold means something else
    (appendix C.1): look at ``too_similar``. The last states of a seedling hardly differ: take
    ``pooling: mean`` there. Sum, rank average and mean are our additions.

    Example:
        >>> Deita(pool="pool.jsonl", count=6000, complexity_scorer="c", quality_scorer="q",
        ...       model="meta-llama/Llama-2-13b-hf").to("chosen")  # doctest: +SKIP
    """

    name: ClassVar = "deita"
    example: ClassVar[dict[str, Any]] = {
        "pool": "{rows}",
        "count": 3,
        "complexity_scorer": "{teacher}",
        "quality_scorer": "{teacher}",
        "model": "{model}",
        "threshold": 0.99,
    }

    complexity_scorer: ModelRef | None = Field(
        None, description="Scores instructions; none: the rows carry complexity_scores."
    )
    quality_scorer: ModelRef | None = Field(
        None, description="Scores responses; none: the rows carry quality_scores."
    )
    sort_key: tuple[str, ...] = Field(
        ("complexity_scores", "quality_scores"), description="Scores that count, fields of meta."
    )
    combine: Combine = Field("product", description="How they are joined, turn by turn.")
    turns: Turns = Field("sum", description="How the turns of a dialogue are joined.")
    order: Literal["score", "random"] = Field("score", description="random: no score decides.")
    near_mean: float | None = Field(
        None, gt=0, description="Only rows whose score is so near to the mean; the paper's: 2."
    )
    model: ModelRef = Field("seedling:small", description="The model that embeds the rows.")
    index: str = Field("", description="Folder that keeps the embeddings; empty: none is kept.")
    pooling: Literal["last", "mean", "weighted"] = Field("last", description="What is embedded.")
    threshold: float | None = Field(
        0.9, ge=-1, le=1, description="Highest cosine to a kept row; null: no filter."
    )
    prompts: Prompts = Field(
        "auto", description="Scorer's form; compact: teaching turns, for a seedling as it ships."
    )
    max_length: int = Field(2048, ge=32, description="Longest prompt and row in tokens.")
    batch_size: int = Field(32, ge=1, description="Rows in a model at once; speed only.")

    @field_validator("sort_key", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        names = [n.strip() for n in given.split(",")] if isinstance(given, str) else list(given)
        if not names or not all(names) or len(set(names)) < len(names):
            raise ValueError(f"sort_key needs one or several different names, not {given!r}")
        return tuple(names)

    def estimate(self) -> dict[str, float]:
        """One pass over the pool per scorer, and one for the embeddings."""
        refs = [ref for name, ref in self._scorers().items() if ref and self._needs(name)]
        refs += [self.model] if self.threshold is not None else []
        total: dict[str, float] = {}
        for ref in refs:
            for name, amount in reading(self.pool, ref).items():
                total[name] = total.get(name, 0.0) + amount
        return total

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """The order of the score, thinned out.

        Raises:
            DataError: A row has no score or embedding, or its keys differ in their turns.
            EngineError: A scorer's digits are not one token each.
        """
        thinned = Thinned(len(pool))
        keys: dict[str, TurnScores] = {}
        scores = None
        if self.order == "score" or self.near_mean is not None:
            keys = self._keys(pool, allowed, work)
            scores = combined(
                keys,
                allowed,
                combine=self.combine,
                turns=self.turns,
                where=lambda row: f"{pool.path}, row {row}: {pool[row].id}",
            )
            for key in keys.values():
                thinned.why.update(key.missing())
            allowed = scored_rows(scores, allowed, " x ".join(keys), thinned.why)
            allowed = self._near(scores, allowed, thinned)
        vectors = self._vectors(pool, thinned, work) if self.threshold is not None else None
        allowed = np.array([row for row in allowed.tolist() if row not in thinned.why], int)
        if self.order == "random":
            thinned.order = work.stream("order").permutation(allowed)
        elif scores is not None:
            thinned.order = allowed[np.argsort(-scores[allowed], kind="stable")]
        thinned.vectors, thinned.threshold = vectors, self.threshold
        thinned.turns = [
            max((len(key.lists[row]) for key in keys.values()), default=0)
            for row in range(len(pool))
        ]
        for name, key in keys.items():
            thinned.metrics[name] = key.metrics
        thinned.first(self.count)  # says at once where the budget cannot be filled
        thinned.say(work, self.count)
        return Ranking(
            thinned.first,
            thinned.reason,
            scores=scores,
            name=f"deita_{self.combine}" if len(self.sort_key) > 1 else self.sort_key[0],
            details=lambda row: {
                **{name: key.lists[row] for name, key in keys.items() if row not in thinned.why},
                **thinned.details(row),
            },
            vectors=vectors,
            metrics=thinned.metrics,
        )

    def _scorers(self) -> dict[str, str | None]:
        return {
            FIELDS["complexity"]: self.complexity_scorer,
            FIELDS["quality"]: self.quality_scorer,
        }

    def _needs(self, name: str) -> bool:
        return name in self.sort_key and (self.order == "score" or self.near_mean is not None)

    def _keys(self, pool: Rows, allowed: np.ndarray, work: Work) -> dict[str, TurnScores]:
        for name, ref in self._scorers().items():
            if ref and name not in self.sort_key:
                raise RecipeError(
                    f"a scorer gives {name}, which is no sort_key",
                    where=self.full_name(),
                    fix=f"leave the scorer out, or add {name} to sort_key",
                )
        found: dict[str, TurnScores] = {}
        for name in self.sort_key:
            aspect = next((aspect for aspect, known in FIELDS.items() if known == name), None)
            ref = self._scorers().get(name)
            if ref is None or aspect is None:
                found[name] = stored(pool, allowed, name)
                continue
            found[name] = rated(
                pool,
                allowed,
                ref,
                aspect,
                work,
                prompts=self.prompts,
                max_length=self.max_length,
                batch_size=self.batch_size,
            )
        return found

    def _near(self, scores: np.ndarray, allowed: np.ndarray, thinned: Thinned) -> np.ndarray:
        """The rows near the mean score, where that is asked for."""
        if self.near_mean is None:
            return allowed
        mean = float(scores[allowed].mean())
        near = np.abs(scores[allowed] - mean) <= self.near_mean
        band = f"not within {self.near_mean:g} of the mean {mean:.4g}"
        for row in allowed[~near].tolist():
            thinned.why[row] = f"score {scores[row]:.4g}, {band}"
        thinned.metrics["near_mean"] = {"mean": mean, "rows": int(near.sum())}
        near_rows: np.ndarray = allowed[near]
        return near_rows

    def _vectors(self, pool: Rows, thinned: Thinned, work: Work) -> np.ndarray:
        """float [N, d] unit rows; a row that cannot be embedded is booked and stays zero."""
        from tilth.models.embedding import embedder
        from tilth.select.index import Index

        reader = embedder(
            self.model, pooling=self.pooling, max_length=self.max_length, ledger=work.ledger
        )
        index = Index(self.index or work.scratch / "index", reader.identity)
        filled = index.fill(pool, reader, batch_size=self.batch_size, say=work.say)
        for row, why in filled.refused.items():
            thinned.why.setdefault(row, f"no embedding: {why}")
        thinned.metrics["not_embedded"] = len(filled.refused)
        return index.rows(filled.places, work.scratch)
