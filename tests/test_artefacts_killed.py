"""Artefacts under kill -9, and under two processes at once."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import tilth
from tilth.artefacts import Artefact

SRC = str(Path(tilth.__file__).parents[1])


def test_kill_9_at_any_moment_costs_nothing_but_time(tmp_path):
    script = tmp_path / "step.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            from tilth.artefacts import Store, step_key
            from tilth.method import Outcome
            def work(folder, scratch, ledger):
                done = len(list(scratch.glob("part-*")))
                for n in range(done, 8):
                    (scratch / "tmp").write_text(f"{n}\\n" * 1000)
                    (scratch / "tmp").rename(scratch / f"part-{n}")
                    time.sleep(0.02)
                with open(folder / "rows.jsonl", "w") as out:
                    for n in range(8):
                        out.write((scratch / f"part-{n}").read_text())
                        out.flush()
                        time.sleep(0.01)
                return Outcome()
            key = step_key("a.b", "1", {})
            print("start", flush=True)
            fields = {"step": "s", "method": "a.b", "kind": "rows"}
            artefact = Store(sys.argv[1]).produce("s", key, fields, work)
            print(artefact.digest, artefact.manifest.attempts, flush=True)
            """
        )
    )

    def start(root):
        return subprocess.Popen(
            [sys.executable, str(script), str(root)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": SRC},
        )

    whole, _ = start(tmp_path / "whole").communicate()
    root = tmp_path / "killed"
    for delay in (0.0, 0.05, 0.1, 0.2):
        process = start(root)
        assert process.stdout.readline() == "start\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        finished = [p for p in root.glob("s-*") if "." not in p.name]
        assert all(Artefact.open(p) for p in finished)
    resumed, _ = start(root).communicate()
    digest, attempts = resumed.split()[-2:]
    assert digest == whole.split()[-2]
    assert int(attempts) > 1
    assert len([p for p in root.iterdir() if p.name != ".locks"]) == 1


def test_two_processes_compute_a_key_once(tmp_path):
    script = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from tilth.artefacts import Store, step_key
        from tilth.method import Outcome
        def work(folder, scratch, ledger):
            open(Path(sys.argv[1]).parent / "runs", "a").write("x")
            time.sleep(0.5)
            (folder / "rows.jsonl").write_text("1")
            return Outcome()
        fields = {"step": "s", "kind": "rows"}
        Store(sys.argv[1]).produce("s", step_key("a.b", "1", {}), fields, work)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a")]
    env = {**os.environ, "PYTHONPATH": SRC}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in "ab"]
    told = [p.communicate()[0] for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert (tmp_path / "runs").read_text() == "x"
    assert "waiting for process" in "".join(told)
