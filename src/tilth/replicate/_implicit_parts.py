"""Parts of the cells of `implicit-tuning`: rows, rules, questions, asking with a penalty."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tilth.almanac.exams import exam
from tilth.almanac.field_plan import field_plan
from tilth.almanac.pool import pool
from tilth.almanac.skills import SKILLS, Item
from tilth.data.example import Example
from tilth.data.transforms import shuffled_instructions
from tilth.evaluate.ranking import draw, rank, ranking_scores
from tilth.models import Completion, Engine, encode_chat, load_tokenizer
from tilth.models.local import LocalEngine
from tilth.seeds import Seed

__all__ = [
    "OTHERS",
    "SINGLES",
    "penalised",
    "questions",
    "ranked",
    "rule_file",
    "training_rows",
]

SINGLES = ("word_problems", "lists", "second_language")
"""Families of the single-task arms."""

OTHERS = ("voice", "functions", "logic", "history")
"""Families on which all arms are judged; no single-task arm is trained on one of them. The best
constant answers score 0, 0, .27 and .07 there."""

_OPENERS = ("What", "Which", "Write", "Speak", "Say", "Translate", "You", "Who", "When")
TAG_TOKENS = (
    *("Question", "Answer", "\n", " Question", "What", "You"),
    *(f" {word}" for word in _OPENERS),
)
"""The fifteen tokens of rule 2: with which the base echoes a tag or begins another instruction."""

RAMP, RAMP_TOKENS, BIAS, SEEN = 15.0, 60, -6.0, -0.5
"""The ramp's weight is the published one; its length fits answers of 10 to 60 tokens (250 there).
The others were chosen on a tuning seed among -5, -6 and -10, and among 0, -0.5 and -1.5."""


def training_rows(kind: str, count: int, seed: int) -> list[Example]:
    """The training rows of an arm, from the train split.

    Args:
        kind: ``all`` families; ``shuffled``: the same rows with other rows' instructions;
            ``others-left-out``: without the families on which the arms are judged; ``field_plan``;
            or the name of one family.
        count: Rows.
        seed: Names the rows.
    """
    if kind == "field_plan":
        return [field_plan(n, seed) for n in range(count)]
    families = (kind,) if kind in SKILLS else tuple(SKILLS)
    if kind == "others-left-out":
        families = tuple(name for name in SKILLS if name not in OTHERS)
    shares = dict.fromkeys(families, 1.0)
    rows = list(pool(count, shares, qualities={"worked": 1.0}, seed=seed))
    return list(shuffled_instructions(rows, seed)) if kind == "shuffled" else rows


def rule_file(path: Path, rules: Sequence[str], model: str, seed: int) -> Path:
    """Writes some of the rules ``eos``, ``bias``, ``random`` and ``seen`` as a rule set.

    ``random`` is the control of ``bias``: as many tokens with the same weight, drawn by `seed`.
    """
    written: list[dict[str, Any]] = []
    for rule in rules:
        if rule == "eos":
            written.append({"kind": "eos_ramp", "weight": RAMP, "range": RAMP_TOKENS})
        elif rule == "seen":
            written.append({"kind": "seen_penalty", "weight": SEEN})
        else:
            strings: list[str] | list[int] = list(TAG_TOKENS)
            if rule == "random":
                tokenizer = load_tokenizer(model)
                ordinary = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
                strings = random.Random(seed).sample(ordinary, len(TAG_TOKENS))
            place = "tokens" if rule == "random" else "strings"
            written.append({"kind": "token_bias", "weight": BIAS, place: strings})
    body = {"name": "almanac", "scope": "turn", "rules": written}
    path.write_text(json.dumps(body, indent=1), encoding="utf-8")  # JSON is YAML
    return path


def questions(seed: Seed, per_level: int) -> list[Item]:
    """Held-out questions of the families that no single-task arm has seen."""
    return exam(OTHERS, per_level, seed)


def ranked(model: Engine, seed: Seed) -> dict[str, np.ndarray]:
    """Per held-out question the share of 5 random answers that the model ranks below its own."""
    rows = [item.example() for item in exam(None, 3, seed, levels=(1, 2))]
    drawn = draw(rows, 1000, 5, 0, official=False)
    return rank(*ranking_scores(model, rows, drawn))


def penalised(
    model: Engine, conversations: Sequence[list[Any]], max_new_tokens: int, penalty: float
) -> list[Completion]:
    """Greedy answers under a repetition penalty (Keskar et al. 2019, arXiv:1909.05858)."""
    import torch

    assert isinstance(model, LocalEngine)
    network: Any = model.model
    ends = set(network.generation_config.eos_token_id)
    said = []
    for conversation in conversations:
        ids = encode_chat(model.tokenizer, conversation, True).input_ids
        ids_BT = torch.tensor([ids])
        with torch.inference_mode():
            whole_BT = network.generate(
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                repetition_penalty=penalty,
            )
        new = whole_BT[0, len(ids) :].tolist()
        text = str(model.tokenizer.decode(new, skip_special_tokens=True)).strip()
        ended = bool(new) and new[-1] in ends
        said.append(Completion(text, "stop" if ended else "length", len(ids), len(new)))
    return said
