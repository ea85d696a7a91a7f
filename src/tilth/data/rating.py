"""What a scorer is asked: one wording for the rows that it is tuned on and the rows that it scores.

Both kinds end in the label of the score, which must stand right before the digit: where a prompt
has to be shortened, the texts in it are shortened and never the prompt as a whole.
"""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["ASPECTS", "Aspect", "rating_prompt"]

Aspect = Literal["complexity", "quality"]
"""``complexity`` is that of an instruction, ``quality`` that of a response to it."""

ASPECTS: tuple[Aspect, ...] = get_args(Aspect)

_COMPLEXITY = "Rate the complexity of this query.\nQuery: {query}\nComplexity score:"
_QUALITY = (
    "Rate the quality of this response.\nQuery: {query}\nResponse: {response}\nQuality score:"
)


def rating_prompt(aspect: Aspect, query: str, response: str = "") -> str:
    """The user turn that asks a scorer for its digit; the response counts for quality only.

    The shape is Deita's (arXiv 2312.15685, code b279f2c): a sentence that asks for the score, the
    labelled texts, the label of the score. The wording is ours.

    Example:
        >>> print(rating_prompt("complexity", "How much is 2 and 3?"))
        Rate the complexity of this query.
        Query: How much is 2 and 3?
        Complexity score:
    """
    if aspect == "complexity":
        return _COMPLEXITY.format(query=query)
    return _QUALITY.format(query=query, response=response)
