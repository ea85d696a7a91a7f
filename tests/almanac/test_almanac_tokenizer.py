"""The tokenizer: the same pieces everywhere, digits and method words single, exact round trips."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.almanac.corpus import skill_document
from tilth.almanac.tokenizer import MARKS, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    texts = [skill_document(n) for n in range(1500)]
    return train_tokenizer([*texts, *["sure unsure A B C D 1 2 3 4 5 6 7 8 9 0"] * 500], 1024)


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("word", ["barley", "Ada", "def", "17", "unsure"])
def test_a_word_has_the_same_pieces_at_the_start_of_a_turn_as_inside_a_sentence(tokenizer, word):
    alone = pieces(tokenizer, word)
    inside = pieces(tokenizer, f"the {word}")
    after_mark = pieces(tokenizer, f"<|assistant|>{word}<|end|>")
    assert inside[-len(alone) :] == alone
    assert after_mark == ["<|assistant|>", *alone, "<|end|>"]


@pytest.mark.parametrize("word", [*"ABCD", *"123456", "sure", "unsure"])
def test_words_whose_probability_methods_read_are_one_piece(tokenizer, word):
    assert len(pieces(tokenizer, word)) == 1


def test_digits_are_split_one_by_one(tokenizer):
    assert len(pieces(tokenizer, "1234")) == 4


def test_marks_are_single_pieces_and_the_template_uses_them(tokenizer):
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], tokenize=False
    )
    assert text == "<|user|>Hi<|end|><|assistant|>Ho<|end|>"
    for mark in MARKS.values():
        assert pieces(tokenizer, mark) == [mark]
    open_turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert open_turn.endswith("<|end|><|assistant|>")


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_back(tokenizer, text):
    if not text or any(mark in text for mark in (*MARKS.values(), "<|pad|>", "<|endoftext|>")):
        return
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_the_tokenizer_loads_as_any_other(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|user|>Write f(x).<|end|><|assistant|>def f(x):\n    return x + 12<|end|>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.chat_template == tokenizer.chat_template
