"""Which of a method's two prompt sets a model gets: English, or the almanac's compact turns."""

from __future__ import annotations

from typing import Literal

__all__ = ["Prompts", "is_compact"]

Prompts = Literal["auto", "english", "compact"]
"""``auto``: compact for seedlings, English for all others."""


def is_compact(prompts: Prompts, ref: str) -> bool:
    """Whether the model `ref` is asked in the seedlings' language.

    Example:
        >>> is_compact("auto", "seedling:teacher"), is_compact("english", "seedling:teacher")
        (True, False)
    """
    return prompts == "compact" or (prompts == "auto" and ref.startswith("seedling:"))
