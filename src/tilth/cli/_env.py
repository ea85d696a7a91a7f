"""The facts of this machine that a result may depend on."""

from __future__ import annotations

import os
from pathlib import Path

from tilth._manifest import installed_versions

__all__ = ["facts"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES")


def facts() -> list[tuple[str, str]]:
    """``(name, value)`` of versions, processor, memory, threads and devices; imports torch."""
    import torch

    found = [*installed_versions().items()]
    found.append(("cores", f"{len(_usable_cores())} usable of {os.cpu_count()}"))
    found.append(("memory", _memory()))
    found.append(("torch threads", str(torch.get_num_threads())))
    found += [(name, os.environ[name]) for name in _THREADS if name in os.environ]
    found.append(("processor bf16", "yes" if _has_bf16() else "no: bf16 will be emulated"))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            found.append((f"gpu {index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB"))
    elif torch.backends.mps.is_available():
        found.append(("gpu", "Apple MPS"))
    else:
        found.append(("gpu", "none: everything runs on the processor"))
    return found


def _usable_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total = pages * size / 2**30
    limit = Path("/sys/fs/cgroup/memory.max")  # what a container may use of it
    text = limit.read_text().strip() if limit.exists() else "max"
    return f"{total:.1f} GiB" + (f", limited to {int(text) / 2**30:.1f}" if text.isdigit() else "")


def _has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = set(cpuinfo.read_text().split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
