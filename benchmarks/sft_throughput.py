"""Throughput of supervised tuning against ``trl.SFTTrainer``, as ratios of tokens per CPU-second.

What it does: trains the same Llama on the same rows for the same steps with both, taking turns
within one process, and asserts that the losses agree. Two comparisons: on the very same batches,
and each with its own default batches (ours: grouped by length). Beside each figure stands the share
of the machine's matrix-product rate, measured in the same run, that the useful FLOPs reach.

    python benchmarks/sft_throughput.py                      # all sizes, writes results/*.json
    python benchmarks/sft_throughput.py --sizes 0.2M --repeats 2 --output /tmp/quick.json

Time: about 5 minutes of one core. Memory: 2 GB. Needs the extra: pip install 'tilth[bench]'.
CPU time is measured, not wall time, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import math
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainingArguments
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from tilth._manifest import installed_versions
from tilth.cost import training_flops
from tilth.tune._batches import Batching, Collator, Order
from tilth.tune._corpus import Corpus, gather
from tilth.tune._isolation import isolates_documents
from tilth.tune._trainer import Engine

VOCABULARY = 2048
LEARNING_RATE = 1e-3
RELATIVE = 2e-3  # greatest difference of two losses on the same batches


@dataclass(frozen=True)
class Size:
    """A Llama with tied embeddings and how long to train it."""

    hidden: int
    layers: int
    steps: int

    def model(self) -> LlamaForCausalLM:
        """The model with weights from a fixed seed."""
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=self.hidden,
                intermediate_size=self.hidden * 8 // 3 // 8 * 8,
                num_hidden_layers=self.layers,
                num_attention_heads=max(4, self.hidden // 64),
                vocab_size=VOCABULARY,
                max_position_embeddings=256,
                tie_word_embeddings=True,
            )
        )


SIZES = {
    "0.2M": Size(64, 2, 40),
    "1M": Size(128, 4, 20),
    "5M": Size(256, 6, 10),
    "20M": Size(448, 8, 4),
}


def rows_of(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random conversations with the lengths of short instructions: median 48 tokens, long tail."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(math.log(48), 0.5, count), 12, 192).astype(int)
    # A skewed distribution of tokens, so that there is something to learn.
    ids = [(rng.zipf(1.3, n) % (VOCABULARY - 8) + 8).astype(np.int64) for n in lengths]
    return [(row, np.arange(len(row)) >= len(row) // 2) for row in ids]


@dataclass
class Run:
    """One timed training."""

    tokens: int
    cpu_seconds: float
    losses: list[float]


def timed(train: Callable[[], object]) -> float:
    """CPU seconds of `train`, with everything made before it kept out of garbage collection."""
    gc.collect()
    gc.freeze()
    begin = time.process_time()
    train()
    spent = time.process_time() - begin
    gc.unfreeze()
    return spent


def arguments(batch_size: int, steps: int, folder: str, *, bf16: bool) -> dict[str, object]:
    """What both trainers are told."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch_size,
        "max_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "logging_steps": max(1, steps // 6),
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": bf16,
        "seed": 0,
    }


def ours(
    size: Size, corpus: Corpus, batch_size: int, batching: Batching, *, bf16: bool = False
) -> Run:
    """One training with tilth's engine."""
    order = Order(corpus.lengths, batch_size=batch_size, batching=batching, capacity=256, seed=1)
    model = size.model()
    with tempfile.TemporaryDirectory() as folder:
        given = arguments(batch_size, size.steps, folder, bf16=bf16)
        fold = isolates_documents(model, VOCABULARY)  # as tune.sft asks it
        engine = Engine(
            model,
            TrainingArguments(**given, logging_nan_inf_filter=False),
            order=order,
            collator=Collator(corpus, order, pad=0, fold=fold),
        )
        spent = timed(lambda: engine.train_from(None))
    return Run(engine.tokens, spent, [row["loss"] for row in engine.rows])


def theirs(
    size: Size, corpus: Corpus, batch_size: int, tokenizer: PreTrainedTokenizerFast, *, same: bool
) -> Run:
    """One training with trl's trainer: on our plain batches in their order, or on its own."""
    order = Order(corpus.lengths, batch_size=batch_size, batching="plain", capacity=256, seed=1)
    rows = [row for batch in order.of_epoch(0) for row in batch] if same else range(len(corpus))
    spans = [(corpus.starts[r], corpus.starts[r + 1]) for r in rows]
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for first, last in spans:
        columns["input_ids"].append(corpus.tokens[first:last].tolist())
        # trl shifts labels itself: the label of a token is the token where it is a target.
        columns["labels"].append([-100, *corpus.labels[first : last - 1].tolist()])
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            size.model(),
            SFTConfig(
                **arguments(batch_size, size.steps, folder, bf16=False),
                train_sampling_strategy="sequential" if same else "random",
                max_length=256,
                gradient_checkpointing=False,
            ),
            train_dataset=datasets.Dataset.from_dict(columns),
            processing_class=tokenizer,
        )
        trainer.remove_callback(transformers_printer())
        spent = timed(trainer.train)
        log = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    # Every row is used exactly once: steps are chosen to be one epoch.
    return Run(int(corpus.lengths.sum()), spent, log)


def transformers_printer() -> type:
    """The callback that prints each log line."""
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def product_rate(seconds: float = 0.4, *, dtype: torch.dtype = torch.float32) -> float:
    """FLOPs per CPU-second of a large matrix product."""
    left, right = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
    torch.mm(left, right)
    begin, count = time.process_time(), 0
    while time.process_time() - begin < seconds:
        torch.mm(left, right)
        count += 1
    return count * 2 * 1024**3 / (time.process_time() - begin)


def useful_flops(size: Size, corpus: Corpus) -> float:
    """FLOPs that one epoch needs: no padding, logits at targets only."""
    model = size.model()
    head = model.lm_head.weight.numel()
    body = model.num_parameters() - head  # tied: the embedding is the head
    lengths = corpus.lengths.astype(float)
    attended = float((lengths**2).sum() / lengths.sum() / 2)
    tokens = int(lengths.sum())
    return training_flops(body, tokens, size.layers, size.hidden, attended) + training_flops(
        head, corpus.targets
    )


def measure(name: str, batch_size: int, repeats: int, tokenizer: PreTrainedTokenizerFast) -> dict:
    """All comparisons at one size; the arms take turns so that noise meets them alike."""
    size = SIZES[name]
    corpus, _ = gather(
        rows_of(size.steps * batch_size, seed=0), max_length=256, vocabulary=VOCABULARY
    )
    arms: dict[str, Callable[[], Run]] = {
        "trl, same batches": lambda: theirs(size, corpus, batch_size, tokenizer, same=True),
        "tilth, same batches": lambda: ours(size, corpus, batch_size, "plain"),
        "trl, its default": lambda: theirs(size, corpus, batch_size, tokenizer, same=False),
        "tilth, grouped": lambda: ours(size, corpus, batch_size, "grouped"),
        "tilth, grouped, bf16": lambda: ours(size, corpus, batch_size, "grouped", bf16=True),
    }
    runs: dict[str, list[Run]] = {arm: [] for arm in arms}
    rates, rates_bf16 = [], []
    for _ in range(repeats):
        rates.append(product_rate())
        rates_bf16.append(product_rate(dtype=torch.bfloat16))
        for arm, train in arms.items():
            runs[arm].append(train())
    difference = check_losses(runs)
    flops = useful_flops(size, corpus)
    table = {}
    for arm, done in runs.items():
        rate = max(rates_bf16 if "bf16" in arm else rates)
        seconds = statistics.median(run.cpu_seconds for run in done)
        table[arm] = {
            "tokens_per_cpu_second": round(done[0].tokens / seconds, 1),
            "cpu_seconds": [round(run.cpu_seconds, 3) for run in done],
            "share_of_product_rate": round(flops / seconds / rate, 4),
            "losses": [round(loss, 5) for loss in done[0].losses],
        }
    return {
        "parameters": size.model().num_parameters(),
        "steps": size.steps,
        "rows": len(corpus),
        "tokens": int(corpus.lengths.sum()),
        "target_tokens": corpus.targets,
        "useful_flops": flops,
        "product_rate_fp32": max(rates),
        "product_rate_bf16": max(rates_bf16),
        "largest_loss_difference": difference,
        "ratio_same_batches": ratio(runs, "trl, same batches", "tilth, same batches"),
        "ratio_default_batches": ratio(runs, "trl, its default", "tilth, grouped"),
        "ratio_bf16_to_fp32": ratio(runs, "tilth, grouped", "tilth, grouped, bf16"),
        "arms": table,
    }


def ratio(runs: dict[str, list[Run]], slow: str, fast: str) -> float:
    """Median over the rounds of how many times faster `fast` was than `slow` in that round."""
    pairs = zip(runs[slow], runs[fast], strict=True)
    return round(statistics.median(a.cpu_seconds / b.cpu_seconds for a, b in pairs), 3)


def check_losses(runs: dict[str, list[Run]]) -> float:
    """The largest relative difference of the loss curves on the same batches.

    Raises:
        AssertionError: They are not the same training.
    """
    a, b = runs["trl, same batches"][0].losses, runs["tilth, same batches"][0].losses
    assert len(a) == len(b) > 1, (a, b)
    difference = max(abs(x - y) / x for x, y in zip(a, b, strict=True))
    assert difference < RELATIVE, f"the losses differ by {difference:.2%}: {a} {b}"
    return difference


def tokenizer_stub() -> PreTrainedTokenizerFast:
    """A tokenizer for trl's constructor; the rows are tokenised already."""
    words = {f"w{i}": i for i in range(VOCABULARY)}
    bare = Tokenizer(models.WordLevel(words, unk_token="w1"))
    return PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="w0", eos_token="w1")


def processor() -> str:
    """The processor's model name."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    """Runs the comparison and writes the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    default = Path(__file__).parent / "results" / "sft_throughput.json"
    parser.add_argument("--output", type=Path, default=default)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(chosen.threads)
    tokenizer = tokenizer_stub()
    warm, few = Size(64, 2, 3), gather(rows_of(12, 1), max_length=256, vocabulary=VOCABULARY)[0]
    ours(warm, few, 4, "plain")
    theirs(warm, few, 4, tokenizer, same=True)
    report = {
        "benchmark": "sft_throughput",
        "unit": "tokens per CPU-second; ratios are medians over rounds, tilth over trl",
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "threads": chosen.threads,
        "batch_size": chosen.batch_size,
        "repeats": chosen.repeats,
        "seed": 0,
        "precision": "fp32 in all arms but those named bf16",
        "notes": "trl without gradient checkpointing, which it would turn on by default and which "
        "costs it time; its rows are tokenised before the clock starts, as ours are",
        "versions": {**installed_versions(), "trl": importlib.metadata.version("trl")},
        "sizes": {},
    }
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    for name in chosen.sizes:
        shown = measure(name, chosen.batch_size, chosen.repeats, tokenizer)
        print(
            f"{name}: same batches {shown['ratio_same_batches']:.2f}x, default batches "
            f"{shown['ratio_default_batches']:.2f}x, bf16/fp32 {shown['ratio_bf16_to_fp32']:.2f}x, "
            f"share {shown['arms']['tilth, same batches']['share_of_product_rate']:.2f}",
            flush=True,
        )
        report["sizes"][name] = shown
        chosen.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
