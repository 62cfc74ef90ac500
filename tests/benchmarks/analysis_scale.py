"""Time and memory of analysing a large sweep: 400 runs × 2000 steps × 4 processes, or many runs.

    python tests/benchmarks/analysis_scale.py [--runs 400] [--steps 2000] [--folder DIR]
    python tests/benchmarks/analysis_scale.py --two-parameters 10000 [--layout folded|single]

Makes the folder if it is not there (the first: about 1.6 GB in memory terms, 0.4 GB on disk; the
second is that of `scale_folders`), analyses it with `python -m analysis` in processes of their own,
twice, so that the second time all scores are there, and prints wall time, processor time, the peak
of the memory of all these processes together, lines on the terminal, size of the page, and the load
of the machine meanwhile. The aims are on two cores: 60 s and 2 GB for 400 long runs, 40 s and 1 GB
for up to 10,000 short ones, and seven minutes and 1 GB for up to 100,000. The exit status is 1
where one is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

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

from tests.benchmarks import scale_folders  # noqa: E402

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


class Spent(NamedTuple):
    """What an analysis took, and what it showed."""

    wall_s: float
    processor_s: float
    peak_gb: float
    lines: int
    page_mb: float


def analyse(sweep: Path, out: Path) -> Spent:
    """Analyse a sweep as a person does, and watch the processes that do it."""
    command = [sys.executable, "-m", "analysis", str(sweep), "--out", str(out)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, printed = 0, out.with_suffix(".txt")
    with printed.open("w") as text, subprocess.Popen(command, cwd=ROOT, stdout=text) as process:
        while process.poll() is None:
            peak = max(peak, sum(_memory(pid) for pid in _family(process.pid)))
            time.sleep(0.2)
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(process.returncode)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    lines = len(printed.read_text().splitlines())
    return Spent(wall, processor, peak / 1e9, lines, (out / "report.html").stat().st_size / 1e6)


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for child in task.read_text().split():
                found += _family(int(child))
    return found


def _memory(pid: int) -> int:
    """Bytes of a process; what it shares with others is counted once for all of them."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


def aims(runs: int, *, short: bool) -> tuple[float, float]:
    """Seconds and gigabytes that an analysis of so many runs may take."""
    if not short:
        return 60.0, 2.0
    return (40.0, 1.0) if runs <= 10_000 else (420.0, 1.0)


def main() -> int:
    """Make the folder, analyse it twice, print the figures beside the aims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--two-parameters", type=int, metavar="RUNS")
    parser.add_argument("--layout", choices=("single", "folded"), default="folded")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    short = options.two_parameters is not None
    runs = options.two_parameters if short else options.runs
    aim_s, aim_gb = aims(runs, short=short)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        sweep = folder / ("large" if short else "scale")
        if not sweep.exists():
            start = time.perf_counter()
            if short:
                scale_folders.make(scale_folders.large_sweep(folder, runs), options.layout)
            else:
                make(folder, runs, options.steps)
            print(f"made the folder in {time.perf_counter() - start:.0f} s")
        for file in (sweep / "analysis").glob("*"):
            file.unlink()
        size = sum(f.stat().st_size for f in sweep.rglob("*.parquet"))
        print(f"{runs} runs, 4 processes, {size / 1e6:.0f} MB")
        missed = False
        for which in ("first", "again"):
            spent = analyse(sweep, Path(temporary) / which)
            missed |= spent.wall_s > aim_s or spent.peak_gb > aim_gb
            print(
                f"{which}: wall {spent.wall_s:.1f} s (aim {aim_s:g}), processor "
                f"{spent.processor_s:.1f} s, peak memory {spent.peak_gb:.2f} GB (aim {aim_gb:g}), "
                f"{spent.lines} lines, page {spent.page_mb:.1f} MB, load {os.getloadavg()[0]:.1f}"
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
