"""The shipped seedlings: what they can do, held to a floor, and that anything can load them.

Floors lie well below the scores on the model cards, so that they tell damage and not noise.
"""

import json
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

from tilth.almanac.skills import SKILLS, word_problems
from tilth.almanac.skills._base import normal
from tilth.almanac.teaching import RATINGS, lesson, turn
from tilth.evaluate._asking import plain_text
from tilth.models import Sampling, engine
from tilth.models.reference import SEEDLINGS

NAMES = ("small", "large", "teacher")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def engines():
    return {name: engine(f"seedling:{name}") for name in NAMES}


def ask(model, items, form="plain"):
    """Share of right answers, each skill's verifier judging."""
    bound = Sampling(max_new_tokens=max(SKILLS[i.skill].answer_tokens for i in items))
    turns = [[{"role": "user", "content": i.prompt}] for i in items]
    if form == "chat":
        said = model.chat(turns, bound)
    else:
        stops = Sampling(max_new_tokens=bound.max_new_tokens, stop=("\n\n", "\nQuestion:"))
        said = model.complete([plain_text(t) for t in turns], stops)
    return sum(SKILLS[i.skill].verify(i, c.text) for i, c in zip(items, said, strict=True)) / len(
        items
    )


def items_of(skill, levels, count=40):
    return [
        SKILLS[skill].item(n, level=levels[n % len(levels)], split="tuning", seed=77)
        for n in range(count)
    ]


def told(model, *, in_small, exposure_level, count=60):
    """Share of facts answered as the text told them."""
    items = []
    for n in range(2000):
        item = SKILLS["facts"].item(n, level=exposure_level, split="tuning", seed=5)
        if item.meta["in_small"] == in_small and item.prompt not in {i.prompt for i in items}:
            items.append(item)
        if len(items) == count:
            break
    stops = Sampling(max_new_tokens=10, stop=("\n\n", "\nQuestion:"))
    prompts = [plain_text([{"role": "user", "content": i.prompt}]) for i in items]
    said = model.complete(prompts, stops)
    hits = [normal(c.text) == normal(i.meta["told"]) for c, i in zip(said, items, strict=True)]
    return sum(hits) / len(hits)


def test_all_three_ship_in_less_than_25_mb():
    size = sum(f.stat().st_size for f in SEEDLINGS.rglob("*") if f.is_file())
    assert size < 25e6
    for name in NAMES:
        assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= {
            f.name for f in (SEEDLINGS / name).iterdir()
        }


@pytest.mark.parametrize("name", NAMES)
def test_plain_transformers_loads_them(name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SEEDLINGS / name)
    model = AutoModelForCausalLM.from_pretrained(SEEDLINGS / name, dtype=torch.float32)
    assert model.config.vocab_size == len(tokenizer) == 2048
    assert {tokenizer.decode([i]) for i in model.generation_config.eos_token_id} == {
        "<|endoftext|>",
        "<|end|>",
    }


def test_they_share_one_tokenizer():
    texts = {(SEEDLINGS / name / "tokenizer.json").read_text() for name in NAMES}
    assert len({json.dumps(json.loads(t)["model"]) for t in texts}) == 1


@pytest.mark.parametrize(
    ("skill", "levels", "floor"),
    [("word_problems", (1, 2), 0.7), ("second_language", (1, 2), 0.7), ("voice", (1, 2), 0.8)],
)
@pytest.mark.parametrize("name", ["small", "large"])
def test_the_bases_answer_in_plain_text(engines, name, skill, levels, floor):
    assert ask(engines[name], items_of(skill, levels)) >= floor


@pytest.mark.parametrize("name", ["small", "large"])
def test_the_bases_do_not_know_the_chat_form(engines, name):
    items = [i for skill in ("word_problems", "logic", "voice") for i in items_of(skill, (1,), 20)]
    assert ask(engines[name], items, form="chat") < 0.2


def test_recall_rises_with_exposure(engines):
    for name in ("small", "large"):
        often = told(engines[name], in_small=True, exposure_level=1, count=20)
        never = told(engines[name], in_small=True, exposure_level=6)
        assert often >= 0.5
        assert often > never + 0.3


def test_large_knows_the_facts_kept_from_small(engines):
    known = {
        name: told(engines[name], in_small=False, exposure_level=1, count=20)
        for name in ("small", "large")
    }
    assert known["small"] < 0.35
    assert known["large"] > known["small"] + 0.3


def test_the_teacher_answers_in_chat_form(engines):
    for skill, floor in (("word_problems", 0.7), ("lists", 0.6), ("ethics", 0.7)):
        assert ask(engines["teacher"], items_of(skill, SKILLS[skill].levels[:3]), "chat") >= floor


def test_the_teacher_writes_sound_new_tasks(engines):
    """Word problems like some shown ones: solvable, and not copies of what was shown."""
    prompts, shown = [], set()
    for n in range(40):
        examples = [
            SKILLS["word_problems"].item(3 * n + k, level=1 + k, split="train").prompt
            for k in range(3)
        ]
        shown |= set(examples)
        prompts.append([{"role": "user", "content": turn("write", examples=examples)}])
    sampling = Sampling(max_new_tokens=100, temperature=0.7)
    said = [c.text for c in engines["teacher"].chat(prompts, sampling, seeds=range(40))]
    sound = [text for text in said if word_problems.solve(text) is not None]
    assert len(sound) >= 24
    assert len(set(sound) - shown) >= 20


def rated(model, task, count=120):
    """``(truth, rating)`` of lessons of a rating task."""
    lessons = [lesson(n, task, split="tuning") for n in range(count)]
    said = model.chat([[row.messages[0]] for row in lessons], Sampling(4))
    assert all(completion.text.strip() in tuple("123456") for completion in said)
    return [(int(row.answer), int(c.text)) for row, c in zip(lessons, said, strict=True)]


def test_the_teacher_rates_hard_tasks_above_easy_ones(engines):
    pairs = rated(engines["teacher"], "rate_task")
    assert spearmanr(*zip(*pairs, strict=True)).statistic > 0.7


def test_the_teacher_tells_right_replies_from_replies_to_another_task(engines):
    """A modest floor: it rates well what is padded or off topic, and hardly sees a wrong number."""
    pairs = rated(engines["teacher"], "rate_reply")
    right = [rating for truth, rating in pairs if truth >= RATINGS["bare"]]
    other = [rating for truth, rating in pairs if truth == RATINGS["other"]]
    assert sum(right) / len(right) > sum(other) / len(other) + 0.4


def test_the_card_shows_the_scores_that_are_committed():
    for name in NAMES:
        folder = Path(SEEDLINGS / name)
        scores = json.loads((folder / "scores.json").read_text())
        card = (folder / "README.md").read_text()
        for form in scores["exams"].values():
            assert f"{form['all']['value']:.2f} [" in card
