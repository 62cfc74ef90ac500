"""Arrow tables to pandas frames that keep units and categories."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from cflows_ray.schema import TABLES

_CATEGORIES = {
    "runs": ("sweep", "workload", "criterion", "rule", "schedule", "flows", "dtype", "status"),
    "steps": ("run_id", "process", "status"),
}
_NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


def to_frame(table: pa.Table, name: str) -> pd.DataFrame:
    """Frame of an Arrow table of kind `name` (`runs` or `steps`).

    Names that repeat (rule, process, ...) become categorical, in alphabetical order; integers that
    may be null become `Int64`. `frame.attrs["units"]` maps each column to its unit.

    >>> to_frame(pa.table({"rule": ["sgd", "adam"], "seed": [0, None]}), "runs").dtypes.to_dict()
    {'rule': CategoricalDtype(categories=['adam', 'sgd'], ordered=False, categories_dtype=str), \
'seed': Int64Dtype()}
    """
    for column in _CATEGORIES[name]:
        index = table.schema.get_field_index(column)
        if index >= 0 and not pa.types.is_dictionary(table.schema.field(index).type):
            encoded = table.column(index).combine_chunks().dictionary_encode()
            table = table.set_column(index, column, encoded)
    frame = table.to_pandas(types_mapper=_NULLABLE.get)
    for column in _CATEGORIES[name]:
        if column in frame:  # else in the order of their first rows, which differs between tables
            values = frame[column].cat
            frame[column] = values.reorder_categories(sorted(values.categories))
    if "step" in frame:
        frame["step"] = frame["step"].astype("int64")
    known = {c.name: c.unit for c in TABLES[name]}
    units = {f.name: known.get(f.name, _unit(f)) for f in table.schema if f.name in frame}
    frame.attrs = {"units": {n: units[n] for n in (*known, *units) if n in units}}
    return frame


def _unit(field: pa.Field) -> str:
    return (field.metadata or {}).get(b"unit", b"").decode()
