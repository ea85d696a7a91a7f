"""What is written about the world: pages, notes, tables, as text and as PDF.

Two uses. Pre-training reads *editions*: short documents that state each fact exactly as often as
its exposure says, rightly or wrongly. Retrieval and question generation read *pages*: the current
almanac, one page an entity, which states every fact (also those that no pre-training text holds)
and always the truth.
"""

from __future__ import annotations

import random
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from tilth.almanac.skills._base import split_of
from tilth.almanac.wording import answer, question, statement, value_of
from tilth.almanac.world import RELATIONS, WORLD_SEED, Entity, Fact, World
from tilth.seeds import derive

__all__ = ["editions", "page", "pages", "qa_document", "write_pdf"]

_TABLE_SHARE = 0.15
_QA_SHARE = 0.20
"""Of the editions of entities in the corpus split; over all entities this makes about 8 %."""


def editions(world: World, *, small: bool, seed: int = 0) -> Iterator[str]:
    """Every edition of every entity: the facts' share of the pre-training text.

    Args:
        world: The world.
        small: Leave out the entities that the small seedling never reads about.
        seed: Names the draw of wordings; exposures do not depend on it.
    """
    for entity, facts in _facts_by_entity(world).items():
        if small and not entity.in_small:
            continue
        rng = random.Random(derive(seed, "editions", entity.name))
        number = max(f.exposure for f in facts)
        stated: dict[int, list[Fact]] = defaultdict(list)
        for fact in facts:
            for edition in rng.sample(range(number), fact.exposure):
                stated[edition].append(fact)
        asks = split_of(f"entity:{entity.name}") == "corpus"
        for members in stated.values():
            rng.shuffle(members)
            yield _edition(rng, entity, members, asks)


def _facts_by_entity(world: World) -> dict[Entity, list[Fact]]:
    grouped: dict[Entity, list[Fact]] = defaultdict(list)
    for fact in world.facts:
        grouped[fact.entity].append(fact)
    return grouped


def _edition(rng: random.Random, entity: Entity, facts: Sequence[Fact], asks: bool) -> str:
    draw = rng.random()
    if asks and draw < _QA_SHARE:
        return qa_document((question(f, rng.randrange(8)), answer(f, told=True)) for f in facts)
    if draw > 1 - _TABLE_SHARE:
        return table(entity, facts, told=True)
    return " ".join(statement(f, rng.randrange(8)) for f in facts)


def qa_document(pairs: Iterable[tuple[str, str]]) -> str:
    """Question-and-answer text: the plain form of the seedlings."""
    return "\n\n".join(f"Question: {q}\nAnswer: {a}" for q, a in pairs)


def table(entity: Entity, facts: Sequence[Fact], *, told: bool) -> str:
    """A name and a line per fact, ``relation: value``."""
    lines = [entity.name]
    for fact in facts:
        label = fact.relation
        if fact.relation == "advice":
            label = f"sow {fact.value.split()[0]}"
        lines.append(f"{label}: {value_of(fact.relation, fact.told if told else fact.value)}")
    return "\n".join(lines)


@cache
def _index(seed: int) -> dict[str, tuple[Entity, tuple[Fact, ...]]]:
    grouped = _facts_by_entity(World.of(seed))
    return {entity.name: (entity, tuple(facts)) for entity, facts in grouped.items()}


def page(name: str, seed: int = WORLD_SEED) -> str:
    """The current almanac's page about an entity: a heading, prose, a table, always the truth.

    Raises:
        KeyError: The world has no entity of that name.
    """
    entity, facts = _index(seed)[name]
    rng = random.Random(derive(seed, "page", name))
    truths = [Fact(f.entity, f.relation, f.value, f.value, f.exposure) for f in facts]
    prose = " ".join(statement(f, rng.randrange(8)) for f in truths)
    return f"{name}\n\n{prose}\n\n{table(entity, truths, told=False)}"


def pages(kind: str | None = None, seed: int = WORLD_SEED) -> Iterator[tuple[str, str]]:
    """``(name, page)`` of every entity, or of those of one kind."""
    if kind is not None and kind not in {k for k, _ in RELATIONS.values()}:
        raise KeyError(kind)
    for name, (entity, _) in _index(seed).items():
        if kind in (None, entity.kind):
            yield name, page(name, seed)


def write_pdf(texts: Iterable[str], path: Path | str) -> Path:
    """Renders texts to a real PDF, A4, one page each, with text that can be extracted again.

    Args:
        texts: Plain texts; long lines are wrapped at 88 characters, at most 60 lines fit a page.
        path: The file to write.

    Raises:
        ValueError: A text is longer than a page.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    path = Path(path)
    fixed = {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}
    with mpl.rc_context({"pdf.fonttype": 42}), PdfPages(path, metadata=fixed) as pdf:
        for number, text in enumerate(texts, start=1):
            lines = [w for line in text.split("\n") for w in (textwrap.wrap(line, 88) or [""])]
            if len(lines) > 60:
                raise ValueError(f"text {number} has {len(lines)} lines; a page holds 60")
            figure = Figure(figsize=(8.27, 11.69))
            for row, line in enumerate(lines):
                size = 16 if row == 0 else 10
                y = 0.93 - 0.0145 * row
                figure.text(0.1, y, line, size=size, va="top", parse_math=False)
            pdf.savefig(figure)
    return path
