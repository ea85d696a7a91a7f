"""Asking a model in the two forms: chat turns, or plain question-and-answer text with examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tilth.data.example import Message
from tilth.errors import EngineError
from tilth.models import Completion, Engine, Sampling

__all__ = ["Form", "Question", "ask", "plain_text"]

Form = Literal["chat", "plain"]

# A base model goes on with the next question; both ways of starting one end the answer.
PLAIN_STOPS = ("\n\n", "\nQuestion:")


@dataclass(frozen=True)
class Question:
    """What a model is asked.

    Attributes:
        messages: The conversation so far; ends with the user's turn.
        shots: Worked ``(prompt, answer)`` examples; in chat form they are turns of their own.
    """

    messages: list[Message]
    shots: tuple[tuple[str, str], ...] = ()

    def conversation(self) -> list[Message]:
        """The chat form."""
        system = [m for m in self.messages if m["role"] == "system"]
        turns: list[Message] = []
        for prompt, answer in self.shots:
            turns.append({"role": "user", "content": prompt})
            turns.append({"role": "assistant", "content": answer})
        return [*system, *turns, *(m for m in self.messages if m["role"] != "system")]


def plain_text(messages: Sequence[Message]) -> str:
    """Question-and-answer text that ends in an open ``Answer:``.

    Example:
        >>> print(plain_text([{"role": "user", "content": "2 + 2?"}]))
        Question: 2 + 2?
        Answer:
    """
    parts: list[str] = []
    for message in messages:
        if message["role"] == "assistant":
            parts[-1] += f" {message['content']}"
        elif message["role"] == "system":
            parts.append(message["content"])
        else:
            parts.append(f"Question: {message['content']}\nAnswer:")
    return "\n\n".join(parts)


def ask(
    model: Engine,
    questions: Sequence[Question],
    form: Form,
    sampling: Sampling,
    seeds: Sequence[int] | None = None,
) -> list[Completion]:
    """One answer per question, in their order.

    Raises:
        EngineError: A question has no answer; an evaluation with holes would mislead.
    """
    conversations = [q.conversation() for q in questions]
    if form == "chat":
        said = model.chat(conversations, sampling, seeds)
    else:
        stops = Sampling(**{**sampling.as_dict(), "stop": PLAIN_STOPS})
        said = model.complete([plain_text(c) for c in conversations], stops, seeds)
    failed = [i for i, completion in enumerate(said) if completion.finish == "error"]
    if failed:
        raise EngineError(
            f"{len(failed)} of {len(said)} questions got no answer: {said[failed[0]].error}",
            where=f"{model.reference}, question {failed[0]}",
            fix="run the same command again: the answers so far are kept",
        )
    return said
