"""Ids of text in its place: at the start, after a special token, or in the middle of a text.

Some tokenizers put a space before the first word of whatever they are given. A text that goes on
where another one ends must not get that space, and a text that spells a special token must not
become one.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Literal

from tilth.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Place", "TextIds"]

Place = Literal["start", "special", "text"]
"""What stands before a text: nothing, a special token, or other text."""

_ANCHORS = ("\n", "x", ".", "0", "\u00e9")


class TextIds:
    """A tokenizer that knows what stands before a text.

    Attributes:
        adds_space: Whether the tokenizer puts a space before a first word.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        # A weak reference: a cache of these must not keep the tokenizer alive.
        self._tokenizer = weakref.proxy(tokenizer)
        self._short: dict[tuple[str, Place], list[int]] = {}
        self.adds_space = self._plain("\nx") != self._plain("\n") + self._plain("x")
        self._after_special = self.adds_space and self._space_after_special()

    def __call__(self, text: str, place: Place = "start") -> list[int]:
        """Ids of ordinary text: special tokens in it are spelled out.

        Raises:
            DataError: The tokenizer joins the text with whatever stands before it.
        """
        known = self._short.get((text, place))
        if known is not None:
            return known
        alone = place == "start" or not self.adds_space
        if alone or (place == "special" and self._after_special):
            ids = self._plain(text)
        else:
            ids = self._continued(text)
        if len(text) < 64 and len(self._short) < 4096:
            self._short[text, place] = ids
        return ids

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids

    def _continued(self, text: str) -> list[int]:
        """Ids of `text` behind an anchor that it does not join with, without the anchor's."""
        for anchor in _ANCHORS:
            before, both = self._plain(anchor), self._plain(anchor + text)
            if both[: len(before)] == before:
                return both[len(before) :]
        raise DataError(
            "the tokenizer joins this text with whatever stands before it",
            where=repr(text[:40]),
            fix="use a tokenizer that splits text into words first",
        )

    def _space_after_special(self) -> bool:
        name = next((t.content for t in self._tokenizer.added_tokens_decoder.values()), None)
        if name is None:
            return False
        with_special: list[int] = self._tokenizer(name + "x", add_special_tokens=False).input_ids
        return with_special[1:] == self._plain("x")
