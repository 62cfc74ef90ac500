"""Arrow tables to the bytes of a Parquet file and back; the only writer of Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cflows_ray.rules import first_values
from cflows_ray.schema import absent_values, arrow_schema

# What pyarrow raises for damaged bytes (`ArrowInvalid` is a `ValueError`).
DAMAGE = (ValueError, OSError, pa.ArrowException)
# Large enough for compression; small, because who reads one run of many in a file reads the whole
# row group that it shares.
GROUP_ROWS = 2**13


def to_bytes(
    tables: Iterable[pa.Table], schema: pa.Schema, facts: Mapping[str, str] | None = None
) -> bytes:
    """Return a Parquet file of the tables' rows, in this order; holds a row group at a time.

    Args:
        tables: rows, of this schema.
        schema: of the file.
        facts: entries of the file's own metadata.
    """
    buffer = io.BytesIO()
    # without checksums, a flipped bit may read back as another number
    with pq.ParquetWriter(buffer, schema, compression="zstd", write_page_checksum=True) as writer:
        for group in _groups(tables):
            writer.write_table(group, row_group_size=GROUP_ROWS)
        if facts:
            writer.add_key_value_metadata(dict(facts))
    return buffer.getvalue()


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Put small tables together into row groups; no table is cut unless it is larger than one."""
    waiting: list[pa.Table] = []
    for table in tables:
        if waiting and sum(t.num_rows for t in waiting) + table.num_rows > GROUP_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
        waiting.append(table)
    if waiting:
        yield pa.concat_tables(waiting)


def from_bytes(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in a Parquet file's bytes, or those of some columns that it has.

    In this thread: pyarrow's own readers let go of the bytes in a thread of theirs, perhaps only
    when Python has gone, which ends the process with an abort after all its work is done.

    Raises one of `DAMAGE` for bytes that are not those of a whole Parquet file.
    """
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    if columns is not None:
        known = set(file.schema_arrow.names)
        columns = [name for name in columns if name in known]
    groups = range(file.num_row_groups)
    if sum(file.metadata.row_group(i).num_rows for i in groups) != file.metadata.num_rows:
        raise ValueError("the footer contradicts itself")  # no checksum covers it
    return file.read(columns=columns, use_threads=False)


def facts_of(file: Any) -> dict[str, str]:
    """Return the entries of an open Parquet file's own metadata; reads its last bytes only."""
    found = pq.ParquetFile(file).metadata.metadata or {}
    return {k.decode(): v.decode() for k, v in found.items() if k.startswith(b"cflows_ray.")}


def rows_of(
    table: pa.Table, name: str, columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return a table's rows as dictionaries, with what holds for columns that it lacks.

    Equal words are one object: rows repeat most of theirs, and there may be 100,000 of them.

    Args:
        table: rows of the table `name`, perhaps from before a column was added.
        name: "runs" or "steps".
        columns: the columns to return; None for all.
    """
    absent = absent_values(name)
    names = list(columns or dict.fromkeys([*arrow_schema(name).names, *table.schema.names]))
    values = [
        _values(table[n]) if n in table.schema.names else [absent.get(n)] * table.num_rows
        for n in names
    ]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
    for row in rows:
        for hyperparameter, value in first_values(row.get("rule") or "").items():
            if row.get(hyperparameter, value) is None:
                row[hyperparameter] = value
    return rows


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values; equal words as one object."""
    if not pa.types.is_string(column.type):
        return list(column.to_pylist())
    coded = column.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    words = coded.dictionary.to_pylist()
    return [None if i is None else words[i] for i in coded.indices.to_pylist()]


def conform(tables: Sequence[pa.Table], name: str) -> tuple[list[pa.Table], pa.Schema]:
    """Give tables of any age one schema: that of the widest, and what others have beyond it.

    A column added since holds what `absent_values` says, or null; one that is unknown here (a
    plug-in's that is not installed) is kept.
    """
    widest = max((table.schema for table in tables), key=len)
    schema = widest
    for other in (arrow_schema(name), *(table.schema for table in tables)):
        for field in other:
            if schema.get_field_index(field.name) < 0:
                schema = schema.append(field)
    absent = absent_values(name)
    result = []
    for table in tables:
        columns = [
            table[field.name].cast(field.type)
            if field.name in table.schema.names
            else pa.chunked_array(
                [pa.array([absent.get(field.name)] * table.num_rows, type=field.type)]
            )
            for field in schema
        ]
        result.append(pa.Table.from_arrays(columns, schema=schema))
    return result, schema


def is_table(path: str) -> bool:
    """Whether a path is a finished table, not something that readers ignore."""
    name = path.rsplit("/", 1)[-1]
    return name.endswith(".parquet") and not name.startswith(("_", "."))
