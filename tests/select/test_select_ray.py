"""The order over shards on a local Ray cluster is that of one machine, a killed worker or not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilth.errors import TilthError
from tilth.select import sharded
from tilth.select.sharded import ShardedOrder
from tilth.select.targeted import TargetedOrder

ray = pytest.importorskip("ray", reason="needs the extra: pip install 'tilth[ray]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
]  # a cluster starts slowly on a busy machine
HEAD = {"num_cpus": 0, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with one processor each, beside a head that does no work."""
    from ray.cluster_utils import Cluster
    from ray.data import DataContext

    nodes = Cluster(initialize_head=True, head_node_args=HEAD)
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    DataContext.get_current().enable_progress_bars = False
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def shards(folder: Path, clusters: int = 40) -> tuple[np.ndarray, list[Path], list[np.ndarray]]:
    """Queries, and shards of clustered rows with copies in other shards."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(clusters, 48))
    rows = centres[rng.integers(clusters, size=6000)] + 0.3 * rng.normal(size=(6000, 48))
    rows[3000:] = rows[rng.permutation(3000)]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    parts = np.split(rows, [7, 900, 2500, 2600, 2600, 4000])  # one is empty
    paths = [folder / f"shard-{i}.npy" for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        np.save(path, part)
    return rows[rng.integers(6000, size=20)], paths, parts


def told(order: Any, count: int) -> list[Any]:
    pulls = order.first(count)
    parts = (pulls.rows, pulls.queries, pulls.rounds, pulls.scores)
    return list(zip(*(part.tolist() for part in parts), strict=True))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("rule", ["round_robin", "global_top", "mean_max"])
def test_shards_on_two_workers_give_the_order_of_one_machine(tmp_path: Path, rule: Any) -> None:
    queries, paths, parts = shards(tmp_path)
    tasks = None if rule == "global_top" else [f"task {i % 3}" for i in range(len(queries))]
    alone = TargetedOrder(queries, parts, tasks=tasks, rule=rule)
    together = ShardedOrder(queries, paths, tasks=tasks, rule=rule, depth=50)
    assert told(together, 1500) == told(alone, 1500)


@pytest.mark.usefixtures("cluster")
def test_a_worker_killed_in_the_middle_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, paths, parts = shards(tmp_path)
    real = sharded._best_of_shard
    killed = tmp_path / "killed"

    def dies_once(shard: dict[str, Any], **given: Any) -> dict[str, Any]:
        found = real(shard, **given)
        if shard["path"].endswith("shard-5.npy") and not killed.exists():
            killed.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    monkeypatch.setattr(sharded, "_best_of_shard", dies_once)
    together = told(ShardedOrder(queries, paths), 1500)
    assert int(killed.read_text()) != os.getpid()
    assert together == told(TargetedOrder(queries, parts), 1500)


@pytest.mark.usefixtures("cluster")
def test_a_broken_row_is_named_by_its_place_in_the_whole_pool(tmp_path: Path) -> None:
    queries, paths, parts = shards(tmp_path)
    parts[2][11] = np.nan
    np.save(paths[2], parts[2])
    with pytest.raises(TilthError, match="NaN or infinity: rows 911"):
        ShardedOrder(queries, paths).first(10)


def test_a_shard_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TilthError, match=r"cannot be read(.|\n)*none\.npy"):
        ShardedOrder(np.eye(2), [tmp_path / "none.npy"])


def test_a_machine_lost_in_the_middle_changes_nothing(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, paths, parts = shards(tmp_path)
    real = sharded._best_of_shard
    busy = tmp_path / "busy"

    def waits_once(shard: dict[str, Any], **given: Any) -> dict[str, Any]:
        if shard["path"].endswith("shard-2.npy") and not busy.exists():
            busy.write_text(ray.get_runtime_context().get_node_id())
            time.sleep(600)  # until its machine is gone
        return real(shard, **given)

    def lose_the_busy_machine() -> None:
        while not (busy.exists() and busy.read_text()):
            time.sleep(0.05)
        (lost,) = (node for node in cluster.worker_nodes if node.node_id == busy.read_text())
        cluster.remove_node(lost, allow_graceful=False)

    monkeypatch.setattr(sharded, "_best_of_shard", waits_once)
    threading.Thread(target=lose_the_busy_machine, daemon=True).start()
    assert told(ShardedOrder(queries, paths), 1500) == told(TargetedOrder(queries, parts), 1500)
    assert len(cluster.worker_nodes) == 1
