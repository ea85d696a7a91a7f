"""InsTag: how many things an instruction asks for, and whether a row brings a new one."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tilth.data import Rows
from tilth.data.example import Example, Message
from tilth.errors import DataError
from tilth.method import ModelRef, Work
from tilth.models.prompts import Prompts, is_compact
from tilth.models.sizes import reading
from tilth.select._asking import Fitter, answers_to_each, rank_scored, turns_of
from tilth.select._selector import Ranking, Selector

__all__ = ["InsTag", "growing", "read_tags"]

_PROMPT = """\
Name the intentions of this instruction to an assistant: what kind of task it is, on which \
subject, and what it demands of the answer. Give each as a tag of one to three words in lower \
case. Answer with the tags alone, separated by commas.

#Instruction#: {query}

Tags:"""

_FIELD = re.compile(r"^\s*(?:tags?|use|skills?)\s*:\s*", re.IGNORECASE)


class InsTag(Selector):
    """Chooses by tags: most tags first, and rows that bring a tag which the others lack.

    Lu et al. 2023 (InsTag, arXiv 2308.07074) let a model name the intentions of every instruction;
    the number of its tags is its complexity, the number of different tags of a set its diversity.
    Here as the baselines of Deita (arXiv 2312.15685, tables 2 and 4): ``order: tags`` is complexity
    (most tags first, equal numbers in the order of the pool), ``grow`` keeps a row only where it
    brings a tag that no row kept before has. ``order: random`` with ``grow`` is diversity alone.
    Where no row brings a new tag and more are asked for, it starts over with no tag known, so that
    every round is a small set that covers all tags; that, the wording, and joining tags only where
    they are equal up to case and punctuation are our choice.

    Tags come from ``meta[tags]`` (a list, or one text), or from a model. ``min_rows`` leaves out
    rare tags; the paper's is 20, for a pool of many thousands.

    Example:
        >>> InsTag(pool="pool.jsonl", model="seedling:teacher").to("out")  # doctest: +SKIP
    """

    name: ClassVar = "instag"
    example: ClassVar[dict[str, Any]] = {"pool": "{rows}", "count": 2, "tags": "skill"}

    model: ModelRef | None = Field(None, description="The model that tags; none: meta has tags.")
    tags: str = Field("tags", description="Meta field with tags, where no model tags.")
    order: Literal["tags", "random"] = Field("tags", description="Most tags first, or by chance.")
    grow: bool = Field(True, description="Only rows that bring a new tag; then over again.")
    min_rows: int = Field(1, ge=1, description="Leave out tags of fewer rows.")
    prompts: Prompts = Field(
        "auto", description="Prompt set; auto: compact for seedlings, English for all others."
    )
    max_length: int = Field(2048, ge=32, description="Longest prompt and answer in tokens.")
    max_new_tokens: int = Field(64, ge=1, description="Tokens of an answer.")
    batch_size: int = Field(32, ge=1, description="Questions in the model at once; speed only.")

    def estimate(self) -> dict[str, float]:
        """One pass over the pool where a model tags."""
        return reading(self.pool, self.model) if self.model else {}

    def rank(self, pool: Rows, allowed: np.ndarray, work: Work) -> Ranking:
        """Rows by their number of tags, or those that bring new ones.

        Raises:
            DataError: A row has no tags in its meta, or more than a tenth got none from the model.
        """
        rows = allowed.tolist()
        tags, cut = self._tags(pool, allowed, work)
        seen = Counter(tag for row in rows for tag in tags[row])
        kept = [frozenset(t for t in own if seen[t] >= self.min_rows) for own in tags]
        counts = np.full(len(pool), np.nan)
        counts[allowed] = [len(kept[row]) for row in rows]
        why = {row: "no tag: the model named none" for row in rows if not tags[row]}
        for row in why:
            counts[row] = np.nan
        metrics: dict[str, Any] = {
            "tags": sum(n >= self.min_rows for n in seen.values()),
            "tags_per_row": float(np.nanmean(counts)) if len(why) < len(rows) else 0.0,
            "without_tags": len(why),
            "shortened": cut,
        }
        ranking = rank_scored(counts, allowed, "tags", why, metrics=metrics)
        order = ranking.first(len(pool))
        if self.order == "random":
            order = work.stream("order").permutation(np.sort(order))

        def first(count: int) -> np.ndarray:
            if not self.grow:
                return order[:count]
            chosen, metrics["rounds"] = growing(order, kept, count)
            return chosen

        return Ranking(
            first,
            ranking.reason,
            scores=counts,
            name="tags",
            details=lambda row: {"tags": sorted(kept[row])},
            metrics=metrics,
        )

    def _tags(self, pool: Rows, allowed: np.ndarray, work: Work) -> tuple[list[list[str]], int]:
        """Per row its tags, and how many prompts had to be shortened."""
        found: list[list[str]] = [[] for _ in range(len(pool))]
        if self.model is None:
            for row in allowed.tolist():
                value = pool[row].meta.get(self.tags)
                listed = value if isinstance(value, list) else [value]
                if not listed or not all(isinstance(tag, str) and tag for tag in listed):
                    raise DataError(
                        f"the row's {self.tags!r} is {value!r} and not a list of tags",
                        where=f"{pool.path}, row {row}: {pool[row].id}",
                        fix="name the field that has tags, or a model that writes them",
                    )
                found[row] = list(dict.fromkeys(map(_plain, listed)))
            return found, 0
        from tilth.models import Sampling, engine

        writer = engine(
            self.model,
            ledger=work.ledger,
            cache=work.scratch / "answers.jsonl",
            batch_size=self.batch_size,
            progress=False,
        )
        fit = Fitter(writer, self._prompt(), self.max_length, self.max_new_tokens)

        def ask(row: Example) -> list[list[Message]]:
            return [fit(query) for query, _ in turns_of(row)]

        sampling = Sampling(max_new_tokens=self.max_new_tokens)
        for row, completion in answers_to_each(writer, pool, allowed, ask, sampling):
            found[row] = list(dict.fromkeys([*found[row], *read_tags(completion.text)]))
        return found, fit.cut

    def _prompt(self) -> Any:
        if self.model and is_compact(self.prompts, self.model):
            from tilth.almanac.teaching import turn

            return lambda query, response: turn("describe", task=query)
        return lambda query, response: _PROMPT.format(query=query)


def read_tags(text: str) -> list[str]:
    """The tags of an answer, in order and each once.

    Example:
        >>> read_tags("Use: puzzle page. Skills: logic, Ordering.")
        ['puzzle page', 'logic', 'ordering']
    """
    pieces = re.split(r"[,;\n]|\.(?=\s|$)", text)
    tags = [_plain(_FIELD.sub("", piece)) for piece in pieces]
    return list(dict.fromkeys(tag for tag in tags if tag))


def _plain(tag: str) -> str:
    """A tag for comparison: lower case, single spaces, no marks around it."""
    return " ".join(re.sub(r"[\"'`*#.\[\]()_-]+", " ", tag.lower()).split())


def growing(
    order: np.ndarray, tags: Sequence[frozenset[str]], count: int
) -> tuple[np.ndarray, int]:
    """Rows in rounds, in each of which every row brings a tag that is new to the round.

    Args:
        order: int [M], rows in the order in which they are looked at in every round.
        tags: Per row of the pool its tags.
        count: Stop when so many rows are found.

    Returns:
        int [K], rows without any tag last; and how many rounds it took.

    Example:
        >>> growing(np.array([0, 1, 2]), [frozenset("ab"), frozenset("a"), frozenset("c")], 3)
        (array([0, 2, 1]), 2)
    """
    # Of rows with the same tags a round takes at most the first, so that these wait in one queue.
    queues: dict[frozenset[str], deque[tuple[int, int]]] = {}
    for place, row in enumerate(order.tolist()):
        queues.setdefault(tags[row], deque()).append((place, row))
    bare = [row for _, row in queues.pop(frozenset(), ())]
    chosen: list[int] = []
    rounds = 0
    while queues and len(chosen) < count:
        rounds += 1
        known: set[str] = set()
        for own in sorted(queues, key=lambda own: queues[own][0]):
            if not own <= known:
                known |= own
                chosen.append(queues[own].popleft()[1])
                if not queues[own]:
                    del queues[own]
    return np.array((chosen + bare)[:count], dtype=int), rounds
