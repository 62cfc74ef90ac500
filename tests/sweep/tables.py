"""Reading and comparing a sweep's tables, cell by cell."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cflows_ray.schema import arrow_schema
from cflows_ray.store.storage import Storage

# What may differ between a disturbed and an undisturbed sweep: how long it took, and where.
MAY_DIFFER = ("wall_s", "compile_s", "device", "versions", "commit")


# What rounding decides: iterations made and what they left.
ROUNDING = ["num_hvps", "num_third_derivatives", "eig_residual", "sdcp_residual"]


def read_tables(sweep: Path) -> dict[str, pa.Table]:
    """Read both tables as a stranger would: every file that does not begin with "_" or "."."""
    result = {}
    for table in ("runs", "steps"):
        files = sorted(p for p in sweep.glob(f"{table}/**/*.parquet") if p.name[0] not in "_.")
        tables = [pq.read_table(pa.BufferReader(p.read_bytes())) for p in files]
        schema = arrow_schema(table)
        result[table] = pa.concat_tables(tables) if tables else schema.empty_table()
    runs, steps = result["runs"], result["steps"]
    return {
        "runs": runs.sort_by("run_id").drop_columns(list(MAY_DIFFER)),
        "steps": steps.sort_by(
            [("run_id", "ascending"), ("step", "ascending"), ("process", "ascending")]
        ),
    }


def assert_same_tables(left: Path, right: Path) -> None:
    """Compare both tables of two sweeps bit for bit; NaN equals NaN, null only null."""
    for name, table in read_tables(left).items():
        other = read_tables(right)[name]
        assert table.schema == other.schema
        assert table.num_rows == other.num_rows, (
            f"{name}: {table.num_rows} and {other.num_rows} rows"
        )
        for column in table.column_names:
            a, b = table[column].to_pylist(), other[column].to_pylist()
            wrong = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if not _same(x, y)]
            assert not wrong, (
                f"{name}.{column} differs in rows {wrong[:5]}: {a[wrong[0]]} {b[wrong[0]]}"
            )


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(_same(a, b) for a, b in zip(x, y, strict=True))
    if isinstance(x, float) and isinstance(y, float):
        if math.isnan(x) or math.isnan(y):
            return math.isnan(x) and math.isnan(y)
        return x == y and math.copysign(1, x) == math.copysign(1, y)
    return bool(x == y)


def assert_close_tables(left: Path, right: Path, rtol: float) -> None:
    """Compare both tables of two sweeps up to rounding; words, counts and nulls must be the same.

    Counts of derivatives are left out: an iteration may stop one pass earlier, an eigenvalue at a
    threshold fall on its other side. So are residuals, which are rounding errors themselves.
    """
    for name, table in read_tables(left).items():
        ours, theirs = table.to_pandas(), read_tables(right)[name].to_pandas()
        ours, theirs = (x.drop(columns=ROUNDING, errors="ignore") for x in (ours, theirs))
        floats = [c for c in ours.columns if pd.api.types.is_float_dtype(ours[c])]
        lists = [c for c in ours.columns if pa.types.is_list(table.schema.field(c).type)]
        rest = [c for c in ours.columns if c not in (*floats, *lists)]
        pd.testing.assert_frame_equal(ours[rest], theirs[rest])
        pd.testing.assert_frame_equal(ours[floats], theirs[floats], rtol=rtol, atol=rtol)


def download(storage: Storage, folder: Path) -> Path:
    """Copy a sweep's folder to a local one."""
    for name in storage.names("", recursive=True):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(storage.read(name))
    return folder
