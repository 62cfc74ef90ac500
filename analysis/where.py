"""Row filters: what a user writes in `where`, split by table and turned into Arrow expressions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from analysis.storage import ResultsError
from cflows_ray.schema import column_names

_OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")


class Condition(NamedTuple):
    """One comparison, e.g. `Condition("lr", ">", 0.01)`."""

    column: str
    operator: str
    value: Any


def parse_where(where: Any) -> tuple[tuple[Condition, ...], tuple[Condition, ...]]:
    """Conditions on `runs` and on `steps` of a `where` argument of `load`.

    Columns that both tables have (`run_id`, `status`) mean those of `runs`. Raises `ResultsError`
    for an unknown column or operator.

    >>> parse_where({"lr": [0.1, 0.2], "process": "central"})
    ((Condition(column='lr', operator='in', value=(0.1, 0.2)),), \
(Condition(column='process', operator='==', value='central'),))
    """
    on_runs, on_steps = [], []
    for condition in _conditions(where):
        if condition.operator not in _OPERATORS:
            raise ResultsError(
                f"where: operator must be one of {list(_OPERATORS)}, got {condition.operator!r}"
            )
        if condition.column in column_names("runs"):
            on_runs.append(condition)
        elif condition.column in column_names("steps"):
            on_steps.append(condition)
        else:
            raise ResultsError(f"where: no column '{condition.column}'{_suggest(condition.column)}")
    return tuple(on_runs), tuple(on_steps)


def rules_out(conditions: Iterable[Condition], column: str, value: Any) -> bool:
    """Whether no row with this value in this column can meet all conditions.

    >>> rules_out([Condition("process", "==", "central")], "process", "discrete")
    True
    """
    keep = to_expression(c for c in conditions if c.column == column)
    return keep is not None and pa.table({column: [value]}).filter(keep).num_rows == 0


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
            if isinstance(value, (list, tuple, set, frozenset, range))
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


def _one_expression(condition: Condition) -> pc.Expression:
    column, operator, value = condition
    field = pc.field(column)
    if operator in ("in", "not in"):
        inside = field.isin(list(value))
        return inside if operator == "in" else ~inside
    comparisons = {
        "==": field == value,
        "!=": field != value,
        "<": field < value,
        "<=": field <= value,
        ">": field > value,
        ">=": field >= value,
    }
    return comparisons[operator]


def _suggest(name: str) -> str:
    known = [*column_names("runs"), *column_names("steps")]
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
