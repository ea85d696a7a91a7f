"""The selection kernels against plain readings of the published algorithms, as ratios.

What it does: runs ``round_robin`` and ``greedy_diverse`` and, on the same numbers, what they stand
for, written from the papers in the obvious way. Every arm runs in a process of its own, the arms
take turns, and the chosen rows are asserted to be the same. Two kinds of plain reading:

published  step by step what the published programs are described to do: a dictionary of scores per
           query, keyed again by file and row, sorted whole, popped from the front, the chosen rows
           made unique after every turn; and for the filter: per candidate all kept rows gathered,
           converted and normalised
tidy       the same algorithms by somebody who writes tidy Python: plain sorting and a set; rows
           normalised once, and one matrix-vector product per candidate
numpy      (round-robin) the whole score matrix, sorted whole

    python benchmarks/select_kernels.py                   # all sizes, writes results/*.json
    python benchmarks/select_kernels.py --cases 20k 1k --rounds 1 --output /tmp/quick.json

Time: about 10 minutes of one core. Memory: 4 GB, for the published round-robin.
CPU time is measured, not wall time; memory is the peak above what the process held before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tilth._manifest import installed_versions
from tilth.select import greedy_diverse, round_robin

THRESHOLD = 0.9


@dataclass(frozen=True)
class Turns:
    """A round-robin case: N pool rows, Q queries, `count` chosen, d dimensions."""

    pool: int
    queries: int
    count: int
    clusters: int = 0  # 0: random directions
    dimensions: int = 512

    def arguments(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Queries, pool and count.

        The rows are multiples of 2**-9, so that their dot products are exact in float32 in any
        order of summation: all arms have to agree, on ties too.
        """
        rng = np.random.default_rng(7)
        shape = (self.queries + self.pool, self.dimensions)
        rows = clustered(rng, shape, self.clusters) if self.clusters else rng.normal(size=shape)
        rows = np.round(unit(rows) * 2**9) / np.float32(2**9)
        return rows[: self.queries].copy(), rows[self.queries :].copy(), self.count


@dataclass(frozen=True)
class Filter:
    """A filter case: N rows in clusters of `copies` with cosines of about 0.94, d dimensions."""

    pool: int
    dimensions: int = 384
    copies: int = 1

    def arguments(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows as float64, as a program finds them in a file, and their order."""
        rng = np.random.default_rng(7)
        centres = rng.normal(size=(self.pool // self.copies, self.dimensions))
        rows = np.repeat(centres, self.copies, axis=0)
        if self.copies > 1:
            rows += 0.25 * rng.normal(size=rows.shape)
        return rows.astype(np.float32).astype(np.float64), rng.permutation(len(rows))


WARM = {"Turns": Turns(256, 4, 8), "Filter": Filter(64)}
CASES: dict[str, Turns | Filter] = {
    "20k": Turns(20_000, 100, 2_000),
    "50k": Turns(50_000, 100, 5_000),
    "50k, 10k chosen": Turns(50_000, 100, 10_000),
    "50k, clustered": Turns(50_000, 100, 5_000, clusters=200),
    "50k, 300 queries": Turns(50_000, 300, 5_000),
    "1k": Filter(1_000),
    "2k": Filter(2_000),
    "5k": Filter(5_000),
    "3k, wide": Filter(3_000, dimensions=1_024),
    "6k, clustered": Filter(6_000, copies=10),
    "10k, clustered": Filter(10_000, copies=10),
}


def unit(rows: np.ndarray) -> np.ndarray:
    """float32 rows of length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng: np.random.Generator, shape: tuple[int, int], clusters: int) -> np.ndarray:
    """Rows around centres, with a common part as embeddings of language models have."""
    centres = rng.normal(size=(clusters, shape[1])) + rng.normal(size=shape[1])
    return centres[rng.integers(clusters, size=shape[0])] + rng.normal(size=shape)


def turns_published(queries: np.ndarray, pool: np.ndarray, count: int) -> list[int]:
    """Round-robin as the published programs do it."""
    scores: dict[int, dict[int, float]] = {}
    for number, query in enumerate(queries):
        row = query[None] @ pool.T
        scores[number] = {}
        for index, score in enumerate(row[0].tolist()):
            scores[number][index] = score
    keyed = {
        number: {("pool.jsonl", index): score for index, score in row.items()}
        for number, row in scores.items()
    }
    ranked = {
        number: sorted(row.items(), key=lambda item: item[1], reverse=True)
        for number, row in keyed.items()
    }
    chosen: list[tuple[str, int]] = []
    while len(chosen) < count:
        for ranking in ranked.values():
            key, _ = ranking.pop(0)
            chosen.append(key)
            chosen = list(dict.fromkeys(chosen))
            if len(chosen) == count:
                break
    return [index for _, index in chosen]


def turns_tidy(queries: np.ndarray, pool: np.ndarray, count: int) -> list[int]:
    """Round-robin with plain sorting and a set."""
    scores = [(pool @ query).tolist() for query in queries]
    rankings = [sorted(range(len(pool)), key=row.__getitem__, reverse=True) for row in scores]
    chosen: list[int] = []
    seen: set[int] = set()
    for turn in zip(*rankings, strict=True):
        for index in turn:
            if index not in seen and len(chosen) < count:
                seen.add(index)
                chosen.append(index)
        if len(chosen) == count:
            break
    return chosen


def turns_numpy(queries: np.ndarray, pool: np.ndarray, count: int) -> list[int]:
    """Round-robin from the whole score matrix."""
    ranked = np.argsort(-(queries @ pool.T), axis=1, kind="stable").T.ravel()
    _, firsts = np.unique(ranked, return_index=True)
    return ranked[np.sort(firsts)[:count]].tolist()


def filter_published(rows: np.ndarray, order: np.ndarray) -> list[int]:
    """The greedy filter as the published program does it."""
    kept = [int(order[0])]
    for candidate in order[1:].tolist():
        known = rows[kept].astype(np.float32)
        known = known / np.linalg.norm(known, axis=1, keepdims=True)
        row = rows[candidate].astype(np.float32)
        row = row / np.linalg.norm(row)
        known = known / np.linalg.norm(known, axis=1, keepdims=True)  # within the cosine
        if (row[None] @ known.T).max() <= THRESHOLD:
            kept.append(candidate)
    return kept


def filter_tidy(rows: np.ndarray, order: np.ndarray) -> list[int]:
    """The greedy filter with rows normalised once and kept rows side by side."""
    units = unit(rows)
    known = np.empty_like(units)
    kept: list[int] = []
    for candidate in order.tolist():
        if not kept or (known[: len(kept)] @ units[candidate]).max() <= THRESHOLD:
            known[len(kept)] = units[candidate]
            kept.append(candidate)
    return kept


def turns_tilth(queries: np.ndarray, pool: np.ndarray, count: int) -> list[int]:
    """Ours."""
    return round_robin(queries, pool, count).tolist()


def filter_tilth(rows: np.ndarray, order: np.ndarray) -> list[int]:
    """Ours."""
    return greedy_diverse(rows, order, len(order), THRESHOLD)[0].tolist()


ARMS: dict[str, dict[str, Callable[..., list[int]]]] = {
    "Turns": {
        "published": turns_published,
        "tidy": turns_tidy,
        "numpy": turns_numpy,
        "tilth": turns_tilth,
    },
    "Filter": {"published": filter_published, "tidy": filter_tidy, "tilth": filter_tilth},
}


def resident(field: str) -> float:
    """``VmRSS``, or its peak ``VmHWM``, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def child(case: str, arm: str, path: Path) -> None:
    """Runs one arm once; the chosen rows, CPU seconds and peak memory go to `path`."""
    warnings.simplefilter("ignore")
    task = CASES[case]
    select = ARMS[type(task).__name__][arm]
    select(*WARM[type(task).__name__].arguments())  # libraries load before the clock starts
    given = task.arguments()
    Path("/proc/self/clear_refs").write_text("5")
    before, begin = resident("VmRSS"), time.process_time()
    chosen = select(*given)
    spent = time.process_time() - begin
    extra = resident("VmHWM") - before
    path.write_text(json.dumps({"chosen": chosen, "cpu_seconds": spent, "extra_mb": extra}))


def measure(case: str, rounds: int, threads: int) -> dict[str, object]:
    """All arms of a case, taking turns.

    Raises:
        AssertionError: Two arms chose different rows.
    """
    task = CASES[case]
    arms = ARMS[type(task).__name__]
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    first: list[int] | None = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json"
        for _ in range(rounds):
            for arm in arms:
                command = [sys.executable, __file__, "--child", case, arm, str(path)]
                subprocess.run(command, env=environment, check=True)
                run = json.loads(path.read_text())
                chosen = run.pop("chosen")
                first = first or chosen
                assert chosen == first, f"{case}: {arm} chose other rows"
                runs[arm].append(run)
    ours = runs["tilth"]
    table = {
        arm: {
            "cpu_seconds": [round(run["cpu_seconds"], 4) for run in done],
            "extra_mb": round(max(run["extra_mb"] for run in done), 1),
            "times_our_cpu": round(
                statistics.median(
                    a["cpu_seconds"] / b["cpu_seconds"] for a, b in zip(done, ours, strict=True)
                ),
                1,
            ),
            "times_our_memory": round(
                statistics.median(
                    a["extra_mb"] / b["extra_mb"] for a, b in zip(done, ours, strict=True)
                ),
                1,
            ),
        }
        for arm, done in runs.items()
    }
    kernel = "round_robin" if isinstance(task, Turns) else "greedy_diverse"
    return {"kernel": kernel, **asdict(task), "chosen": len(first or []), "arms": table}


def processor() -> str:
    """The processor's model name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def main() -> None:
    """Runs the comparison and writes the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    default = Path(__file__).parent / "results" / "select_kernels.json"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], asked.child[1], Path(asked.child[2]))
        return
    report = {
        "benchmark": "select_kernels",
        "unit": "times_our_*: medians over rounds of the arm's figure over tilth's; extra_mb: peak "
        "resident memory above what the process held with the data loaded",
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "threads": asked.threads,
        "rounds": asked.rounds,
        "seed": 7,
        "notes": "same rows chosen by all arms, asserted; the published programs also write the "
        "scores to a file and read them again, which is left out here",
        "versions": installed_versions(),
        "cases": {},
    }
    for case in asked.cases:
        report["cases"][case] = found = measure(case, asked.rounds, asked.threads)
        told = ", ".join(
            f"{arm} {row['times_our_cpu']}x cpu {row['times_our_memory']}x memory"
            for arm, row in found["arms"].items()
        )
        print(f"{found['kernel']} {case}: {told}", flush=True)
        asked.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
