"""Time and memory of analysing a large sweep: 400 runs × 2000 steps × 4 processes.

    python tests/benchmarks/analysis_scale.py [--runs 400] [--steps 2000] [--folder DIR]

Makes the folder if it is not there (about 1.6 GB in memory terms, 0.4 GB on disk), analyses it in a
process of its own with `python -m analysis`, and prints that process's wall time, processor time
and peak memory, and the load of the machine meanwhile. The aim is 60 s and 2 GB on two cores; the
exit status is 1 where it is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "analysis")]

from synthetic import (  # noqa: E402
    CENTRAL,
    STABLE,
    RunTruth,
    plain_schema,
    runs_row,
    steps_table,
    write_sweep,
)

AIM_S, AIM_GB = 60.0, 2.0
RULES = ("gradient_descent", "scalar_rmsprop", "rmsprop")


def make(folder: Path, runs: int, steps: int) -> Path:
    """Write the sweep: 5 seeds a cell; every number of every run differs, as in real results."""
    sweep = write_sweep(folder, [], name="scale")
    base = {rule: steps_table(RunTruth(run_id="x", rule=rule, steps=steps)) for rule in RULES}
    rng = np.random.default_rng(0)
    for i in range(runs):
        rule = RULES[i % 3]
        lr = 0.01 * 2 ** ((i // 15) % 5)
        truth = RunTruth(
            run_id=f"run{i:05d}", rule=rule, lr=lr, seed=(i // 3) % 5, steps=steps,
            beta2=None if rule == "gradient_descent" else 0.99,
            workload=f"workload_{i // 75}", flows={"central": CENTRAL, "stable": replace(STABLE)},
        )  # fmt: skip
        row = pa.Table.from_pylist([runs_row(truth, "scale")], schema=plain_schema("runs"))
        pq.write_table(row, sweep / "runs" / f"{truth.run_id}.parquet")
        place = sweep / "steps" / truth.run_id
        place.mkdir()
        table = _perturbed(base[rule], truth.run_id, rng)
        for first in range(0, steps, 250):  # a part per chunk, as the sweep writes them
            last = first + 250 if first + 250 < steps else steps + 1
            keep = pc.and_(pc.greater_equal(table["step"], first), pc.less(table["step"], last))
            pq.write_table(table.filter(keep), place / f"part-{first:08d}.parquet")
    return sweep


def _perturbed(table: pa.Table, run_id: str, rng: np.random.Generator) -> pa.Table:
    """Multiply every number by its own noise, so that nothing compresses better than it should."""
    columns = []
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if field.name == "run_id":
            column = pa.array([run_id] * len(table))
        elif pa.types.is_floating(field.type):
            column = pc.multiply(column, pa.array(np.exp(0.01 * rng.normal(size=len(table)))))
        elif pa.types.is_list(field.type):
            values = column.values.to_numpy() * np.exp(0.01 * rng.normal(size=len(column.values)))
            column = pa.ListArray.from_arrays(
                column.offsets, pa.array(values), mask=column.is_null()
            )
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=table.schema)


def main() -> int:
    """Make the folder, analyse it, print both figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        sweep = folder / "scale"
        if not sweep.exists():
            start = time.perf_counter()
            make(folder, options.runs, options.steps)
            print(f"made the folder in {time.perf_counter() - start:.0f} s")
        size = sum(f.stat().st_size for f in sweep.rglob("*.parquet"))
        print(f"{options.runs} runs, {options.steps} steps, 4 processes, {size / 1e6:.0f} MB")
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "analysis", str(sweep)], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        wall = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak_gb = used.ru_maxrss / 1024**2
        print(f"wall {wall:.1f} s, peak memory {peak_gb:.2f} GB, load {os.getloadavg()[0]:.1f}")
        print(f"processor {used.ru_utime:.1f} s user + {used.ru_stime:.1f} s system")
    return int(wall > AIM_S or peak_gb > AIM_GB)


if __name__ == "__main__":
    sys.exit(main())
