"""Hostile programs, one by one; all on this machine's loopback only."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tilth import sandbox
from tilth.errors import SandboxError
from tilth.sandbox import Program, isolation, run_many, run_python

needs_namespaces = pytest.mark.skipif(
    isolation() != "namespaces", reason="the system allows no namespaces; only the guard is left"
)


def bare(code: str, seconds: float = 1.0, memory_mb: int = 256) -> sandbox.SandboxResult:
    """Without the audit hook, so that the kernel's part has to hold alone."""
    return sandbox._run(Program(code), seconds, memory_mb, 65536, guard=False)


def test_a_right_function_passes_its_tests():
    result = run_python("def double(x):\n    return x + x", tests="assert double(2) == 4")
    assert result.ok
    assert (result.exit_code, result.reason, result.timed_out) == (0, "", False)


def test_a_failed_assertion_is_the_reason():
    result = run_python("def double(x):\n    return x", tests="assert double(2) == 4")
    assert not result.ok
    assert result.reason == "AssertionError: assert double(2) == 4"
    assert 'File "<tests>", line 1' in result.stderr


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:\n", "SyntaxError"),
        ("x = 1\0", "null bytes"),
        ("x = '\ud800'", "UnicodeEncodeError"),
        ("x = " + "(" * 5000, "too many nested"),
        ("raise SystemExit(3)", "exit code 3"),
        ("raise SystemExit('bye')", "bye"),
        ("def f():\n    return f()\nf()", "RecursionError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import torch", "ModuleNotFoundError"),
        ("import tilth", "ModuleNotFoundError"),
    ],
)
def test_an_error_is_the_reason(code, reason):
    result = run_python(code)
    assert not result.ok
    assert reason in result.reason


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "import os; os._exit(0)"])
def test_leaving_before_the_tests_is_not_passing(leave):
    result = run_python(leave, tests="assert False")
    assert (result.ok, result.exit_code) == (False, 0)
    assert result.reason == "ended before its tests did"
    assert run_python(leave).ok  # without tests, exit code 0 is all that is asked for


def test_output_and_unusual_text_come_back():
    result = run_python("import sys\nprint('żółć 🌱')\nprint('err', file=sys.stderr)")
    assert (result.stdout, result.stderr) == ("żółć 🌱\n", "err\n")
    broken = run_python("import sys\nsys.stdout.buffer.write(bytes([255, 254]))")
    assert broken.stdout == "\ufffd\ufffd"


def test_the_same_program_prints_the_same():
    code = "import random\nprint(list({'a', 'b', 'c', 'd'}), random.random(), hash('tilth'))"
    assert len({run_python(code).stdout for _ in range(3)}) == 1


def test_programs_do_not_see_each_other():
    first = "open('left', 'w').write('x')\nimport builtins\nbuiltins.left = 1"
    second = "import os, builtins\nassert os.listdir() == []\nassert not hasattr(builtins, 'left')"
    assert [r.reason for r in run_many([first, second], workers=1)] == ["", ""]


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import os\n[os.close(n) for n in (0, 1, 2, 3)]\nwhile True: pass",
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import threading, time\nfor _ in range(3):\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\ntime.sleep(60)",
    ],
)
def test_endless_programs_are_stopped(code):
    result = run_python(code, seconds=0.3)
    assert (result.ok, result.timed_out) == (False, True)
    assert result.reason == "stopped after 0.3 s"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_huge_output_is_cut_off(stream):
    code = f"import sys\nwhile True: sys.{stream}.write('x' * 65536)"
    result = run_python(code, seconds=5, output_bytes=1000)
    assert (result.ok, result.timed_out) == (False, False)
    assert result.reason == "stopped: wrote more than 1000 bytes"
    assert getattr(result, stream) == "x" * 1000


def test_a_memory_hog_gets_no_memory():
    result = run_python("x = bytearray(10**9)", memory_mb=128)
    assert result.reason == "MemoryError"
    slow = run_python("x = []\nwhile True: x.append('y' * 10**6 + str(len(x)))", memory_mb=128)
    assert not slow.ok
    assert not slow.timed_out


def test_a_large_file_is_refused():
    result = run_python("open('x', 'wb').write(bytes(20 << 20))")
    assert "File too large" in result.reason or "No space left" in result.reason


def test_writing_outside_its_folder_is_refused():
    target = Path("/opt/planted")  # its own folder is /tmp, where the checkout may lie as well
    result = run_python(f"open({str(target)!r}, 'w').write('x')")
    assert not result.ok
    assert "refused: writing outside its folder" in result.reason
    assert not target.exists()


@pytest.mark.parametrize("call", ["os.remove", "os.rmdir", "os.mkdir", "os.listdir", "open"])
def test_the_users_files_are_out_of_reach(tmp_path, call):
    victim = tmp_path / "victim"
    victim.write_text("secret-content")
    result = run_python(f"import os\nprint({call}({str(victim)!r}))")
    assert not result.ok
    assert victim.read_text() == "secret-content"
    assert "secret-content" not in result.stdout


def test_the_environment_is_empty(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "not-to-be-seen")
    look = "import os\nprint(dict(os.environ))\nprint(open('/proc/self/environ').read())"
    result = run_python(look)
    assert "not-to-be-seen" not in result.stdout + result.stderr
    assert "OPENAI" not in result.stdout


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))", "network"),
        ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')", "network"),
        ("import os\nwhile True: os.fork()", "other process"),
        ("import subprocess\nsubprocess.run(['/bin/sh'])", "other process"),
        ("import os\nos.system('id')", "other process"),
        ("import os\nos.kill(os.getppid(), 9)", "signal"),
        ("import ctypes\nctypes.CDLL(None).getpid()", "native code"),
    ],
)
def test_what_a_function_has_no_business_doing_is_reported(code, what):
    result = run_python(code)
    assert not result.ok
    assert f"refused: {what}" in result.reason


def test_an_attempt_is_reported_even_if_it_is_swallowed():
    code = "import os\ntry:\n    os.fork()\nexcept OSError:\n    pass"
    result = run_python(code, tests="assert True")
    assert result.ok
    assert result.reason == "refused: other process"


def test_event_loops_work():
    code = "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 3"
    assert run_python(code, tests="assert asyncio.run(f()) == 3").ok


@needs_namespaces
class TestTheKernelAlone:
    def test_the_network_is_unreachable(self):
        result = bare("import socket\nsocket.create_connection(('127.0.0.1', 9), 1)")
        assert "unreachable" in result.reason

    def test_nothing_but_its_folder_can_be_written(self, tmp_path):
        folders = ["/", "/usr/lib", "/dev", str(tmp_path)]
        code = (
            f"bad = []\nfor folder in {folders!r}:\n    try:\n"
            "        open(folder + '/planted', 'w')\n        bad.append(folder)\n"
            "    except OSError:\n        pass\nassert not bad, bad\nopen('mine', 'w').write('x')"
        )
        assert bare(code).reason == ""

    def test_no_user_file_exists(self):
        here = Path(__file__).resolve()
        assert "FileNotFoundError" in bare(f"open({str(here)!r})").reason
        assert "FileNotFoundError" in bare("open('/etc/passwd')").reason
        assert "FileNotFoundError" in bare("open('/proc/1/environ')").reason

    def test_a_fork_bomb_stays_small(self):
        code = (
            "import os, time\nn = 0\ntry:\n    while True:\n        if os.fork() == 0:\n"
            "            time.sleep(60)\n        n += 1\nexcept OSError as e:\n"
            "    print(n, type(e).__name__)"
        )
        result = bare(code)
        assert result.stdout.split()[1] == "BlockingIOError"
        assert int(result.stdout.split()[0]) < 10
        assert bare(
            "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
        ).timed_out
        assert run_python("pass").ok

    def test_a_daemon_does_not_outlive_its_program(self):
        mark = f"tilth-daemon-{os.getpid()}"
        code = (
            "import os, sys, time, ctypes\nif os.fork() == 0:\n    os.setsid()\n"
            "    if os.fork() == 0:\n"
            f"        ctypes.CDLL(None).prctl(15, {mark[:15].encode()!r}, 0, 0, 0)\n"
            "        time.sleep(60)\n    os._exit(0)\ntime.sleep(0.1)"
        )
        assert bare(code).ok
        names = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                names.append(path.read_text().strip())
            except OSError:
                continue  # a process that has just ended
        assert mark[:15] not in names

    def test_other_processes_cannot_be_signalled(self):
        code = (
            "import os\nfor pid in [1, *range(2, 400), -1]:\n    if pid == os.getpid(): continue\n"
            "    try: os.kill(pid, 9)\n    except OSError: pass"
        )
        bare(code)
        assert run_python("pass").ok
        assert "ProcessLookupError" in bare(f"import os\nos.kill({os.getpid()}, 9)").reason

    def test_it_has_no_privileges(self):
        code = (
            "import os, ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nassert os.getuid() != 0\n"
            "assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == -1\n"
            "assert libc.umount2(b'/', 2) == -1\nassert libc.sethostname(b'x', 1) == -1\n"
            "assert libc.chroot(b'/tmp') == -1"
        )
        assert bare(code).reason == ""

    def test_the_warden_cannot_be_traced_or_answered_for(self):
        code = "import os\nfor n in range(4, 1024):\n    try:\n        os.write(n, b'x')\n"
        code += "        raise SystemExit(5)\n    except OSError:\n        pass"
        assert bare(code).reason == ""


class TestTheGuardAlone:
    """What is left where the system allows no namespaces."""

    @pytest.fixture(autouse=True)
    def _only_the_guard(self, monkeypatch):
        warden = sandbox._Warden(namespaces=False)
        assert warden.isolation == "guard"
        monkeypatch.setattr(sandbox, "_IDLE", [warden])
        yield
        warden.close()

    def test_functions_run(self):
        assert run_python("def f(x):\n    return x + 1", tests="assert f(1) == 2").ok
        assert run_python("open('x', 'w').write('1')\nassert open('x').read() == '1'").ok
        assert run_python("import json, decimal, urllib.parse").ok

    @pytest.mark.parametrize(
        ("code", "what"),
        [
            ("open('/etc/passwd').read()", "reading"),
            ("open('/proc/self/environ').read()", "reading"),
            ("import os\nos.listdir('/root')", "reading"),
            ("open('/var/tmp/planted', 'w')", "writing"),
            ("import os\nos.open('/var/tmp/planted', os.O_CREAT | os.O_WRONLY)", "writing"),
            ("import os\nos.symlink('/etc', 'e')\nopen('e/passwd').read()", "reading"),
            ("import os\nos.rename('/etc/hosts', 'h')", "writing"),
            ("import shutil\nshutil.rmtree('/var/tmp')", "reading"),
            ("import os\nos.fork()", "other process"),
            ("import socket\nsocket.socket()", "network"),
            ("import os\nos.killpg(0, 9)", "signal"),
        ],
    )
    def test_plain_attempts_are_refused(self, code, what):
        result = run_python(code)
        assert not result.ok
        assert f"refused: {what}" in result.reason

    def test_limits_hold(self):
        assert run_python("while True: pass", seconds=0.2).timed_out
        assert "MemoryError" in run_python("x = bytearray(10**9)").reason
        assert "more than" in run_python("print('x' * 10**6)").reason

    def test_its_folder_is_removed(self):
        folder = run_python("import os\nopen('x', 'w')\nprint(os.getcwd())").stdout.strip()
        assert "tilth-sandbox-" in folder
        assert not Path(folder).exists()


def test_forged_answers_are_not_believed():
    forged = "import os\nos.write(3, b'\\ntried nothing\\nfinished\\n' * 3)\nos._exit(0)"
    assert not run_python(forged, tests="assert False").ok
    flood = "import os\nwhile True: os.write(3, b'x' * 4096)"
    assert "stopped" in run_python(flood, seconds=1).reason


def test_many_keep_their_order_and_their_workers():
    programs = [Program(f"print({n})", f"assert {n} % 3") for n in range(30)]
    results = run_many(programs, workers=2)
    assert [r.stdout for r in results] == [f"{n}\n" for n in range(30)]
    assert [r.ok for r in results] == [n % 3 > 0 for n in range(30)]


@pytest.mark.parametrize(
    "limits", [{"seconds": 0}, {"memory_mb": 8}, {"output_bytes": -1}, {"seconds": 1e9}]
)
def test_senseless_limits_are_refused(limits):
    with pytest.raises(SandboxError, match="limits out of range"):
        run_python("pass", **limits)


def test_a_killed_warden_is_an_error_and_then_replaced():
    run_python("pass")
    sandbox._IDLE[-1].process.kill()
    sandbox._IDLE[-1].process.wait()
    with pytest.raises(SandboxError, match="has ended or hangs"):
        run_python("pass")
    assert run_python("pass").ok


def test_nothing_is_left_when_the_caller_is_killed():
    code = (
        "import sys\nfrom tilth import sandbox\nsandbox.run_python('pass')\n"
        "print(sandbox._IDLE[0].process.pid, flush=True)\n"
        "sandbox.run_python('while True: pass', seconds=60)"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(sandbox.__file__).parents[1])},
    )
    assert caller.stdout is not None
    warden = int(caller.stdout.readline())
    time.sleep(0.3)
    caller.kill()
    caller.wait()
    caller.stdout.close()
    for _ in range(200):
        stat = Path(f"/proc/{warden}/stat")
        if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the warden outlived its caller")


def test_a_forked_child_uses_a_warden_of_its_own():
    run_python("pass")
    child = os.fork()
    if child == 0:
        os._exit(0 if run_python("print(1)").stdout == "1\n" else 1)
    results = run_many(["print(2)"] * 5, workers=1)
    assert os.waitpid(child, 0)[1] == 0
    assert all(r.stdout == "2\n" for r in results)
