"""Scenarios on a cluster of several nodes, each of them processes on this machine.

    python -m tests.ray.nodes SCENARIO FOLDER COMPILE_CACHE

A process of its own, because a process can be connected to one Ray cluster only. Prints what it
found as JSON on the last line.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from cflows_ray.config import Execution, Grid, SweepConfig
from cflows_ray.display import Display
from cflows_ray.plan import make_plan
from cflows_ray.session import RunSession
from cflows_ray.storage import Storage
from cflows_ray.tune import PairedTrial, run_sweep
from tests.ray import fake_run

import ray  # isort: skip
from ray.cluster_utils import Cluster  # isort: skip


def watched_trial(marks: Path, **session: Any) -> type[PairedTrial]:
    """Return a trial that notes where and when it carried out each run."""

    class WatchedTrial(PairedTrial):
        open_session = staticmethod(functools.partial(RunSession, **session))

        def _open(self) -> RunSession:
            node = ray.get_runtime_context().get_node_id()
            self.begun = [node, os.environ.get("CUDA_VISIBLE_DEVICES", ""), time.time()]
            marks.mkdir(parents=True, exist_ok=True)
            (marks / f"node-{node}").touch()
            fraction = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "")
            (marks / f"fraction-{fraction}").touch()
            return super()._open()

        def step(self) -> dict[str, Any]:
            result = super().step()
            if session:
                time.sleep(0.3)  # the costless run is over before others have started
            if result["done"]:
                name = f"span-{time.time_ns()}"
                (marks / name).write_text(json.dumps([*self.begun, time.time()]))
            return result

    return WatchedTrial


def lose_a_node(cluster: Cluster, node: Any, folder: Path, abrupt: bool, found: Any) -> None:
    """Remove a node once there are checkpoints; add another a little later."""
    while len(list(folder.glob("small/_checkpoints/*/step-*.zip"))) < 3:
        time.sleep(0.02)
    found["removed_at_checkpoints"] = len(list(folder.glob("small/_checkpoints/*/step-*.zip")))
    cluster.remove_node(node, allow_graceful=not abrupt)
    time.sleep(2)
    cluster.add_node(num_cpus=1)


def main(scenario: str, folder: Path, cache: str) -> dict[str, Any]:
    """Run a scenario."""
    ray.cloudpickle.register_pickle_by_value(fake_run)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    found: dict[str, Any] = {}
    marks = folder / "marks"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    gpus = {"gpus": (1, 2), "halves": (1,)}.get(scenario, (0, 0))
    nodes = [cluster.add_node(num_cpus=max(1, 2 * n), num_gpus=n) for n in gpus]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    settings: dict[str, Any] = {"storage": str(folder), "compile_cache": cache}
    if scenario in ("abrupt", "drained"):
        sweep = small(steps=300, lrs=(0.2, 0.19), seeds=(0, 1), chunk_steps=10, **settings)
        trial = watched_trial(marks)
        abrupt = scenario == "abrupt"
        arguments = (cluster, nodes[-1], folder, abrupt, found)
        threading.Thread(target=lose_a_node, args=arguments, daemon=True).start()
    else:
        gpus_per_run = 0.5 if scenario == "halves" else None
        lrs = (0.1, 0.2, 0.3) if scenario == "gpus" else (0.1, 0.2)
        sweep = small(40, lrs, (0, 1, 2), chunk_steps=10, gpus_per_run=gpus_per_run, **settings)
        trial = watched_trial(marks, build=fake_run.build_fake)
    storage = Storage(str(folder), "small")
    display = Display("small", sweep.runs, {}, Console(file=io.StringIO()))
    outcome = run_sweep(sweep, make_plan(sweep, storage), storage, display, trainable=trial)
    found["lost"] = outcome.lost
    found["spans"] = [json.loads(p.read_text()) for p in sorted(marks.glob("span-*"))]
    found["nodes_used"] = [p.name for p in marks.glob("node-*")]
    found["memory_fractions"] = [p.name[9:] for p in marks.glob("fraction-*")]
    found["driver_loaded_jax"] = "jax" in sys.modules
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
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))
