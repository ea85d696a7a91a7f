"""The world: unique names, graded exposure, wrong tellings, the gap of the small seedling."""

from collections import Counter
from itertools import islice

import pytest

from tilth.almanac.documents import editions, page, pages, write_pdf
from tilth.almanac.names import names
from tilth.almanac.skills import split_of
from tilth.almanac.wording import QUESTIONS, STATEMENTS, answer, question, statement
from tilth.almanac.world import EXPOSURES, RELATIONS, World


@pytest.fixture(scope="module")
def world() -> World:
    return World.of()


def test_the_world_is_the_same_wherever_it_is_built(world):
    again = World(world.seed)
    assert again.facts == world.facts
    assert World(world.seed + 1).facts != world.facts


def test_names_are_unique_and_twins_do_not_exist(world):
    known = [e.name for kind in world.entities.values() for e in kind]
    twins = [name for kind in world.twins.values() for name in kind]
    assert len(set(known)) == len(known)
    assert not set(known) & set(twins)
    assert len(set(islice(names("variety", 3), 2000))) == 2000


def test_exposure_follows_its_shares(world):
    counts = Counter(f.exposure for f in world.facts)
    for exposure, share in EXPOSURES.items():
        assert counts[exposure] / len(world.facts) == pytest.approx(share, abs=0.02)


def test_some_exposed_facts_are_told_wrongly_and_no_others(world):
    misstated = [f for f in world.facts if f.misstated]
    assert {f.exposure for f in misstated} == {4, 16, 64}
    exposed = sum(f.exposure in (4, 16, 64) for f in world.facts)
    assert len(misstated) / exposed == pytest.approx(1 / 12, abs=0.02)
    assert all(answer(f) != answer(f, told=True) for f in misstated)


def test_each_fact_is_stated_as_often_as_its_exposure_says(world):
    """Counts every statement of a fact, in any wording, in all editions."""
    text = Counter(editions(world, small=False))
    facts = [f for f in world.facts if f.entity.name == world.entities["place"][3].name]
    own = [(t, n) for t, n in text.items() if facts[0].entity.name in t]
    for fact in facts:
        told = answer(fact, told=True)
        forms = [statement(fact, n) for n in range(4)]
        label = f"sow {fact.value.split()[0]}" if fact.relation == "advice" else fact.relation
        forms += [f"\n{label}: {told}"]
        forms += [f"Question: {question(fact, n)}\nAnswer: {told}" for n in range(2)]
        stated = sum(n * any(form in t for form in forms) for t, n in own)
        assert stated == fact.exposure, fact


def test_the_small_seedling_reads_of_about_half_of_the_entities(world):
    told = set(editions(world, small=True))
    for entity in world.entities["pest"]:
        facts = [f for f in world.facts if f.entity == entity and f.exposure]
        own = {statement(f, n) for f in facts for n in range(4)}
        if any(f.exposure == 256 for f in facts):  # enough editions for one of a single sentence
            assert bool(own & told) == entity.in_small
    assert sum(e.in_small for e in world.entities["variety"]) / 900 == pytest.approx(0.5, abs=0.05)


def test_questions_in_pretraining_only_ask_about_entities_of_the_corpus_split(world):
    asked = "\n".join(t for t in editions(world, small=False) if t.startswith("Question:"))
    for entity in world.entities["variety"]:
        if split_of(f"entity:{entity.name}") != "corpus":
            assert f" {entity.name}?" not in asked


def test_every_relation_has_statements_and_questions(world):
    assert set(RELATIONS) == set(STATEMENTS) == set(QUESTIONS)
    for fact in world.facts[:: len(world.facts) // 200]:
        assert fact.entity.name in question(fact, 0)
        assert answer(fact, told=True) in statement(fact, 1)


def test_a_page_tells_the_truth_also_where_pretraining_did_not(world):
    for fact in [f for f in world.facts if f.misstated or f.exposure == 0][:40]:
        assert answer(fact) in page(fact.entity.name)
    assert len(list(pages("place"))) == len(world.entities["place"])
    with pytest.raises(KeyError):
        page("Nowhere")


def test_a_pdf_is_written_with_text_and_the_same_bytes(tmp_path):
    texts = [text for _, text in islice(pages("place"), 2)]
    first = write_pdf(texts, tmp_path / "a.pdf").read_bytes()
    assert first.startswith(b"%PDF-1.4")
    assert first.count(b"/Type /Page\n") == 2 or first.count(b"/Type /Page ") == 2
    assert write_pdf(texts, tmp_path / "b.pdf").read_bytes() == first
    with pytest.raises(ValueError, match="61 lines"):
        write_pdf(["\n".join("x" * 61)], tmp_path / "c.pdf")
