"""RDS+: the rows of a pool whose pooled hidden states are nearest to a few examples of a task."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from tilth.errors import ModelError
from tilth.method import ModelRef, Work
from tilth.models.embedding import Embedder, Pooling, Template, embedder
from tilth.models.reference import resolve
from tilth.select._by_query import ByQuery

__all__ = ["RDSPlus"]


class RDSPlus(ByQuery):
    """Chooses the rows whose pooled hidden states are nearest to those of a few queries.

    Ivison et al. 2025 (arXiv:2503.01807): a row's embedding under a base model is

        e = sum_i w_i h_i / |sum_i w_i h_i|,   w_i = i / (1 + ... + L)

    over the last hidden states h of its L tokens, and S[v, d] = e_v . e_d its similarity to query
    v. ``rule: round_robin``, the paper's: the queries take turns, each its next nearest row; a row
    that is taken already is dropped and **the turn is spent**. Where the queries name several
    tasks, the tasks take turns, with the highest similarity to one of their queries.
    ``global_top`` takes the rows with the highest similarity to any query (what the code of the
    paper calls "optimized"; other rows than round-robin), ``mean_max`` those with the highest mean
    over tasks of the highest similarity within each (its table 7: worse). Ties go to the row that
    comes first in the pool.

    A conversation is read in the form of Tulu with the end token behind every answer; a query's
    prompt and answer may each have ``max_length`` tokens, a row of the pool that many in all. Rows
    of whose answer nothing is left are counted and cannot be chosen. Where an answer begins the
    tokens begin anew, as when the model writes it; the code of the paper does so for queries only.

    The pool is embedded once: with ``index`` the embeddings stay in that folder, are reused by
    every query set, continued after a kill, and added to when the pool has grown. Queries that
    repeat held-out items are left out, and rows of the pool that repeat queries counted; both are
    listed in ``leakage.jsonl``.

    Sources of the defaults: weighted pooling, the last layer, the whole sample (appendix G); 2,048
    tokens and the form of Tulu (the code beside the paper); batches are our choice, and change
    nothing but speed. Of queries the code allows 512 tokens for some tasks.

    Example:
        >>> chosen = RDSPlus(pool="pool.jsonl", queries="dev.jsonl", model="seedling:small",
        ...                  count=5000, index="pool-index").to("chosen")    # doctest: +SKIP
    """

    name: ClassVar = "rds_plus"
    example: ClassVar[dict[str, Any]] = {
        "pool": "{rows}",
        "queries": "{seeds}",
        "model": "{model}",
        "count": 3,
    }

    model: ModelRef = Field(description="The base model whose hidden states are compared.")
    pooling: Pooling = Field("weighted", description="How a row's states become one.")
    template: Template = Field("tulu", description="The form of the turns, or the model's own.")

    def reader(self, work: Work) -> Embedder:
        """Pooled states of a causal model.

        Raises:
            ModelError: The model is an encoder or an endpoint.
        """
        reference = resolve(self.model)
        if reference.kind == "encoder":
            raise ModelError(
                "an encoder has a pooling of its own",
                where=self.model,
                fix="use select.embedding, or name a causal language model",
            )
        return embedder(
            reference,
            pooling=self.pooling,
            part=self.part,
            template=self.template,
            max_length=self.max_length,
            ledger=work.ledger,
        )
