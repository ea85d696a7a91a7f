"""How many threads, and in which number format: the choices that depend on the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

__all__ = ["Precision", "has_bf16", "resolve_precision", "threads_for", "with_threads"]

Precision = Literal["auto", "fp32", "bf16"]

BF16_PAYS_FROM = 3_000_000
"""Parameters from which bf16 autocast is faster than fp32 on a processor that has the instructions.
Our measurement (benchmarks/results/sft_throughput.json): below it, casting costs more than the
shorter products save."""

ONE_THREAD_BELOW = 2_000_000
TWO_THREADS_BELOW = 10_000_000
"""Parameters; our choice: the products of smaller models are too short to share
between threads, and waiting for the last thread costs more processor time than it saves."""


def has_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return False


def resolve_precision(wanted: Precision, device: torch.device, parameters: int) -> Precision:
    """``fp32`` or ``bf16``: `wanted`, or for ``auto`` what is faster here for a model this size."""
    if wanted != "auto":
        return wanted
    pays = device.type != "cpu" or parameters >= BF16_PAYS_FROM
    return "bf16" if pays and has_bf16(device) else "fp32"


def threads_for(parameters: int, wanted: int | None) -> int:
    """Threads to train with: `wanted`, or by size, never more than torch would take by itself."""
    if wanted is not None:
        return wanted
    if parameters < ONE_THREAD_BELOW:
        return 1
    usual = min(torch.get_num_threads(), os.cpu_count() or 1)
    return min(usual, 2) if parameters < TWO_THREADS_BELOW else usual


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Runs with `count` threads and the caller's random-number state untouched afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before)
