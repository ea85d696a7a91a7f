"""Trains the seedlings from scratch: what ``tilth seedlings train`` does.

The shipped tokenizer is kept (another world gets its own). ``small`` and ``large`` are pre-trained
side by side, one thread each, so that the same seed gives the same weights on the same processor.
``teacher`` is ``large``, tuned by :class:`tilth.tune.sft.SFT` on teaching turns. Every part is kept
as it is finished and none is made twice; a killed run continues from its last checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tilth.almanac.seedlings.pretrain import SIZES, Size, pretrain, tokenizer_texts
from tilth.almanac.teaching import lesson
from tilth.almanac.world import WORLD_SEED
from tilth.apps.seedlings.card import write_card
from tilth.data import write_rows
from tilth.errors import RecipeError, nearest
from tilth.models.reference import SEEDLINGS

__all__ = ["LESSONS", "NAMES", "TEACHER", "train_seedlings"]

NAMES = ("small", "large", "teacher")

LESSONS = 36_000
"""Lessons of the teacher (our choice: about two million tokens)."""

TEACHER: dict[str, Any] = {
    "adapter": "full",
    "learning_rate": 5e-4,
    "schedule": "linear",
    "epochs": 1,
    "batch_size": 32,
    "max_length": 384,
    "threads": 2,
}
"""Settings of the teacher's tuning (our choice)."""


def train_seedlings(
    out: Path | str,
    names: Sequence[str] = NAMES,
    *,
    seed: int = WORLD_SEED,
    device: str = "cpu",
    sizes: Mapping[str, Size] = SIZES,
    lessons: int = LESSONS,
    say: Callable[[str], None] = print,
) -> dict[str, Path]:
    """Trains and measures the seedlings; returns the folder of each.

    Args:
        out: Folder for ``tokenizer/``, ``small/``, ``large/`` and ``teacher/``; what is complete
            there is kept, so copy a folder there to start from it.
        names: Which to make; the teacher needs ``large``.
        seed: The world's seed.
        device: ``cpu`` or ``cuda``, for the pre-training.
        sizes: Architecture and budget of each base.
        lessons: Lessons of the teacher.
        say: Prints progress.

    Raises:
        RecipeError: A name is unknown.
    """
    for name in names:
        if name not in NAMES:
            raise RecipeError(
                f"no seedling is called {name!r}", "names", nearest(name, NAMES) or ", ".join(NAMES)
            )
    out = Path(out)
    folders = {name: out / name for name in NAMES}
    _tokenizer(out / "tokenizer", seed, say)
    bases = [name for name in SIZES if name in names or (name == "large" and "teacher" in names)]
    missing = [name for name in bases if not _complete(folders[name])]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_pretrain, name, out, seed, device, sizes[name]) for name in missing]
        for job in jobs:
            say(f"pre-trained: {job.result()}")
    if "teacher" in names and not _complete(folders["teacher"]):
        _teach(out, seed, lessons, say)
    for name in names:
        if not (folders[name] / "scores.json").exists():
            say(f"card: {write_card(name, folders[name])}")
    return {name: folders[name] for name in names}


def _complete(folder: Path) -> bool:
    return (folder / "model.safetensors").exists() and (folder / "config.json").exists()


def _tokenizer(folder: Path, seed: int, say: Callable[[str], None]) -> None:
    """The tokenizer: for the shipped world the shipped one, for another world a new one.

    Keeping it lets models, adapters and caches made at different times share their token ids, also
    when a wording of the teaching turns changes between versions.
    """
    from transformers import PreTrainedTokenizerFast

    from tilth.almanac.tokenizer import train_tokenizer

    shipped = SEEDLINGS / "small"
    if (folder / "tokenizer.json").exists():
        return
    if seed == WORLD_SEED and (shipped / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(shipped)
    else:
        tokenizer = train_tokenizer(tokenizer_texts(seed))
    tokenizer.save_pretrained(folder)
    say(f"tokenizer: {len(tokenizer)} pieces in {folder}")


def _pretrain(name: str, out: Path, seed: int, device: str, size: Size) -> str:
    """Runs in a worker process of its own, with one thread."""
    import torch
    from transformers import PreTrainedTokenizerFast

    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
    return str(pretrain(name, tokenizer, out / name, seed=seed, device=device, size=size))


def _teach(out: Path, seed: int, count: int, say: Callable[[str], None]) -> None:
    from tilth.tune.sft import SFT

    data = out / "lessons.jsonl"
    if not data.exists():
        write_rows(data, (lesson(n, seed=seed) for n in range(count)))
    say(f"tuning the teacher on {count} lessons")
    tuned = SFT(model=str(out / "large"), data=str(data), **TEACHER).to(out / "teacher.run")
    halve(tuned.path("model"), out / "teacher")


def halve(source: Path, target: Path) -> None:
    """Copies a model folder with its weights rounded to bfloat16, half the bytes of float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    draft = target.with_name(f"{target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(draft)
    AutoTokenizer.from_pretrained(source).save_pretrained(draft)
    draft.replace(target)
