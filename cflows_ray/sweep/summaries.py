"""Tables for a person: what a launch would do and what came of it, by workload, criterion and rule.

They do not grow with the number of runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from cflows_ray.schema import RUN_STATUSES
from cflows_ray.sweep.display import duration
from cflows_ray.sweep.pilot import Pilot
from cflows_ray.sweep.plan import Plan
from cflows_ray.sweep.run_config import RunConfig

# So many values are listed; of more, their number and range.
MOST_LISTED = 5


def summary_table(rows: Sequence[dict[str, Any]], total: int) -> Table:
    """Return a table of ended runs: how many ended how, by workload and rule."""
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for name in ("workload", "criterion", "rule"):
        table.add_column(name)
    words = [w for w in RUN_STATUSES if w == "finished" or any(r["status"] == w for r in rows)]
    for name in (*words, "computing"):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["workload"], row["criterion"], row["rule"]), []).append(row)
    for key, members in groups.items():
        counts = [sum(r["status"] == word for r in members) for word in words]
        wall_s = sum(r["wall_s"] or 0.0 for r in members)
        table.add_row(*key, *[str(n) if n else "" for n in counts], duration(wall_s))
    if len(rows) < total:
        table.caption = f"{total - len(rows)} of {total} runs have not ended"
    return table


def plan_table(plan: Plan, runs: Iterable[RunConfig]) -> Table:
    """Return a table of all runs of a sweep: what they vary, and what a launch would do."""
    groups: dict[tuple[str, ...], list[RunConfig]] = {}
    for run in runs:
        groups.setdefault((run.workload, run.criterion, run.rule), []).append(run)
    verbs = {
        **dict.fromkeys(plan.ended, "done"),
        **{run.run_id: "to resume" for run in plan.resumed},
        **{run.run_id: "to retry" for run in plan.retried},
    }
    counts = {
        key: Counter(verbs.get(run.run_id, "new") for run in some) for key, some in groups.items()
    }
    there = sum(counts.values(), Counter[str]())
    words = [word for word in ("done", "to resume", "to retry", "new") if there[word]]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("workload", "criterion", "rule", "learning rates", "seeds"):
        table.add_column(name)
    for name in ("runs", *words):
        table.add_column(name, justify="right")
    for key, some in groups.items():
        cells = [str(n) if (n := counts[key][word]) else "" for word in words]
        rates = in_few_words({run.lr for run in some}, "{:.4g}".format)
        seeds = in_few_words({run.seed for run in some}, str)
        table.add_row(*key, rates, seeds, str(len(some)), *cells)
    return table


def pilots_in_words(
    pilots: Iterable[Pilot], records: Mapping[str, Mapping[str, Any]], verbose: bool
) -> Iterator[str]:
    """Say what pilots have found: those without an edge first, and of many others only how many."""
    there = [(pilot, records[i]) for pilot in pilots if (i := pilot.pilot_id) in records]
    found = [(pilot, record) for pilot, record in there if record["status"] == "found"]
    others = [(pilot, record) for pilot, record in there if record["status"] != "found"]
    most = len(there) if verbose else MOST_LISTED
    for pilot, record in others[:most]:
        yield f"{_of_pilot(pilot, record)}; its runs are left out"
    for pilot, record in found[:most]:
        yield f"pilot {pilot}: from {record['lr']:g} on at the edge within {pilot.run.steps} steps"
    if rest := max(0, len(others) - most) + max(0, len(found) - most):
        yield f"... and {rest} more pilots; --verbose lists them"


def failed_pilots(pilots: Iterable[Pilot], records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Say how many pilots have failed, and why the first of them; None where none has."""
    there = [(pilot, records[i]) for pilot in pilots if (i := pilot.pilot_id) in records]
    failed = [(pilot, record) for pilot, record in there if record["status"] == "failed"]
    if not failed:
        return None
    more = f" (and {len(failed) - 1} more failed)" if len(failed) > 1 else ""
    return f"{_of_pilot(*failed[0])}{more}; --retry-failed makes failed pilots again"


def _of_pilot(pilot: Pilot, record: Mapping[str, Any]) -> str:
    """Say how a pilot without an edge ended, and why."""
    told = f": {record['detail']}" if record["detail"] else ""
    return f"pilot {pilot}: {record['status']}{told}"


def in_few_words(values: Iterable[Any], form: Callable[[Any], str]) -> str:
    """Return a few values one by one, and of many how many there are, and the range.

    Example:
        >>> in_few_words({3, 1, 2}, str), in_few_words(range(100), str)
        ('1, 2, 3', '100 from 0 to 99')
    """
    ordered = sorted(values)
    if len(ordered) <= MOST_LISTED:
        return ", ".join(map(form, ordered))
    return f"{len(ordered)} from {form(ordered[0])} to {form(ordered[-1])}"
