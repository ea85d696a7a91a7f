"""The tags of implicit instruction tuning, as chat templates.

Hewitt et al. 2024 (arXiv:2409.14254, section 3) write every conversation as

    BOS<|user|>\\n{instruction}\\n<|assistant|>\\n{response}EOS

in plain text: a base model reads its own pieces and no new token. ``letters`` is their control with
tags that mean nothing. :func:`require_tags` says of any template whether a model tuned in it can
know where its turn begins and learn where it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tilth.errors import DataError, ModelError
from tilth.models.chat import encode_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["EXPECTED", "TEMPLATES", "TagSet", "require_tags", "with_tags"]

TagSet = Literal["own", "paper", "joined", "letters"]
"""``own`` is the tokenizer's own template; ``paper`` and ``letters`` are those of the paper; in
``joined`` (ours) the assistant tag follows the instruction without a line break, in which form an
untuned seedling does what the paper says of base models: it answers, echoes tags, and goes on with
a next question."""

EXPECTED = "BOS<|user|>\\n{instruction}\\n<|assistant|>\\n{response}EOS"

_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "USER{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if BREAK %}{{ '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT{% endif %}"
)


def _template(tag: str, assistant: str, joined: bool = False) -> str:
    after_turn = "m.role == 'assistant' and not loop.last"
    between = after_turn if joined else "m.role != 'assistant' or not loop.last"
    filled = _TEMPLATE.replace("USER", tag).replace("ASSISTANT", assistant)
    return filled.replace("BREAK", between)


_NAMED = ("{{ '<|' + m.role + '|>\\n' }}", "{{ '<|assistant|>\\n' }}")

TEMPLATES: dict[str, str] = {
    "paper": _template(*_NAMED),
    "joined": _template(*_NAMED, joined=True),
    "letters": _template(
        "{{ {'user': '<|A|>', 'assistant': '<|B|>'}.get(m.role, '<|S|>') + '\\n' }}",
        "{{ '<|B|>\\n' }}",
    ),
}
"""Jinja templates by the name of their tags."""


def with_tags(tokenizer: PreTrainedTokenizerBase, tags: TagSet) -> PreTrainedTokenizerBase:
    """The tokenizer, its chat template replaced by that of `tags`; checked by `require_tags`.

    Raises:
        ModelError: See :func:`require_tags`.
    """
    if tags != "own":
        tokenizer.chat_template = TEMPLATES[tags]
    require_tags(tokenizer)
    return tokenizer


def require_tags(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a template in which tuning on answers could not work.

    Raises:
        ModelError: Nothing marks the assistant's turn; a generation prompt is not how a trained
            answer begins; or no end token is a target, so that the model would never learn to stop.
    """
    asked = [{"role": "user", "content": "one"}]
    whole = [*asked, {"role": "assistant", "content": "two"}]
    try:
        closed = encode_chat(tokenizer, asked)  # type: ignore[arg-type]
        prompt = encode_chat(tokenizer, asked, True).input_ids  # type: ignore[arg-type]
        answer = encode_chat(tokenizer, whole)  # type: ignore[arg-type]
    except DataError as error:
        raise ModelError(error.problem, error.where, f"use a template like {EXPECTED}") from error
    first, end = answer.spans[-1]
    if prompt == closed.input_ids or answer.input_ids[:first] != prompt:
        raise ModelError(
            "the chat template writes no assistant tag before an answer"
            if prompt == closed.input_ids
            else "the assistant tag of a prompt is not the one before a trained answer",
            where=f"the template writes {tokenizer.decode(answer.input_ids)!r}",
            fix=f"expected {EXPECTED}: set tags to paper, or repair the template",
        )
    ends = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    if answer.input_ids[end - 1] not in ends:
        raise ModelError(
            "no end token is a target, so that the model would never learn to stop",
            where=f"the template writes {tokenizer.decode(answer.input_ids)!r}",
            fix="give the tokenizer an eos_token, or the template a mark that ends an answer",
        )
