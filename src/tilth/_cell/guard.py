"""Runs a program in a child of the warden, behind an audit hook; standard library only.

The hook refuses what a function under test has no business doing and notes that it was tried. It
is the clear message, and the only fence where the system has no namespaces; it is not the wall:
code that reaches into the interpreter's own memory gets around it.
"""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from types import ModuleType
from typing import Any, NoReturn

__all__ = ["install", "run_program"]

STATUS = 3  # the descriptor on which the warden listens
AF_UNIX = 1  # event loops wake themselves through a pair of these

PROCESS = {
    *("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system"),
    *("os.startfile", "pty.spawn", "subprocess.Popen"),
}
SIGNAL = {"os.kill", "os.killpg", "signal.pthread_kill"}
CHANGES = {
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr"),
}
LOOKS = {"os.listdir", "os.scandir", "os.chdir", "os.walk"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install(scratch: str, reads_too: bool) -> None:
    """Installs the hook; it cannot be taken off again.

    Args:
        scratch: The folder in which writing is allowed.
        reads_too: Also refuse reading outside of `scratch` and the interpreter's own files.
    """
    inside = os.path.realpath(scratch)
    here = os.path.dirname(os.path.realpath(__file__))  # tracebacks show its lines
    own = tuple({os.path.realpath(p) for p in (*sys.path, sys.base_prefix) if p} | {here})
    noted: set[str] = set()

    def refuse(what: str) -> NoReturn:
        if what not in noted:
            noted.add(what)
            os.write(STATUS, f"tried {what}\n".encode())
        raise PermissionError(f"the sandbox allows no {what}")

    def is_below(path: Any, homes: tuple[str, ...]) -> bool:
        if isinstance(path, int):
            return True  # an open descriptor was let through when it was opened
        real = os.path.realpath(os.fsdecode(path))
        return any(real == home or real.startswith(home + os.sep) for home in homes)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if path is None:
                return
            if isinstance(flags, int) and flags & WRITES:
                if not is_below(path, (inside, os.devnull)):
                    refuse("writing outside its folder")
            elif reads_too and not is_below(path, (inside, *own, os.devnull)):
                refuse("reading outside its folder")
        elif event in PROCESS:
            refuse("other process")
        elif event in SIGNAL:
            refuse("signal")
        elif event in CHANGES:
            paths = {"os.rename": args[:2], "os.link": args[:2], "os.symlink": args[1:2]}.get(
                event, args[:1]
            )
            if not all(is_below(p, (inside,)) for p in paths):
                refuse("writing outside its folder")
        elif event.startswith("socket."):
            if not (event == "socket.__new__" and args[1] == AF_UNIX):
                refuse("network")
        elif event.startswith("ctypes."):
            refuse("native code")
        elif reads_too and event in LOOKS and not is_below(args[0] or ".", (inside, *own)):
            refuse("reading outside its folder")

    sys.addaudithook(hook)


def run_program(code: str, tests: str, token: str) -> NoReturn:
    """Runs `code`, then `tests` in the same module, and ends the process.

    Writes `token` where the warden listens once everything has run to its end, so that leaving
    early with exit code 0 does not pass for passing.
    """
    module = ModuleType("__main__")
    for name in ("ctypes", "_ctypes", "cell", "guard", "wire"):
        sys.modules.pop(name, None)
    sys.modules["__main__"] = module
    exit_code = 0
    try:
        for name, text in (("<program>", code), ("<tests>", tests)):
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            exec(compile(text, name, "exec"), module.__dict__)
        sys.stdout.flush()
        os.write(STATUS, f"\n{token}\n".encode())
    except SystemExit as stop:
        exit_code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            sys.stderr.write(stop.code + "\n")
    except BaseException as error:
        exit_code = 1
        within = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, within)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(exit_code & 0xFF)
