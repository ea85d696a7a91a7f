"""Targets are the assistant's tokens and nothing else; unusable rows are set aside, not cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, tiny_tokenizer

from tilth.models.chat import encode_chat
from tilth.tune._corpus import IGNORED, gather

TOKENIZERS = {
    (name, chat): tiny_tokenizer(name, chat_template=chat)
    for name in ARCHITECTURES
    for chat in (True, False)
}
WORDS = st.text(alphabet="abcdefg 0123456789.,?!\né", min_size=1, max_size=30).filter(str.strip)


@st.composite
def dialogues(draw: st.DrawFn) -> list[dict[str, str]]:
    """A system turn or none, then one to three pairs of turns."""
    turns = [{"role": "system", "content": draw(WORDS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append({"role": "user", "content": draw(WORDS)})
        turns.append({"role": "assistant", "content": draw(WORDS)})
    return turns


@pytest.mark.parametrize(("name", "chat"), TOKENIZERS)
@settings(max_examples=20, deadline=None)
@given(conversation=dialogues())
def test_the_targets_are_all_answers_with_their_end_and_nothing_else(
    name: str, chat: bool, conversation: list[dict[str, str]]
) -> None:
    tokenizer = TOKENIZERS[name, chat]
    row = encode_chat(tokenizer, conversation)
    corpus, refused = gather(
        [(row.input_ids, row.assistant_mask)], max_length=4096, vocabulary=len(tokenizer)
    )
    assert not refused
    labels = corpus.labels[corpus.labels != IGNORED]
    end = tokenizer.decode([next(iter(labels[-1:]))])
    expected = "".join(m["content"].strip() + end for m in conversation if m["role"] == "assistant")
    decoded = tokenizer.decode(labels, skip_special_tokens=False)
    assert "".join(decoded.split()) == "".join(expected.split())
    # A label stands where its token is predicted: one place earlier than the token.
    places = np.flatnonzero(corpus.labels != IGNORED)
    assert (corpus.tokens[places + 1] == corpus.labels[places]).all()


def test_the_known_answer_of_a_short_dialogue() -> None:
    tokenizer = TOKENIZERS["llama", True]
    row = encode_chat(
        tokenizer, [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    )
    corpus, _ = gather([(row.input_ids, row.assistant_mask)], max_length=64, vocabulary=512)
    said = tokenizer.decode(corpus.labels[corpus.labels != IGNORED])
    assert said.split() == ["yo<|end|>"] or "".join(said.split()) == "yo<|end|>"


def test_unusable_rows_are_set_aside_with_their_reason() -> None:
    corpus, refused = gather(
        [
            ([1, 2, 3, 4], [False, False, True, True]),
            ([1] * 9, [True] * 9),  # too long
            ([1, 2], [False, False]),  # nothing to learn
            ([1, 2], [True, False]),  # the first token cannot be predicted
            ([1, 99], [False, True]),  # an id that the model does not have
            ([], []),
            "the chat template refuses this conversation",
            ([5, 6], [False, True]),
        ],
        max_length=8,
        vocabulary=50,
    )
    assert [r.index for r in refused] == [1, 2, 3, 4, 5, 6]
    assert "9 tokens" in refused[0].reason
    assert "no target" in refused[1].reason
    assert "vocabulary" in refused[3].reason
    assert "template" in refused[5].reason
    assert corpus.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert corpus.labels.tolist() == [IGNORED, 3, 4, IGNORED, 6, IGNORED]
    assert corpus.lengths.tolist() == [4, 2]
    assert corpus.targets == 3


def test_an_empty_corpus_is_empty() -> None:
    corpus, refused = gather([], max_length=8, vocabulary=8)
    assert len(corpus) == 0
    assert not refused
