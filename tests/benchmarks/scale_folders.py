"""Makes the folder of a large sweep in a moment, without computing a run.

    python -m tests.benchmarks.scale_folders FOLDER [--runs 10000] [--layout single|folded]

The runs are those of a real `SweepConfig` (the two-parameter workload, two rules, learning rates ×
5 seeds, 160 steps), so that plan and status find them; their numbers are random, different in every
run, so that nothing compresses better than real results. One run in a hundred diverged, one in a
hundred failed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cflows_ray.schema import arrow_schema
from cflows_ray.store import Results, Storage
from cflows_ray.store.folding import RUN_IDS
from cflows_ray.store.parquet import to_bytes
from cflows_ray.sweep import Execution, Grid, RunConfig, SweepConfig

SEEDS = (0, 1, 2, 3, 4)
RULES = ("gradient_descent", "rmsprop")
PROCESSES = ("discrete", "midpoint", "stable", "central")
# What `provenance.versions` writes is about so long.
VERSIONS = (
    '{"jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.3.4", "optax": "0.2.8", "ray": "2.60"}'
)

Layout = Literal["single", "folded"]


def large_sweep(folder: Path, num_runs: int, steps: int = 160) -> SweepConfig:
    """Return a sweep of (about) so many two-parameter runs whose results lie in `folder`."""
    per_rule = max(1, num_runs // (len(SEEDS) * len(RULES)))
    grids = tuple(
        Grid("saddle_2d", rule, lrs=tuple(np.geomspace(1e-4, 1e-1, per_rule).tolist()))
        for rule in RULES
    )
    execution = Execution(storage=str(folder))
    return SweepConfig("large", grids, seeds=SEEDS, steps=steps, execution=execution)


def make(sweep: SweepConfig, layout: Layout, ended: float = 1.0, steps_too: bool = True) -> Storage:
    """Write the sweep as launched, and a share of its runs as ended.

    Args:
        sweep: what was launched.
        layout: one file a run for each table, or folded files of 500 runs each.
        ended: share of the runs that have ended.
        steps_too: write the `steps` table too.
    """
    storage = Storage(sweep.execution.storage, sweep.name)
    Results(storage).write_sweep(sweep.to_json())
    runs = sweep.runs[: round(ended * len(sweep.runs))]
    root = Path(storage.location)
    size = 1 if layout == "single" else 500
    (root / "runs").mkdir(exist_ok=True)
    (root / "steps").mkdir(exist_ok=True)
    # a fold puts its runs in the order of their ids, by which a reader finds their row group
    batches = [
        sorted(runs[i : i + size], key=lambda run: run.run_id) for i in range(0, len(runs), size)
    ]
    ordered = [run for batch in batches for run in batch]
    rows = _rows(ordered)
    draw = _steps_tables(ordered, sweep.steps) if steps_too else None
    for i, batch in enumerate(batches):
        facts = {RUN_IDS: json.dumps([run.run_id for run in batch])}
        name = batch[0].run_id if layout == "single" else f"part-{i:016x}"
        table = pa.Table.from_pylist([next(rows) for _ in batch], schema=arrow_schema("runs"))
        (root / "runs" / f"{name}.parquet").write_bytes(to_bytes([table], table.schema, facts))
        if draw is not None:
            file = root / "steps" / f"{name}.parquet"
            if layout == "single":
                file = root / "steps" / name / "part-00000000.parquet"
                file.parent.mkdir()
            tables = (next(draw) for _ in batch)
            file.write_bytes(to_bytes(tables, arrow_schema("steps"), facts))
    return storage


def _rows(runs: Iterable[RunConfig]) -> Iterator[dict[str, Any]]:
    """Yield rows of the `runs` table."""
    rng = np.random.default_rng(0)
    for i, run in enumerate(runs):
        status = {1: "diverged", 2: "failed"}.get(i % 100, "finished")
        yield {
            **run.row(),
            "sweep": "large",
            "num_params": 2,
            "status": status,
            "status_detail": None if status == "finished" else f"step {i % 160}",
            "wall_s": float(rng.uniform(0.5, 1.5)),
            "compile_s": 0.0,
            "device": "cpu",
            "versions": VERSIONS,
            "commit": "0" * 40,
        }


def _steps_tables(runs: Iterable[RunConfig], steps: int) -> Iterator[pa.Table]:
    """Yield a `steps` table for each run: a row per step and process, random numbers."""
    schema = arrow_schema("steps")
    num_rows = (steps + 1) * len(PROCESSES)
    rng = np.random.default_rng(1)
    fixed = {
        "step": pa.array(np.repeat(np.arange(steps + 1), len(PROCESSES))),
        "process": pa.array(PROCESSES * (steps + 1)),
        "status": pa.array(["ok"] * num_rows),
    }
    offsets = pa.array(4 * np.arange(num_rows + 1), pa.int32())
    for run in runs:
        columns: list[pa.Array] = []
        for field in schema:
            if field.name == "run_id":
                column = pa.array([run.run_id] * num_rows)
            elif field.name in fixed:
                column = fixed[field.name]
            elif pa.types.is_list(field.type):
                values = rng.lognormal(size=4 * num_rows)
                column = pa.ListArray.from_arrays(offsets, pa.array(values))
            elif pa.types.is_integer(field.type):
                column = pa.array(rng.integers(0, 10**4, num_rows))
            else:
                column = pa.array(rng.lognormal(size=num_rows))
            columns.append(column)
        yield pa.Table.from_arrays(columns, schema=schema)


def main() -> None:
    """Make a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--layout", choices=("single", "folded"), default="single")
    parser.add_argument("--ended", type=float, default=1.0)
    parser.add_argument("--no-steps", action="store_true")
    options = parser.parse_args()
    begin = time.perf_counter()
    sweep = large_sweep(options.folder, options.runs)
    storage = make(sweep, options.layout, options.ended, not options.no_steps)
    print(f"{len(sweep.runs)} runs in {storage.location}: {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
