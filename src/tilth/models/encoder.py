"""Sentence encoders: models of sentence-transformers with a pooling of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tilth.cost import Ledger, forward_flops
from tilth.data.example import Example
from tilth.errors import MissingExtra, ModelError
from tilth.models.embedding import Part, Prepared
from tilth.models.reference import Reference, digest

__all__ = ["SentenceEncoder"]


class SentenceEncoder:
    """An :class:`~tilth.models.embedding.Embedder` on a model of sentence-transformers.

    It reads the bare texts of the turns, a line each, in the types and with the threads that the
    library chooses.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        part: Part,
        max_length: int,
        prefix: str,
        device: str,
        ledger: Ledger,
    ) -> None:
        self._model = _sentence_transformer(reference, device)
        self._part, self._prefix = part, prefix
        own = self._model.max_seq_length or max_length
        self._max = self._model.max_seq_length = min(max_length, own)
        self.reference = str(reference)
        self.dims = int(self._model.get_embedding_dimension() or 0)
        self.ledger = ledger
        inner = self._model.transformers_model
        looked_up = inner.get_input_embeddings().weight.numel()
        self._body = sum(p.numel() for p in self._model.parameters()) - looked_up
        self._layers, self._width = inner.config.num_hidden_layers, inner.config.hidden_size
        self.identity = {
            "model": digest(reference),
            "pooling": "its own",
            "part": part,
            "template": "bare texts",
            "max_length": self._max,
            "dims": self.dims,
        }

    def prepare(self, rows: Sequence[Example], *, query: bool = False) -> list[Prepared]:
        texts = [self._text(row, query) for row in rows]
        found = self._model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return [
            Prepared(text, min(len(ids), self._max), "" if text.strip() else "it is empty", cut)
            for text, ids in zip(texts, found, strict=True)
            for cut in [len(ids) > self._max]
        ]

    def _text(self, row: Example, query: bool) -> str:
        last = max((i for i, m in enumerate(row.messages) if m["role"] == "assistant"), default=-1)
        turns = [message["content"] for message in row.messages]
        cut = len(turns) if last < 0 else last
        chosen = {"full": turns, "prompt": turns[:cut], "answer": turns[last : last + 1]}
        text = "\n".join(chosen[self._part])
        return self._prefix + text if query and text else text

    def embed(self, rows: Sequence[Prepared]) -> np.ndarray:
        """Unit rows ``[B, D]``."""
        texts = [str(row.content) for row in rows]
        unit_BD = self._model.encode(
            texts, batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False
        )
        for row in rows:
            flops = forward_flops(self._body, row.tokens, self._layers, self._width, row.tokens)
            self.ledger.add(tokens_read=row.tokens, flops=flops)
        return np.asarray(unit_BD, dtype=np.float32)


def _sentence_transformer(reference: Reference, device: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtra.of("sentence-transformers", "encoder") from error
    from tilth.models.load import pick_device

    try:
        return SentenceTransformer(
            reference.base,
            device=str(pick_device(device)),
            trust_remote_code=False,
            local_files_only=Path(reference.base).is_dir(),
            model_kwargs={"use_safetensors": True},
        ).eval()
    except Exception as error:  # the library raises whatever the loader below it does
        told = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(
            f"the encoder cannot be loaded: {told}",
            where=str(reference),
            fix="name a folder that sentence-transformers saved as safetensors, or encoder:minilm",
        ) from error
