"""What may be wrong with the Parquet files of a results folder: footers, schemas, versions."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.read.declared import PROCESSES_KEY
from analysis.read.folders import exists, first_line
from cflows_ray.schema import SCHEMA_VERSION, TABLES

_MAGIC = b"PAR1"
_CHECK_THREADS = 8
_REQUIRED = {
    "runs": ("run_id", "sweep", "workload", "criterion", "rule", "lr", "seed", "status"),
    "steps": (
        "run_id", "step", "process", "train_loss", "distance_to_discrete", "distance_from_start",
        "status",
    ),
}  # fmt: skip


class Footers(NamedTuple):
    """What the footers of files say: the problem of each bad file, and the schemas of the others.

    Schemas that are alike are listed once.
    """

    problems: dict[str, str]
    schemas: list[pa.Schema]


def read_footers(filesystem: fs.FileSystem, files: Iterable[str], table: str) -> Footers:
    """Read the footers of files of `table`, several at a time."""
    files = list(files)
    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        read = list(pool.map(lambda file: _read_footer(filesystem, file, table), files))
    problems = {f: one for f, one in zip(files, read, strict=True) if isinstance(one, str)}
    schemas: list[pa.Schema] = []
    for one in read:
        if isinstance(one, pa.Schema) and not any(
            one.equals(other, check_metadata=True) for other in schemas
        ):
            schemas.append(one)
    return Footers(problems, schemas)


def _read_footer(filesystem: fs.FileSystem, file: str, table: str) -> pa.Schema | str | None:
    """Read the schema of a Parquet file, or say what is wrong; None if the file has vanished."""
    try:
        with filesystem.open_input_file(file) as source:
            schema = pq.ParquetFile(source).schema_arrow
    except (pa.ArrowException, OSError) as error:
        return _explain_unreadable(filesystem, file, error) if exists(filesystem, file) else None
    problem = check_schema(schema, table)
    if problem is not None:
        return problem
    # Of the file's own metadata, only what says something of the columns: all files share that.
    kept = {k: v for k, v in (schema.metadata or {}).items() if k == PROCESSES_KEY}
    return schema.with_metadata(kept)


def check_schema(schema: pa.Schema, table: str) -> str | None:
    """Say what keeps an Arrow schema from being that of `table`; None if nothing does.

    Further columns are allowed. Those that rows are told apart by, and that every score needs,
    must be there; others may be absent, because they were added since or because a rule has no such
    hyperparameter, and are read as null or what held before. Files without our metadata pass if
    their columns do, so that tables rewritten by other tools can still be read.
    """
    # Ours alone: keys of other tools need not be text.
    found = (schema.metadata or {}).items()
    metadata = {k.decode(): v.decode() for k, v in found if k.startswith(b"cflows_ray.")}
    name = metadata.get("cflows_ray.table", table)
    if name != table:
        return f"holds the table '{name}', not '{table}'"
    version = metadata.get("cflows_ray.schema", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        return f"has results schema '{version}'; this version reads schema '{SCHEMA_VERSION}'"
    for column in TABLES[table]:
        index = schema.get_field_index(column.name)
        if index < 0:
            if column.name not in _REQUIRED[table]:
                continue
            return f"has another schema: the table '{table}' needs a column '{column.name}'"
        if not _same_kind(schema.field(index).type, column.type):
            kind = schema.field(index).type
            return f"has another schema: column '{column.name}' is {kind}, not {column.type}"
    return None


def _same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_null(found) or found == wanted:
        return True
    if pa.types.is_dictionary(found):
        return _same_kind(found.value_type, wanted)
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        return is_list and _same_kind(found.value_type, wanted.value_type)
    if pa.types.is_floating(wanted):
        return pa.types.is_floating(found)
    if pa.types.is_integer(wanted):
        return pa.types.is_integer(found)
    return pa.types.is_string(wanted) and pa.types.is_large_string(found)


def _explain_unreadable(filesystem: fs.FileSystem, file: str, error: BaseException) -> str:
    try:
        with filesystem.open_input_file(file) as source:
            size = source.size()
            head = source.read_at(min(4, size), 0)
            tail = source.read_at(min(4, size), max(0, size - 4))
    except OSError:
        return f"cannot be read: {first_line(error)}"
    if size == 0:
        return "is empty (0 bytes), so half-written"
    if head != _MAGIC:
        return "is not a Parquet file"
    if tail != _MAGIC:
        return "is truncated or half-written: it ends without a Parquet footer"
    return f"is corrupt: {first_line(error)}"
