"""Chats as ids: the assistant's tokens are exactly what the assistant says."""

from __future__ import annotations

import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, tiny_tokenizer

from tilth.errors import DataError, ModelError
from tilth.models import chat_format, encode_chat
from tilth.models.tokens import TextIds

FORMS = [(a, own) for a in ARCHITECTURES for own in (True, False)]
MARKS = ["<|endoftext|>", "<|end|>", "<|im_end|>", "<|user|>", "[INST]", "</s>", "### User:"]
WORDS = [*MARKS, "{{ x }}", " ", "\n", "The answer is 5.", "é", "麦", "  "]


@cache
def tokenizer_of(architecture, own_template):
    return tiny_tokenizer(architecture, chat_template=own_template)


def metaspace(scheme: str):
    """A tokenizer in the manner of SentencePiece: a space mark in front of words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    raw.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    raw.train_from_iterator(["hello there how are you ? I am fine thank you . " * 3], trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


text = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.lists(st.sampled_from(WORDS), max_size=6).map("".join),
)


@st.composite
def dialogues(draw):
    messages = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(text)})
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(text)})
        messages.append({"role": "assistant", "content": draw(text)})
    return messages


def runs(encoded):
    """The masked tokens of each turn, from the mask alone."""
    found, current = [], []
    for token, inside in zip(encoded.input_ids, encoded.assistant_mask, strict=True):
        if inside:
            current.append(token)
        elif current:
            found.append(current)
            current = []
    return [*found, current] if current else found


@pytest.mark.parametrize(("architecture", "own"), FORMS)
@settings(max_examples=30, deadline=None)
@given(messages=dialogues())
def test_the_targets_are_the_answers_and_their_end_marks(architecture, own, messages):
    tokenizer = tokenizer_of(architecture, own)
    encoded = encode_chat(tokenizer, messages)
    form = chat_format(tokenizer)
    said = [m["content"] for m in messages if m["role"] == "assistant"]
    targets = [encoded.input_ids[a:b] for a, b in encoded.spans]
    assert [t for turn in runs(encoded) for t in turn] == [t for turn in targets for t in turn]
    assert len(targets) == len(encoded.answers) == len(said)
    marks = set(tokenizer.all_special_ids)
    composes = architecture in ("qwen2", "gpt_neox")  # their tokenizers normalise to NFC
    for ids, written, content in zip(targets, encoded.answers, said, strict=True):
        # One special token, at the end: whatever marks a content spells are ordinary text.
        assert [t in marks for t in ids] == [False] * (len(ids) - 1) + [True]
        assert ids[-1] in form.stop_ids
        normal = unicodedata.normalize("NFC", written) if composes else written
        assert tokenizer.decode(ids) in (normal, " " * form._ids.adds_space + normal)
        end = tokenizer.decode(ids[-1:])
        trims = architecture == "gpt2" and own
        kept = content.strip() if trims else content
        assert written.removesuffix(end) in (kept, form.opening + kept)


@pytest.mark.parametrize(("architecture", "own"), FORMS)
@settings(max_examples=15, deadline=None)
@given(messages=dialogues())
def test_a_prompt_is_what_stands_before_its_answer(architecture, own, messages):
    tokenizer = tokenizer_of(architecture, own)
    whole = encode_chat(tokenizer, messages)
    places = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for place, (first, _) in zip(places, whole.spans, strict=True):
        prompt = encode_chat(tokenizer, messages[:place], add_generation_prompt=True)
        assert prompt.input_ids == whole.input_ids[:first]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ordinary_text_gets_the_tokenizer_s_own_ids(architecture):
    tokenizer = tokenizer_of(architecture, True)
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "How much is 2 and 3?"},
        {"role": "assistant", "content": "The answer is 5."},
    ]
    own = tokenizer.apply_chat_template(messages, tokenize=True).input_ids
    assert encode_chat(tokenizer, messages).input_ids == own


def test_a_word_has_the_same_pieces_at_the_start_of_a_turn():
    tokenizer = tokenizer_of("llama", True)
    encoded = encode_chat(tokenizer, [{"role": "user", "content": "answer is"}])
    inside = tokenizer("The answer is", add_special_tokens=False).input_ids[1:]
    assert encoded.input_ids[1:-1] == inside


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@settings(max_examples=25, deadline=None)
@given(messages=dialogues())
def test_space_marks_come_where_the_whole_text_has_them(scheme, messages):
    tokenizer = metaspace_of(scheme)
    encoded = encode_chat(tokenizer, messages)
    assert encoded.input_ids[0] == tokenizer.bos_token_id
    assert encoded.input_ids.count(tokenizer.eos_token_id) == len(encoded.spans)
    for (a, b), written in zip(encoded.spans, encoded.answers, strict=True):
        decoded = tokenizer.decode(encoded.input_ids[a:b])
        assert decoded.replace(" ", "") == written.replace(" ", "").replace("▁", "")


@cache
def metaspace_of(scheme):
    return metaspace(scheme)


def test_continued_text_has_no_space_put_in_front():
    tokenizer = metaspace_of("first")
    ids = TextIds(tokenizer)
    whole = tokenizer("hello there", add_special_tokens=False).input_ids
    assert ids("hello") + ids(" there", "text") == whole
    assert ids("there", "text") != ids("there")


def with_template(template: str, architecture="qwen2"):
    tokenizer = tiny_tokenizer(architecture)
    tokenizer.chat_template = template
    return tokenizer


TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "<think>hm</think>Good day"},
]


def test_a_template_without_a_system_turn_gets_it_in_the_user_turn():
    refusing = with_template(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    dropping = with_template(
        "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.content }}<|im_end|>"
        "{% endif %}{% endfor %}"
    )
    for tokenizer in (refusing, dropping):
        decoded = tokenizer.decode(encode_chat(tokenizer, TURNS).input_ids)
        assert decoded.startswith("<|im_start|>Be kind.\n\nHello<|im_end|>")


def test_what_cannot_be_proven_is_refused():
    rewriting = with_template(
        "{% for m in messages %}<|im_start|>{{ m.content.split('</think>')[-1] }}<|im_end|>"
        "{% endfor %}"
    )
    with pytest.raises(DataError, match="span cannot be proven"):
        encode_chat(rewriting, TURNS)
    twice = with_template("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}")
    with pytest.raises(DataError, match="every turn once"):
        encode_chat(twice, TURNS[1:])
    strict = with_template("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match="roles must alternate"):
        encode_chat(strict, TURNS[1:])
    endless = tiny_tokenizer("gpt2", chat_template=False)
    endless.eos_token = None
    with pytest.raises(ModelError, match="neither a chat template nor an end token"):
        encode_chat(endless, TURNS)


def test_a_template_without_an_end_mark_gets_the_end_token():
    tokenizer = with_template(
        "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant:\n{% endif %}",
        "gpt2",
    )
    encoded = encode_chat(tokenizer, TURNS[1:])
    assert encoded.answers == ("<think>hm</think>Good day<|endoftext|>",)
    assert chat_format(tokenizer).stop_texts == ("\n### user:",)


def test_a_changed_template_is_noticed():
    tokenizer = tiny_tokenizer("llama")
    before = encode_chat(tokenizer, TURNS).input_ids
    tokenizer.chat_template = None
    assert chat_format(tokenizer).is_default
    assert encode_chat(tokenizer, TURNS).input_ids != before


def test_space_that_a_special_token_swallows():
    from tokenizers import AddedToken

    tokenizer = tiny_tokenizer("gpt2")
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken("<|go|>", rstrip=True, special=True)]}
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|go|>\n{{ m.content }}<|endoftext|>{% endfor %}"
    )
    messages = [{"role": "user", "content": "Hello"}]
    own = tokenizer.apply_chat_template(messages, tokenize=True).input_ids
    assert encode_chat(tokenizer, messages).input_ids == own
