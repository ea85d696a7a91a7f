"""The process that runs hostile programs for :mod:`tilth.sandbox`; standard library only.

Started with a clean environment, it shuts itself in (``cell.py``) and then forks one child per
program: a warm interpreter costs a few milliseconds where a cold one costs twenty. It reads jobs
from descriptor 0 and answers there.
"""

from __future__ import annotations

import importlib
import os
import random
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from typing import Any

from cell import Cell, limit
from guard import install, run_program
from wire import receive, send

# What programs import most; loaded once, before the forks.
WARM = (
    "bisect collections copy dataclasses datetime functools heapq itertools json math operator re "
    "statistics string textwrap typing"
)
STATUS_BYTES = 4096
KILLED_BEFORE_START = 70


def become_program(
    cell: Cell, job: dict[str, Any], scratch: str, pipes: list[int], token: str
) -> None:
    """In the child: shuts itself in and runs the program; does not return."""
    try:
        os.setsid()
        sources = [os.open(os.devnull, os.O_RDONLY), *pipes]
        for target, source in enumerate(sources):
            os.dup2(source, 100 + target)  # out of the way of 0 to 3
        for target in range(len(sources)):
            os.dup2(100 + target, target)
        os.closerange(len(sources), 1024)
        cell.shut(scratch)
        limit(job["seconds"], job["memory_mb"], count_processes=cell.closed)
        os.environ.clear()
        os.environ.update({"HOME": scratch, "TMPDIR": scratch, "PATH": ""})
        tempfile.tempdir = None
        random.seed(0)
        sys.argv = ["program"]
        if job["guard"]:
            install(scratch, reads_too=not cell.closed)
    except BaseException as error:
        os.write(len(pipes), f"broken {error}\n".encode()[:500])
        os._exit(KILLED_BEFORE_START)
    run_program(job["code"], job["tests"], token)


def attend(child: int, pipes: list[int], control: int, job: dict[str, Any]) -> dict[str, Any]:
    """Collects the output of `child` until it ends or has to be ended."""
    limits = [job["output_bytes"], job["output_bytes"], STATUS_BYTES]
    texts = [bytearray() for _ in limits]
    open_pipes = dict(zip(pipes, range(3), strict=True))
    pidfd = os.pidfd_open(child) if sys.platform == "linux" else -1
    deadline = time.monotonic() + job["seconds"]
    ending = ""
    while not ending:
        left = deadline - time.monotonic()
        watched = [*open_pipes, control] + [pidfd] * (pidfd >= 0)
        patience = max(0.0, left if pidfd >= 0 else min(left, 0.005))
        ready = select.select(watched, [], [], patience)[0]
        drain(ready, open_pipes, texts, limits)
        if any(len(text) > most for text, most in zip(texts, limits, strict=True)):
            ending = "output"
        elif control in ready:
            ending = "orphaned"  # nobody sends while waiting for an answer: the end is closed
        elif pidfd < 0 or pidfd in ready:
            ending = "ended" if has_ended(child) else ""
        if left <= 0 and not ending:
            ending = "time"
    kill_all(child)
    status = os.waitpid(child, 0)[1]
    drain(list(open_pipes), open_pipes, texts, limits)
    if pidfd >= 0:
        os.close(pidfd)
    shown = [t[:n].decode("utf-8", "replace") for t, n in zip(texts, limits, strict=True)]
    return {
        "ending": ending,
        "exit_code": os.waitstatus_to_exitcode(status),
        **dict(zip(("stdout", "stderr", "status"), shown, strict=True)),
    }


def has_ended(child: int) -> bool:
    """Whether `child` has ended; leaves it to be waited for, so that its group keeps its number."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill_all(child: int) -> None:
    """Ends the child and its group; both may be gone already."""
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a zombie's group
            continue


def drain(
    ready: list[int], open_pipes: dict[int, int], texts: list[bytearray], limits: list[int]
) -> None:
    """Reads what there is, up to a little more than is allowed."""
    for pipe in [p for p in ready if p in open_pipes]:
        index = open_pipes[pipe]
        while len(texts[index]) <= limits[index]:
            try:
                piece = os.read(pipe, 65536)
            except BlockingIOError:
                break
            if not piece:
                del open_pipes[pipe]
                break
            texts[index] += piece


def run_job(cell: Cell, job: dict[str, Any], control: int) -> dict[str, Any]:
    """Runs one program in a child."""
    scratch = "/tmp" if cell.closed else tempfile.mkdtemp(prefix="tilth-sandbox-")
    ends = [os.pipe() for _ in range(3)]
    token = os.urandom(16).hex()
    child = cell.fork()
    if child == 0:
        become_program(cell, job, scratch, [writer for _, writer in ends], token)
    for reader, writer in ends:
        os.close(writer)
        os.set_blocking(reader, False)
    answer = attend(child, [reader for reader, _ in ends], control, job)
    for reader, _ in ends:
        os.close(reader)
    if not cell.closed:
        shutil.rmtree(scratch, ignore_errors=True)  # what cannot be removed is in the temp folder
    lines = answer.pop("status").split("\n")
    answer["finished"] = token in lines
    answer["tried"] = sorted({line[6:] for line in lines if line.startswith("tried ")})
    answer["broken"] = next((line[7:] for line in lines if line.startswith("broken ")), "")
    return answer


def serve(connection: socket.socket) -> None:
    """Answers jobs until the other end is closed."""
    for name in WARM.split():
        importlib.import_module(name)
    # Without this folder; and the real paths, as the cell has no links to them.
    sys.path[:] = [os.path.realpath(p) for p in sys.path[1:] if os.path.isdir(p)]
    cell = Cell(namespaces="--no-namespaces" not in sys.argv)
    send(connection, {"isolation": "namespaces" if cell.closed else "guard", "why": cell.why})
    while (job := receive(connection)) is not None:
        answer = run_job(cell, job, connection.fileno())
        if answer["ending"] == "orphaned":
            return
        send(connection, answer)


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
