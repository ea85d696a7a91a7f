"""How time and memory of targeted selection grow, and what one at the paper's size would take.

What it does: runs round-robin on memory-mapped indexes of growing size, each in a process of its
own; fits the exponents of CPU time and memory in rows, dimensions and queries; and from them prints
the plan for 5.8 million rows of 4,096 numbers and 949 queries (Ivison et al. 2025). It also runs
the case that should fit on a laptop: 500,000 rows of 1,024, 300 queries, 50,000 chosen.

    python benchmarks/select_scaling.py                  # writes results/select_scaling.json
    python benchmarks/select_scaling.py --largest 0 --output /tmp/quick.json   # growth only

Time: about 10 minutes of two cores. Disk: 2 GB at a time, in --folder. Memory: 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tilth._manifest import installed_versions
from tilth.select.targeted import TargetedOrder

SHARE = 0.056  # of the pool that is chosen: 326,000 of 5.8 million


@dataclass(frozen=True)
class Case:
    """One selection; with `clusters` rows lie around so many centres, queries around few of them."""

    rows: int
    dimensions: int
    queries: int
    count: int
    clusters: int = 0
    dtype: str = "float16"

    def write(self, path: Path) -> None:
        """Writes the index, 16 MB at a time."""
        index = np.lib.format.open_memmap(
            path, mode="w+", dtype=self.dtype, shape=(self.rows, self.dimensions)
        )
        for first in range(0, self.rows, 4096):
            rng = np.random.default_rng([7, first])
            part = index[first : first + 4096]
            part[:] = self.around(rng, len(part), self.clusters)
        index.flush()

    def around(self, rng: np.random.Generator, rows: int, clusters: int) -> np.ndarray:
        """Unit rows in random directions, or around the first so many centres."""
        found = rng.standard_normal((rows, self.dimensions), np.float32)
        if clusters:
            centres = np.random.default_rng(8).standard_normal(
                (self.clusters, self.dimensions), np.float32
            )
            found += centres[rng.integers(clusters, size=rows)]
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def wanted(self) -> np.ndarray:
        """The queries."""
        return self.around(np.random.default_rng(9), self.queries, self.clusters // 10)


def grown(rows: int, dimensions: int, queries: int) -> Case:
    """A case of the growth series: the same share of the pool is chosen in all."""
    return Case(rows, dimensions, queries, round(rows * SHARE))


GROWTH = [
    *(grown(rows, 512, 100) for rows in (25_000, 50_000, 100_000, 200_000, 400_000)),
    *(grown(100_000, dimensions, 100) for dimensions in (128, 256, 1_024, 2_048)),
    *(grown(100_000, 512, queries) for queries in (25, 50, 200, 400)),
]
LARGEST = [
    Case(500_000, 1_024, 300, 50_000, dtype="float32"),
    Case(500_000, 1_024, 300, 50_000),
    Case(500_000, 1_024, 300, 50_000, clusters=1_000, dtype="float32"),
]
PAPER = grown(5_800_000, 4_096, 949)


def anonymous() -> float:
    """MB of memory of this process that no file stands behind: without the mapped index."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def child(case: Case, index: Path, out: Path) -> None:
    """Runs one selection and writes its cost."""
    warm = np.eye(64, dtype=np.float32)
    TargetedOrder(warm[:8], warm).first(8)
    queries, pool = case.wanted(), np.load(index, mmap_mode="r")
    before = peak = anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    order = TargetedOrder(queries, pool)
    chosen = order.first(case.count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done.set()
    watcher.join()
    products = case.rows * case.dimensions * case.queries
    report = {
        **asdict(case),
        "chosen": len(chosen),
        "rounds": int(chosen.rounds.max()),
        "list_length": order.depth,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "extra_mb": round(peak - before, 1),
        "products_per_cpu_second": round(products / cpu),
    }
    out.write_text(json.dumps(report))


def measured(case: Case, folder: Path, threads: int, repeats: int) -> dict[str, float]:
    """The cost of one selection; of several repeats the cheapest, as other work only adds to it."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        index, out = Path(work) / "index.npy", Path(work) / "cost.json"
        case.write(index)
        command = [sys.executable, __file__, "--child", json.dumps(asdict(case)), index, out]
        runs = []
        for _ in range(repeats):
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            subprocess.run(command, env=environment, check=True)
            runs.append(json.loads(out.read_text()))
    best = min(runs, key=lambda run: run["cpu_seconds"])
    print(
        f"{case.rows:,} x {case.dimensions:,}, {case.queries} queries, {case.count:,} chosen: "
        f"{best['cpu_seconds']:.2f} CPU s, {best['wall_seconds']:.2f} s, {best['extra_mb']:.0f} MB",
        flush=True,
    )
    return best


def exponents(runs: list[dict[str, float]], figure: str) -> dict[str, float]:
    """Least squares of log(figure) on log(rows), log(dimensions) and log(queries)."""
    logs = np.log([[run["rows"], run["dimensions"], run["queries"]] for run in runs])
    table = np.column_stack([np.ones(len(logs)), logs])
    value = np.log([run[figure] for run in runs])
    fitted, *_ = np.linalg.lstsq(table, value, rcond=None)
    names = ("factor", "rows", "dimensions", "queries")
    found = dict(zip(names, map(float, [np.exp(fitted[0]), *fitted[1:]]), strict=True))
    found["largest_misfit"] = float(np.exp(np.abs(table @ fitted - value).max()))
    return {name: float(f"{number:.4g}") for name, number in found.items()}


def plan(runs: list[dict[str, float]]) -> dict[str, float]:
    """The paper's size, from the measured growth and from the products alone."""
    fit = exponents(runs, "cpu_seconds")
    seconds = fit["factor"] * np.prod(
        [getattr(PAPER, name) ** fit[name] for name in ("rows", "dimensions", "queries")]
    )
    rate = max(run["products_per_cpu_second"] for run in runs)
    length = 2 * -(-PAPER.count // PAPER.queries)
    # Per place of a list: row and fast score while it grows, to twice its length; then four
    # numbers of eight bytes while it is put in order.
    lists = PAPER.queries * length * max(2 * (8 + 4), 12 + 4 * 8)
    block = 4 * (2**22 + 2**22)
    queries = PAPER.queries * PAPER.dimensions * (8 + 4)
    return {
        **asdict(PAPER),
        "cpu_minutes_from_growth": round(float(seconds) / 60, 1),
        "cpu_minutes_of_the_products_alone": round(
            PAPER.rows * PAPER.dimensions * PAPER.queries / rate / 60, 1
        ),
        "memory_mb": round((lists + block + queries) / 2**20),
        "disk_gb": round(PAPER.rows * PAPER.dimensions * 2 / 1e9, 1),
    }


def main() -> None:
    """Measures, fits, prints the plan and writes the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--largest", type=int, default=len(LARGEST), help="large cases to run")
    parser.add_argument("--repeats", type=int, default=3, help="of each case of the growth series")
    parser.add_argument("--threads", type=int, default=2, help="of the large cases; growth: 1")
    parser.add_argument("--folder", type=Path, help="where the indexes lie while they are used")
    default = Path(__file__).parent / "results" / "select_scaling.json"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(Case(**json.loads(asked.child[0])), Path(asked.child[1]), Path(asked.child[2]))
        return
    report: dict[str, object] = {
        "benchmark": "select_scaling",
        "unit": "extra_mb: peak anonymous memory above what the process held before, without the "
        "pages of the mapped index; the plan is an extrapolation",
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "threads": {"growth": 1, "largest": asked.threads},
        "repeats": {"growth": asked.repeats, "largest": 1},
        "seed": 7,
        "versions": installed_versions(),
    }
    report["largest"] = [
        measured(x, asked.folder, asked.threads, 1) for x in LARGEST[: asked.largest]
    ]
    runs = [measured(case, asked.folder, 1, asked.repeats) for case in GROWTH]
    report["growth"] = runs
    report["exponents"] = {name: exponents(runs, name) for name in ("cpu_seconds", "extra_mb")}
    report["plan"] = plan(runs)
    print(json.dumps({"exponents": report["exponents"], "plan": report["plan"]}, indent=1))
    asked.output.write_text(json.dumps(report, indent=1) + "\n")


def processor() -> str:
    """The processor's model name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


if __name__ == "__main__":
    main()
