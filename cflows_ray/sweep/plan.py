"""What a launch would do: which runs have ended, which go on, which are new.

Used by the launch itself, by `--dry-run` and by the status command. Only `clear_the_way` changes
anything on storage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from cflows_ray.rules import first_values
from cflows_ray.schema import RUN_STATUSES, absent_values
from cflows_ray.store import Checkpoints, Results, Storage, begun_runs, runs_schema
from cflows_ray.sweep.config import SweepConfig
from cflows_ray.sweep.data import in_words, replaced, replaced_in_words
from cflows_ray.sweep.display import duration
from cflows_ray.sweep.run_config import RunConfig


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep, sorted by what a launch would do with them.

    Attributes:
        ended: rows of the `runs` table for runs that the sweep asks for, by run id.
        resumed: runs that have begun but not ended.
        fresh: runs that have not begun.
        retried: failed runs that run again (`--retry-failed`), and runs of data that have been
            replaced since (`--retry-changed`).
        changed: of all runs on storage that have ended and whose data have been replaced since:
            the fingerprint that they recorded and the present one, by run id.
        unasked: rows of runs on storage that the sweep does not ask for any more.
        left: rows, as far as they are known, of runs that have begun but not ended and that it
            does not ask for any more, by run id.
        begun: steps at the last checkpoint of runs that have begun, by run id.
        known: ids of runs that the launch before asked for.
        dropped: rows, as far as they are known, of those that this one does not ask for.
    """

    ended: dict[str, dict[str, Any]]
    resumed: tuple[RunConfig, ...]
    fresh: tuple[RunConfig, ...]
    retried: tuple[RunConfig, ...] = ()
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unasked: dict[str, dict[str, Any]] = field(default_factory=dict)
    left: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: Mapping[str, int] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    dropped: tuple[dict[str, Any], ...] = ()

    @cached_property
    def todo(self) -> tuple[RunConfig, ...]:
        """Runs to carry out, in the order in which they begin.

        One of each kind first: runs of a kind share a compiled program, which others then find in
        the compilation cache instead of compiling it at the same time. Then those that are half
        done. Otherwise high learning rates first: they spend more steps at the edge of stability,
        track more directions and so take longer, and a sweep that ends with its short runs leaves
        its workers idle for less.
        """
        runs = sorted((*self.resumed, *self.fresh, *self.retried), key=lambda run: -run.lr)
        pioneers: dict[str, RunConfig] = {}
        for kind, run in zip(kinds(runs), runs, strict=True):
            pioneers.setdefault(kind, run)
        first = {run.run_id for run in pioneers.values()}
        others = [run for run in runs if run.run_id not in first]
        half_done = {run.run_id for run in self.resumed}
        return (*pioneers.values(), *sorted(others, key=lambda run: run.run_id not in half_done))

    def without(self, rows: Mapping[str, dict[str, Any]]) -> Plan:
        """Return the plan without runs that have ended since, whose rows these are, by run id."""

        def left(runs: tuple[RunConfig, ...]) -> tuple[RunConfig, ...]:
            return tuple(run for run in runs if run.run_id not in rows)

        return replace(
            self,
            ended={**self.ended, **rows},
            resumed=left(self.resumed),
            fresh=left(self.fresh),
            retried=left(self.retried),
        )

    def what(self, run: RunConfig) -> str:
        """Return in words what a launch would do with a run."""
        return self._verbs.get(run.run_id, "run")

    @cached_property
    def _verbs(self) -> dict[str, str]:
        """What a launch would do with runs that are not fresh, by run id."""
        steps = {run.run_id: self.begun.get(run.run_id, 0) for run in self.resumed}
        resumed = {run_id: f"resume at step {step}" for run_id, step in steps.items()}
        return {**resumed, **{run.run_id: "retry" for run in self.retried}}

    def count(self, status: str) -> int:
        """Return the number of ended runs with a status."""
        return sum(row["status"] == status for row in self.ended.values())

    def lines(self, concurrent: int | None = None) -> list[str]:
        """Return the plan in words."""
        total = len(self.ended) + len(self.todo)
        done = [f"{n} {s}" for s in RUN_STATUSES if (n := self.count(s))]
        lines = [f"{total} runs: " + (", ".join(done) + " before" if done else "none done before")]
        for runs, what in (
            (self.resumed, "to resume"),
            (self.fresh, "new"),
            (self.retried, "to retry"),
        ):
            if runs:
                lines[0] += f", {len(runs)} {what}"
        if self.count("failed"):
            lines.append("failed runs are tried again only with --retry-failed")
        if self.changed:
            lines.append(self.told_of_changed_data)
        lines += [*self._changes(), *self._estimate(concurrent)]
        return lines

    @property
    def left_with_other_data(self) -> tuple[str, ...]:
        """Ids of runs that the sweep asks for and whose data have been replaced since they ended.

        To say that these are done would be to say it of other data.
        """
        return tuple(run_id for run_id in self.changed if run_id in self.ended)

    @property
    def told_of_changed_data(self) -> str:
        """Name the data that have been replaced, and how many ended runs were of those before."""
        rows = {**self.unasked, **self.ended}
        again = {run.run_id for run in self.retried}
        named = in_words(rows, (i for i in self.changed if i not in again))
        return replaced_in_words("ended run", self.changed, named)

    def _changes(self) -> list[str]:
        """Say what is new since the launches before, and what is no longer asked for."""
        new = [run for run in self.fresh if run.run_id not in self.known]
        again = [run for run in self.fresh if run.run_id in self.known]
        gone = [*self.unasked.values(), *filter(None, self.left.values())]
        begun = (*self.resumed, *self.retried, *again)
        lines = []
        before = [*self.ended.values(), *gone, *self.dropped]
        if new and (before or begun):
            words = _only_in(_rows(new), [*before, *_rows(begun)])
            lines += [f"new: {words}"] if words else []
        counts = [(len(self.unasked), "ended"), (len(self.left), "begun")]
        parts = [f"{n} {word} run{'s' if n > 1 else ''}" for n, word in counts if n]
        if parts:
            verb = "are" if len(self.unasked) + len(self.left) > 1 else "is"
            words = _only_in(gone, [*self.ended.values(), *_rows(self.todo)])
            what = f" on storage {verb} no longer asked for" + (f" ({words})" if words else "")
            lines.append(f"{' and '.join(parts)}{what}; what there is stays")
        return lines

    def _estimate(self, concurrent: int | None) -> list[str]:
        """Say how long it may take, if there is anything to do."""
        if not self.todo:
            return []
        seconds = self.estimate_s()
        if seconds is None:
            return ["no estimate of the time before a run of each kind has finished"]
        text = f"about {duration(seconds)} of computing, to be divided by the runs at a time"
        if concurrent:
            text = f"about {duration(seconds / concurrent)} with {concurrent} at a time"
        return [f"estimated from the runs that have finished: {text}"]

    def estimate_s(self) -> float | None:
        """Return the computing time of what is to do, from finished runs of the same kind."""
        cost: dict[tuple[str, ...], list[float]] = {}
        for row in [*self.ended.values(), *self.unasked.values()]:
            if row["status"] == "finished":
                cost.setdefault(_cost_key(row), []).append(row["wall_s"] / row["steps"])
        total = 0.0
        costs: dict[str, float | None] = {}
        for kind, run in zip(kinds(self.todo), self.todo, strict=True):
            if kind not in costs:
                known = cost.get(_cost_key(run.row()))
                costs[kind] = None if known is None else sum(known) / len(known)
            a_step = costs[kind]
            if a_step is None:
                return None
            total += a_step * (run.steps - self.begun.get(run.run_id, 0))
        return total


def kinds(runs: Iterable[RunConfig]) -> Iterator[str]:
    """Yield the kind of every run, found once for all that differ in learning rate and seed."""
    known: dict[tuple[Any, ...], str] = {}
    names = [f.name for f in fields(RunConfig) if f.name not in ("lr", "seed")]
    for run in runs:
        values = map(vars(run).get, names)
        key = tuple(repr(value) if type(value) is dict else value for value in values)
        if key not in known:
            known[key] = run.kind
        yield known[key]


def _rows(runs: Iterable[RunConfig]) -> Iterator[dict[str, Any]]:
    """Yield the `runs` columns that come from the configurations."""
    return (run.row() for run in runs)


def row_before(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an entry of sweep.json, of whatever version, would be in the `runs` table.

    Example:
        >>> row = row_before({"lr": 0.1, "flows": ["stable", "central"]})
        >>> row["flows"], row["scheme"]
        ('stable,central', 'euler')
    """
    row = absent_values("runs") | first_values(values.get("rule", "")) | dict(values)
    for name, value in row.items():
        if isinstance(value, list):
            row[name] = ",".join(map(str, value))
        elif isinstance(value, Mapping):
            row[name] = json.dumps(value, sort_keys=True)
    return row


def _cost_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what decides, more than anything else, how long a step takes."""
    what = ("workload", "criterion", "workload_options", "rule", "flows")
    names = (*what, "scheme", "substeps", "dtype")
    return tuple(str(row[name]) for name in names)


def configured() -> tuple[str, ...]:
    """Return the columns of `runs` that come from the configuration, of all registered rules.

    By the roles that columns declare. Without `data`: what lies at a path is known of runs that
    have been carried out only.
    """
    roles = {field.name: field.metadata[b"role"].decode() for field in runs_schema()}
    return tuple(name for name, role in roles.items() if role != "result" and name != "data")


def plan_columns() -> tuple[str, ...]:
    """Return the columns of `runs` that a plan reads."""
    return ("run_id", "status", "wall_s", "data", *configured())


def _only_in(rows: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]]) -> str:
    """Name the values of the configuration that some rows have and no other row has."""
    names = configured()
    known: dict[str, set[Any]] = {name: set() for name in names}
    for row in others:
        for name in names:
            known[name].add(row.get(name))
    found: dict[str, dict[Any, None]] = {name: {} for name in names}
    for row in rows:
        for name in names:
            if row.get(name) not in known[name]:
                found[name][row.get(name)] = None
    words = []
    for name, values in found.items():
        if values:
            # rows of runs come in the order in which they were folded, which says nothing
            are_numbers = all(isinstance(value, int | float) for value in values)
            ordered = sorted(values) if are_numbers else [*values]
            shown = [f"{v:g}" if isinstance(v, float) else str(v) for v in ordered[:6]]
            words.append(f"{name} {', '.join(shown)}" + (", ..." if len(values) > 6 else ""))
    return "; ".join(words)


def make_plan(
    sweep: SweepConfig, storage: Storage, retry_failed: bool = False, retry_changed: bool = False
) -> Plan:
    """Compare a sweep with what is on storage.

    Args:
        sweep: what is asked for.
        storage: the sweep's folder.
        retry_failed: failed runs are to run again.
        retry_changed: so are those whose data have been replaced since they ended.

    Raises `OtherSchema` if the storage holds another version of the tables.
    """
    results = Results(storage)
    record = results.read_sweep() or {}
    rows = results.finished(plan_columns())
    begun = begun_runs(storage)
    changed = replaced(rows, sweep.runs)
    ended, resumed, fresh, retried = {}, [], [], []
    for run in sweep.runs:
        row = rows.pop(run.run_id, None)
        failed = row is not None and row["status"] == "failed"
        if (failed and retry_failed) or (run.run_id in changed and retry_changed):
            retried.append(run)
        elif row is not None:
            ended[run.run_id] = row
        elif run.run_id in begun:
            resumed.append(run)
        else:
            fresh.append(run)
    asked = {run.run_id for run in sweep.runs}
    before: Mapping[str, Mapping[str, Any]] = record.get("runs", {})
    left = {
        run_id: row_before(before[run_id]) if run_id in before else {}
        for run_id in sorted(set(begun) - asked - set(rows))
    }
    return Plan(
        ended,
        tuple(resumed),
        tuple(fresh),
        tuple(retried),
        changed=changed,
        unasked=rows,
        left=left,
        begun={run.run_id: begun[run.run_id] for run in resumed},
        known=frozenset(asked & set(before)),
        dropped=tuple(row_before(before[run_id]) for run_id in before if run_id not in asked),
    )


def _is_still(row: Mapping[str, Any] | None, changed: Mapping[str, tuple[str, str]]) -> bool:
    """Say whether a run is to be tried again as planned, not run anew by another driver since."""
    if row is None:
        return False
    then, _ = changed.get(row["run_id"], (None, None))
    return row["status"] == "failed" or (then is not None and row["data"] == then)


def clear_the_way(plan: Plan, storage: Storage) -> Plan:
    """Delete what stands in the way of a plan; return it without what has ended since it was made.

    For the driver that holds the sweep's lock: another one may have ended runs in the meantime.
    Deletes what is left of runs that are to be tried again, or whose row can't be read, and what a
    process cut off from its driver has written to ended runs.
    """
    results = Results(storage)
    rows = results.ended_since((run.run_id for run in plan.todo), plan_columns())
    retried = [i for run in plan.retried if _is_still(rows.get(i := run.run_id), plan.changed)]
    results.forget_runs(retried)
    for run_id in retried:
        del rows[run_id]
        Checkpoints(storage, run_id).clear()
    plan = plan.without(rows)
    results.tidy(plan.ended)
    return plan
