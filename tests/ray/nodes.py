"""Scenarios on a cluster of several nodes, each of them processes on this machine.

    python -m tests.ray.nodes FOLDER COMPILE_CACHE

A process of its own, because a process can be connected to one Ray cluster only; one cluster for
all scenarios, because starting one takes longer than most of them. Prints what each found as JSON
on the last line.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from cflows_ray.store.storage import Storage
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.execution_settings import Execution
from cflows_ray.sweep.pack_session import PackSession
from cflows_ray.sweep.plan import make_plan
from cflows_ray.sweep.session import RunSession
from cflows_ray.sweep.tune import PairedTrial, run_sweep
from tests.sweep import fake_run

import ray  # isort: skip
from ray.cluster_utils import Cluster  # isort: skip
from ray.core.generated import autoscaler_pb2  # isort: skip

ROOT = Path(__file__).parents[2]


def watched_trial(marks: Path, **session: Any) -> type[PairedTrial]:
    """Return a trial that notes where and when it carried out each run."""

    class WatchedTrial(PairedTrial):
        open_session = staticmethod(functools.partial(RunSession, **session))

        def _open(self) -> PackSession:
            node = ray.get_runtime_context().get_node_id()
            self.begun = [node, os.environ.get("CUDA_VISIBLE_DEVICES", ""), time.time()]
            marks.mkdir(parents=True, exist_ok=True)
            (marks / f"begun-{time.time_ns()}").write_text(node)
            fraction = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "")
            (marks / f"fraction-{fraction}").touch()
            return super()._open()

        def step(self) -> dict[str, Any]:
            result = super().step()
            time.sleep(0.3 if session else 0.1)  # or else it is over before anything can happen
            if result["done"]:
                name = f"span-{time.time_ns()}"
                (marks / name).write_text(json.dumps([*self.begun, time.time()]))
            return result

    return WatchedTrial


def nodes_begun(marks: Path) -> list[str]:
    """Return the node on which each run was begun or gone on with, in the order of time."""
    files = sorted(marks.glob("begun-*"), key=lambda p: int(p.name.removeprefix("begun-")))
    return [file.read_text() for file in files]


def checkpoints(folder: Path) -> set[str]:
    """Return the ids of runs that have checkpoints."""
    return {file.parent.name for file in folder.glob("small/_checkpoints/*/step-*.zip")}


def drain(address: str, node_id: str) -> None:
    """Tell Ray what a cloud says before it takes a machine away."""
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = time.time_ns() // 10**6 + 3000
    client = ray._raylet.GcsClient(address=address)
    accepted, why = client.drain_node(node_id, reason, "spot machine is taken away", deadline_ms)
    assert accepted, why


def lose(cluster: Cluster, folder: Path, cache: str, drained: bool) -> dict[str, Any]:
    """Carry out a sweep of which one node out of two is lost in the middle of a run.

    Another joins a little later. The sweep goes on in a thread: only the main one can add nodes.
    """
    marks = folder / "marks"
    settings = {"storage": str(folder), "compile_cache": cache}
    sweep = small(steps=300, lrs=(0.2, 0.19), seeds=(0, 1), chunk_steps=10, **settings)
    node = next(iter(cluster.worker_nodes))
    found: dict[str, Any] = {"lost_node": node.node_id}
    with ThreadPoolExecutor() as pool:
        running = pool.submit(carry_out, sweep, watched_trial(marks))
        wait_until(lambda: len(checkpoints(folder)) == 2 and node.node_id in nodes_begun(marks))
        found["begun_before"] = len(nodes_begun(marks))
        if drained:
            drain(cluster.address, node.node_id)
            time.sleep(3)
        cluster.remove_node(node, allow_graceful=drained)
        found["open_runs"] = len(checkpoints(folder))
        time.sleep(2)
        os.chdir(ROOT)  # the sweep works in a folder that goes when it ends; a node would, too
        found["late_node"] = cluster.add_node(num_cpus=1).node_id
        return {**found, **running.result(timeout=200), "begun": nodes_begun(marks)}


def place(folder: Path, cache: str, **execution: Any) -> dict[str, Any]:
    """Carry out a sweep of costless runs on the GPUs that there are."""
    marks = folder / "marks"
    # one run at a time on a GPU: costless runs cannot be packed
    settings = {"storage": str(folder), "compile_cache": cache, "pack": 1, **execution}
    sweep = small(40, (0.1, 0.2, 0.3), (0, 1, 2), chunk_steps=10, **settings)
    found = carry_out(sweep, watched_trial(marks, build=fake_run.build_fake))
    spans = [json.loads(p.read_text()) for p in sorted(marks.glob("span-*"))]
    fractions = [p.name.removeprefix("fraction-") for p in marks.glob("fraction-*")]
    return {**found, "spans": spans, "memory_fractions": fractions}


def carry_out(sweep: SweepConfig, trial: type[PairedTrial]) -> dict[str, Any]:
    """Launch a sweep; return what was given up and what was said."""
    storage = Storage(sweep.execution.storage, sweep.name)
    text = io.StringIO()
    display = Display(sweep.name, sweep.runs, {}, Console(file=text, width=200))
    outcome = run_sweep(sweep, make_plan(sweep, storage), storage, display, trainable=trial)
    return {"lost": outcome.lost, "text": text.getvalue(), "loaded_jax": "jax" in sys.modules}


def replace_nodes(cluster: Cluster, *kinds: dict[str, int]) -> None:
    """Put other nodes in the place of those that there are."""
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)
    for kind in kinds:
        cluster.add_node(**kind)
    wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 1 + len(kinds))


def wait_until(what: Callable[[], bool]) -> None:
    """Wait for something that happens soon."""
    end = time.monotonic() + 100
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def main(folder: Path, cache: str) -> dict[str, Any]:
    """Run all scenarios."""
    ray.cloudpickle.register_pickle_by_value(fake_run)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    found = {
        name: lose(cluster, folder / name, cache, drained=name == "drained")
        for name in ("abrupt", "drained")
    }
    replace_nodes(cluster, {"num_cpus": 2, "num_gpus": 1}, {"num_cpus": 4, "num_gpus": 2})
    found["gpus"] = place(folder / "gpus", cache)
    replace_nodes(cluster, {"num_cpus": 2, "num_gpus": 1})
    found["halves"] = place(folder / "halves", cache, gpus_per_run=0.5)
    ray.shutdown()
    cluster.shutdown()
    return found


def small(
    steps: int, lrs: tuple[float, ...], seeds: tuple[int, ...], **execution: Any
) -> SweepConfig:
    """Return a sweep like that of the fixture `small_sweep`."""
    grid = Grid(workload="saddle_2d", rule="gradient_descent", lrs=lrs)
    return SweepConfig(
        name="small",
        grids=(grid,),
        seeds=seeds,
        steps=steps,
        warmup=3,
        execution=Execution(**execution),
    )


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
