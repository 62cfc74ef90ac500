"""A sweep of many short runs on a cluster that loses one machine after another.

    python -m tests.ray.losing FOLDER [--nodes 6] [--runs 80] [--losses 5]

A process of its own, because a process can be connected to one Ray cluster only. Every node is
processes on this machine; for each one lost (abruptly) another joins. A machine is lost each time
that another share of the runs has ended, so that a fast computer loses as many as a slow one.
Prints what happened as JSON on the last line. With `--nodes 50 --runs 5000 --losses 100` it is a
benchmark, for a machine with many cores.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from cflows_ray.store import Storage
from cflows_ray.sweep import Execution, Grid, SweepConfig
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.plan import make_plan
from cflows_ray.sweep.session import RunSession
from cflows_ray.sweep.tune import PairedTrial, run_sweep
from tests.sweep import fake_run

import ray  # isort: skip
from ray.cluster_utils import Cluster  # isort: skip

ROOT = Path(__file__).parents[2]


class ShortTrial(PairedTrial):
    """Runs that cost nothing but a little time, or else all is over before anything is lost."""

    open_session = staticmethod(functools.partial(RunSession, build=fake_run.build_fake))

    def step(self) -> dict[str, Any]:
        time.sleep(0.1)
        return super().step()


def short_sweep(folder: Path, num_runs: int) -> SweepConfig:
    """Return a sweep of two-parameter runs of two chunks each."""
    lrs = tuple(0.1 + 0.001 * i for i in range(max(1, num_runs // 10)))
    grid = Grid(workload="saddle_2d", rule="gradient_descent", lrs=lrs)
    execution = Execution(storage=str(folder), chunk_steps=6, max_failures=-1)
    return SweepConfig("many", (grid,), seeds=tuple(range(10)), steps=12, execution=execution)


def lose_nodes(folder: Path, num_nodes: int, num_runs: int, losses: int) -> dict[str, Any]:
    """Carry out a sweep while nodes are lost; return what happened."""
    ray.cloudpickle.register_pickle_by_value(fake_run)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    for _ in range(num_nodes):
        cluster.add_node(wait=False, **small)
    cluster.wait_for_nodes(timeout=300)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    sweep = short_sweep(folder, num_runs)
    storage = Storage(sweep.execution.storage, sweep.name)
    display = Display(sweep.name, sweep.runs, {}, Console(file=io.StringIO(), width=200))
    choose, num_lost, begin = random.Random(0), 0, time.monotonic()
    with ThreadPoolExecutor() as pool:
        # in a thread: only the main one can add nodes
        plan = make_plan(sweep, storage)
        running = pool.submit(run_sweep, sweep, plan, storage, display, trainable=ShortTrial)
        while not running.done():
            time.sleep(0.2)
            ended = display.counts().get("finished", 0)
            # in the first half, so that none comes too late
            if num_lost == losses or 2 * losses * ended < num_runs * (num_lost + 1):
                continue
            os.chdir(ROOT)  # the sweep works in a folder that goes when it ends; a node would, too
            cluster.remove_node(choose.choice(sorted(cluster.worker_nodes, key=id)))
            num_lost += 1
            cluster.add_node(wait=False, **small)
        outcome = running.result()
    seconds = time.monotonic() - begin
    ray.shutdown()
    cluster.shutdown()
    return {"num_lost": num_lost, "given_up": outcome.lost, "seconds": seconds}


def main() -> None:
    """Run it and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--runs", type=int, default=80)
    parser.add_argument("--losses", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(lose_nodes(options.folder, options.nodes, options.runs, options.losses)))


if __name__ == "__main__":
    main()
