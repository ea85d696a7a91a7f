"""Answers in OpenAI's form: whole, and as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tilth.decode._asked import Piece
    from tilth.decode._engine import ComposedEngine

__all__ = ["DONE", "Form", "Letter", "event"]

Form = Literal["chat", "text"]

DONE = b"data: [DONE]\n\n"


def event(body: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


@dataclass
class Letter:
    """One answer, or several, under way.

    Attributes:
        form: Of chat or of plain text.
        model: The model's name.
        rows: How many answers there will be.
        logprobs: Whether log-probabilities are told.
    """

    form: Form
    model: str
    rows: int
    logprobs: bool
    id: str = field(default_factory=lambda: f"tilth-{uuid.uuid4().hex[:24]}")
    created: int = field(default_factory=lambda: int(time.time()))
    asked: int = 0
    written: int = 0
    _tokenizer: Any = None
    _texts: list[str] = field(default_factory=list)
    _tokens: list[list[dict[str, Any]]] = field(default_factory=list)
    _finish: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._texts = [""] * self.rows
        self._tokens = [[] for _ in range(self.rows)]
        self._finish = ["length"] * self.rows

    def address(self, engine: ComposedEngine, prompts: Sequence[Mapping[int, list[int]]]) -> None:
        """Says whose tokens are told, and what was read: each prompt, by the lead's tokens."""
        self._tokenizer = engine.tokenizer
        lead = engine.ensemble.plan.lead
        self.asked = sum(len(p.get(lead, next(iter(p.values())))) for p in prompts)

    def take(self, piece: Piece) -> list[dict[str, Any]]:
        """Notes a piece; returns what is told of its tokens."""
        told = self._told(piece) if self.logprobs else []
        self.written += len(piece.tokens)
        self._texts[piece.row] += piece.text
        self._tokens[piece.row] += told
        self._finish[piece.row] = piece.finish or self._finish[piece.row]
        return told

    def _told(self, piece: Piece) -> list[dict[str, Any]]:
        found = []
        for i, (token, logprob) in enumerate(zip(piece.tokens, piece.logprobs, strict=True)):
            parts = {role: values[i] for role, values in piece.parts.items()}
            top = [self._token(t, p) for t, p in piece.top[i]] if piece.top else []
            found.append({**self._token(token, logprob), "top_logprobs": top, "parts": parts})
        return found

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._tokenizer.decode([token])
        # JSON knows no minus infinity; -9999 is what OpenAI writes for it.
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}

    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        total = self.asked + self.written
        return {
            "prompt_tokens": self.asked,
            "completion_tokens": self.written,
            "total_tokens": total,
        }

    def whole(self) -> dict[str, Any]:
        """The finished answer."""
        object_ = "chat.completion" if self.form == "chat" else "text_completion"
        choices = [
            {
                "index": row,
                **self._said(text),
                "logprobs": self._logprobs(self._tokens[row]),
                "finish_reason": finish,
            }
            for row, (text, finish) in enumerate(zip(self._texts, self._finish, strict=True))
        ]
        return {**self._head(object_), "choices": choices, "usage": self.usage()}

    def _said(self, text: str) -> dict[str, Any]:
        if self.form == "text":
            return {"text": text}
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def openings(self) -> list[dict[str, Any]]:
        """The chunks before the first token, one per answer."""
        if self.form == "text":
            return []
        start = {"role": "assistant", "content": ""}
        return [self._chunk(row, {"delta": start}) for row in range(self.rows)]

    def chunk(self, piece: Piece, told: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """The chunk of a piece; None where nothing is certain yet and nothing to tell."""
        if not (piece.text or told or piece.finish):
            return None
        said: dict[str, Any] = {"text": piece.text}
        if self.form == "chat":
            said = {"delta": {"content": piece.text} if piece.text else {}}
        return self._chunk(
            piece.row, said, logprobs=self._logprobs(told), finish=piece.finish or None
        )

    def cut(self) -> list[dict[str, Any]]:
        """The chunks that end answers which the limit of time has cut."""
        said: dict[str, Any] = {"delta": {}} if self.form == "chat" else {"text": ""}
        return [self._chunk(row, said, finish="length") for row in range(self.rows)]

    def last(self) -> dict[str, Any]:
        """The chunk with the usage, which has no choices."""
        return {**self._head(self._streamed), "choices": [], "usage": self.usage()}

    def _chunk(
        self, row: int, said: dict[str, Any], *, logprobs: Any = None, finish: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": row, **said, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head(self._streamed), "choices": [choice]}

    def _logprobs(self, told: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        if self.form == "chat":
            return {"content": list(told), "refusal": None}
        return {
            "tokens": [t["token"] for t in told],
            "token_logprobs": [t["logprob"] for t in told],
            "top_logprobs": [{a["token"]: a["logprob"] for a in t["top_logprobs"]} for t in told],
            "text_offset": None,
        }

    @property
    def _streamed(self) -> str:
        return "chat.completion.chunk" if self.form == "chat" else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}
