"""Every kind of composed model chooses what its sum, written out here by hand, says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tilth.decode.engine import open_composed
from tilth.models import Sampling
from tilth.models.chat import chat_format

TURNS = [
    [{"role": "user", "content": text}]
    for text in ("2 and 3?", "Which pest troubles the rye?", "Sort pear, apple, fig.")
]
Terms = dict[str, torch.Tensor]
"""Log-probabilities of the next token ``[vocabulary]`` by model."""


def nucleus(log_p: torch.Tensor, mass: float) -> torch.Tensor:
    kept, total = torch.zeros_like(log_p, dtype=torch.bool), 0.0
    for token in log_p.argsort(descending=True).tolist():
        kept[token] = True
        total += float(log_p[token].exp())
        if total >= mass:
            break
    return kept


def plausible(log_p: torch.Tensor, share: float) -> torch.Tensor:
    return log_p.exp() >= share * log_p.exp().max()


def eft(m: Terms, weight: float = 1.0, expert: str = "other") -> torch.Tensor:
    return m["large"] + weight * (m[expert] - m["small"])


NEVER = torch.tensor(-1e9)
THREE = "base=large,expert=other,anti=small,others=chat"
FOUR = "base=large,first=other,second=third,anti=small,others=chat"
KINDS: dict[str, Callable[[Terms], torch.Tensor]] = {
    f"eft:{THREE},weight=0.6": lambda m: eft(m, 0.6),
    f"eft:{THREE},amplification=1.5": lambda m: m["other"] + 1.5 * (m["large"] - m["small"]),
    f"eft:{THREE},filter=top_p_weights,mass=0.8": lambda m: torch.where(
        nucleus(m["other"], 0.8), eft(m), m["other"]
    ),
    f"eft:{THREE},filter=plausibility,mass=0.3": lambda m: torch.where(
        plausible(m["other"], 0.3), eft(m), NEVER
    ),
    "eft:base=small,expert=large,anti=wide,others=chat": lambda m: (
        m["small"] + m["large"] - m["wide"]
    ),
    f"dexperts:{THREE},alpha=0.7": lambda m: eft(m, 0.7),
    f"interpolate:{FOUR}": lambda m: (
        m["large"] + 0.5 * (m["other"] - m["small"]) + 0.5 * (m["third"] - m["small"])
    ),
    f"interpolate:{FOUR},lambda=0": lambda m: eft(m, expert="third"),
    f"interpolate:{FOUR},lambda=1": eft,
    "contrastive:expert=large,amateur=small": lambda m: torch.where(
        plausible(m["large"], 0.1), m["large"] - m["small"], NEVER
    ),
    "guidance:model=large,scale=1.7": lambda m: 1.7 * m["large"] - 0.7 * m["unasked"],
}


@pytest.fixture(scope="module")
def named(family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models by the names that the references above give them."""
    root = tmp_path_factory.mktemp("kinds")
    third = tiny_model(root / "third", hidden=32, layers=1, seed=9)
    wide = tiny_model(root / "wide", hidden=48, layers=2, seed=10)
    return {"third": third, "wide": wide, **{k: family[k] for k in ("large", "small", "other")}}


def one_event(model: torch.nn.Module, ids: list[int], ends: list[int]) -> torch.Tensor:
    """Log-probabilities in which the first token that ends an answer stands for all of them."""
    with torch.no_grad():
        found = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    whole = found[ends].logsumexp(0)
    found[ends] = -1e4
    found[ends[0]] = whole
    return found


@pytest.mark.parametrize("ref", KINDS)
@pytest.mark.parametrize("draft", [0, 3])
def test_every_kind_chooses_what_its_sum_says(ref: str, draft: int, named: dict[str, Path]) -> None:
    written = f"{ref},draft={draft}"
    for name, path in named.items():
        written = written.replace(f"={name}", f"={path}")
    answers = open_composed(written, batch_size=2).chat(TURNS, Sampling(10))
    tokenizer = AutoTokenizer.from_pretrained(named["large"])
    form = chat_format(tokenizer)
    models = {k: AutoModelForCausalLM.from_pretrained(path).eval() for k, path in named.items()}
    ends = sorted(form.stop_ids | {tokenizer.eos_token_id})
    nothing = [{"role": "user", "content": ""}]
    unasked = form.encode(nothing, add_generation_prompt=True).input_ids
    for turns, answer in zip(TURNS, answers, strict=True):
        asked = form.encode(turns, add_generation_prompt=True).input_ids
        new: list[int] = []
        while len(new) < 10 and not (new and new[-1] in ends):
            terms = {k: one_event(model, asked + new, ends) for k, model in models.items()}
            terms["unasked"] = one_event(models["large"], unasked + new, ends)
            total = KINDS[ref](terms)
            total[ends[1:]] = NEVER
            new.append(int(total.argmax()))
        assert answer.new_tokens == len(new)
        said = tokenizer.decode([i for i in new if i not in ends], skip_special_tokens=True)
        assert answer.text.strip() == said.strip()
