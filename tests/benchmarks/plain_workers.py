"""Two processes against one without Ray: what the machine itself makes of a second core.

    python -m tests.benchmarks.plain_workers  # also the last figure of the table `sweep`

Cores share caches, memory and whatever else runs on the machine, so that two of them hardly ever
do exactly twice the work of one.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection

from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import build_paired
from cflows_ray.sweep.worker import prepare_process


def _work(pipe: Connection, core: int, config: RunConfig, compile_cache: str) -> None:
    """On a core of its own, carry out the run from its start whenever asked; answer the seconds."""
    os.sched_setaffinity(0, {core})
    prepare_process(gpus=0, cpus=1, compile_cache=compile_cache)
    paired, start = build_paired(config)
    paired.advance(start, config.steps)  # compiles
    pipe.send("ready")
    while pipe.recv():
        begin = time.perf_counter()
        paired.advance(start, config.steps)
        pipe.send(time.perf_counter() - begin)


def ratios_of_two(config: RunConfig, repetitions: int, compile_cache: str) -> list[float]:
    """Return, for each repetition, how much more two processes do in the same time than one."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for core in sorted(os.sched_getaffinity(0))[:2]:
        ours, theirs = context.Pipe()
        worker = context.Process(target=_work, args=(theirs, core, config, compile_cache))
        worker.start()
        pipes.append(ours)
        workers.append(worker)
    for pipe in pipes:
        pipe.recv()

    def seconds(asked: list[Connection]) -> float:
        for pipe in asked:
            pipe.send(True)
        return sum(pipe.recv() for pipe in asked) / len(asked)

    found = []
    for _ in range(repetitions):
        alone = sum(seconds([pipe]) for pipe in pipes) / len(pipes)
        found.append(len(pipes) * alone / seconds(pipes))
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send(False)
        worker.join()
    return found


if __name__ == "__main__":
    run = RunConfig(workload="digits_mlp", rule="gradient_descent", lr=0.2, steps=1000)
    with tempfile.TemporaryDirectory() as cache:
        ratios = ", ".join(f"{ratio:.3f}" for ratio in ratios_of_two(run, 3, cache))
    print(f"Two processes do so many times what one does in the same time: {ratios}")
