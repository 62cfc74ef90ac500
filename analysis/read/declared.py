"""What the files of a results folder say of their columns and processes, and what if nothing.

A field of the table `runs` may carry metadata: `role` (`hyperparameter`, `configuration` or
`result`), `symbol`, `label`, `meaning` and `absent` (JSON: what held for each rule before the
column was added). The schema of `steps` may say which processes there are
(`cflows_ray.processes`, JSON). Frames carry what was found in their `attrs`, as plain dicts and
lists: `hyperparameters`, `configuration` and `processes`. Files from before there were roles have
the hyperparameters and the configuration listed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from analysis.read.folders import ResultsError
from cflows_ray.schema import arrow_schema

PROCESSES_KEY = b"cflows_ray.processes"

HYPERPARAMETERS = ("lr", "beta2", "eps", "bias_correction", "schedule")
"""Hyperparameters of files whose fields have no roles."""

CONFIGURATION = (
    "workload", "workload_options", "criterion", "rule", *HYPERPARAMETERS, "flows", "warmup",
    "steps", "substeps", "scheme", "num_eigs", "record_every", "dtype",
)  # fmt: skip
"""Every column of `runs` that belongs to the configuration, but for the seed, of such files."""

PROCESSES: dict[str, dict[str, Any]] = {
    "discrete": {"label": "optimizer", "predicts": False},
    "midpoint": {"label": "midpoints", "predicts": False},
    "central": {"label": "central flow", "predicts": True},
    "stable": {"label": "stable flow", "predicts": True},
}
"""Processes that are known without a declaration."""

MAIN_FLOW = "central"
"""Flow that reports and comparisons are about, if it is there and no other is named."""

REFERENCE_FLOW = "stable"
"""Flow that others are compared with, if it is there and no other is named."""

_NO_CONFIGURATION = ("run_id", "sweep", "seed")  # whatever role they are given
_WORDS = ("symbol", "label", "meaning")


class Kept(dict[str, Any]):
    """Dict in `attrs` that is shared: pandas copies attrs deeply in every operation."""

    def __deepcopy__(self, _: Any) -> Kept:
        return self

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # so that a pickled frame asks for nothing of this package


def united_schema(table: str, found: Iterable[pa.Schema]) -> pa.Schema:
    """Unite the schema of a table with the further columns that files have, by name.

    Columns of the table keep their types; of a further one, integers give way to floats and null
    to anything. Metadata of fields is the files' own. Raises `ResultsError` for a further column
    whose types cannot be united.

    >>> files = [pa.schema({"momentum": kind}) for kind in (pa.null(), pa.int64(), pa.float64())]
    >>> united_schema("runs", files).field("momentum").type
    DataType(double)
    """
    base = arrow_schema(table)
    types = {field.name: field.type for field in base}
    metadata: dict[str, dict[bytes, bytes]] = {name: {} for name in types}
    for schema in found:
        for field in schema:
            if field.name not in base.names:
                before = types.get(field.name, pa.null())
                types[field.name] = _united_type(field.name, before, _plain(field.type))
            metadata.setdefault(field.name, {}).update(field.metadata or {})
    fields = [pa.field(name, kind, metadata=metadata[name]) for name, kind in types.items()]
    return pa.schema(fields, metadata=base.metadata)


def declared_columns(runs: pa.Schema) -> dict[str, Any]:
    """Hyperparameters, with their symbol, label and meaning, and configuration: for `attrs`.

    >>> strength = pa.field("strength", pa.float64(), metadata={"role": "hyperparameter"})
    >>> declared_columns(pa.schema([strength]))
    {'hyperparameters': {'strength': {}}, 'configuration': ['strength']}
    """
    roles = {field.name: _word(field, "role") for field in runs}
    default = dict.fromkeys(CONFIGURATION, "configuration")
    default |= dict.fromkeys(HYPERPARAMETERS, "hyperparameter")
    roles |= {name: role for name, role in default.items() if roles.get(name) == ""}
    hyperparameters = {
        field.name: {word: text for word in _WORDS if (text := _word(field, word))}
        for field in runs
        if roles[field.name] == "hyperparameter"
    }
    chosen = [
        name
        for name, role in roles.items()
        if role in ("hyperparameter", "configuration") and name not in _NO_CONFIGURATION
    ]
    order = _in_order(chosen, hyperparameters)
    return {"hyperparameters": Kept(hyperparameters), "configuration": order}


def first_values(column: pa.Field) -> dict[str, Any]:
    """Return what held, by rule, before a column was added; empty if the file says nothing.

    >>> first_values(pa.field("momentum", pa.float64(), metadata={"absent": '{"rmsprop": 0.0}'}))
    {'rmsprop': 0.0}
    """
    try:
        found = json.loads(_word(column, "absent") or "{}")
        values = {str(rule): pa.scalar(value, column.type).as_py() for rule, value in found.items()}
    except (ValueError, AttributeError, pa.ArrowException):
        return {}
    return values


def declared_processes(steps: Iterable[pa.Schema], listed: Iterable[str]) -> dict[str, Any]:
    """Label of each process, and whether it predicts: declared, known, or by its own name.

    Args:
        steps: schemas of files of `steps`.
        listed: names of flows that the runs were configured with.

    >>> declared_processes([], ["central", "rod"])["rod"]
    {'label': 'rod', 'predicts': True}
    """
    found = {name: dict(facts) for name, facts in PROCESSES.items()}
    for schema in steps:
        for name, facts in _declared(schema).items():
            label = str(facts.get("label") or found.get(name, {}).get("label") or name)
            known = found.get(name, {}).get("predicts", True)
            found[name] = {"label": label, "predicts": bool(facts.get("predicts", known))}
    for name in sorted(set(listed) - set(found)):
        found[name] = {"label": name, "predicts": True}
    return Kept(found)


def hyperparameters_of(frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return the hyperparameters that a frame's `attrs` tell, or those known to all files."""
    default: dict[str, dict[str, str]] = {name: {} for name in HYPERPARAMETERS}
    return dict(frame.attrs.get("hyperparameters", default))


def configuration_of(frame: pd.DataFrame) -> list[str]:
    """Return the columns of the configuration that a frame's `attrs` tell, or the known ones."""
    return list(frame.attrs.get("configuration", CONFIGURATION))


def processes_of(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the processes that a frame's `attrs` tell, or the known ones."""
    return dict(frame.attrs.get("processes", PROCESSES))


def declare_like(frame: pd.DataFrame, source: pd.DataFrame) -> pd.DataFrame:
    """Let a frame made from another tell in its `attrs` what that one tells of its columns."""
    kept = ("hyperparameters", "configuration", "processes")
    frame.attrs |= {name: source.attrs[name] for name in kept if name in source.attrs}
    return frame


def without_attrs(frame: pd.DataFrame) -> pd.DataFrame:
    """Take the same columns without metadata, for the middle of a computation.

    pandas deep-copies `attrs` in every operation, which cost a tenth of the report's time.
    """
    bare = frame.copy(deep=False)
    bare.attrs = {}
    return bare


def references(processes: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Name the processes that are measured against: those that predict nothing."""
    return tuple(name for name, facts in processes.items() if not facts["predicts"])


def _declared(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Read the processes that a schema's metadata tells; none if it cannot be understood."""
    try:
        found = json.loads((schema.metadata or {}).get(PROCESSES_KEY, b"{}"))
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): facts for name, facts in found.items() if isinstance(facts, dict)}


def _in_order(chosen: list[str], hyperparameters: Mapping[str, Any]) -> list[str]:
    """Put known columns where frames always had them, and others after those of their kind."""
    known = [name for name in CONFIGURATION if name in chosen]
    others = [name for name in chosen if name not in known]
    first = [name for name in others if name in hyperparameters]
    place = 1 + max((known.index(n) for n in known if n in HYPERPARAMETERS), default=-1)
    rest = [name for name in others if name not in first]
    return [*known[:place], *first, *known[place:], *rest]


def _word(field: pa.Field, name: str) -> str:
    return (field.metadata or {}).get(name.encode(), b"").decode()


def _plain(kind: pa.DataType) -> pa.DataType:
    """Type that columns of this type are read as."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_floating(kind):
        return pa.float64()
    return pa.int64() if pa.types.is_integer(kind) else kind


def _united_type(name: str, one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    raise ResultsError(f"column '{name}' is {one} in some files and {other} in others")
