"""Shutting in: namespaces, an almost empty root, resource limits; standard library only."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Any

__all__ = ["Cell", "limit"]

NEWNS, NEWUTS, NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
NEWUSER, NEWPID, NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 32, 4096, 8192, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CAPABILITIES_V3 = 0x2008_0522
NOBODY = 65534
FIRST_UID = 1_700_000_000  # far from any account's

PROCESSES = 8  # threads count too; a function under test needs one
FILE_BYTES = 16 << 20
SCRATCH_BYTES = 32 << 20

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """Calls a C function that returns -1 on error.

    Raises:
        OSError: It did.
    """
    if getattr(libc, name)(*arguments) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    what, where, how, options = (
        None if text is None else text.encode() for text in (source, target, kind, data)
    )
    call("mount", what, where, how, ctypes.c_ulong(flags), options)


class Cell:
    """Where programs run: in namespaces where they are allowed, else in a folder.

    Args:
        namespaces: Use them if the system allows it.

    Attributes:
        closed: Whether the kernel's namespaces hold.
        why: Why they do not.
    """

    def __init__(self, namespaces: bool) -> None:
        self.closed = False
        self.why = "namespaces are not available on this system"
        self._root_user = os.getuid() == 0
        # One program at a time runs under this process's number, which no other warden has.
        self._user = FIRST_UID + os.getpid()
        self._namespace = -1
        # The attempt may fail half-way, and namespaces cannot be left again: try it in a child.
        if namespaces and sys.platform == "linux" and self._would_work():
            self._enter()

    def _would_work(self) -> bool:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self._enter()
                tried = self.fork()
                if tried == 0:
                    self.shut("/tmp")
                    os._exit(0)
                os._exit(os.waitstatus_to_exitcode(os.waitpid(tried, 0)[1]))
            except BaseException as error:
                os.write(writer, str(error).encode()[:500])
                os._exit(1)
        os.close(writer)
        self.why = os.read(reader, 500).decode()
        os.close(reader)
        return os.waitpid(child, 0)[1] == 0

    def _enter(self) -> None:
        """Moves this process into its namespaces; what returns is a child of what called."""
        uid, gid = os.getuid(), os.getgid()
        if not self._root_user:
            call("unshare", NEWUSER)
            maps = {
                "setgroups": "deny",
                "uid_map": f"{NOBODY} {uid} 1",
                "gid_map": f"{NOBODY} {gid} 1",
            }
            for name, text in maps.items():
                with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                    file.write(text)
        call("unshare", NEWNS | NEWNET | NEWIPC | NEWUTS | NEWPID)
        child = os.fork()  # only a child is in the new process namespace
        if child:
            os.close(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self._namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        _build_root()
        self.closed = True

    def fork(self) -> int:
        """A child; in namespaces it is process 1 of its own, so that all die with it."""
        if not self.closed:
            return os.fork()
        call("unshare", NEWPID)
        child = os.fork()
        if child:
            call("setns", self._namespace, NEWPID)
        return child

    def shut(self, scratch: str) -> None:
        """In the child: takes away everything that is left to take away."""
        if sys.platform == "linux":
            call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if self.closed:
            call("unshare", NEWNS)
            options = f"size={SCRATCH_BYTES},nr_inodes=1024,mode=0777"
            mount("tmpfs", scratch, "tmpfs", MS_NOSUID | MS_NODEV, options)
        os.chdir(scratch)
        if self.closed and self._root_user:
            os.setgroups([])
            os.setresgid(self._user, self._user, self._user)
            os.setresuid(self._user, self._user, self._user)  # and all capabilities are gone
        elif self.closed:
            header, nothing = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
            call("capset", header, nothing)


def _build_root() -> None:
    """A root that holds the standard library, shared libraries and an empty ``/tmp``."""
    libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/dev/null"]
    python = [*sys.path, os.path.join(os.path.realpath(sys.base_prefix), "lib")]
    wanted = sorted({p for p in (*python, *libraries) if os.path.exists(p)}, key=len)
    new = next(n for n in ("/tmp", "/mnt", "/var") if not any(p.startswith(n) for p in wanted))
    mount("tmpfs", new, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755")
    held: list[str] = []
    for path in wanted:
        if any(path.startswith(above + "/") for above in held):
            continue
        target = new + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            continue
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        mount(path, target, None, MS_BIND | MS_REC)
        # What the original mount forbids must stay forbidden, or the kernel refuses.
        kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        more = 0 if path == "/dev/null" else MS_NODEV
        mount(path, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | more | kept)
        held.append(path)
    os.makedirs(f"{new}/tmp", exist_ok=True)
    mount("tmpfs", new, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, "mode=0755")
    os.chdir(new)
    mount(".", "/", None, MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def limit(seconds: float, memory_mb: int, count_processes: bool) -> None:
    """Sets this process's resource limits for good.

    Args:
        seconds: Processor time, rounded up; the warden stops the wall clock exactly.
        memory_mb: Address space of each process.
        count_processes: Limit processes too; where the user has others, they would count.
    """
    limits = {
        resource.RLIMIT_CPU: int(seconds) + 1,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform != "darwin":  # macOS does not keep this one
        limits[resource.RLIMIT_AS] = memory_mb << 20
    if count_processes:
        limits[resource.RLIMIT_NPROC] = PROCESSES
    for kind, amount in limits.items():
        resource.setrlimit(kind, (amount, amount))
