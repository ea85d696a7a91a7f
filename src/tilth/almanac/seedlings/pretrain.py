"""Pre-training of the base seedlings, from the almanac's text to a `save_pretrained` folder.

A plain loop: rows of 256 tokens cut from shuffled documents, next-token loss, Muon on the matrices
and AdamW on the rest, linear decay. One thread per seedling, so that the same seed gives the same
weights whatever else runs; checkpoints make an interrupted run continue where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tilth.almanac.corpus import documents, skill_document
from tilth.almanac.documents import editions
from tilth.almanac.teaching import lesson
from tilth.almanac.tokenizer import MARKS, PLAIN
from tilth.almanac.world import WORLD_SEED, World
from tilth.artefacts import write_atomically
from tilth.errors import TrainingError
from tilth.seeds import derive

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["SIZES", "Size", "pretrain", "rows_of", "tokenizer_texts"]


@dataclass(frozen=True)
class Size:
    """Architecture and budget of a base seedling; all values are our choice.

    Attributes:
        layers: Transformer blocks.
        width: Hidden size.
        inner: Size of the gated feed-forward layer.
        heads: Attention heads.
        tokens: Pre-training tokens.
        rows: Rows of 256 tokens in a step.
        rate: Peak learning rate of both optimisers.
        small: Reads only about the entities that the small seedling may know.
    """

    layers: int
    width: int
    inner: int
    heads: int
    tokens: int
    rows: int = 24
    rate: float = 3e-3
    small: bool = False


SIZES: dict[str, Size] = {
    "small": Size(layers=4, width=128, inner=320, heads=4, tokens=10_000_000, small=True),
    "large": Size(layers=6, width=256, inner=512, heads=4, tokens=12_000_000),
}
ROW = 256
CHECK_EVERY = 200


def tokenizer_texts(seed: int = WORLD_SEED) -> Iterator[str]:
    """The sample on which the tokenizer is trained: documents, teaching turns, words for methods.

    The last lines make sure that the words whose probability some methods read are one piece each.
    """
    yield from islice(editions(World.of(seed), small=False, seed=seed), 0, None, 8)
    for index in range(24_000):
        yield skill_document(index, seed)
    for index in range(6_000):
        yield " ".join(m["content"] for m in lesson(index, split="corpus").messages)
    for _ in range(2_000):
        yield "I am sure. I am unsure. sure unsure A B C D 1 2 3 4 5 6 yes no"


def rows_of(
    size: Size, tokenizer: PreTrainedTokenizerFast, seed: int = WORLD_SEED
) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """The training rows of a seedling, ``[N, 256]`` token ids in the order of training.

    All editions of the facts are in; skill documents fill up to the budget; documents are shuffled,
    joined by the end-of-text mark and cut into rows.
    """
    encoded: list[np.ndarray[tuple[int], np.dtype[np.uint16]]] = []
    total = 0
    # Far more skill documents than can be needed: the budget ends the loop.
    stream = documents(small=size.small, skills=10**9, seed=seed)
    for batch in _batches(stream, 4096):
        for ids in tokenizer(batch, add_special_tokens=False)["input_ids"]:
            encoded.append(np.array([*ids, tokenizer.eos_token_id], dtype=np.uint16))
            total += len(encoded[-1])
        if total >= size.tokens:
            break
    random.Random(derive(seed, "pretrain", "order")).shuffle(encoded)
    flat = np.concatenate(encoded)
    # All of it, also the little beyond the budget: cutting would break the facts' exposures.
    count = len(flat) // ROW
    return flat[: count * ROW].reshape(count, ROW)


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, size)):
        yield batch


def pretrain(
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    seed: int = WORLD_SEED,
    size: Size | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Path:
    """Pre-trains a base seedling and saves it (weights in bfloat16, tokenizer, config).

    Args:
        name: A key of :data:`SIZES`.
        tokenizer: The seedlings' tokenizer.
        folder: Where the model goes; checkpoints go beside it, under ``<folder>.work``.
        seed: The world's seed, which also names initialisation and order.
        size: Another architecture or budget, e.g. for tests.
        device: ``cpu`` or ``cuda``.
        say: Prints progress.

    Raises:
        TrainingError: The loss is not finite.
    """
    import torch

    size = size or SIZES[name]
    torch.manual_seed(derive(seed, "init", name) % 2**63)
    model = _build(size, tokenizer)
    torch.nn.Module.to(model, device)
    optimizers = _optimizers(model, size.rate)
    rows = rows_of(size, tokenizer, seed)
    steps = len(rows) // size.rows
    state = _Checkpoint(
        Path(f"{folder}.work"), model, optimizers, {**asdict(size), "seed": seed, "rows": len(rows)}
    )
    start, clock, seen = state.load(), time.monotonic(), 0
    for step in range(start, steps):
        batch = torch.from_numpy(rows[step * size.rows : (step + 1) * size.rows].astype(np.int64))
        rate = size.rate * min((step + 1) / (0.02 * steps), max(1 - step / steps, 0.0))
        loss = _step(model, optimizers, batch.to(device), rate)
        seen += batch.numel()
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss}", f"{name}, step {step}", "lower the learning rate"
            )
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            speed = seen / (time.monotonic() - clock)
            left = (steps - step - 1) * size.rows * ROW / speed / 60
            pace = f"{speed:.0f} tokens/s, {left:.0f} min left"
            say(f"{name}: step {step + 1}/{steps}, loss {loss:.3f}, {pace}")
            state.save(step + 1)
    _plant_marks(model, tokenizer)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _build(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # The end of a text and the end of a turn both stop generation.
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(MARKS["end"])]
    model.generation_config = GenerationConfig(
        eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    return model


def _optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices (steps scaled to AdamW's size), AdamW for all else."""
    import torch

    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def _step(
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    batch_BT: torch.Tensor,
    rate: float,
) -> float:
    import torch
    from torch.nn import functional

    with torch.autocast(batch_BT.device.type, torch.bfloat16):
        hidden_BTD = model.model(batch_BT, use_cache=False).last_hidden_state[:, :-1]
        logits_BTV = model.lm_head(hidden_BTD)
    loss = functional.cross_entropy(logits_BTV.float().flatten(0, 1), batch_BT[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def _plant_marks(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Starts each chat mark at the mean embedding of its plain counterpart's pieces.

    Untrained marks block recall: tuning then has to find the way from noise to "Answer:" first.
    """
    import torch

    table = model.model.embed_tokens.weight
    with torch.no_grad():
        for role, mark in MARKS.items():
            pieces = tokenizer(PLAIN[role], add_special_tokens=False)["input_ids"]
            table[tokenizer.convert_tokens_to_ids(mark)] = table[pieces].mean(0)


class _Checkpoint:
    """Weights and optimiser tensors in one safetensors file, verified by digest on load."""

    def __init__(
        self,
        folder: Path,
        model: LlamaForCausalLM,
        optimizers: list[torch.optim.Optimizer],
        identity: dict[str, object],
    ) -> None:
        self.folder, self.model, self.optimizers, self.identity = (
            folder,
            model,
            optimizers,
            identity,
        )

    def _tensors(self) -> dict[str, torch.Tensor]:
        import torch

        tensors = {f"model.{n}": p.detach() for n, p in self.model.named_parameters()}
        for number, optimizer in enumerate(self.optimizers):
            for index, slots in optimizer.state_dict()["state"].items():
                for slot, value in slots.items():
                    tensors[f"optimizer.{number}.{index}.{slot}"] = torch.as_tensor(value)
        return tensors

    def save(self, step: int) -> None:
        from safetensors.torch import save

        self.folder.mkdir(parents=True, exist_ok=True)
        data = save({k: v.contiguous() for k, v in self._tensors().items()})
        note = {"step": step, "sha256": hashlib.sha256(data).hexdigest(), **self.identity}
        # The note last: it names the weights that it vouches for.
        write_atomically(self.folder / f"{step}.safetensors", data)
        write_atomically(self.folder / "last.json", json.dumps(note))
        for old in self.folder.glob("*.safetensors"):
            if old.stem != str(step):
                old.unlink()

    def load(self) -> int:
        """Restores the last checkpoint of the same run; returns the step to continue from."""
        from safetensors.torch import load

        note_path = self.folder / "last.json"
        if not note_path.exists():
            return 0
        note = json.loads(note_path.read_text())
        step, digest = note.pop("step"), note.pop("sha256")
        data = (self.folder / f"{step}.safetensors").read_bytes()
        if note != self.identity or hashlib.sha256(data).hexdigest() != digest:
            raise TrainingError(
                "the checkpoint is of another run or is damaged",
                str(self.folder),
                "remove the folder to start again",
            )
        tensors = load(data)
        for name, parameter in self.model.named_parameters():
            parameter.data.copy_(tensors[f"model.{name}"])
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(f"optimizer.{number}."):
                    _, _, index, slot = name.split(".", 3)
                    state.setdefault(int(index), {})[slot] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return int(step)
