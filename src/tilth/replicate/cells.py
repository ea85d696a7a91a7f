"""Cells: one arm under one seed, computed once, each in its own process, whatever befalls another.

A cell's folder holds ``cell.json`` (its scores, written last and sealed by a digest: its presence
means done), ``log.txt`` (what it printed), ``failure.json`` where it failed, and whatever it keeps
to continue after a kill. A worker that dies takes no other cell with it, and the next run of the
same command computes what is missing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from tilth.artefacts import write_atomically
from tilth.replicate._worker import Job, cell_in, work
from tilth.replicate.frame import Replication

__all__ = ["compute", "failure_of", "read_cell"]

# Each worker computes with one thread: cells run side by side, and their cost can be compared.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def compute(
    replication: Replication, jobs: Sequence[Job], workers: int, say: Callable[[str], None]
) -> None:
    """Computes the jobs that have no ``cell.json`` yet, at most `workers` at once.

    A job that fails is named, its reason kept in ``failure.json``, and the others go on. Where this
    process ends, however it ends, its workers end too.
    """
    waiting = [job for job in jobs if read_cell(job, say) is None]
    done = len(jobs) - len(waiting)
    if done:
        say(f"{done} of {len(jobs)} cells are there from an earlier run")
    running: dict[Any, tuple[BaseProcess, Job]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                process = _start(replication, job)
                running[process.sentinel] = (process, job)
            for sentinel in wait(list(running)):
                process, job = running.pop(sentinel)
                process.join()
                done += 1
                say(f"[{done}/{len(jobs)}] {job.name}: {_outcome(process, job)}")
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()


def read_cell(job: Job, say: Callable[[str], None] = print) -> dict[str, Any] | None:
    """What the cell measured, or None; a damaged ``cell.json`` is named and set aside."""
    path = job.folder / "cell.json"
    if not path.is_file():
        return None
    body = cell_in(job.folder, job.key)
    if body is None:
        path.replace(path.with_suffix(".damaged.json"))
        say(f"{job.name}: cell.json was damaged; set aside and computed again")
    return body


def failure_of(job: Job) -> str:
    """Why the cell has no scores, in one line; ``""`` where nothing is known."""
    path = job.folder / "failure.json"
    with suppress(FileNotFoundError, ValueError):
        return str(json.loads(path.read_text(encoding="utf-8"))["error"])
    return ""


def _start(replication: Replication, job: Job) -> BaseProcess:
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "failure.json").unlink(missing_ok=True)
    process = _context().Process(
        target=work,
        args=(replication.cell, job),
        name=job.name,
    )
    with _one_thread():
        process.start()
    return process


def _context() -> ForkServerContext | SpawnContext:
    """Fresh processes, forked from a server that has imported what cells import.

    A cell would spend some 6 CPU seconds on imports alone. Elsewhere than on Linux libraries may
    start threads of their own that do not survive a fork.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["tilth.replicate._warm"])
    return context


def _outcome(process: BaseProcess, job: Job) -> str:
    """One word or sentence on how the cell ended; a death without a trace gets its failure.json."""
    if (job.folder / "cell.json").is_file():
        return "done"
    error = failure_of(job)
    if not error:
        code = process.exitcode or 0
        if code < 0:
            error = f"its worker was killed by signal {-code}"
            error += ", perhaps for want of memory" if code == -9 else ""
        else:
            error = f"its worker ended with exit code {code} and no scores"
        write_atomically(job.folder / "failure.json", json.dumps({"error": error}) + "\n")
    return f"FAILED: {error} (see {job.folder})"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Children started inside inherit a limit of one computing thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
