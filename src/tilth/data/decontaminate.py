"""Decontamination: training rows that contain questions of an exam, found by shared word n-grams.

Two rules stand side by side by default. A run of 13 words that a row shares with an exam item is
enough (Brown et al. 2020, arXiv:2005.14165, appendix C); a shorter run of 8 words happens by
chance, so at least half of the item's words must lie in shared runs (Lambert et al. 2024,
arXiv:2411.15124). An item that is too short for any rule counts as found where a whole turn says
exactly the same words.

Runs that stand in many exam items are the wording of a template and not a question; they are
left out of the index. What this cannot see: paraphrases and translations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tilth.data.example import Example
from tilth.data.words import Part, ngrams, turns_of, words
from tilth.errors import DataError

__all__ = ["RULES", "Contamination", "Decontamination", "decontaminate"]

RULES: tuple[tuple[int, float], ...] = ((13, 0.0), (8, 0.5))
"""``(words of the run, least share of the exam item's words that shared runs must cover)``."""


@dataclass(frozen=True)
class Contamination:
    """A training row that contains an exam item.

    Attributes:
        index: The row's position.
        id: The row's id.
        item: The id of the exam item that it shares most with.
        ngram: A run of words that both have.
        size: Words of the run; of the whole item where that is shorter than every rule.
        covered: Share of the item's words that lie in shared runs of this size.
    """

    index: int
    id: str
    item: str
    ngram: str
    size: int
    covered: float


@dataclass(frozen=True)
class Decontamination:
    """What stays and what goes.

    Attributes:
        kept: Positions of the clean rows, in order; for ``rows.select(...)``.
        found: One entry per row that goes.
        items: How many exam items were looked for.
        short: How many of them were too short for runs and were looked for as a whole.
        ignored: How many runs were left out because they stand in many items.
    """

    kept: list[int] = field(default_factory=list)
    found: list[Contamination] = field(default_factory=list)
    items: int = 0
    short: int = 0
    ignored: int = 0


def decontaminate(
    examples: Iterable[Example],
    exam: Mapping[str, str] | Iterable[Example],
    *,
    rules: tuple[tuple[int, float], ...] = RULES,
    exam_part: Part = "prompt",
    common: int = 10,
) -> Decontamination:
    """Finds the rows of `examples` that contain items of `exam`.

    Args:
        examples: The training rows; read once, one at a time. Every turn is searched.
        exam: Exam texts by item id, or examples (``read("exam.jsonl")``; an item's name is its
            ``meta["item"]``, ``meta["source_id"]`` or id, the first that there is).
        rules: See :data:`RULES`; any that applies is enough.
        exam_part: Which turns of an exam example are the question.
        common: A run that stands in more exam items than this is a template's wording and is
            ignored (the figure of arXiv:2005.14165, which counts training documents).

    Raises:
        DataError: The exam is empty, or a rule is out of range.

    Example:
        >>> exam = {"q1": "Which field near the river was sown with barley last spring?"}
        >>> leak = Example.pair("Which field near the river was sown with barley last spring?", "")
        >>> decontaminate([leak], exam).found[0].item
        'q1'
    """
    for size, share in rules:
        if size < 1 or not 0 <= share <= 1:
            raise DataError(f"({size}, {share}) is no (words, share) rule", where="rules")
    texts = dict(exam) if isinstance(exam, Mapping) else _texts(exam, exam_part)
    if not texts:
        raise DataError("the exam has no items", where="exam", fix="give an exam with questions")
    index = _ExamIndex(texts, rules, common)
    result = Decontamination(items=len(texts), short=len(index.whole), ignored=index.ignored)
    for position, example in enumerate(examples):
        hit = index.hit([words(text) for text in turns_of(example)])
        if hit is None:
            result.kept.append(position)
        else:
            covered, size, item, ngram = hit
            result.found.append(
                Contamination(position, example.id, item, ngram, size, round(covered, 4))
            )
    return result


class _ExamIndex:
    """Exam items by the runs of words that they hold."""

    def __init__(
        self, texts: Mapping[str, str], rules: tuple[tuple[int, float], ...], common: int
    ) -> None:
        self.rules = sorted(rules, reverse=True)
        self.length: dict[str, int] = {}
        self.whole: dict[str, str] = {}
        self.runs: dict[str, defaultdict[str, list[int]]] = {}
        self.ignored = 0
        shortest = min((size for size, _ in rules), default=0)
        for item, text in texts.items():
            tokens = words(text)
            self.length[item] = len(tokens)
            if tokens and (not rules or len(tokens) < shortest):
                self.whole.setdefault(" ".join(tokens), item)
            for size, _ in self.rules:
                for start, run in enumerate(ngrams(tokens, size)):
                    self.runs.setdefault(run, defaultdict(list))[item].append(start)
        for run in [run for run, items in self.runs.items() if len(items) > common]:
            del self.runs[run]
            self.ignored += 1

    def hit(self, turns: list[list[str]]) -> tuple[float, int, str, str] | None:
        """The best match of a row: share covered, words of the run, item, run."""
        for tokens in turns:
            text = " ".join(tokens)
            if text in self.whole:
                return 1.0, len(tokens), self.whole[text], text
        for size, least in self.rules:
            covered: defaultdict[str, set[int]] = defaultdict(set)
            first: dict[str, str] = {}
            for run in (run for tokens in turns for run in ngrams(tokens, size)):
                for item, starts in self.runs.get(run, {}).items():
                    first.setdefault(item, run)
                    for start in starts:
                        covered[item].update(range(start, start + size))
            shares = [(len(places) / self.length[item], item) for item, places in covered.items()]
            share, item = max(shares, default=(-1.0, ""))
            if share >= least:
                return share, size, item, first[item]
        return None


def _texts(exam: Iterable[Example], part: Part) -> dict[str, str]:
    texts: dict[str, str] = {}
    for example in exam:
        name = example.meta.get("item", example.meta.get("source_id", example.id))
        texts[str(name)] = "\n".join(turns_of(example, part))
    return texts
