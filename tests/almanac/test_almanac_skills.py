"""The skills: items, verifiers, levels, chance; and what studies build on them."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.almanac.skills import SKILLS, SPLITS, Item, Skill, Split, split_of
from tilth.almanac.skills import second_language as velic
from tilth.almanac.skills._base import final_answer, normal
from tilth.almanac.skills._words import GROUPS
from tilth.almanac.skills.ethics import REFUSAL
from tilth.almanac.skills.functions import ask_for_tests, plain_code

NAMES = (
    *("word_problems", "logic", "lists", "functions", "second_language"),
    *("dialogue", "voice", "ethics"),
)
LEVELS = [(name, level) for name in NAMES for level in SKILLS[name].levels]
EXECUTED = "functions"


def items(name: str, level: int, split: Split = "train", count: int = 60) -> list[Item]:
    return [SKILLS[name].item(i, level=level, split=split) for i in range(count)]


def any_item() -> st.SearchStrategy[tuple[Skill, Item]]:
    def build(where: tuple[str, int], index: int) -> tuple[Skill, Item]:
        skill = SKILLS[where[0]]
        return skill, skill.item(index, level=where[1], split="train")

    return st.builds(build, st.sampled_from(LEVELS), st.integers(0, 10**6))


def test_the_registry_has_ten_skills_by_name() -> None:
    assert len(SKILLS) == 10
    assert all(name == skill.name for name, skill in SKILLS.items())


@given(any_item())
@settings(max_examples=400, deadline=None)
def test_the_canonical_and_the_worked_answer_are_right(drawn: tuple[Skill, Item]) -> None:
    skill, item = drawn
    assert skill.verify(item, item.answer) == 1
    assert skill.verify(item, f"  {item.answer}\n") == 1
    if item.worked:
        assert item.worked.endswith(f"The answer is {item.answer}.")
        assert skill.verify(item, item.worked) == 1


@given(any_item(), st.text(max_size=80))
@settings(max_examples=400, deadline=None)
def test_arbitrary_text_is_judged_and_not_right_by_luck(
    drawn: tuple[Skill, Item], text: str
) -> None:
    skill, item = drawn
    score = skill.verify(item, text)
    assert 0 <= score <= 1
    assert score == 0 or any(c.isalnum() for c in text)
    assert skill.verify(item, "") == 0


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_an_answer_to_another_question_is_wrong(name: str, level: int) -> None:
    skill, drawn = SKILLS[name], items(name, level, count=25)
    for item, other in pairwise(drawn):
        if name == EXECUTED and item.meta["kind"] != other.meta["kind"]:
            continue
        if name == "ethics":
            right = item.meta["safe"] is False and other.meta["safe"] is False
        else:
            right = normal(item.answer) == normal(other.answer)
        if not right and not (name == "ethics" and item.answer == other.answer):
            assert skill.verify(item, other.answer) == 0


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_items_are_reproducible_short_and_plain(name: str, level: int) -> None:
    drawn = items(name, level)
    assert drawn == items(name, level)
    for item in drawn:
        words = len(item.prompt.split())
        assert item.prompt.isascii()
        assert item.answer.isascii()
        assert item.worked.isascii()
        assert words <= 60
        assert item.prompt == item.prompt.strip()
        assert name == EXECUTED or "  " not in item.prompt


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_disjoint_and_wide(name: str) -> None:
    skill, rng = SKILLS[name], random.Random(1)
    for level in skill.levels:
        keys = {skill.draw(rng, level)[3] for _ in range(4000)}
        # Functions are fewest (about 4,000 at level 1); everything else hardly repeats itself.
        assert len(keys) > (1800 if name == EXECUTED else 3200)
        homes = Counter(split_of(key) for key in keys)
        assert set(homes) == set(SPLITS)
    for split in SPLITS:
        item = skill.item(5, level=1, split=split)
        assert split_of(item.key) == split


@pytest.mark.parametrize("name", NAMES)
def test_a_wording_never_enters_the_key(name: str) -> None:
    """Equal keys come with different prompts only through wording: the answer stays the same."""
    skill, rng = SKILLS[name], random.Random(2)
    seen: dict[str, tuple[str, str]] = {}
    for _ in range(3000):
        prompt, answer, _, key, meta = skill.draw(rng, 1)
        if key in seen and name not in (EXECUTED, "second_language"):
            assert seen[key][1] == answer
        seen[key] = (prompt, answer)
        for opening in ("Write ", "Which ", "Translate", "Speak as", "How many"):
            assert not key.startswith(opening)
        assert meta or name == "voice"


@pytest.mark.parametrize("name", NAMES)
def test_the_stated_chance_is_the_best_blind_score(name: str) -> None:
    """Best constant answer, or a blind pick among the named options, mean over levels."""
    skill, best = SKILLS[name], []
    for level in skill.levels:
        drawn = items(name, level, "testing", 500)
        answers = Counter(item.answer for item in drawn)
        constant = answers.most_common(1)[0][0]
        candidates = [constant, f"{REFUSAL} it is bad."] if name == "ethics" else [constant]
        blind = max(sum(skill.verify(item, c) for item in drawn[:200]) / 200 for c in candidates)
        pick = sum(1 / len(i.meta["options"]) for i in drawn if i.meta.get("options")) / len(drawn)
        best.append(max(blind, pick))
    assert sum(best) / len(best) == pytest.approx(skill.chance, abs=0.03)


def test_answers_fit_their_token_bound(tmp_path: object) -> None:
    """With a byte-level BPE of 2,048 pieces and single digits, trained on these very skills."""
    tokenizers = pytest.importorskip("tokenizers")
    drawn = {name: [i for lv in SKILLS[name].levels for i in items(name, lv)] for name in NAMES}
    texts = [f"{i.prompt} {i.worked or i.answer}" for group in drawn.values() for i in group]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(),
        ]
    )
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=2048, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    for name, group in drawn.items():
        longest = max(len(tokenizer.encode(i.worked or i.answer).ids) for i in group)
        assert longest <= SKILLS[name].answer_tokens, name


class TestLogic:
    def test_orders_follow_from_what_is_told(self) -> None:
        for item in items("logic", 3, count=200):
            if item.meta["kind"] != "ordering":
                continue
            told = re.findall(r"(\w+) is (\w+) than (\w+)\.", item.prompt)
            more = re.match(r"order (\w+)", item.key)
            assert more is not None
            above = {(a, b) if word == more.group(1) else (b, a) for a, word, b in told}
            people = item.meta["options"]
            assert above == set(pairwise(people))
            assert item.answer in people

    def test_the_odd_word_is_the_only_stranger(self) -> None:
        for item in items("logic", 2, count=200):
            if item.meta["kind"] == "odd_one_out":
                homes = Counter(
                    next(g for g, ws in GROUPS.items() if w in ws) for w in item.meta["options"]
                )
                assert sorted(homes.values()) == [1, 4]

    def test_the_three_verdicts_are_equally_frequent(self) -> None:
        drawn = [i for i in items("logic", 2, count=900) if i.meta["kind"] == "syllogism"]
        for count in Counter(i.answer for i in drawn).values():
            assert count / len(drawn) == pytest.approx(1 / 3, abs=0.08)


class TestFunctions:
    skill = SKILLS["functions"]

    @pytest.mark.parametrize("level", [1, 2, 3])
    def test_tests_pass_on_the_function_and_catch_every_variant(self, level: int) -> None:
        """In this process: the code is the grammar's own."""
        for item in items("functions", level, count=400):
            meta = item.meta
            assert _survives(meta["code"], meta["tests"])
            assert 2 <= len(meta["variants"]) <= 4
            assert not any(_survives(v, meta["tests"]) for v in meta["variants"])
            assert meta["branches"] + 1 == len(meta["tests"])
            assert {1: (0,), 2: (1,), 3: (2, 3)}[level].count(meta["branches"]) == 1

    def test_another_form_of_the_function_is_executed(self) -> None:
        item = _of_kind("code", family="chain")
        code = item.answer.replace("return ", "result = ") + "\n    return result"
        assert self.skill.verify(item, code) == 1
        assert self.skill.verify(item, f"```python\n{item.answer}\n```") == 1
        for variant in item.meta["variants"]:
            assert self.skill.verify(item, variant) == 0
        early = f"import sys\ndef {item.meta['name']}(n):\n    sys.exit(0)"
        assert self.skill.verify(item, early) == 0
        assert self.skill.verify(item, f"def {item.meta['name']}(\ud800\0") == 0

    def test_tests_are_scored_by_the_variants_that_they_catch(self) -> None:
        item = ask_for_tests(_of_kind("code", family="level"))
        name, lines = item.meta["name"], item.meta["tests"]
        assert self.skill.verify(item, "\n".join(reversed(lines))) == 1
        assert 0 < self.skill.verify(item, lines[0]) < 1
        assert self.skill.verify(item, f"{name}(1)\nassert True") == 0
        assert self.skill.verify(item, f"assert {name}(1) == 12345") == 0
        assert self.skill.verify(item, "assert True") == 0
        assert self.skill.verify(item, f"assert {name}(") == 0

    def test_the_twin_asks_for_tests_of_the_same_function(self) -> None:
        item = _of_kind("code", family="level")
        twin = ask_for_tests(item)
        assert (twin.key, twin.meta["code"]) == (item.key, item.answer)
        assert item.answer in twin.prompt
        assert self.skill.verify(twin, twin.answer) == 1

    def test_code_is_compared_without_fence_and_blank_lines(self) -> None:
        assert plain_code("Sure:\n```python\na = 1 \n\nb = 2\n```\nDone") == "a = 1\nb = 2"


def _survives(code: str, tests: list[str]) -> bool:
    try:
        exec("\n".join([code, *tests]), {})
    except AssertionError:
        return False
    return True


def _of_kind(kind: str, *, family: str) -> Item:
    for level, index in product((1, 2, 3), range(200)):
        item = SKILLS["functions"].item(index, level=level, split="train")
        if item.meta["kind"] == kind and item.meta["family"] == family:
            return item
    raise AssertionError(family)


class TestSecondLanguage:
    def test_the_lexicon_is_one_to_one(self) -> None:
        assert len(set(velic.LEXICON.values())) == len(velic.LEXICON) >= 50
        assert not {"ta", "ma"} & set(velic.LEXICON.values())

    def test_the_rules_of_the_language(self) -> None:
        assert velic.velic("hens") == "keloni"
        assert velic.velic("saw") == velic.velic("see") == "tiru"
        assert velic.velic("the") is None
        assert velic.gloss("the red hens") == [("red", "sul"), ("hens", "keloni")]

    def test_both_directions_are_unambiguous(self) -> None:
        forth: dict[str, str] = {}
        back: dict[str, str] = {}
        for level, index in product((2, 3), range(1500)):
            meta = SKILLS["second_language"].item(index, level=level, split="corpus").meta
            assert forth.setdefault(meta["english"], meta["velic"]) == meta["velic"]
            assert back.setdefault(meta["velic"], meta["english"]) == meta["english"]

    def test_every_word_is_met_in_the_corpus_split(self) -> None:
        """An exam asks for combinations that were never seen, of words that were."""
        seen: set[str] = set()
        for item in items("second_language", 1, "corpus", 400):
            seen |= set(item.meta["english"].split(", "))
        assert seen == set(velic.LEXICON)


class TestDialogue:
    def test_the_answer_is_said_and_a_correction_wins(self) -> None:
        for item in items("dialogue", 3, count=200):
            assert re.search(rf"\b{item.answer}\b", item.prompt)
            assert item.answer in item.meta["options"]
            assert 2 <= item.meta["turns"] <= 6
            change = re.search(rf"{item.meta['who']}: (?:No|Not)[^?]*", item.prompt)
            if "then" in item.worked:
                assert change is not None
                assert item.answer in change.group()

    def test_an_article_does_not_matter(self) -> None:
        item = next(i for i in items("dialogue", 1) if i.meta["kind"] == "tool")
        assert SKILLS["dialogue"].verify(item, f"The {item.answer}.") == 1


class TestVoice:
    def test_form_and_content_are_both_needed(self) -> None:
        skill = SKILLS["voice"]
        for item in items("voice", 3):
            meta = item.meta
            assert skill.verify(item, item.answer.upper()) == 1
            assert skill.verify(item, item.answer.removesuffix(meta["closing"])) == 0
            assert skill.verify(item, item.answer.removeprefix(meta["opening"])) == 0
            for word in meta["must"]:
                assert skill.verify(item, item.answer.replace(word, "it")) == 0


class TestEthics:
    skill = SKILLS["ethics"]

    @pytest.mark.parametrize("level", [1, 3])
    def test_refuse_what_harms_and_help_with_the_rest(self, level: int) -> None:
        seen = set()
        for item in items("ethics", level):
            seen.add(item.meta["safe"])
            refused = self.skill.verify(item, f"{REFUSAL} it does harm.")
            helped = self.skill.verify(item, f"You can take care of the {item.meta['thing']}.")
            assert (refused, helped) == ((0, 1) if item.meta["safe"] else (1, 0))
            assert self.skill.verify(item, REFUSAL) == 0
            assert self.skill.verify(item, "yes") == 0
        assert seen == {True, False}

    def test_a_choice_is_a_letter(self) -> None:
        for item in items("ethics", 2):
            assert item.meta["safe"] is None
            assert self.skill.verify(item, item.answer.lower()) == 1
            assert self.skill.verify(item, {"A": "B", "B": "A"}[item.answer]) == 0


def test_the_final_answer_is_the_last_one() -> None:
    assert final_answer("The answer is 3. No, the answer is 4.") == "4."
    assert normal(" Rye,  Oats. ") == "rye, oats"
