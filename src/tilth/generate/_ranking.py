"""All variants of a group in one judge's prompt, and the scores in its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tilth.data.rating import Aspect

__all__ = ["HIGHEST", "ask_apart", "ask_together", "read_score", "read_scores"]

HIGHEST = 6

_TASKS = """\
Rank the following questions by how difficult and complex they are. Give each a score from 1 to 5; \
a question that is too complex for you to answer gets a 6. Compare them with each other: equal \
scores are for questions that are equally hard.
Answer with one line per question in this form and nothing else:
[1] Score: your score of the first question

{listed}"""

_REPLIES = """\
Rank the following responses to one question by their quality: helpfulness, relevance, accuracy, \
depth, creativity and level of detail. Give each a score from 1 to 5; a response that could hardly \
be better gets a 6. Compare them with each other: equal scores are for responses that are equally \
good.
Answer with one line per response in this form and nothing else:
[1] Score: your score of the first response

#Question#: {query}

{listed}"""

_TASK = """\
Rate how difficult and complex the following question is with a score from 1 to 5; give it a 6 if \
it is too complex for you to answer. Answer with the score alone.

{text}"""

_REPLY = """\
Rate the quality of the response to the question: helpfulness, relevance, accuracy, depth, \
creativity and level of detail. Give it a score from 1 to 5, or a 6 if it could hardly be better. \
Answer with the score alone.

#Question#: {query}

#Response#: {text}"""

_NUMBER = re.compile(r"(?<![\d.])\d+(?![\d.]*\d)")
_LINE = re.compile(r"^\W*(\d+)\W+score\W*(\d+(?:\.\d+)?)", re.IGNORECASE | re.MULTILINE)


def ask_together(aspect: Aspect, query: str, texts: Sequence[str], compact: bool) -> str:
    """The prompt that shows all `texts` and asks for one score each.

    The shape is that of Deita's joint ranking (arXiv 2312.15685, section 2.3 and appendix E); the
    English wording is ours, the compact one is a teaching turn of the almanac.

    Args:
        aspect: Complexity: `texts` are instructions; quality: responses to `query`.
        query: The instruction, for quality.
        texts: The variants in the order in which they are shown.
        compact: For a seedling.
    """
    if compact:
        from tilth.almanac.teaching import turn

        if aspect == "complexity":
            return turn("rank_tasks", tasks=texts)
        return turn("rank_replies", task=query, replies=texts)
    listed = "\n".join(f"[{n}] {text}" for n, text in enumerate(texts, 1))
    if aspect == "complexity":
        return _TASKS.format(listed=listed)
    return _REPLIES.format(query=query, listed=listed)


def ask_apart(aspect: Aspect, query: str, text: str, compact: bool) -> str:
    """The prompt that shows one variant: the control; arguments as in :func:`ask_together`."""
    if compact:
        from tilth.almanac.teaching import turn

        if aspect == "complexity":
            return turn("rate_task", task=text)
        return turn("rate_reply", task=query, reply=text)
    if aspect == "complexity":
        return _TASK.format(text=text)
    return _REPLY.format(query=query, text=text)


def read_score(text: str) -> int | None:
    """The one score of an answer: its first whole number, where that is a score."""
    found = _NUMBER.search(text)
    score = int(found.group()) if found else 0
    return score if 1 <= score <= HIGHEST else None


def read_scores(text: str, count: int) -> tuple[list[int], str]:
    """The scores of the variants in the order shown, or none and why the answer cannot be used.

    Lines ``[i] Score: s`` count in any order; other lines do not.

    Example:
        >>> read_scores("[2] Score: 4\\n[1] Score: 2", 2)
        ([2, 4], '')
        >>> read_scores("[1] Score: 2\\n[1] Score: 3", 2)
        ([], 'index twice')
    """
    found: dict[int, str] = {}
    for index, score in _LINE.findall(text):
        if int(index) in found:
            return [], "index twice"
        found[int(index)] = score
    if not found:
        return [], "no score"
    if not set(found) <= set(range(1, count + 1)):
        return [], "unknown index"
    if len(found) < count:
        return [], "index missing"
    if not all(score.isdigit() and 1 <= int(score) <= HIGHEST for score in found.values()):
        return [], f"score outside 1..{HIGHEST}"
    return [int(found[index]) for index in range(1, count + 1)], ""
