"""Measures a seedling and writes its model card: what it can do, and what it cannot.

All figures come from the exams of *tuning* seeds, so that no test exam is looked at to describe,
and thereby to choose, a model. Each seedling is asked in plain question-and-answer text and in
chat form, so that what it knows can be told from whether it knows the form.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tilth.almanac.seedlings.pretrain import SIZES
from tilth.almanac.skills import SKILLS
from tilth.almanac.skills._base import Item, Split, normal
from tilth.almanac.skills.word_problems import solve
from tilth.almanac.teaching import lesson, turn
from tilth.almanac.world import WORLD_SEED
from tilth.data.example import Message
from tilth.seeds import SeedPlan
from tilth.stats import bootstrap

__all__ = ["CARD_SEEDS", "facts_by_exposure", "measure", "write_card"]

CARD_SEEDS = (9001, 9002, 9003)
"""Tuning seeds of the card's exams; no recipe uses them (our choice)."""

FORMS: dict[str, dict[str, Any]] = {
    "plain": {"form": "plain", "shots": 0},
    "plain, 2 shots": {"form": "plain", "shots": 2},
    "chat": {"form": "chat", "shots": 0},
}

_EXACT = {
    "describe": "names use and skills as the almanac does",
    "rubric": "names what a good answer shows",
    "read": "finds the answer to a question in a page",
}
_RATED = {
    "rate_task": "rank correlation of its rating with the level of a task",
    "rate_reply": "rank correlation of its rating with the quality of a reply",
}

_TOLD = {
    "small": "A base language model of a million parameters, for trying methods in seconds.",
    "large": "A base language model that knows more facts and solves harder levels than `small`.",
    "teacher": "`large`, tuned on teaching turns: writes, answers, complicates and rates tasks.",
}

_TEMPLATE = """\
---
license: apache-2.0
library_name: transformers
tags: [tilth, seedling]
---
# seedling:{name}

{told}

Llama architecture, {layers} layers x {width}, {parameters:,} parameters, 2,048 byte-level pieces,
made from world seed {seed}. It reads and writes the almanac's language: short English about an
invented farming world. It is a test bed for methods, not a model of the real world: what it says
about anything outside the almanac means nothing.

## Scores

Exact answers on exams of tuning seeds {seeds}; mean with 95 % interval over seeds and questions.
"Plain" is `Question: ... Answer:` text, "chat" the chat form{chat_note}.

{scores}

## Facts by exposure

How often pre-training stated the fact, and how often the model answers with what the text *told*
(facts told wrongly count as told), with the number of questions. `small` reads about half of the
entities; the other half, which only `large` and `teacher` read about, is shown apart.

{facts}
{teaching}
## Made with

    tilth seedlings train {name}

Deterministic for the same seed, versions and kind of processor. Weights are bfloat16 safetensors.
"""


def measure(folder: Path, per_level: int = 12) -> dict[str, list[dict[str, Any]]]:
    """The score rows of every form (see :data:`FORMS`), asked with the card's tuning seeds."""
    from tilth.evaluate.exams import Exams

    plan = SeedPlan.of(tuning=CARD_SEEDS, testing=[])
    rows = {}
    with TemporaryDirectory() as place:
        for form, settings in FORMS.items():
            exam = Exams(model=str(folder), per_level=per_level, phase="tuning", **settings)
            done = exam.to(Path(place) / form.replace(", ", "-"), plan=plan)
            with done.path("scores.jsonl").open(encoding="utf-8") as lines:
                rows[form] = [json.loads(line) for line in lines]
    return rows


def _item(name: str) -> Item:
    """The item that an id names."""
    skill, level, split, seed, index = name.split("/")
    known: Split = split  # type: ignore[assignment]  # ids are written by Skill.item alone
    return SKILLS[skill].item(int(index), level=int(level), split=known, seed=int(seed))


def facts_by_exposure(rows: list[dict[str, Any]]) -> dict[tuple[bool, int], list[float]]:
    """``(read by small, exposure)`` -> 1 for every answer that says what the text told, else 0."""
    told: dict[tuple[bool, int], list[float]] = defaultdict(list)
    for row in rows:
        if row["skill"] in ("facts", "history"):
            meta = _item(row["item"]).meta
            said = normal(row["output"]) == normal(meta["told"])
            told[meta["in_small"], meta["exposure"]].append(float(said))
    return dict(sorted(told.items()))


def measure_teaching(folder: Path, count: int = 200) -> dict[str, float]:
    """How well a teacher does its turns, on `count` lessons each of the tuning split.

    Exact answers for turns with one right answer; Spearman's rank correlation with the truth for
    ratings; for ``write``, the share of word problems that have an answer.
    """
    from scipy.stats import spearmanr

    from tilth.models import Sampling, engine

    model = engine(str(folder))
    scores: dict[str, float] = {}
    for task in (*_EXACT, *_RATED):
        lessons = [lesson(n, task, split="tuning") for n in range(count)]
        said = model.chat([[row.messages[0]] for row in lessons], Sampling(64))
        texts = [completion.text.strip() for completion in said]
        if task in _EXACT:
            hits = [normal(t) == normal(row.answer) for t, row in zip(texts, lessons, strict=True)]
            scores[task] = sum(hits) / count
        else:
            given = [int(t) if t in tuple("123456") else 0 for t in texts]
            truth = [int(row.answer) for row in lessons]
            scores[task] = float(spearmanr(given, truth).statistic)
    shown = [
        [
            SKILLS["word_problems"].item(3 * n + k, level=1 + k, split="tuning").prompt
            for k in (0, 1)
        ]
        for n in range(count)
    ]
    asked: list[list[Message]] = [
        [{"role": "user", "content": turn("write", examples=examples)}] for examples in shown
    ]
    sampling = Sampling(max_new_tokens=128, temperature=0.7)
    written = model.chat(asked, sampling, seeds=range(count))
    scores["write"] = sum(solve(c.text) is not None for c in written) / count
    return scores


def write_card(name: str, folder: Path) -> Path:
    """Measures the seedling in `folder` and writes ``README.md`` and ``scores.json`` there."""
    from safetensors import safe_open

    rows = measure(folder)
    teaching = {} if name in SIZES else measure_teaching(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    with safe_open(folder / "model.safetensors", framework="np") as weights:
        shapes = [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118
    parameters = sum(math.prod(shape) for shape in shapes)
    summary = _summary(rows)
    text = _TEMPLATE.format(
        name=name,
        told=_TOLD[name],
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        parameters=parameters,
        seed=WORLD_SEED,
        seeds=", ".join(map(str, CARD_SEEDS)),
        chat_note=", which the base models have never seen" if name in SIZES else "",
        scores=_score_table(summary),
        facts=_fact_table(rows),
        teaching=_teaching_table(teaching),
    )
    scores = {"exams": summary, "teaching": teaching}
    (folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    card = folder / "README.md"
    card.write_text(text, "utf-8")
    return card


def _summary(rows: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Form -> skill (and ``all``, and ``skill/level``) -> estimate."""
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for form, scored in rows.items():
        groups: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in scored:
            for group in ("all", row["skill"], f"{row['skill']}/{row['level']}"):
                groups[group][row["seed"]].append(row["score"])
        summary[form] = {
            group: bootstrap(list(by_seed.values()), resamples=2000).as_dict()
            for group, by_seed in groups.items()
        }
    return summary


def _score_table(summary: dict[str, dict[str, dict[str, Any]]]) -> str:
    forms = list(summary)
    lines = [f"| skill | blind | {' | '.join(forms)} |", "|---" * (len(forms) + 2) + "|"]
    for group in ("all", *(g for name in SKILLS for g in summary[forms[0]] if _of(g, name))):
        cells = [
            f"{s['value']:.2f} [{s['low']:.2f}, {s['high']:.2f}]"
            for s in (summary[form][group] for form in forms)
        ]
        blind = f"{SKILLS[group].chance:.2f}" if group in SKILLS else ""
        label = group.replace("_", " ").replace("/", ", level ")
        lines.append(f"| {label} | {blind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of(group: str, skill: str) -> bool:
    return group == skill or group.startswith(f"{skill}/")


def _fact_table(rows: dict[str, list[dict[str, Any]]]) -> str:
    exposures = (0, 1, 4, 16, 64, 256)
    lines = [
        f"| form | entities | {' | '.join(f'{e} times' for e in exposures)} |",
        "|---" * (len(exposures) + 2) + "|",
    ]
    for form, scored in rows.items():
        told = facts_by_exposure(scored)
        for read, label in ((True, "read by both"), (False, "not read by small")):
            cells = []
            for exposure in exposures:
                hits = told.get((read, exposure), [])
                cells.append(f"{sum(hits) / len(hits):.2f} of {len(hits)}" if hits else "")
            lines.append(f"| {form} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _teaching_table(scores: dict[str, float]) -> str:
    if not scores:
        return ""
    told = {**_EXACT, **_RATED, "write": "word problems it writes that have an answer"}
    lines = [f"| {task} | {told[task]} | {scores[task]:.2f} |" for task in told]
    head = "\n## Teaching turns\n\nOn lessons of the tuning split.\n"
    return "\n".join([head, "| turn | measure | figure |", "|---|---|---|", *lines]) + "\n"
