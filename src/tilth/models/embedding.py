"""Embeddings of conversations: a causal model's pooled states, or a sentence encoder's vectors.

    e = sum_i w_i h_i / |sum_i w_i h_i|,   over the real tokens i = 1..L of a row

with ``w_i = i / (1 + ... + L)`` (``weighted``; Muennighoff 2022, arXiv:2202.08904), ``w_i = 1 / L``
(``mean``), or the last token alone (``last``). ``h`` are the last hidden states after the model's
final norm. Sums are formed in float32 whatever the model computes in, and only over real tokens, so
that an embedding depends neither on padding and its side nor on the batch.

    >>> from tilth.models.embedding import embedder                       # doctest: +SKIP
    >>> reader = embedder("seedling:small", pooling="weighted")           # doctest: +SKIP
    >>> reader.embed(reader.prepare(rows))                                # doctest: +SKIP

Axes: B rows of a batch, T positions, D dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from tilth.cost import Ledger, forward_flops
from tilth.data.example import Example
from tilth.errors import DataError, ModelError
from tilth.models.chat import ChatFormat
from tilth.models.reference import Reference, digest, resolve

if TYPE_CHECKING:
    import torch

__all__ = [
    "TULU_TEMPLATE",
    "Embedder",
    "Part",
    "Pooling",
    "Prepared",
    "Template",
    "embedder",
    "pooled",
]

Pooling = Literal["weighted", "mean", "last"]
Part = Literal["full", "prompt", "answer"]
"""What of a conversation is embedded: all of it, what precedes the last answer, or that answer."""
Template = Literal["tulu", "own"]
"""How a causal model reads turns: the form of Tulu, or the chat template of its tokenizer."""

TULU_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{{ '\n' }}{% endif %}"
)
"""Wang et al. 2023, arXiv:2306.04751, figure 1; the end token follows every answer. Where the
tokenizer has a mark such as ``<|user|>`` as a special token, it is that token."""

_ONE_THREAD = 8_000_000  # parameters up to which more threads cost more than they bring


@dataclass(frozen=True)
class Prepared:
    """A conversation ready to be embedded.

    Attributes:
        content: Token ids, or the text for a sentence encoder.
        tokens: How many tokens will be read; at least 1 unless refused.
        refused: Why there is nothing to embed, or ``""``.
        cut: Whether something did not fit the length.
    """

    content: list[int] | str
    tokens: int
    refused: str = ""
    cut: bool = False


class Embedder(Protocol):
    """What turns conversations into unit rows.

    Attributes:
        identity: What an embedding depends on besides the text, as plain values: an index made with
            another identity cannot be used.
        dims: Length of a row.
        ledger: Books ``tokens_read`` and ``flops``.
    """

    dims: int
    ledger: Ledger

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def prepare(self, rows: Sequence[Example], *, query: bool = False) -> list[Prepared]:
        """The rows as the model will read them.

        Args:
            rows: The conversations.
            query: Prompt and answer may each have the full length, instead of both together.
        """
        ...

    def embed(self, rows: Sequence[Prepared]) -> np.ndarray:
        """Unit rows ``[B, D]`` of float32 of one batch, none of it refused."""
        ...


def embedder(
    ref: str | Reference,
    *,
    pooling: Pooling = "weighted",
    part: Part = "full",
    template: Template = "tulu",
    max_length: int = 2048,
    prefix: str = "",
    device: str = "auto",
    ledger: Ledger | None = None,
) -> Embedder:
    """The embedder of a model reference.

    Args:
        ref: A local model, or ``encoder:...`` (see :func:`tilth.models.resolve`).
        pooling: How the states of a causal model become one row; an encoder has its own way.
        part: What of a conversation is embedded.
        template: The form of the turns for a causal model; an encoder reads the bare texts.
        max_length: Longest row in tokens; the model's context where that is shorter.
        prefix: Instruction in front of every query, for encoders that want one.
        device: ``auto`` is the first accelerator, else the processor.
        ledger: Books the cost; a new one where none is given.

    Raises:
        ModelError: The reference cannot be loaded, or is an endpoint.
        MissingExtra: It is an encoder and sentence-transformers is not installed.
    """
    reference = ref if isinstance(ref, Reference) else resolve(ref)
    books = ledger or Ledger()
    if reference.kind == "encoder":
        from tilth.models.encoder import SentenceEncoder

        return SentenceEncoder(
            reference,
            part=part,
            max_length=max_length,
            prefix=prefix,
            device=device,
            ledger=books,
        )
    if reference.kind not in ("folder", "hub"):
        raise ModelError(
            "embeddings of a pool need a model on this machine",
            where=str(reference),
            fix="use a folder, a hub id, a seedling or encoder:NAME",
        )
    return _CausalEmbedder(
        reference,
        pooling=pooling,
        part=part,
        template=template,
        max_length=max_length,
        device=device,
        ledger=books,
    )


def pooled(
    states_BTD: torch.Tensor, mask_BT: torch.Tensor, pooling: Pooling = "weighted"
) -> torch.Tensor:
    """Unit rows ``[B, D]`` of float32 from hidden states.

    Args:
        states_BTD: The last hidden states.
        mask_BT: 1 for real tokens, 0 for padding on either side; at least one 1 per row.
        pooling: See the module's docstring.

    Example:
        >>> import torch
        >>> one = torch.eye(4)[None]  # four tokens, each its own direction
        >>> weights = pooled(one, torch.ones(1, 4, dtype=torch.long))[0]
        >>> [round(float(w), 1) for w in weights / weights.sum()]
        [0.1, 0.2, 0.3, 0.4]
    """
    import torch

    place_BT = mask_BT.cumsum(-1) * mask_BT  # 1, 2, ... over real tokens, 0 on padding
    if pooling == "weighted":
        weight_BT = place_BT
    elif pooling == "mean":
        weight_BT = mask_BT
    else:
        weight_BT = (place_BT == place_BT.amax(-1, keepdim=True)).long()
    weight_BT = weight_BT.float()
    weight_BT = weight_BT / weight_BT.sum(-1, keepdim=True)
    # What a model writes at padding may be anything, NaN included, and 0 x NaN is NaN.
    real_BTD = states_BTD.float().masked_fill(mask_BT[:, :, None] == 0, 0.0)
    mean_BD = torch.bmm(weight_BT[:, None], real_BTD)[:, 0]
    return torch.nn.functional.normalize(mean_BD, dim=-1)


class _CausalEmbedder:
    """Pooled last states of a causal language model."""

    def __init__(
        self,
        reference: Reference,
        *,
        pooling: Pooling,
        part: Part,
        template: Template,
        max_length: int,
        device: str,
        ledger: Ledger,
    ) -> None:
        from tilth.models.generation import Forward
        from tilth.models.load import load

        self._model, self._tokenizer = load(reference, device)
        self._forward = Forward(self._model)
        self._form = ChatFormat(self._tokenizer, TULU_TEMPLATE if template == "tulu" else None)
        config = self._model.config
        self._window: int = getattr(config, "max_position_embeddings", None) or max_length
        self._max = min(max_length, self._window)
        self._pooling, self._part = pooling, part
        self.reference = str(reference)
        self.dims: int = config.hidden_size
        self.ledger = ledger
        self._body = _body_parameters(self._model)
        self.identity = {
            "model": digest(reference),
            "pooling": pooling,
            "part": part,
            "template": hashlib.sha256(self._form.template.encode()).hexdigest()[:16],
            "max_length": self._max,
            "dims": self.dims,
        }

    def prepare(self, rows: Sequence[Example], *, query: bool = False) -> list[Prepared]:
        return [self._prepared(row, query) for row in rows]

    def _prepared(self, row: Example, query: bool) -> Prepared:
        try:
            encoded = self._form.encode(row.messages)
        except DataError as error:
            return Prepared([], 0, error.problem)
        first, end = encoded.spans[-1] if encoded.spans else (len(encoded.input_ids),) * 2
        prompt, answer = encoded.input_ids[:first], encoded.input_ids[first:end]
        whole = len(prompt) + len(answer)
        if query:
            prompt, answer = prompt[: self._max], answer[: self._max]
            answer = answer[: max(0, self._window - len(prompt))]
        elif self._part == "full":
            answer = answer[: max(0, self._max - len(prompt))]
        prompt, answer = prompt[: self._max], answer[: self._max]
        ids = {"full": prompt + answer, "prompt": prompt, "answer": answer}[self._part]
        cut = len(prompt) + len(answer) < whole
        if self._part != "prompt" and not answer:
            return Prepared([], 0, f"nothing of its answer lies in the first {self._max} tokens")
        return Prepared(ids, len(ids), "" if ids else "it is empty", cut)

    def embed(self, rows: Sequence[Prepared]) -> np.ndarray:
        """Unit rows ``[B, D]``."""
        ids = [row.content for row in rows if isinstance(row.content, list)]
        with _working(self._body):
            ids_BT, mask_BT = right_padded(ids, self._model.device)
            states_BTD = self._forward.hidden(ids_BT, mask_BT)
            unit_BD = pooled(states_BTD, mask_BT, self._pooling).cpu().numpy()
        config = self._model.config
        for row in rows:
            layers, width = config.num_hidden_layers, config.hidden_size
            flops = forward_flops(self._body, row.tokens, layers, width, row.tokens / 2)
            self.ledger.add(tokens_read=row.tokens, flops=flops)
        return unit_BD


def right_padded(
    rows: Sequence[list[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask ``[B, T]`` with the padding on the right, where no real token can see it."""
    import torch

    ids_BT = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask_BT[i, : len(row)] = 1
    return ids_BT.to(device), mask_BT.to(device)


def _body_parameters(model: Any) -> int:
    """Parameters that a pass without the output head multiplies by."""
    tables = {id(t.weight): t.weight.numel() for t in _tables(model)}
    return sum(p.numel() for p in model.parameters()) - sum(tables.values())


def _tables(model: Any) -> Iterator[Any]:
    yield model.get_input_embeddings()
    head = model.get_output_embeddings()
    if head is not None:
        yield head


@contextmanager
def _working(parameters: int) -> Iterator[None]:
    """Inference mode, with one thread for a small model."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if parameters <= _ONE_THREAD else before)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
