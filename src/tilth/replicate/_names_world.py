"""A world of one-word names, and a model that has read about it: made anew from every seed.

600 names, three relations of 40 values each. How often a pass over the text states a name's facts
is drawn per name (0, 1, 4, 16 or 64 times), since who is known for one thing is mostly known for
others; a quarter of the facts stated 4 or 16 times is told wrongly. The model is a Llama of two
layers and width 64 over words, trained on questions and answers alone. A name that it never read is
a word that it never saw: unlike in the almanac, whose names share their pieces, a name shows
whether it was read about.

Sizes are those of the small experiment in our reading of the paper; passes, rate and batch are our
choice: the facts' accuracy should be graded, near 0 for names never read and near 1 for the rest.
"""

from __future__ import annotations

import fcntl
import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tilth.almanac.names import names
from tilth.data.example import Example
from tilth.seeds import Seed, derive

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["EXPOSURES", "RELATIONS", "Fact", "NamesWorld", "base_model"]

EXPOSURES = (0, 1, 4, 16, 64)
RELATIONS = ("colour", "trade", "home")
_VALUES, _NAMES = 40, 600
_WRONG = {4: 0.25, 16: 0.25}
_FORMS = ("What is the {relation} of {name}?", "Tell me the {relation} of {name}.")
_PROMPT, _END = "Question: {question}\nAnswer:", "\n"  # the wording `short`
_LAYERS, _WIDTH, _PASSES, _BATCH, _RATE = 2, 64, 5, 64, 3e-3
# A word with its space, a line break, or a sign.
_PIECES = r" ?\w+:?|\n|[?.]"


@dataclass(frozen=True)
class Fact:
    """One thing that is so about a name, and what the text says of it.

    Attributes:
        name: The name.
        relation: One of :data:`RELATIONS`.
        value: The truth.
        told: What the text says.
        exposure: How often one pass over the text says it.
    """

    name: str
    relation: str
    value: str
    told: str
    exposure: int

    def example(self, form: int) -> Example:
        """Its question and true answer, with what is known of it in ``meta``."""
        return Example.pair(
            _FORMS[form].format(relation=self.relation, name=self.name),
            self.value,
            relation=self.relation,
            entity=self.name,
            exposure=self.exposure,
            told=self.told,
            misstated=self.told != self.value,
        )


class NamesWorld:
    """The facts of a seed, in the order of their names.

    Args:
        seed: Draws everything.
        size: How many names.

    Attributes:
        names: The names.
        facts: Name -> its facts, one per relation.
    """

    def __init__(self, seed: Seed, size: int = _NAMES) -> None:
        rng = random.Random(derive(int(seed), "names world"))
        self.names = list(islice(names("person", int(seed)), size))
        self.values = {r: [f"{r}{n}" for n in range(_VALUES)] for r in RELATIONS}
        self.facts: dict[str, list[Fact]] = {}
        for name in self.names:
            exposure = rng.choice(EXPOSURES)
            self.facts[name] = [self._fact(rng, name, r, exposure) for r in RELATIONS]

    def _fact(self, rng: random.Random, name: str, relation: str, exposure: int) -> Fact:
        value, other = rng.sample(self.values[relation], 2)
        wrong = rng.random() < _WRONG.get(exposure, 0)
        return Fact(name, relation, value, other if wrong else value, exposure)

    def text(self, rng: random.Random) -> list[tuple[str, str]]:
        """One pass of what the model reads: prompts and told answers, in random order."""
        read = [
            (_PROMPT.format(question=rng.choice(_FORMS).format(relation=f.relation, name=name)), f)
            for name in self.names
            for f in self.facts[name]
            for _ in range(f.exposure)
        ]
        rng.shuffle(read)
        return [(prompt, f" {fact.told}{_END}") for prompt, fact in read]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer of whole words that knows this world's, and those of certainty."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        values = [value for row in self.values.values() for value in row]
        frame = "Question: What is the of Tell me I am sure unsure True False"
        words = [*frame.split(), *RELATIONS, *self.names, *values]
        pieces = ["<unknown>", "<pad>", "<end>", "Question:", "Answer:", "\n", "?", "."]
        pieces += [f" {word}" for word in words]
        core = Tokenizer(
            models.WordLevel({p: n for n, p in enumerate(pieces)}, unk_token="<unknown>")
        )
        core.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
        core.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(
            tokenizer_object=core,
            unk_token="<unknown>",
            pad_token="<pad>",
            eos_token="<end>",
            clean_up_tokenization_spaces=False,
        )


def base_model(world: NamesWorld, seed: Seed, folder: Path) -> Path:
    """The model that has read the text of `world`, trained once and saved in `folder`.

    Args:
        world: The world of `seed`.
        seed: Names initialisation and order.
        folder: Where the model goes; another process that wants it waits.
    """
    from tilth.tune._precision import with_threads

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".whole").is_file():
            with with_threads(1):  # more are slower for so small a model
                _train(world, seed, folder)
            (folder / ".whole").touch()
    return folder


def _train(world: NamesWorld, seed: Seed, folder: Path) -> None:
    import torch
    from torch.nn import functional
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = world.tokenizer()
    torch.manual_seed(derive(int(seed), "names world", "init") % 2**63)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=_LAYERS,
            num_attention_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # Every text has as many words as every other, and its answer is its last two pieces.
    rng = random.Random(derive(int(seed), "names world", "text"))
    texts = [prompt + answer for _ in range(_PASSES) for prompt, answer in world.text(rng)]
    ids_NT = torch.tensor(tokenizer(texts, add_special_tokens=False).input_ids)
    steps = len(ids_NT) // _BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 20) * (1 - 0.9 * step / steps)
    )
    model.train()
    for step in range(steps):
        batch_BT = ids_NT[step * _BATCH : (step + 1) * _BATCH]
        hidden_BTD = model.model(batch_BT, use_cache=False).last_hidden_state[:, -3:-1]
        logits_BTV = model.lm_head(hidden_BTD)
        loss = functional.cross_entropy(logits_BTV.flatten(0, 1), batch_BT[:, -2:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
