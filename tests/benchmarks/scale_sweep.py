"""What a sweep of many runs costs its driver: plan, status, folding, memory, what Tune holds.

    python -m tests.benchmarks.scale_sweep [--runs 100000] [--only plan status fold tune]

Makes the folders (`scale_folders.py`), measures each thing in a process of its own, and prints time
(wall and processor) and peak memory beside the aims; the exit status is 1 where one is missed. Wall
seconds are this machine's, with whatever else it does: the processor's are the ones to compare.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MEASURES = ("plan", "relaunch", "status", "fold", "tune")
# Wall seconds and peak memory in GB; None where there is no aim.
AIMS: dict[str, tuple[float | None, float]] = {
    "plan": (10.0, 1.0),  # nothing has begun
    "relaunch": (10.0, 1.0),  # all but a hundredth has ended
    "status": (5.0, 1.0),
    "fold": (None, 1.0),  # 2,000 runs of 160 steps, a file each for both tables
    "tune": (None, 1.0),  # the driver of 1,500 trials that do nothing
}


def plan(folder: Path, num_runs: int) -> None:
    """Plan the sweep from the study's file to the words on the terminal."""
    from cflows_ray.store import Storage
    from cflows_ray.sweep.plan import make_plan
    from tests.benchmarks.scale_folders import large_sweep

    sweep = large_sweep(folder, num_runs)
    found = make_plan(sweep, Storage(sweep.execution.storage, sweep.name))
    print("; ".join(found.lines(16))[:200])
    print(f"first of {len(found.todo)}: {found.todo[0]}")


def status(folder: Path, num_runs: int) -> None:  # noqa: ARG001
    """Run the status command."""
    from cflows_ray.status import main

    main([str(folder / "large")])


def fold(folder: Path, num_runs: int) -> None:  # noqa: ARG001
    """Fold all there is."""
    from cflows_ray.store import Storage, fold

    storage = Storage(str(folder), "large")
    before = len(storage.names("", recursive=True))
    fold(storage, at_end=True)
    print(f"{before} files became {len(storage.names('', recursive=True))}")


def tune(folder: Path, num_runs: int) -> None:
    """Carry out runs that do nothing at all."""
    import cflows_ray.sweep.tune as ours
    from cflows_ray.store import Storage
    from cflows_ray.sweep.display import Display
    from cflows_ray.sweep.plan import make_plan
    from tests.benchmarks.scale_folders import large_sweep

    import ray  # isort: skip
    from rich.console import Console  # isort: skip

    class Nothing(ours.PairedTrial):
        def step(self) -> dict[str, Any]:
            return {"done": True, "status": "advanced", "members": []}

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    sweep = large_sweep(folder, num_runs)
    storage = Storage(sweep.execution.storage, sweep.name)
    display = Display(sweep.name, sweep.runs, {}, Console(file=io.StringIO()))
    begin = time.perf_counter()
    starts: list[float] = []
    start = ours._Watcher.on_trial_start

    def started(self: Any, **info: Any) -> None:
        starts.append(time.perf_counter() - begin)
        start(self, **info)

    ours._Watcher.on_trial_start = started  # type: ignore[method-assign]
    ours.run_sweep(sweep, make_plan(sweep, storage), storage, display, trainable=Nothing)
    each = 1000 * (starts[-1] - starts[0]) / (len(starts) - 1)
    print(f"first trial after {starts[0]:.1f} s, then {each:.0f} ms each")


WHAT: dict[str, Callable[[Path, int], None]] = {
    "plan": plan,
    "relaunch": plan,
    "status": status,
    "fold": fold,
    "tune": tune,
}


def folder_for(measure: str, base: Path, num_runs: int) -> tuple[Path, int]:
    """Make the folder that a measure needs; return it and the number of runs."""
    from tests.benchmarks.scale_folders import large_sweep, make

    folder = base / ("ended" if measure in ("relaunch", "status") else measure)
    if measure == "tune":
        return folder, 1500
    if measure == "fold":
        make(large_sweep(folder, 2000), "single")
        return folder, 2000
    if measure != "plan" and not folder.exists():
        make(large_sweep(folder, num_runs), "folded", ended=0.99, steps_too=False)
    return folder, num_runs


def measured(measure: str, folder: Path, num_runs: int) -> dict[str, float]:
    """Measure something in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.scale_sweep", "--here", measure]
    command += ["--folder", str(folder), "--runs", str(num_runs)]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - begin
    *text, last = done.stdout.strip().splitlines() or [""]
    print("\n".join(f"    {line}" for line in text))
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return {"wall_s": wall_s, **json.loads(last)}


def here(measure: str, folder: Path, num_runs: int) -> None:
    """Do one thing in this process, then print what it took."""
    WHAT[measure](folder, num_runs)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cost = {"cpu_s": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss / 1024**2}
    print(json.dumps(cost))


def main() -> int:
    """Measure and print; return 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES)
    parser.add_argument("--here", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        here(options.here, options.folder, options.runs)
        return 0
    missed = 0
    with tempfile.TemporaryDirectory() as base:
        for measure in options.only:
            folder, num_runs = folder_for(measure, Path(base), options.runs)
            print(f"{measure}, {num_runs} runs")
            cost = measured(measure, folder, num_runs)
            aim_s, aim_gb = AIMS[measure]
            wanted = f" (aim {aim_s:g} s)" if aim_s else ""
            print(
                f"  {cost['wall_s']:.1f} s{wanted}, processor {cost['cpu_s']:.1f} s, "
                f"{cost['peak_gb']:.2f} GB (aim {aim_gb:g} GB), load {os.getloadavg()[0]:.1f}"
            )
            missed += (aim_s is not None and cost["wall_s"] > aim_s) or cost["peak_gb"] > aim_gb
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
