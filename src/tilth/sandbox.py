"""The sandbox: runs generated Python, which is taken to be hostile.

    >>> result = run_python("def double(x):\\n    return x + x", tests="assert double(2) == 4")
    >>> result.ok
    True

What a program gets: Python's standard library, an empty folder of its own in memory (32 MiB), an
empty environment, hash and random seeds of zero, and limits on time, memory, processes (8), open
files, file size and output. What it does not get: network, other processes' ids, the user's files,
a way to outlive its end. What it prints is data.

On Linux this is done by the kernel: namespaces for mounts, processes, network and IPC, no
capabilities, and as root a user id of its own. An audit hook in front of it refuses and reports
attempts in words. Where namespaces are not allowed (macOS, many containers), **only the audit
hook, the limits and the process group are left** (:func:`isolation` says ``"guard"``); they stop
accidents and plain attempts, not an attacker who knows the interpreter.

Time is told by the clock on the wall: on a machine so busy that a program of a millisecond waits
for seconds, a right program can be stopped.

Not protected, in either case: errors of the kernel; side channels; a program that looks through
the interpreter's frames for the proof that its tests have passed, and so reports success falsely;
memory of several processes together (each has the limit by itself). Programs that run at the same
time share a network namespace without interfaces.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tilth._cell.wire import receive, send
from tilth.errors import SandboxError

__all__ = ["Program", "SandboxResult", "isolation", "run_many", "run_python"]

SCRIPT = Path(__file__).parent / "_cell" / "warden.py"
GRACE = 10.0
"""Seconds beyond a program's own in which the warden must answer. Our choice."""
LEAST_MEMORY_MB = 64
"""The interpreter itself needs about 30 MB of address space."""


@dataclass(frozen=True)
class Program:
    """A program and the statements that test it."""

    code: str
    tests: str = ""


@dataclass(frozen=True)
class SandboxResult:
    """What became of a program.

    Attributes:
        ok: It ran to its end, tests included (without tests, exit code 0 is enough).
        exit_code: As the system gives it: negative where a signal ended it.
        stdout: What it printed, up to the limit. Data, never to be trusted.
        stderr: Its error output, tracebacks included, up to the limit.
        timed_out: It was stopped because its time was up.
        reason: Why it is not ok, and what refused things it tried; "" where there is neither.
    """

    ok: bool
    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool
    reason: str


def run_python(
    code: str,
    *,
    tests: str = "",
    seconds: float = 2.0,
    memory_mb: int = 256,
    output_bytes: int = 65536,
) -> SandboxResult:
    """Runs a program, and then its tests in the same module.

    The defaults are our choice, for functions of a few lines.

    Args:
        code: Python source.
        tests: Statements that raise where the code is wrong, such as asserts.
        seconds: Wall-clock time, and processor time rounded up.
        memory_mb: Address space, the interpreter's 30 MB included.
        output_bytes: Of standard output and of error output, each.

    Raises:
        SandboxError: A limit is out of range, or the sandbox cannot be started.
    """
    return _run(Program(code, tests), seconds, memory_mb, output_bytes)


def run_many(
    programs: Iterable[Program | str],
    *,
    workers: int = 2,
    seconds: float = 2.0,
    memory_mb: int = 256,
    output_bytes: int = 65536,
) -> list[SandboxResult]:
    """Runs many programs, `workers` at a time; the results are in the programs' order.

    Each program has a process and a folder of its own; none sees what another left.

    Raises:
        SandboxError: A limit is out of range, or the sandbox cannot be started.
    """
    listed = [p if isinstance(p, Program) else Program(p) for p in programs]
    if workers < 1:
        raise SandboxError(f"workers must be at least 1, not {workers}", where="workers")
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda p: _run(p, seconds, memory_mb, output_bytes), listed))


def isolation() -> Literal["namespaces", "guard"]:
    """How programs are held here; see the module's docstring."""
    warden = _take()
    _give(warden)
    return warden.isolation


class _Warden:
    """The process that forks the programs; it runs one at a time."""

    def __init__(self, namespaces: bool = True) -> None:
        self.connection, theirs = socket.socketpair()
        with theirs:
            # The hash seed comes by the environment, which -I would ignore.
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-B", "-X", "utf8", str(SCRIPT)]
                + ["--no-namespaces"] * (not namespaces),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0"},
                cwd="/",
                start_new_session=True,
            )
        hello = self._hear(GRACE)
        self.isolation: Literal["namespaces", "guard"] = hello["isolation"]

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Sends a job and waits for its answer."""
        try:
            send(self.connection, job)
        except OSError as error:
            raise self._gone() from error
        return self._hear(job["seconds"] + GRACE)

    def close(self) -> None:
        """Ends the process; it leaves by itself once the connection is closed."""
        self.connection.close()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _hear(self, seconds: float) -> dict[str, Any]:
        self.connection.settimeout(seconds)
        try:
            answer = receive(self.connection)
        except OSError as error:
            raise self._gone() from error
        if answer is None:
            raise self._gone()
        return answer

    def _gone(self) -> SandboxError:
        self.connection.close()
        self.process.kill()
        code = self.process.wait()
        return SandboxError(
            "the process that runs generated code has ended or hangs",
            where=f"exit code {code}",
            fix="run it again; if it stays so, the machine may be short of memory or processes",
        )


_LOCK = threading.Lock()
_IDLE: list[_Warden] = []
# A forked child must not talk on its parent's connections.
os.register_at_fork(after_in_child=_IDLE.clear)


def _take() -> _Warden:
    with _LOCK:
        if _IDLE:
            return _IDLE.pop()
    return _Warden()


def _give(warden: _Warden) -> None:
    with _LOCK:
        _IDLE.append(warden)


@atexit.register
def _close_all() -> None:
    while _IDLE:
        _IDLE.pop().close()


def _run(
    program: Program, seconds: float, memory_mb: int, output_bytes: int, guard: bool = True
) -> SandboxResult:
    """Runs a program; without `guard` only the kernel's part holds, for tests of that part."""
    if not (0 < seconds <= 3600 and memory_mb >= LEAST_MEMORY_MB and output_bytes >= 0):
        raise SandboxError(
            f"limits out of range: {seconds} s, {memory_mb} MB, {output_bytes} bytes",
            fix=f"use up to 3600 s, at least {LEAST_MEMORY_MB} MB and no negative number",
        )
    job = {
        "code": program.code,
        "tests": program.tests,
        "seconds": seconds,
        "memory_mb": memory_mb,
        "output_bytes": output_bytes,
        "guard": guard,
    }
    warden = _take()
    try:
        answer = warden.ask(job)
    except BaseException:  # Ctrl-C too: an answer that nobody waits for must not reach the next job
        warden.connection.close()
        raise
    _give(warden)
    if answer["broken"]:
        raise SandboxError("the sandbox could not shut a program in", where=answer["broken"])
    return _result(answer, program, job)


def _result(answer: dict[str, Any], program: Program, job: dict[str, Any]) -> SandboxResult:
    exit_code, ending = answer["exit_code"], answer["ending"]
    if ending == "time":
        reason = f"stopped after {job['seconds']:g} s"
    elif ending == "output":
        reason = f"stopped: wrote more than {job['output_bytes']} bytes"
    elif exit_code < 0:
        reason = f"ended by {signal.Signals(-exit_code).name}"
    elif exit_code > 0:
        reason = _last_words(answer["stderr"]) or f"exit code {exit_code}"
    elif program.tests and not answer["finished"]:
        reason = "ended before its tests did"
    else:
        reason = ""
    ok = not reason
    if answer["tried"]:
        reason = "; ".join([*filter(None, [reason]), f"refused: {', '.join(answer['tried'])}"])
    return SandboxResult(
        ok=ok,
        exit_code=exit_code,
        stdout=answer["stdout"],
        stderr=answer["stderr"],
        timed_out=ending == "time",
        reason=reason,
    )


def _last_words(stderr: str) -> str:
    """The last line of a traceback; for a bare assertion also the line that failed."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip(" ^~")]
    if not lines:
        return ""
    if lines[-1] == "AssertionError" and len(lines) > 1:
        return f"AssertionError: {lines[-2]}"[:300]
    return lines[-1][:300]
