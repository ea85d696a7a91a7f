"""Facts to ask about as graded questions, and questions about entities that do not exist.

A stranger has a name made as all others are, and no fact anywhere. Its question is paired with the
same question about an entity that does exist, so that refusing the one can be told from refusing
whatever sounds like it. The hash of its name decides a stranger's split, as that of any entity.

    When do you sow Travonin?   (exists)     ->  June
    When do you sow Drellorum?  (a stranger)  ->  nobody knows
"""

from __future__ import annotations

import random
from collections.abc import Collection

from tilth.almanac.skills._base import Split, split_of
from tilth.almanac.wording import answer, question
from tilth.almanac.world import RELATIONS, Entity, Fact, World
from tilth.data.example import Example
from tilth.seeds import derive

__all__ = ["fact_questions", "stranger_questions"]


def fact_questions(
    relations: Collection[str], split: Split, seed: int = 0, count: int | None = None
) -> list[Example]:
    """Questions about the facts of a split's entities, with exposure in ``meta``.

    Args:
        relations: Whose facts are asked for.
        split: The split of the entities.
        seed: Draws the wording, and which facts, where not all are wanted.
        count: How many; all by default.

    Returns:
        Question and true answer; ``meta`` has ``relation``, ``entity``, ``exposure``, ``told``
        (what the text says) and ``misstated``.
    """
    rng = random.Random(derive(seed, "fact questions", split))
    facts = [fact for fact in _facts(relations) if split_of(f"entity:{fact.entity.name}") == split]
    rng.shuffle(facts)
    return [_example(fact, rng.randrange(8)) for fact in facts[:count]]


def stranger_questions(
    relations: Collection[str],
    split: Split,
    seed: int = 0,
    count: int | None = None,
    least_exposure: int = 64,
) -> list[Example]:
    """Pairs of questions: about a stranger, and about a well-known entity, in the same words.

    Args:
        relations: Of varieties, places or pests; advice cannot be asked for, since its question
            names the entity's own crop.
        split: The split of strangers and entities.
        seed: Draws pairs and wording.
        count: How many pairs; as many as there are strangers or known facts by default.
        least_exposure: Exposure of the facts that are asked of existing entities.

    Returns:
        Two rows per pair, which share ``meta["pair"]``; the stranger's has no answer, and
        ``meta["answerable"]`` is false.
    """
    rng = random.Random(derive(seed, "stranger questions", split))
    world = World.of()
    names = {
        kind: [n for n in twins if split_of(f"entity:{n}") == split]
        for kind, twins in world.twins.items()
    }
    for twins in names.values():
        rng.shuffle(twins)
    known = [
        fact
        for fact in _facts(set(relations) - {"advice"})
        if fact.exposure >= least_exposure
        and not fact.misstated
        and split_of(f"entity:{fact.entity.name}") == split
    ]
    rng.shuffle(known)
    rows: list[Example] = []
    for fact in known:
        kind = RELATIONS[fact.relation][0]
        if not names[kind] or (count is not None and len(rows) >= 2 * count):
            continue
        stranger = Entity(kind, names[kind].pop(), False)
        form, pair = rng.randrange(8), f"{stranger.name}/{fact.entity.name}"
        asked = question(Fact(stranger, fact.relation, "", "", 0), form)
        meta = {"relation": fact.relation, "entity": stranger.name, "pair": pair}
        rows.append(Example([{"role": "user", "content": asked}], {**meta, "answerable": False}))
        row = _example(fact, form)
        row.meta["pair"] = pair
        rows.append(row)
    return rows


def _facts(relations: Collection[str]) -> list[Fact]:
    unknown = set(relations) - set(RELATIONS)
    if unknown:
        raise KeyError(*sorted(unknown))
    return [fact for fact in World.of().facts if fact.relation in relations]


def _example(fact: Fact, form: int) -> Example:
    return Example.pair(
        question(fact, form),
        answer(fact),
        method="almanac",
        relation=fact.relation,
        entity=fact.entity.name,
        exposure=fact.exposure,
        told=answer(fact, told=True),
        misstated=fact.misstated,
    )
