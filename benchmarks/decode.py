"""Speed of combined decoding against three models run in the obvious way, as ratios of CPU time.

What it does: random Llamas of 29.5 and 3.3 million parameters write 64 tokens after a prompt of 32,
greedily and one row at a time, combined as base + expert - anti. The obvious way is a logits
processor inside `generate` that runs expert and anti-expert with caches of their own. Beside it,
in the same run and taking turns: our loop without drafts, the same with the expert as an adapter on
the anti-expert (one mixed batch), and drafting where the target is near the drafter and where it is
far. Every arm of one target must write the same tokens. Then the rule adapter against its published
form, which reads the whole text again for every token.

    python benchmarks/decode.py                              # writes results/decode.json
    python benchmarks/decode.py --repeats 1 --output /tmp/quick.json

Time: about 3 minutes of one core. Memory: 1 GB.
CPU time is measured, not wall time, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from tilth._manifest import installed_versions
from tilth.decode.engine import open_composed
from tilth.decode.rules import RuleSet
from tilth.models import Sampling

VOCABULARY, PROMPT, NEW = 8192, 32, 64
SIZES = {"large": (512, 1376, 8), "small": (192, 512, 4), "ruled": (256, 704, 4)}
RULED_VOCABULARY, RULED_NEW = 32_000, (32, 96)
RULES = """\
name: as published, on fifteen tokens of a vocabulary of numbers
scope: turn
rules:
  - {kind: eos_ramp, weight: 15, range: 250}
  - {kind: token_bias, weight: -4, tokens: [101, 102, 103]}
  - {kind: token_bias, weight: -5, tokens: [104, 105, 106]}
  - {kind: token_bias, weight: -3, tokens: [107]}
  - {kind: token_bias, weight: -6, tokens: [108]}
  - {kind: token_bias, weight: 1, tokens: [109, 110, 111, 112, 113, 114, 115]}
  - {kind: seen_penalty, weight: -1.5}
"""


def llama(size: str, seed: int, *, sharp: float, vocabulary: int = VOCABULARY) -> LlamaForCausalLM:
    """A random Llama; the larger `sharp`, the surer it is of every next token."""
    hidden, inner, layers = SIZES[size]
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            vocab_size=vocabulary,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.08)
    model.model.norm.weight.data.fill_(sharp)
    return model.eval()


def tokenizer(vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Words w0, w1, ..., and an end token."""
    words = {f"w{i}": i for i in range(vocabulary - 1)} | {"</s>": vocabulary - 1}
    bare = Tokenizer(models.WordLevel(words, unk_token="w0"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=bare, eos_token="</s>")


def saved(model: Any, folder: Path) -> Path:
    """The model with the tokenizer in `folder`."""
    model.save_pretrained(folder)
    tokenizer(model.config.vocab_size).save_pretrained(folder)
    return folder


def prompt(vocabulary: int) -> str:
    """A text of the length of the prompt."""
    return " ".join(f"w{(i * 37 + 11) % (vocabulary - 1)}" for i in range(PROMPT))


def adapter(base: Path, folder: Path) -> Path:
    """A random LoRA adapter of rank 8 on all linear layers."""
    torch.manual_seed(7)
    settings = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.05)
    adapted.save_pretrained(folder)
    return folder


class Obvious(LogitsProcessor):
    """Expert and anti-expert beside `generate`, each with a cache of its own."""

    def __init__(self, expert: Any, anti: Any) -> None:
        self.models, self.caches = (expert, anti), [None, None]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """base + expert - anti."""
        total = scores.float().log_softmax(-1)
        for i, sign in enumerate((1.0, -1.0)):
            ids = input_ids if self.caches[i] is None else input_ids[:, -1:]
            out = self.models[i](ids, past_key_values=self.caches[i], use_cache=True)
            self.caches[i] = out.past_key_values
            total = total + sign * out.logits[:, -1].float().log_softmax(-1)
        return total


def obvious(base: Any, expert: Any, anti: Any, ids: list[int]) -> list[int]:
    """What the obvious way writes."""
    made = base.generate(
        torch.tensor([ids]),
        logits_processor=[Obvious(expert, anti)],
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
    )
    return made[0, len(ids) :].tolist()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what `work` returned."""
    gc.collect()
    begin = time.process_time()
    with torch.inference_mode():
        result = work()
    return time.process_time() - begin, result


def measure(arms: dict[str, Callable[[], Any]], repeats: int, tokens: int) -> dict[str, Any]:
    """Milliseconds per token of every arm; the arms take turns, and the first round warms up."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    results: dict[str, Any] = {}
    for turn in range(repeats + 1):
        for arm, work in arms.items():
            spent, results[arm] = timed(work)
            if turn:
                seconds[arm].append(spent)
    names = list(arms)
    table = {
        arm: {
            "ms_per_token": round(1000 * statistics.median(seconds[arm]) / tokens, 3),
            "cpu_seconds": [round(s, 4) for s in seconds[arm]],
        }
        for arm in names
    }
    for arm in names[1:]:
        pairs = zip(seconds[names[0]], seconds[arm], strict=True)
        table[arm][f"times_faster_than_{names[0]}"] = round(
            statistics.median(a / b for a, b in pairs), 3
        )
    return {"arms": table, "results": results}


def target(name: str, base: Path, expert: Path, anti: Path, repeats: int) -> dict[str, Any]:
    """All arms for one base and one expert, which is an adapter on the anti-expert or not."""
    text = prompt(VOCABULARY)
    ids = tokenizer()(text).input_ids
    is_adapter = (expert / "adapter_config.json").is_file()
    load = AutoModelForCausalLM.from_pretrained
    own = load(anti if is_adapter else expert)
    own = PeftModel.from_pretrained(own, expert).merge_and_unload() if is_adapter else own
    apart = [model.eval() for model in (load(base), own, load(anti))]
    ref = (
        f"eft:base={base},expert={anti}+{expert}"
        if is_adapter
        else f"eft:base={base},expert={expert}"
    )
    drafts = {"plain": "0", "adaptive": "auto", "draft 2": "2", "draft 4": "4", "draft 8": "8"}
    if is_adapter:
        drafts = {"mixed batch": "0"}
    engines, arms = {}, {"obvious": lambda: obvious(*apart, ids)}
    for arm, draft in drafts.items():
        model = open_composed(f"{ref},anti={anti},draft={draft}", threads=1, progress=False)
        engines[arm], arms[arm] = model, partial(written, model, text, NEW)
    found = measure(arms, repeats, NEW)
    results = found.pop("results")
    words = [f"w{i}" for i in results["obvious"]]
    for arm, model in engines.items():
        assert results[arm] == words, f"{name}: the arm {arm!r} writes other tokens"
        pace, row = model.pace, found["arms"][arm]
        row["acceptance"] = round(pace.accepted / pace.drafted, 3) if pace.drafted else None
        row["rounds"] = {"with a draft": pace.rounds, "plain": pace.plain}
    found["identical_output"] = True
    return found


def written(model: Any, text: str, new: int) -> list[str]:
    """What an engine of ours writes."""
    return str(model.complete([text], Sampling(max_new_tokens=new))[0].text).split()


def published_rules(model: Any, ids: list[int], end: int, new: int) -> list[int]:
    """The rule adapter as published: no cache, a padded [T, V] tensor, and its log-softmax."""
    rules = RuleSet.model_validate(yaml.safe_load(RULES))
    text = list(ids)
    for step in range(new):
        logits_TV = model(torch.tensor([text]), use_cache=False).logits[0]
        scores_TV = torch.zeros_like(logits_TV)
        scores_TV[-1, end] += 15 * step / 250
        for rule in rules.rules:
            if rule.kind == "token_bias":
                scores_TV[-1, list(map(int, rule.tokens))] += rule.weight
        scores_TV[-1, sorted(set(text))] -= 1.5
        both_TV = logits_TV.log_softmax(-1) + scores_TV.log_softmax(-1)
        text.append(int(both_TV[-1].argmax()))
    return text[len(ids) :]


def ruled(folder: Path, repeats: int) -> dict[str, Any]:
    """The rule adapter against its published form, at several lengths."""
    base = saved(llama("ruled", 5, sharp=4.0, vocabulary=RULED_VOCABULARY), folder / "ruled")
    file = folder / "rules.yaml"
    file.write_text(RULES, encoding="utf-8")
    alone = AutoModelForCausalLM.from_pretrained(base).eval()
    text, end = prompt(RULED_VOCABULARY), RULED_VOCABULARY - 1
    ids = tokenizer(RULED_VOCABULARY)(text).input_ids
    ours = open_composed(f"rules:base={base},rules={file}", threads=1, progress=False)
    report = {}
    for new in RULED_NEW:
        arms: dict[str, Callable[[], Any]] = {
            "published": partial(published_rules, alone, ids, end, new),
            "cached": partial(written, ours, text, new),
        }
        found = measure(arms, repeats, new)
        results = found.pop("results")
        assert results["cached"] == [f"w{i}" for i in results["published"]], "other tokens"
        report[f"{new} tokens"] = {**found, "identical_output": True}
    return report


def processor() -> str:
    """The processor's model name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Runs the comparison and writes the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    default = Path(__file__).parent / "results" / "decode.json"
    parser.add_argument("--output", type=Path, default=default)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flat = saved(llama("large", 1, sharp=0.01), folder / "flat")
        sure = saved(llama("large", 2, sharp=1.0), folder / "sure")
        anti = saved(llama("small", 3, sharp=0.01), folder / "anti")
        plain = saved(llama("small", 3, sharp=1.0), folder / "plain")
        expert = saved(llama("small", 4, sharp=1.0), folder / "expert")
        lora = adapter(plain, folder / "lora")
        report = {
            "benchmark": "decode",
            "unit": "CPU milliseconds per token; ratios are medians over the rounds",
            "hardware": f"{processor()}, {os.cpu_count()} cores",
            "threads": 1,
            "repeats": chosen.repeats,
            "prompt_tokens": PROMPT,
            "new_tokens": NEW,
            "models": {
                size: AutoModelForCausalLM.from_pretrained(folder / at).num_parameters()
                for size, at in (("large", "sure"), ("small", "plain"))
            },
            "versions": installed_versions(),
            "target near the drafter": target("near", flat, expert, anti, chosen.repeats),
            "target far from the drafter": target("far", sure, expert, plain, chosen.repeats),
            "expert is an adapter": target("adapter", sure, lora, plain, chosen.repeats),
            "rules": ruled(folder, chosen.repeats),
        }
    far = report["target far from the drafter"]["arms"]
    pairs = zip(far["plain"]["cpu_seconds"], far["adaptive"]["cpu_seconds"], strict=True)
    report["adaptive_to_plain_when_far"] = round(statistics.median(a / b for a, b in pairs), 3)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(report, indent=1) + "\n")
    for part in ("target near the drafter", "target far from the drafter", "expert is an adapter"):
        for arm, row in report[part]["arms"].items():
            ratio = row.get("times_faster_than_obvious", 1.0)
            print(f"{part}, {arm}: {row['ms_per_token']:.1f} ms a token, {ratio:.2f}x")
    for length, row in report["rules"].items():
        ratio = row["arms"]["cached"]["times_faster_than_published"]
        print(f"rules, {length}: {ratio:.2f}x the published form")
    print(f"far: adaptive is {report['adaptive_to_plain_when_far']:.3f}x as fast as never drafting")


if __name__ == "__main__":
    main()
