"""How a role reads a conversation.

A tuned model reads its chat template; a base model reads question-and-answer text, the form that
documents have. The answer's tokens are the same for all, so the plain form ends where the lead's
answers begin: in ``Answer:`` where those begin with a space, else on a new line.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from tilth.data.example import Message
from tilth.errors import DataError
from tilth.models.chat import ChatFormat, chat_format

__all__ = ["PLAIN_STOPS", "Speaker"]

PLAIN_STOPS = ("\n\n", "\nQuestion:")
"""What ends an answer of a lead that reads plain text: a base model goes on with the next one."""


class Speaker:
    """Puts prompts to one role.

    Attributes:
        tokenizer: The role's tokenizer.
        form: Its chat format.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str, lead: ChatFormat) -> None:
        self.tokenizer = tokenizer
        self.form = chat_format(tokenizer)
        self.prompt = prompt
        self._on_a_new_line = not lead.opening.startswith(" ")

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation that the answer follows."""
        turns = list(messages)
        if self.prompt == "plain":
            return self.text(self._plain(turns))
        if self.prompt == "unasked":
            turns = [{**m, "content": ""} if m["role"] == "user" else m for m in turns]
        return self.form.encode(turns, add_generation_prompt=True).input_ids

    def text(self, text: str) -> list[int]:
        """The ids of plain text; special tokens that it spells are special."""
        ids: list[int] = self.tokenizer(text).input_ids
        return ids

    def _plain(self, turns: Sequence[Message]) -> str:
        parts: list[str] = []
        for turn in turns:
            if turn["role"] == "user":
                parts.append(f"Question: {turn['content']}\nAnswer:")
            elif turn["role"] == "assistant" and parts:
                parts[-1] += f" {turn['content']}"
            else:
                parts.append(turn["content"])
        return "\n\n".join(parts) + "\n" * self._on_a_new_line

    def turn(self, messages: Sequence[Message], prompt: list[int]) -> list[int]:
        """The part of `prompt` that begins with the last user's turn.

        In plain text, and where the template writes the turns before in another way once more turns
        follow, that is the whole prompt.
        """
        places = [i for i, m in enumerate(messages) if m["role"] == "user"]
        if self.prompt == "plain" or not places or not places[-1]:
            return prompt
        try:
            before = self.form.encode(messages[: places[-1]]).input_ids
        except DataError:  # a template without a form for what stands before
            return prompt
        return prompt[len(before) :] if prompt[: len(before)] == before else prompt
