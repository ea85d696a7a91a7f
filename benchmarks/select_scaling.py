"""How time and memory of targeted selection grow, and what one at the paper's size would take.

What it does: runs round-robin on memory-mapped indexes of growing size, each in a process of its
own; fits the exponents of CPU time and memory in rows, dimensions and queries, and the cost of
reading a number and of a product; and from these prints the plan for 5.8 million rows of 4,096
numbers and 949 queries (Ivison et al. 2025). It also runs the case that should fit on a laptop:
500,000 rows of 1,024, 300 queries, 50,000 chosen.

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
from typing import Any

import numpy as np
from scipy.optimize import nnls

from tilth._manifest import installed_versions
from tilth.select.targeted import TargetedOrder

SHARE = 0.056  # of the pool that is chosen: 326,000 of 5.8 million


@dataclass(frozen=True)
class Case:
    """One selection; with `clusters`, rows lie around so many centres, queries around few."""

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


GROWTH = {
    "rows": [grown(rows, 512, 100) for rows in (25_000, 50_000, 100_000, 200_000, 400_000)],
    "dimensions": [grown(100_000, size, 100) for size in (128, 256, 512, 1_024, 2_048)],
    "queries": [grown(100_000, 512, queries) for queries in (25, 50, 100, 200, 400, 800)],
}
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


def exponent(runs: list[dict[str, float]], along: str, figure: str) -> float:
    """The slope of log(figure) over log(size) by least squares."""
    sizes, values = (np.log([run[name] for run in runs]) for name in (along, figure))
    return round(float(np.polyfit(sizes, values, 1)[0]), 3)


def costs(runs: list[dict[str, float]]) -> dict[str, float]:
    """CPU seconds per selection, per number of the index and per product.

    The three-term sum with the least relative error, squared.
    """
    numbers = np.array([run["rows"] * run["dimensions"] for run in runs], float)
    products = numbers * [run["queries"] for run in runs]
    seconds = np.array([run["cpu_seconds"] for run in runs])
    table = np.column_stack([np.ones(len(runs)), numbers, products])
    fitted, _ = nnls(table / seconds[:, None], np.ones(len(runs)))
    misfit = np.abs(table @ fitted / seconds - 1).max()
    names = ("fixed", "per_number", "per_product", "largest_misfit")
    return {x: float(f"{y:.4g}") for x, y in zip(names, [*fitted, misfit], strict=True)}


def plan(cost: dict[str, float]) -> dict[str, float]:
    """The paper's size from the measured costs: an extrapolation."""
    numbers = PAPER.rows * PAPER.dimensions
    products = numbers * PAPER.queries
    length = 2 * -(-PAPER.count // PAPER.queries)
    # A place of a list holds an index and a fast score, for up to twice the length of the list;
    # at the end index, score, query and order, of eight bytes each, and copies of them.
    lists = PAPER.queries * length * max(2 * (8 + 4), 2 * 4 * 8)
    blocks = 4 * (2**22 + 2**22)
    queries = PAPER.queries * PAPER.dimensions * (8 + 4)
    return {
        **asdict(PAPER),
        "products": products,
        "cpu_minutes": round(
            (cost["per_number"] * numbers + cost["per_product"] * products) / 60, 1
        ),
        "of_these_products": round(cost["per_product"] * products / 60, 1),
        "extra_mb": round((lists + blocks + queries) / 2**20),
        "disk_gb": round(numbers * 2 / 1e9, 1),
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
    report: dict[str, Any] = {
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
    series = {
        along: [measured(case, asked.folder, 1, asked.repeats) for case in cases]
        for along, cases in GROWTH.items()
    }
    report["growth"] = series
    report["exponents"] = {
        figure: {along: exponent(runs, along, figure) for along, runs in series.items()}
        for figure in ("cpu_seconds", "extra_mb")
    }
    report["cpu_seconds"] = cost = costs([run for runs in series.values() for run in runs])
    report["plan"] = plan(cost)
    told = {name: report[name] for name in ("exponents", "cpu_seconds", "plan")}
    print(json.dumps(told, indent=1))
    asked.output.write_text(json.dumps(report, indent=1) + "\n")


def processor() -> str:
    """The processor's model name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


if __name__ == "__main__":
    main()
