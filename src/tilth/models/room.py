"""How long a prompt is to a model, and how much the model can read: asked before it is asked."""

from __future__ import annotations

import sys

from tilth.data.example import Message
from tilth.models.chat import chat_format
from tilth.models.engine import Engine
from tilth.models.local import LocalEngine

__all__ = ["room", "window"]

_CHARS_PER_TOKEN = 3  # of a model elsewhere, whose tokenizer is not known: on the safe side


def window(engine: Engine) -> int:
    """Tokens that the model reads and writes at most, together; a huge number where not known."""
    if not isinstance(engine, LocalEngine):
        return sys.maxsize
    return int(getattr(engine.model.config, "max_position_embeddings", None) or sys.maxsize)


def room(engine: Engine, conversation: list[Message], limit: int | None = None) -> int:
    """Tokens that are left for an answer to `conversation`; below 0 where it does not fit.

    Args:
        engine: A local model is asked exactly; of an endpoint three characters count as a token.
        conversation: Ends with a turn that is not the assistant's.
        limit: Tokens of prompt and answer together; the model's window where that is smaller.
    """
    most = min(window(engine), limit or sys.maxsize)
    if isinstance(engine, LocalEngine):
        form = chat_format(engine.tokenizer)
        return most - len(form.encode(conversation, add_generation_prompt=True).input_ids)
    return most - sum(len(m["content"]) for m in conversation) // _CHARS_PER_TOKEN
