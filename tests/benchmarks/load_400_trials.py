"""Load: 400 runs of the two-parameter workload through one local cluster.

    python tests/benchmarks/load_400_trials.py [--runs 400] [--workers 2]

Reports the driver's memory, the overhead a run, the number of files, and the time to launch again
when all is done.
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from cflows_ray.store.storage import Storage
from cflows_ray.store.tables import Results
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.execution_settings import Execution
from cflows_ray.sweep.plan import make_plan


def sweep_of(runs: int, folder: str, workers: int) -> SweepConfig:
    """Return a sweep of so many short runs."""
    grid = Grid(workload="saddle_2d", rule="gradient_descent", lrs=(0.2, 0.19, 0.18, 0.17))
    return SweepConfig(
        name="load",
        grids=(grid,),
        seeds=tuple(range(runs // 4)),
        steps=100,
        warmup=3,
        execution=Execution(storage=folder, chunk_steps=50, workers=workers),
    )


def main() -> None:
    """Run the benchmark and print what it measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sweep = sweep_of(options.runs, folder, options.workers)
        storage = Storage(folder, sweep.name)
        from cflows_ray.sweep.tune import run_sweep

        begin = time.perf_counter()
        display = Display(sweep.name, sweep.runs, {}, Console(file=io.StringIO()))
        run_sweep(sweep, make_plan(sweep, storage), storage, display)
        wall_s = time.perf_counter() - begin
        rows = Results(storage).finished().values()
        computing_s = sum(row["wall_s"] for row in rows)
        files = sum(path.is_file() for path in Path(storage.location).rglob("*"))
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"runs done: {len(rows)} of {len(sweep.runs)} in {wall_s:.1f} s")
        print(
            f"computing: {computing_s:.1f} s in all workers, of it compiling "
            f"{sum(row['compile_s'] for row in rows):.1f} s"
        )
        each = (wall_s * options.workers - computing_s) / len(rows)
        print(f"overhead: {1000 * each:.0f} ms of a worker for each run")
        print(f"driver's memory: {memory_mb:.0f} MB at most")
        print(f"files: {files}")
        again = (
            "from load_400_trials import sweep_of; from cflows_ray.sweep.cli import main; "
            f"main(sweep_of({options.runs}, {folder!r}, {options.workers}), [])"
        )
        begin = time.perf_counter()
        here = Path(__file__).parent
        command = [sys.executable, "-c", again]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=here)
        print(f"launched again with all done: {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
