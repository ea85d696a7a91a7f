"""Conversations as token ids, with a proof of which of them the assistant says.

The text is what the tokenizer's own template renders; a tokenizer without one gets
:data:`DEFAULT_TEMPLATE`. Which characters belong to whom is not guessed from the tokens of prefixes
(a prefix may well be cut into other pieces than the whole) but proven on the text:

1. The template is rendered with a private mark in place of every content. What stands between the
   marks is the template's own text.
2. The real rendering must be that text with the contents in their places, whole or with the white
   space trimmed. Where it is not, the row is refused with a :class:`~tilth.errors.DataError`.
3. Ids are made piece by piece: marks of turns are special tokens only where the *template* wrote
   them; a content that spells ``<|im_end|>`` is ordinary text. An answer begins exactly where
   generation begins and ends with the mark that ends generation, so a training example is the very
   token sequence that a prompt and its answer are at inference.

A template that has no place for a system turn gets it in front of the first user turn.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilth.data.example import Message
from tilth.errors import DataError, ModelError
from tilth.models.tokens import Place, TextIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["DEFAULT_TEMPLATE", "ChatFormat", "Encoded", "chat_format", "encode_chat"]

DEFAULT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}Assistant: {{ m.content }}{{ eos_token }}"
    "{% else %}{{ m.role | capitalize }}: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The chat form of a tokenizer without a template (our choice): plain words that any vocabulary can
write, and the end token after every answer. The prompt ends in ``Assistant:`` without a space, so
that the answer's first word keeps the space that it has inside a sentence. It begins with the
beginning-of-text token where the tokenizer puts one before plain text."""

_DEFAULT_STOP = "\nUser:"  # an untuned model goes on with the user's next turn
_MARK = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class Encoded:
    """A conversation as ids.

    Attributes:
        input_ids: The tokens.
        assistant_mask: True for the tokens of assistant turns and the marks that end them.
        answers: Per assistant turn the text of its masked tokens: the answer, with the white space
            that the template writes in front of it and the end mark behind it.
        spans: Per assistant turn its masked tokens, ``(first, past the last)``.
    """

    input_ids: list[int]
    assistant_mask: list[bool]
    answers: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class _Run:
    """Text or one special token of the rendering; `turn` is the assistant turn that says it."""

    text: str
    special: int | None
    turn: int | None


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
) -> Encoded:
    """The ids of a conversation and which of them are the assistant's.

    Args:
        tokenizer: Any fast tokenizer.
        messages: The turns, oldest first.
        add_generation_prompt: End with what the template writes before an answer.

    Raises:
        DataError: The template refuses the conversation, or changes an answer so that its span
            cannot be proven.
        ModelError: The tokenizer has neither a template nor an end token.
    """
    return chat_format(tokenizer).encode(messages, add_generation_prompt)


_FORMATS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, ChatFormat] = (
    weakref.WeakKeyDictionary()
)


def chat_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """The tokenizer's chat format; made once and remembered while its template stays the same."""
    known = _FORMATS.get(tokenizer)
    if known is None or known.own_template != tokenizer.chat_template:
        known = _FORMATS[tokenizer] = ChatFormat(tokenizer)
    return known


class ChatFormat:
    """How one tokenizer writes conversations.

    Args:
        tokenizer: Any fast tokenizer.
        template: A template to use in the place of the tokenizer's own. It begins with the
            beginning-of-text token where the tokenizer puts one before plain text.

    Attributes:
        template: The Jinja template in use.
        is_default: Whether it is :data:`DEFAULT_TEMPLATE`.
        stop_ids: Special tokens that end an answer: the template's end mark and the end token.
        stop_texts: Texts that end an answer where no special token does.
        opening: What the model writes before the answer proper: white space of the template, or the
            space that the tokenizer puts before a first word. It is no part of the answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        # A weak reference: the cache of formats must not keep the tokenizer alive.
        self._tokenizer = weakref.proxy(tokenizer)
        self.own_template = tokenizer.chat_template
        self.is_default = template is None and not tokenizer.chat_template
        given = DEFAULT_TEMPLATE if self.is_default else template
        self.template = self._begun(given) if given else tokenizer.get_chat_template()
        added = tokenizer.added_tokens_decoder
        self._special = {t.content: (i, t.lstrip, t.rstrip) for i, t in added.items()}
        longest_first = sorted(self._special, key=len, reverse=True)
        self._special_text = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._between_cache: dict[tuple[tuple[str, ...], bool], list[str]] = {}
        self._ids = TextIds(tokenizer)
        self.stop_ids, self.stop_texts, self.opening = self._how_it_ends()

    def _begun(self, template: str) -> str:
        if not self._tokenizer.eos_token:
            raise ModelError(
                "the tokenizer has neither a chat template nor an end token",
                where="tokenizer_config.json: chat_template, eos_token",
                fix="give it an eos_token or a chat_template",
            )
        first = self._tokenizer("a").input_ids[:1]
        bos = first == [self._tokenizer.bos_token_id] and first[0] is not None
        return "{{ bos_token }}" * bos + template

    # What the template writes

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The conversation as text.

        Raises:
            DataError: The template refuses it.
        """
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except (TemplateError, ValueError, TypeError, IndexError) as error:
            raise DataError(
                f"the chat template refuses this conversation: {error}",
                where=f"roles {', '.join(m['role'] for m in messages) or 'none'}",
                fix="check the order of the roles, or use a tokenizer with another template",
            ) from error

    def _between(self, roles: tuple[str, ...], prompt: bool) -> list[str]:
        """The template's own text before, between and after the contents of `roles`."""
        key = (roles, prompt)
        if key not in self._between_cache:
            marked: list[Message] = [
                {"role": role, "content": f"\ue000{i}\ue001"}  # type: ignore[typeddict-item]
                for i, role in enumerate(roles)
            ]
            pieces = _MARK.split(self.render(marked, prompt))
            if pieces[1::2] != [str(i) for i in range(len(roles))]:
                raise DataError(
                    "the chat template does not write every turn once and in order",
                    where=f"roles {', '.join(roles)}",
                    fix="use a tokenizer whose template keeps all turns",
                )
            self._between_cache[key] = pieces[0::2]
        return self._between_cache[key]

    def _prepared(self, messages: Sequence[Message], prompt: bool) -> list[Message]:
        """The turns, with the system turn folded into the first user turn where it must be."""
        turns = list(messages)
        if len(turns) > 1 and turns[0]["role"] == "system" and turns[1]["role"] == "user":
            try:
                self._between(tuple(m["role"] for m in turns), prompt)
            except DataError:
                text = f"{turns[0]['content']}\n\n{turns[1]['content']}"
                return [{"role": "user", "content": text}, *turns[2:]]
        return turns

    def _contents(self, turns: list[Message], between: list[str], prompt: bool) -> list[str]:
        """Every content as it stands in the rendering; the proof of step 2."""
        rendered = self.render(turns, prompt)
        at, contents = len(between[0]), []
        proven = rendered.startswith(between[0])
        for turn, after in zip(turns, between[1:], strict=True):
            raw = turn["content"]
            forms = (raw, raw.strip(), raw.rstrip(), raw.lstrip())
            form = next((f for f in forms if rendered.startswith(f + after, at)), None)
            if form is None:
                proven = False
                break
            contents.append(form)
            at += len(form) + len(after)
        if not proven or at != len(rendered):
            raise DataError(
                "the chat template changes this text, so that the answer's span cannot be proven",
                where=f"turn {len(contents)}",
                fix="remove what the template rewrites (for instance <think> blocks)",
            )
        return contents

    # Which of it the assistant says

    def _runs(self, messages: Sequence[Message], prompt: bool) -> tuple[list[_Run], list[str]]:
        """The rendering as runs of text and special tokens, and the text of every answer."""
        turns = self._prepared(messages, prompt)
        roles = tuple(m["role"] for m in turns)
        between = list(self._between(roles, prompt))
        contents = self._contents(turns, between, prompt)
        runs: list[_Run] = []
        answers: list[str] = []
        for i, content in enumerate(contents):
            if roles[i] != "assistant":
                runs += [*self._template_runs(between[i]), _Run(content, None, None)]
                continue
            opening = self._opening(roles, i, between[i])
            end, between[i + 1] = self._end_mark(between[i + 1], last=i == len(roles) - 1)
            before = between[i][: len(between[i]) - len(opening)]
            turn = len(answers)
            runs += [*self._template_runs(before), _Run(opening + content, None, turn)]
            runs += self._template_runs(end, turn)
            answers.append(opening + content + end)
        runs += self._template_runs(between[-1])
        return _joined(runs), answers

    def _opening(self, roles: tuple[str, ...], i: int, before: str) -> str:
        """White space that the template writes after its generation prompt."""
        try:
            prompt = self._between(roles[:i], True)[-1]
        except DataError:  # an answer without a question: the template has no prompt for it
            return ""
        rest = before.removeprefix(prompt) if before.startswith(prompt) else ""
        return "" if rest.strip() else rest

    def _end_mark(self, after: str, last: bool) -> tuple[str, str]:
        """The mark that ends an answer, and the template's text behind it."""
        found = self._special_text.match(after.lstrip())
        if found:
            end = len(after) - len(after.lstrip()) + found.end()
            return after[:end], after[end:]
        if last and not after.strip() and self._tokenizer.eos_token:
            return self._tokenizer.eos_token, ""  # else the answer could never learn to end
        return "", after

    def _template_runs(self, text: str, turn: int | None = None) -> list[_Run]:
        runs, at = [], 0
        for found in self._special_text.finditer(text):
            runs.append(_Run(text[at : found.start()], None, turn))
            runs.append(_Run(found.group(), self._special[found.group()][0], turn))
            at = found.end()
        return [r for r in [*runs, _Run(text[at:], None, turn)] if r.text]

    # Ids

    def encode(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> Encoded:
        """See :func:`encode_chat`."""
        runs, answers = self._runs(messages, add_generation_prompt)
        ids: list[int] = []
        turns: list[int | None] = []
        for run, place in self._placed(runs):
            new = [run.special] if run.special is not None else self._ids(run.text, place)
            ids += new
            turns += [run.turn] * len(new)
        spans = []
        for turn in range(len(answers)):
            count = turns.count(turn)
            first = turns.index(turn) if count else len(turns)
            spans.append((first, first + count))
        return Encoded(ids, [t is not None for t in turns], tuple(answers), tuple(spans))

    def _placed(self, runs: list[_Run]) -> list[tuple[_Run, Place]]:
        """Runs with what stands before each; white space that special tokens swallow is gone."""
        placed: list[tuple[_Run, Place]] = []
        for i, run in enumerate(runs):
            if run.special is None and run.turn is None:
                before = self._special.get(runs[i - 1].text) if i else None
                after = self._special.get(runs[i + 1].text) if i + 1 < len(runs) else None
                text = run.text
                if before and runs[i - 1].special is not None and before[2]:
                    text = text.lstrip()
                if after and runs[i + 1].special is not None and after[1]:
                    text = text.rstrip()
                run = _Run(text, None, None)  # noqa: PLW2901
            place: Place = "start"
            if placed:
                place = "text" if placed[-1][0].special is None else "special"
            if run.text:
                placed.append((run, place))
        return placed

    # How an answer ends

    def _how_it_ends(self) -> tuple[frozenset[int], tuple[str, ...], str]:
        ids = {self._tokenizer.eos_token_id} - {None}
        texts: list[str] = [_DEFAULT_STOP] if self.is_default else []
        space = " " if self._ids.adds_space else ""
        try:
            between = self._between(("user", "assistant", "user"), False)
        except DataError:  # a template with roles of its own: the end token alone ends an answer
            return frozenset(ids), tuple(texts), space
        end, after = self._end_mark(between[2], last=False)
        found = self._special_text.search(end)
        if found:
            ids.add(self._special[found.group()][0])
        elif after.strip():
            texts.append(after.rstrip())
        opening = self._opening(("user", "assistant"), 1, between[1])
        return frozenset(ids), tuple(texts), opening or space

    def answer(self, text: str) -> str:
        """A generated text without the opening white space that is no part of the answer."""
        return text.removeprefix(self.opening)


def _joined(runs: list[_Run]) -> list[_Run]:
    """Neighbouring texts of one owner as one run, so that words keep their usual pieces."""
    joined: list[_Run] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last and last.special is None and run.special is None and last.turn == run.turn:
            joined[-1] = _Run(last.text + run.text, None, run.turn)
        elif run.text:
            joined.append(run)
    return joined
