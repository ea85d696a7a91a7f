"""Answers, certainties and entropies on one cache, against plain forward passes without any."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES

from tilth.data.questions import Question
from tilth.models import load
from tilth.models.certainty import Asker, entropy_of
from tilth.models.wording import WORDINGS, Renderer, Tail

OPEN = [
    Question("0", "When?"),
    Question("1", "How much is 2 and 3, and which pest troubles the variety Amber Gate?"),
    Question("2", "Sort the words pear, apple, fig."),
]
CHOICES = [
    Question("3", "Which is a crop?", choices=("rye", "a sheep", "a field")),
    Question("4", "Ask the question again?", context="Once.", choices=("yes", "no")),
]


def asker(folder: Path | str, **more: Any) -> Asker:
    model, tokenizer = load(str(folder), "cpu")
    words = WORDINGS[more.pop("wording", "lines")]
    tails = [words.tail("sure"), words.tail("true")]
    renderer = Renderer(tokenizer, words, more.pop("form", "plain"))
    return Asker(model, renderer, **{"tails": tails, "max_new_tokens": 5, **more})


def logs(model: Any, ids: list[int]) -> torch.Tensor:
    """Log-probabilities after every token of `ids`, without a cache."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)


def continued(model: Any, head: list[int], tail: list[int]) -> float:
    table = logs(model, head + tail)
    return sum(float(table[len(head) + n - 1, t]) for n, t in enumerate(tail))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("questions", [OPEN, CHOICES], ids=["open", "choices"])
def test_the_shared_cache_changes_nothing(
    name: Any, questions: list[Question], models: dict[Any, Path]
) -> None:
    ask = asker(models[name])
    renderer, model = ask.renderer, ask.model
    for question, answered in zip(questions, ask(questions), strict=True):
        prompt = renderer.prompt(question)
        new: list[int] = []
        best: list[float] = []
        if question.choices:
            letters = [renderer.answer(a) for a in question.letters]
            said = torch.tensor([continued(model, prompt, ids) for ids in letters])
            shares = said.log_softmax(-1)
            new, best = letters[int(shares.argmax())], [float(shares.max())]
            exact = -float((shares.exp() * shares).sum())
            assert answered.entropy == pytest.approx(exact, abs=1e-5)
            assert answered.text == question.letters[int(shares.argmax())]
        while not question.choices and len(new) < 5:
            last = logs(model, prompt + new)[-1]
            token = int(last.argmax())
            text = renderer.tokenizer.decode([token])
            if token in ask._stop_ids or "\n" in text:
                break
            new.append(token)
            best.append(float(last.max()))
        assert answered.tokens == len(new)
        if best:
            assert answered.p_predict == pytest.approx(math.exp(np.mean(best)), rel=1e-4)
            assert answered.logprob == pytest.approx(sum(best), rel=1e-4, abs=1e-5)
        for kind in ("sure", "true"):
            tail = WORDINGS["lines"].tail(kind)  # type: ignore[arg-type]
            head = prompt + new + renderer.tail(tail)
            yes, no = (continued(model, head, c) for c in renderer.pair(tail))
            expected = 1 / (1 + math.exp(no - yes))
            assert answered.shares[kind] == pytest.approx(expected, abs=1e-4)


def test_first_tokens_alone_are_weighed_where_asked(models: dict[Any, Path]) -> None:
    tail = Tail("sure", "I am", " sure", "unsure")  # other first tokens, and several of them
    ask = asker(models["qwen2"], tails=[tail], single_token=True, max_new_tokens=1)
    whole = asker(models["qwen2"], tails=[tail], max_new_tokens=1)
    yes, no = ask.renderer.pair(tail)
    assert yes[0] != no[0]
    assert max(len(yes), len(no)) > 1
    for question, one, all_ in zip(OPEN, ask(OPEN), whole(OPEN), strict=True):
        prompt = ask.renderer.prompt(question)
        new = [int(logs(ask.model, prompt)[-1].argmax())][: one.tokens]
        head = prompt + new + ask.renderer.tail(tail)
        last = logs(ask.model, head)[-1]
        expected = 1 / (1 + math.exp(float(last[no[0]] - last[yes[0]])))
        assert one.shares["sure"] == pytest.approx(expected, abs=1e-4)
        assert one.shares["sure"] != pytest.approx(all_.shares["sure"], abs=1e-6)


def test_company_does_not_change_an_answer(tiny: Path) -> None:
    ask = asker(tiny, samples=3)
    together = ask(OPEN)
    for question, answered in zip(OPEN, together, strict=True):
        (alone,) = ask([question])
        assert (alone.text, alone.samples) == (answered.text, answered.samples)
        assert alone.shares == pytest.approx(answered.shares, abs=1e-5)


def test_the_generation_settings_of_a_model_are_not_consulted(tiny: Path) -> None:
    ask = asker(tiny)
    before = ask(OPEN)
    config = ask.model.generation_config
    assert config is not None
    config.do_sample, config.temperature, config.top_k = True, 5.0, 3
    assert ask(OPEN) == before


def test_samples_have_the_probabilities_of_the_model(tiny: Path) -> None:
    ask = asker(tiny, samples=400, max_new_tokens=1, temperature=1.0)
    (answered,) = ask(OPEN[:1])
    table = logs(ask.model, ask.renderer.prompt(OPEN[0]))[-1].exp()
    empty = sum(float(table[i]) for i in range(len(table)) if _stops(ask, i))
    assert np.mean([s == "" for s in answered.samples]) == pytest.approx(empty, abs=0.1)
    assert answered.entropy == entropy_of(answered.samples)


def _stops(ask: Asker, token: int) -> bool:
    text = ask.renderer.tokenizer.decode([token], skip_special_tokens=True)
    return token in ask._stop_ids or "\n" in text or not text.strip()


def test_the_entropy_of_answers() -> None:
    assert entropy_of(["a"] * 5) == 0.0
    expected = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6))
    assert entropy_of(["a", "b", "a", "b", "a"]) == pytest.approx(expected)


def test_an_empty_answer_has_the_probability_of_its_stop(tiny: Path) -> None:
    ask = asker(tiny)
    first = int(logs(ask.model, ask.renderer.prompt(OPEN[0]))[-1].argmax())
    ask._stop_ids = frozenset({first})
    (answered,) = ask(OPEN[:1])
    best = float(logs(ask.model, ask.renderer.prompt(OPEN[0]))[-1].max().exp())
    assert (answered.tokens, answered.text, answered.finish) == (0, "", "stop")
    assert answered.p_predict == pytest.approx(best, rel=1e-4)


def test_the_seedling_answers_in_its_own_form() -> None:
    ask = asker("seedling:large", wording="short", max_new_tokens=8)
    questions = [Question("0", "What does Laindisum suffer from?", ("Brerrot",))]
    (answered,) = ask(questions)
    assert (answered.text, answered.finish) == ("Brerrot", "stop")
    assert answered.p_predict > 0.9


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_what_was_decoded_is_what_a_training_text_holds(form: Any) -> None:
    """The ids of an answer in a text are those that the model wrote."""
    ask = asker("seedling:large", wording="short", form=form)
    renderer = ask.renderer
    for word in ("Brerrot", "January", "peat", "Neardfly"):
        ids = renderer.answer(word)
        text = renderer.tokenizer.decode([*renderer.prompt(OPEN[0]), *ids])
        assert text.endswith(f" {word}") or (form == "chat" and text.endswith(word))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_probability_of_all_refusals_is_the_sum(name: Any, models: dict[Any, Path]) -> None:
    refusals = ("I do not know", "no")
    ask = asker(models[name], refusals=refusals)
    for question, answered in zip(OPEN, ask(OPEN), strict=True):
        prompt, end = ask.renderer.prompt(question), ask.renderer.end()
        said = [continued(ask.model, prompt, ask.renderer.answer(r) + end) for r in refusals]
        assert answered.shares["refusal"] == pytest.approx(sum(map(math.exp, said)), rel=1e-3)
    assert [a.text for a in asker(models[name])(OPEN)] == [a.text for a in ask(OPEN)]
