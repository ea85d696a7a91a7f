"""The one row type of tilth: an :class:`Example` is a conversation with provenance."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

__all__ = ["Example", "Message", "Role", "content_id"]

Role = Literal["system", "user", "assistant", "tool"]


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


def content_id(messages: list[Message], **more: Any) -> str:
    """The hash of the content: 16 hexadecimal digits of BLAKE2b over canonical JSON."""
    body = {"messages": [{"role": m["role"], "content": m["content"]} for m in messages]}
    body.update({k: v for k, v in more.items() if v is not None})
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Example:
    """A conversation, or a preference pair that shares one.

    Attributes:
        messages: The turns, oldest first.
        meta: Provenance: method, teacher, parent ids, seed, scores.
        chosen: The preferred answer of a preference pair.
        rejected: The other answer of a preference pair.
        id: The hash of messages, chosen and rejected; computed where it is not given.
    """

    messages: list[Message]
    meta: dict[str, Any] = field(default_factory=dict)
    chosen: str | None = None
    rejected: str | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            hashed = content_id(self.messages, chosen=self.chosen, rejected=self.rejected)
            object.__setattr__(self, "id", hashed)

    @classmethod
    def pair(cls, prompt: str, answer: str, *, system: str | None = None, **meta: Any) -> Example:
        """A single-turn example.

        Example:
            >>> Example.pair("2 + 2?", "4").answer
            '4'
        """
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        messages += [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer},
        ]
        return cls(messages, meta)

    @property
    def prompt(self) -> str:
        """The last user turn's text."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")

    @property
    def answer(self) -> str:
        """The last assistant turn's text, or ``""``."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "assistant"), "")

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: ``id``, ``messages``, ``meta``, and the pair's fields where present."""
        row: dict[str, Any] = {"id": self.id, "messages": self.messages, "meta": self.meta}
        if self.chosen is not None:
            row["chosen"] = self.chosen
        if self.rejected is not None:
            row["rejected"] = self.rejected
        return row

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Example:
        """The inverse of :meth:`as_dict`; for rows that tilth wrote itself."""
        return cls(
            row["messages"], row.get("meta", {}), row.get("chosen"), row.get("rejected"), row["id"]
        )
