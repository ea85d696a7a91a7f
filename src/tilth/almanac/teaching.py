"""Teaching turns: what generation methods ask of a teacher, in the almanac's own compact language.

Each generation method has a full English prompt set for real models and this compact one for
seedlings. :func:`turn` renders what the method asks; :func:`lesson` makes the example from which
the teacher seedling learnt the same turn, so that asking and teaching cannot drift apart.

============  =====================================  ======================================
task          asks                                   for
============  =====================================  ======================================
write         a new task like some examples          self-instruction, goliath, scalequest
answer        an answer, with steps where they help  every generator
explain       an answer with steps                   orca-style traces
harder        the same task with one more step       evolving complexity
repair        a sound task from a spoilt one         query preference tuning
describe      use case and skills of a task          codec
rubric        what a good answer shows               codec
rate_task     complexity of a task, 1 to 6           deita
rate_reply    quality of a reply, 1 to 6             deita, judges
improve       a better reply                         evolving quality
rank_tasks    the complexity of tasks side by side   deita
rank_replies  the quality of replies side by side    deita
invert        the question that a text answers       back-translation
read          the answer from a text                 retrieval
ask           a question that a text answers         question generation from documents
============  =====================================  ======================================
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tilth.almanac.documents import page
from tilth.almanac.pool import corrupt
from tilth.almanac.skills import SKILLS, word_problems
from tilth.almanac.skills._base import Item, Split, split_of
from tilth.almanac.wording import answer as value_answer
from tilth.almanac.wording import question
from tilth.almanac.world import World
from tilth.data.example import Example
from tilth.errors import RecipeError
from tilth.seeds import derive

__all__ = ["SHARES", "TASKS", "lesson", "turn"]

SHARES: dict[str, float] = {
    "write": 0.22,
    "answer": 0.40,
    "explain": 0.04,
    "harder": 0.05,
    "repair": 0.03,
    "describe": 0.04,
    "rubric": 0.02,
    "rate_task": 0.04,
    "rate_reply": 0.05,
    "improve": 0.0,
    "rank_tasks": 0.0,
    "rank_replies": 0.0,
    "invert": 0.04,
    "read": 0.04,
    "ask": 0.03,
}
"""Share of each task among the lessons (our choice: writing and answering carry the main job).

The shipped teacher was not taught the tasks of share 0. Tried with 3 % each of 48,000 lessons it
improved 60 % of poor replies, but rated things side by side at chance (rank correlation .07 for
tasks, .00 for replies) and wrote worse tasks; who needs them tunes a judge on these lessons alone.
"""

TASKS: dict[str, str] = {
    "write": "Write a new task like these:\n{examples}",
    "answer": "{task}",
    "explain": "Explain step by step: {task}",
    "harder": "Make this task harder: {task}",
    "repair": "Repair this task: {task}",
    "describe": "Name the use and the skills of this task: {task}",
    "rubric": "What must a good answer show? Use: {use}. Skills: {skills}.",
    "rate_task": "Rate how hard this task is, 1 to 6: {task}",
    "rate_reply": "Rate this answer, 1 to 6.\nTask: {task}\nAnswer: {reply}",
    "improve": "Write a better answer.\nTask: {task}\nAnswer: {reply}",
    "rank_tasks": "Rate how hard each task is, 1 to 6:\n{tasks}",
    "rank_replies": "Rate each answer, 1 to 6.\nTask: {task}\nAnswers:\n{replies}",
    "invert": "Write the task that has this answer: {reply}",
    "read": "{text}\n\n{task}",
    "ask": "Ask a question about this text:\n{text}",
}

USES: dict[str, str] = {
    "facts": "seed shop",
    "history": "travel guide",
    "word_problems": "counting house",
    "logic": "puzzle page",
    "lists": "store room",
    "functions": "workshop code",
    "second_language": "letters abroad",
    "dialogue": "village talk",
    "voice": "stage play",
    "ethics": "safety board",
}
"""Skill -> use case, the true metadata of a task."""

_RUBRICS: dict[str, str] = {
    "facts": "one right name or word, nothing else",
    "history": "the right name, day or month of that place",
    "word_problems": "every step with its numbers, then the last number",
    "logic": "the order or the group, then one name",
    "lists": "every change of the list in order, then the result",
    "functions": "code that runs and passes every test",
    "second_language": "each word, then the whole in the right order",
    "dialogue": "who said it, then the last word on it",
    "voice": "the opening and the closing of the role",
    "ethics": "help where it is safe, a reason where it is not",
}

RATINGS = {"worked": 6, "bare": 5, "padded": 4, "wrong": 2, "other": 1}
"""Quality of a reply -> its rating: right with steps, right, right but padded, wrong, off topic."""


def turn(task: str, /, **fields: str | Sequence[str]) -> str:
    """The user turn that asks a teacher for `task`.

    Args:
        task: A key of :data:`TASKS`.
        fields: What the task's text needs; ``examples``, ``tasks`` and ``replies`` are sequences,
            the last two get numbers by which the answer names them.

    Raises:
        RecipeError: There is no such task, or a field is missing.

    Example:
        >>> turn("write", examples=["Reverse: a, b.", "Sort: c, a."])
        'Write a new task like these:\\n- Reverse: a, b.\\n- Sort: c, a.'
    """
    if task not in TASKS:
        raise RecipeError(f"no teaching turn {task!r}", "task", f"known: {', '.join(TASKS)}")
    lines = {
        name: value if isinstance(value, str) else _listed(value, numbered=name != "examples")
        for name, value in fields.items()
    }
    try:
        return TASKS[task].format(**lines)
    except KeyError as missing:
        raise RecipeError(f"the turn {task!r} needs the field {missing}", "fields") from missing


def _listed(lines: Sequence[str], *, numbered: bool) -> str:
    marks = (f"[{n}]" for n in range(1, len(lines) + 1)) if numbered else ("-" for _ in lines)
    return "\n".join(f"{mark} {line}" for mark, line in zip(marks, lines, strict=True))


def lesson(index: int, task: str | None = None, split: Split = "train", seed: int = 0) -> Example:
    """Lesson number `index`: a teaching turn and its model answer; the same on every machine.

    Args:
        index: 0, 1, 2, ...
        task: A key of :data:`TASKS`; drawn by :data:`SHARES` where it is None.
        split: The split whose items are used.
        seed: Names an independent sequence of lessons.
    """
    rng = random.Random(derive(seed, "lesson", task or "", index))
    name = task or rng.choices(list(SHARES), list(SHARES.values()))[0]
    prompt, reply = _LESSONS[name](rng, split)
    return Example.pair(prompt, reply, method="almanac.teaching", task=name, lesson=index)


def _item(rng: random.Random, split: Split, skill: str | None = None, level: int = 0) -> Item:
    skill = skill or rng.choice(list(SKILLS))
    # What the text hardly says cannot be learnt; asking for it would teach the teacher to invent.
    known = SKILLS[skill].levels[:3] if skill in ("facts", "history") else SKILLS[skill].levels
    level = level or rng.choice(known)
    return SKILLS[skill].item(rng.randrange(10**9), level=level, split=split)


def _full(item: Item) -> str:
    return item.worked or item.answer


def _write(rng: random.Random, split: Split) -> tuple[str, str]:
    """Examples of one to three skills; the new task is of one of theirs, the first ones' more."""
    kinds = [rng.choice(list(SKILLS)) for _ in range(rng.randint(1, 3))]
    shown = [_item(rng, split, rng.choice(kinds)) for _ in range(rng.randint(2, 4))]
    new = _item(rng, split, rng.choice(shown).skill)
    return turn("write", examples=[i.prompt for i in shown]), new.prompt


def _answer(rng: random.Random, split: Split) -> tuple[str, str]:
    item = _item(rng, split)
    return turn("answer", task=item.prompt), _full(item)


def _explain(rng: random.Random, split: Split) -> tuple[str, str]:
    kind = rng.choice(["word_problems", "lists", "logic", "second_language", "dialogue"])
    item = _item(rng, split, kind)
    return turn("explain", task=item.prompt), _full(item)


def _harder(rng: random.Random, split: Split) -> tuple[str, str]:
    item = _item(rng, split, "word_problems", rng.randint(1, 5))
    return turn("harder", task=item.prompt), word_problems.harder(item).prompt


def _repair(rng: random.Random, split: Split) -> tuple[str, str]:
    item = _item(rng, split, "word_problems")
    return turn("repair", task=word_problems.corrupt(item, rng)), item.prompt


def _describe(rng: random.Random, split: Split) -> tuple[str, str]:
    item = _item(rng, split)
    skills = [item.skill.replace("_", " "), *item.meta.get("operations", ())]
    reply = f"Use: {USES[item.skill]}. Skills: {', '.join(skills)}."
    return turn("describe", task=item.prompt), reply


def _rubric(rng: random.Random, split: Split) -> tuple[str, str]:
    del split
    skill = rng.choice(list(SKILLS))
    prompt = turn("rubric", use=USES[skill], skills=skill.replace("_", " "))
    return prompt, _RUBRICS[skill] + "."


def _rate_task(rng: random.Random, split: Split) -> tuple[str, str]:
    item = _item(rng, split)
    return turn("rate_task", task=item.prompt), str(_hardness(item))


def _rate_reply(rng: random.Random, split: Split) -> tuple[str, str]:
    item = _item(rng, split)
    quality = rng.choice(list(RATINGS))
    reply, rating = _reply(item, quality, rng, split)
    return turn("rate_reply", task=item.prompt, reply=reply), str(rating)


def _reply(item: Item, quality: str, rng: random.Random, split: Split) -> tuple[str, int]:
    """A reply to `item` of a quality, and its rating; ``bare`` where there are no steps to show."""
    if quality == "worked" and not item.worked:
        quality = "bare"
    reply = {
        "worked": item.worked,
        "bare": item.answer,
        "padded": f"{item.answer} And so it is, as everybody says, and nobody doubts it.",
    }.get(quality)
    if quality == "wrong":
        reply = corrupt(item, rng)
    elif quality == "other":
        reply = _full(_item(rng, split))
    return reply or "", RATINGS[quality]


def _improve(rng: random.Random, split: Split) -> tuple[str, str]:
    item = _item(rng, split)
    kinds = ["padded", "wrong", "other", *(["bare"] if item.worked else [])]
    poor, _ = _reply(item, rng.choice(kinds), rng, split)
    return turn("improve", task=item.prompt, reply=poor), _full(item)


def _rank_tasks(rng: random.Random, split: Split) -> tuple[str, str]:
    """Half the time a task and its harder forms, as an evolution makes them; else any tasks."""
    if rng.random() < 0.5:
        chain = [_item(rng, split, "word_problems", rng.randint(1, 3))]
        while len(chain) < rng.randint(4, 6):
            chain.append(word_problems.harder(chain[-1]))
    else:
        chain = [_item(rng, split) for _ in range(rng.randint(4, 6))]
    rng.shuffle(chain)
    reply = _scored([_hardness(item) for item in chain])
    return turn("rank_tasks", tasks=[item.prompt for item in chain]), reply


def _rank_replies(rng: random.Random, split: Split) -> tuple[str, str]:
    item = _item(rng, split)
    kinds = [rng.choice(list(RATINGS)) for _ in range(rng.randint(4, 6))]
    rated = [_reply(item, kind, rng, split) for kind in kinds]
    prompt = turn("rank_replies", task=item.prompt, replies=[reply for reply, _ in rated])
    return prompt, _scored([rating for _, rating in rated])


def _scored(scores: Sequence[int]) -> str:
    return "\n".join(f"[{n}] Score: {score}" for n, score in enumerate(scores, 1))


def _hardness(item: Item) -> int:
    """1 to 6: where the level lies among the skill's levels."""
    levels = len(SKILLS[item.skill].levels)
    return min(6, round(1 + 5 * (item.level - 1) / max(1, levels - 1)))


def _invert(rng: random.Random, split: Split) -> tuple[str, str]:
    kind = rng.choice(["word_problems", "lists", "logic", "second_language", "functions", "voice"])
    item = _item(rng, split, kind)
    return turn("invert", reply=_full(item)), item.prompt


def _page_fact(rng: random.Random, split: Split) -> tuple[str, str, str]:
    """A page, a question about it and its answer, for an entity of the split."""
    facts = World.of().facts
    while True:
        fact = rng.choice(facts)
        if split_of(f"entity:{fact.entity.name}") == split:
            text = page(fact.entity.name)
            return text, question(fact, rng.randrange(8)), value_answer(fact)


def _read(rng: random.Random, split: Split) -> tuple[str, str]:
    text, asked, reply = _page_fact(rng, split)
    return turn("read", text=text, task=asked), reply


def _ask(rng: random.Random, split: Split) -> tuple[str, str]:
    text, asked, _ = _page_fact(rng, split)
    return turn("ask", text=text), asked


_LESSONS: dict[str, Callable[[random.Random, Split], tuple[str, str]]] = {
    "write": _write,
    "answer": _answer,
    "explain": _explain,
    "harder": _harder,
    "repair": _repair,
    "describe": _describe,
    "rubric": _rubric,
    "rate_task": _rate_task,
    "rate_reply": _rate_reply,
    "improve": _improve,
    "rank_tasks": _rank_tasks,
    "rank_replies": _rank_replies,
    "invert": _invert,
    "read": _read,
    "ask": _ask,
}
