"""Table `sweep`: what Ray, checkpoints and Parquet add to numerics; two workers against one.

A trial's time counts from when its worker takes the run to when it has ended it, with the pause
before the next one; its numerics are the time inside the paired run (start, chunks, compiling).
Every worker is pinned to a core of its own, so that one worker alone has no more of the machine
than each of two. Needs a machine with nothing else to do for the ratio of workers to mean anything.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cflows_ray.store.storage import Storage
from cflows_ray.store.tables import Results
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.execution_settings import Execution
from cflows_ray.sweep.plan import make_plan
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import RunSession, build_paired
from cflows_ray.sweep.tune import PairedTrial, run_sweep
from tests.benchmarks.measuring import number, progress, table
from tests.benchmarks.plain_workers import ratios_of_two

ROOT = Path(__file__).resolve().parents[2]
LOG = "CFLOWS_BENCHMARK_LOG"
SEEDS = 8


def log(**event: Any) -> None:
    """Append an event of this process to the benchmark's log."""
    line = json.dumps({"pid": os.getpid(), "at": time.time(), **event})
    with open(os.environ[LOG], "a", encoding="utf-8") as file:
        file.write(line + "\n")


class TimedRun:
    """A paired run that logs how long it computes."""

    def __init__(self, paired: Any) -> None:
        self._paired = paired

    def __getattr__(self, name: str) -> Any:
        return getattr(self._paired, name)

    def advance(self, state: Any, num_steps: int) -> Any:
        """Advance, and log the seconds."""
        begin, compiled = time.perf_counter(), self._paired.compile_s
        result = self._paired.advance(state, num_steps)
        seconds = time.perf_counter() - begin
        log(kind="numerics", seconds=seconds, compile_s=self._paired.compile_s - compiled)
        return result


def timed_build(config: RunConfig) -> tuple[Any, Any]:
    """Build a paired run as a session does, and log the seconds."""
    begin = time.perf_counter()
    paired, state = build_paired(config)
    log(kind="numerics", seconds=time.perf_counter() - begin, compile_s=paired.compile_s)
    return TimedRun(paired), state


class TimedTrial(PairedTrial):
    """A trial that logs when it takes a run and when it has ended it."""

    open_session = staticmethod(functools.partial(RunSession, build=timed_build))

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first run."""
        log(kind="begin", first=True)
        _pin_to_a_free_core(Path(os.environ[LOG]).parent)
        super().setup(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another run."""
        log(kind="begin", first=False)
        return super().reset_config(new_config)

    def step(self) -> dict[str, Any]:
        """Compute a chunk."""
        result = super().step()
        if result["done"]:
            log(kind="end")
        return result


def _pin_to_a_free_core(folder: Path) -> None:
    """Take a core that no other worker of this sweep has taken; none if all are."""
    for core in sorted(os.sched_getaffinity(0)):
        with contextlib.suppress(FileExistsError):
            (folder / f"core-{core}").touch(exist_ok=False)
            os.sched_setaffinity(0, {core})  # threads begun from now on inherit it
            return


@dataclass(frozen=True)
class Measured:
    """Seconds of a sweep.

    Attributes:
        wall: from launch to end, the start of Ray and of the workers included.
        span: from the first run taken to the last one ended.
        busy: in all workers, from the first run that each took to the last that it ended.
        numerics: in all workers, inside paired runs, of which `compiling`.
        trials: runs done.
    """

    wall: float
    span: float
    busy: float
    numerics: float
    compiling: float
    trials: int

    @property
    def overhead_s(self) -> float:
        """Seconds of a trial that are not numerics."""
        return (self.busy - self.numerics) / self.trials


def read_log(path: Path, wall: float, trials: int) -> Measured:
    """Sum up a log."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    numerics = [e for e in events if e["kind"] == "numerics"]
    begins = [e for e in events if e["kind"] == "begin"]
    ends = [e for e in events if e["kind"] == "end"]
    busy = 0.0
    for pid in {e["pid"] for e in ends}:
        taken = min(e["at"] for e in begins if e["pid"] == pid)
        busy += max(e["at"] for e in ends if e["pid"] == pid) - taken
    return Measured(
        wall=wall,
        span=max(e["at"] for e in ends) - min(e["at"] for e in begins),
        busy=busy,
        numerics=sum(e["seconds"] for e in numerics),
        compiling=sum(e["compile_s"] for e in numerics),
        trials=trials,
    )


def _sweep(steps: int, seeds: int, execution: Execution) -> SweepConfig:
    """Return the sweep that is timed."""
    grid = Grid(workload="digits_mlp", rule="gradient_descent", lrs=(0.1, 0.2))
    return SweepConfig(
        name="overhead",
        grids=(grid,),
        seeds=tuple(range(seeds)),
        steps=steps,
        execution=execution,
    )


def run(workers: int, steps: int, seeds: int, compile_cache: str) -> Measured:
    """Carry out one sweep of `digits_mlp` in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(
            storage=folder,
            workers=workers,
            chunk_steps=max(steps // 10, 1),
            compile_cache=compile_cache,
        )
        sweep = _sweep(steps, seeds, execution)
        path = Path(folder) / "log.jsonl"
        os.environ[LOG] = str(path)
        # the workers import this module
        os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        storage = Storage(folder, sweep.name)
        display = Display(sweep.name, sweep.runs, {}, Console(file=io.StringIO()))
        begin = time.perf_counter()
        run_sweep(sweep, make_plan(sweep, storage), storage, display, trainable=TimedTrial)
        wall = time.perf_counter() - begin
        return read_log(path, wall, len(Results(storage).finished()))


def sweep(repetitions: int, steps: int = 1000, tiny: bool = False) -> Iterator[str]:
    """Yield the table: a first sweep that compiles, then one and two workers in turn."""
    repetitions, steps, seeds = (1, 20, 1) if tiny else (repetitions, steps, SEEDS)
    by_workers: dict[int, list[Measured]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as cache:
        progress("one worker, compiling")
        # as long as the others: a later growth of k is another program
        compiling = run(1, steps, 1, cache)
        for i in range(repetitions):
            for workers, found in by_workers.items():
                progress(f"{workers} at a time, {i + 1} of {repetitions}")
                found.append(run(workers, steps, seeds, cache))
        progress("two processes without Ray")
        plain = ratios_of_two(_sweep(steps, 1, Execution()).runs[-1], repetitions + 1, cache)
    header = (
        "sweep | trials | first run to last s | with the start of Ray s | s a trial | "
        "numerics s a trial | compiling s a trial | not numerics s a trial"
    )
    rows = [_row("1 worker, compiling", [compiling])]
    rows += [_row(f"{n} worker{'s' if n > 1 else ''}", found) for n, found in by_workers.items()]
    yield table(header, rows)
    pairs = list(zip(by_workers[1], by_workers[2], strict=True))
    overheads = [100 * m.overhead_s / 60 for m in by_workers[1]]
    yield (
        "Overhead of a trial that computes for a minute: "
        f"{_spread(overheads)}%. Two workers against one: "
        f"{_spread([one.span / two.span for one, two in pairs])} times as fast from the first run "
        "taken to the last ended, the end included, when one worker waits for the other; "
        f"{_spread([2 * one.busy / two.busy for one, two in pairs])} while both have a run; "
        f"{_spread([one.wall / two.wall for one, two in pairs])} with the start of Ray. Two plain "
        f"processes with the same work do {_spread(plain)} times what one does."
    )


def _row(name: str, found: list[Measured]) -> tuple[Any, ...]:
    """Return the least of each figure, and all of them where there are several."""
    figures = (
        [m.span for m in found],
        [m.wall for m in found],
        [m.busy / m.trials for m in found],
        [m.numerics / m.trials for m in found],
        [m.compiling / m.trials for m in found],
        [m.overhead_s for m in found],
    )
    return (name, found[0].trials, *map(_spread, figures))


def _spread(values: list[float]) -> str:
    """Return "median (least to largest)", or the one value."""
    if len(values) == 1:
        return number(values[0])
    middle, *ends = (number(x) for x in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({' to '.join(ends)})"
