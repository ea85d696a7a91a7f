"""The seedlings' tokenizer and chat form.

Byte-level BPE of 2,048 pieces, each digit a piece of its own. A space is put before every text that
starts a document or follows a chat mark, so that a word has the same pieces at the start of a turn
as inside a sentence: without this, tuned recall of what the weights hold falls to chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["CHAT_TEMPLATE", "MARKS", "PLAIN", "train_tokenizer"]

END_OF_TEXT = "<|endoftext|>"
MARKS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>", "end": "<|end|>"}
PLAIN = {"system": "Note:", "user": "Question:", "assistant": "Answer:", "end": END_OF_TEXT}
"""The plain counterpart of each chat mark; the marks' embeddings start as the mean of theirs."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# Letters with their space, one digit at a time with its space, runs of other signs, white space.
_PIECES = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], pieces: int = 2048) -> PreTrainedTokenizerFast:
    """Trains the tokenizer on `texts`; deterministic for the same texts in the same order."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Prepend(" ")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    special = [END_OF_TEXT, "<|pad|>", *MARKS.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END_OF_TEXT,
        pad_token="<|pad|>",
        extra_special_tokens=list(MARKS.values()),
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
