"""Row filters: what a user writes in `where`, split by table and turned into Arrow expressions."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.read.folders import ResultsError

_OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")
_NAMED = 12  # values that an error lists


class Condition(NamedTuple):
    """One comparison, e.g. `Condition("lr", ">", 0.01)`."""

    column: str
    operator: str
    value: Any


def parse_where(
    where: Any, runs: pa.Schema, steps: pa.Schema
) -> tuple[tuple[Condition, ...], tuple[Condition, ...]]:
    """Conditions on `runs` and on `steps`, of these schemas, of a `where` argument of `load`.

    Columns that both tables have (`run_id`, `status`) mean those of `runs`. Raises `ResultsError`
    for an unknown column or operator, or a value that is not of the column's type.

    >>> runs, steps = pa.schema({"lr": pa.float64()}), pa.schema({"process": pa.string()})
    >>> parse_where({"lr": [0.1, 0.2], "process": "central"}, runs, steps)
    ((Condition(column='lr', operator='in', value=(0.1, 0.2)),), \
(Condition(column='process', operator='==', value='central'),))
    """
    on_runs, on_steps = [], []
    for condition in _conditions(where):
        if condition.operator not in _OPERATORS:
            raise ResultsError(
                f"where: operator must be one of {list(_OPERATORS)}, got {condition.operator!r}"
            )
        if condition.column in runs.names:
            _check_value(condition, runs)
            on_runs.append(condition)
        elif condition.column in steps.names:
            _check_value(condition, steps)
            on_steps.append(condition)
        else:
            near = _suggest(condition.column, [*runs.names, *steps.names])
            raise ResultsError(f"where: no column '{condition.column}'{near}")
    return tuple(on_runs), tuple(on_steps)


def rules_out(conditions: Iterable[Condition], column: str, value: Any) -> bool:
    """Whether no row with this value in this column can meet all conditions.

    >>> rules_out([Condition("process", "==", "central")], "process", "discrete")
    True
    """
    keep = to_expression(c for c in conditions if c.column == column)
    return keep is not None and pa.table({column: [value]}).filter(keep).num_rows == 0


def no_match(runs: pa.Table, conditions: Sequence[Condition]) -> str:
    """Say which condition none of these runs meets, and what is there instead.

    >>> no_match(pa.table({"rule": ["rmsprop", None]}), [Condition("rule", "==", "gd")])
    "where: no run matches rule == 'gd'; rule is one of ['rmsprop']"
    """
    for condition in conditions:
        if runs.filter(to_expression([condition])).num_rows:
            continue
        there = sorted(pc.drop_null(pc.unique(runs[condition.column].combine_chunks())).to_pylist())
        shown = ", ".join(map(repr, there[:_NAMED])) + (", ..." if len(there) > _NAMED else "")
        return f"where: no run matches {_text(condition)}; {condition.column} is one of [{shown}]"
    return f"where: no run matches all of {', '.join(map(_text, conditions))}"


def to_expression(conditions: Iterable[Condition]) -> pc.Expression | None:
    """All conditions as one Arrow expression; None if there are none."""
    result = None
    for condition in conditions:
        expression = _one_expression(condition)
        result = expression if result is None else result & expression
    return result


def _conditions(where: Any) -> list[Condition]:
    if where is None:
        return []
    if isinstance(where, Mapping):
        return [
            Condition(name, "in", tuple(value))
            if isinstance(value, Iterable) and not isinstance(value, str)
            else Condition(name, "==", value)
            for name, value in where.items()
        ]
    try:
        return [Condition(*item) for item in where]
    except TypeError as error:
        raise ResultsError(
            "where must be a mapping of column to value, or (column, operator, value) triples, "
            f"got {where!r}"
        ) from error


def _check_value(condition: Condition, schema: pa.Schema) -> None:
    """Raise `ResultsError` if a condition's value is not of its column's type.

    Arrow would say so in words of its own, once the files are read.
    """
    column, operator, value = condition
    several = operator in ("in", "not in")
    if several and (isinstance(value, str) or not isinstance(value, Iterable)):
        raise ResultsError(f"where: {column} {operator} takes a list of values, got {value!r}")
    kind = schema.field(column).type
    if pa.types.is_list(kind):
        raise ResultsError(f"where: {column} holds lists, which cannot be compared")
    name, kinds = _kinds(kind)
    for one in value if several else [value]:
        null = one is None and operator in ("==", "!=", "in", "not in")
        is_flag = isinstance(one, (bool, np.bool_))
        if not null and (not isinstance(one, kinds) or (is_flag and name == "a number")):
            raise ResultsError(f"where: {column} must be compared with {name}, got {one!r}")


def _kinds(kind: pa.DataType) -> tuple[str, tuple[type, ...]]:
    """Name of what a column of this type can be compared with, and its Python types."""
    if pa.types.is_string(kind):
        return "text", (str,)
    if pa.types.is_boolean(kind):
        return "True or False", (bool, np.bool_)
    return "a number", (numbers.Real,)


def _one_expression(condition: Condition) -> pc.Expression:
    column, operator, value = condition
    field = pc.field(column)
    if operator in ("in", "not in"):
        inside = field.isin(list(value))
        return inside if operator == "in" else ~inside
    if value is None:
        return field.is_null() if operator == "==" else field.is_valid()
    comparisons = {
        "==": field == value,
        "!=": field != value,
        "<": field < value,
        "<=": field <= value,
        ">": field > value,
        ">=": field >= value,
    }
    return comparisons[operator]


def _text(condition: Condition) -> str:
    value = list(condition.value) if isinstance(condition.value, tuple) else condition.value
    return f"{condition.column} {condition.operator} {value!r}"


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
