"""What a launch would do: which runs have ended, which go on, which are new.

Used by the launch itself, by `--dry-run` and by the status command. Only `clear_the_way` changes
anything on storage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cflows_ray.store import Checkpoints, Results, Storage, begun_runs
from cflows_ray.sweep.config import RunConfig, SweepConfig
from cflows_ray.sweep.display import duration


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep, sorted by what a launch would do with them.

    Attributes:
        ended: rows of the `runs` table for runs that the sweep asks for, by run id.
        resumed: runs that have begun but not ended.
        fresh: runs that have not begun.
        retried: failed runs that run again (`--retry-failed`).
        unasked: rows of runs on storage that the sweep does not ask for any more.
        left: rows, as far as they are known, of runs that have begun but not ended and that it
            does not ask for any more, by run id.
        begun: steps at the last checkpoint of runs that have begun, by run id.
        asked_before: rows, as far as they are known, of what the launch before asked for.
    """

    ended: dict[str, dict[str, Any]]
    resumed: tuple[RunConfig, ...]
    fresh: tuple[RunConfig, ...]
    retried: tuple[RunConfig, ...] = ()
    unasked: dict[str, dict[str, Any]] = field(default_factory=dict)
    left: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: Mapping[str, int] = field(default_factory=dict)
    asked_before: tuple[dict[str, Any], ...] = ()

    @property
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
        for run in runs:
            pioneers.setdefault(run.kind, run)
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
        if run in self.resumed:
            return f"resume at step {self.begun.get(run.run_id, 0)}"
        return "retry" if run in self.retried else "run"

    def count(self, status: str) -> int:
        """Return the number of ended runs with a status."""
        return sum(row["status"] == status for row in self.ended.values())

    def lines(self, concurrent: int | None = None) -> list[str]:
        """Return the plan in words."""
        total = len(self.ended) + len(self.todo)
        done = [f"{n} {s}" for s in ("finished", "diverged", "failed") if (n := self.count(s))]
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
        lines += [*self._changes(), *self._estimate(concurrent)]
        return lines

    def _changes(self) -> list[str]:
        """Say what is new since the launches before, and what is no longer asked for."""
        begun = map(RunConfig.row, (*self.resumed, *self.retried))
        gone = [*self.unasked.values(), *filter(None, self.left.values())]
        before = [*self.ended.values(), *gone, *begun, *self.asked_before]
        now = [*self.ended.values(), *map(RunConfig.row, self.todo)]
        lines = []
        if before and (words := _only_in(map(RunConfig.row, self.fresh), before)):
            lines.append(f"new: {words}")
        counts = [(len(self.unasked), "ended"), (len(self.left), "begun")]
        parts = [f"{n} {word} run{'s' if n > 1 else ''}" for n, word in counts if n]
        if parts:
            verb = "are" if len(self.unasked) + len(self.left) > 1 else "is"
            words = _only_in(gone, now)
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
        for run in self.todo:
            known = cost.get(_cost_key(run.row()))
            if known is None:
                return None
            steps = run.steps - self.begun.get(run.run_id, 0)
            total += steps * sum(known) / len(known)
        return total


def known_runs(record: Mapping[str, Any]) -> dict[str, RunConfig]:
    """Return the runs that a launch asked for, by run id, by what it wrote to sweep.json.

    Those that an older or a newer version wrote, and this one does not know, are left out.
    """
    runs = {}
    for run_id, values in record.get("runs", {}).items():
        with contextlib.suppress(TypeError, ValueError):
            runs[run_id] = RunConfig(**values)
    return runs


def _cost_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what decides, more than anything else, how long a step takes."""
    names = ("workload", "criterion", "workload_options", "rule", "flows", "substeps", "dtype")
    return tuple(str(row[name]) for name in names)


def _only_in(rows: Iterable[Mapping[str, Any]], others: Iterable[Mapping[str, Any]]) -> str:
    """Name the values of the configuration that some rows have and no other row has."""
    rows, others = list(rows), list(others)
    words = []
    for name in (f.name for f in fields(RunConfig)):
        known = {row[name] for row in others}
        values = list(dict.fromkeys(row[name] for row in rows if row[name] not in known))
        if values:
            shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values[:6])
            words.append(f"{name} {shown}" + (", ..." if len(values) > 6 else ""))
    return "; ".join(words)


def make_plan(sweep: SweepConfig, storage: Storage, retry_failed: bool = False) -> Plan:
    """Compare a sweep with what is on storage.

    Raises `OtherSchema` if the storage holds another version of the tables.
    """
    results = Results(storage)
    record = results.read_sweep() or {}
    rows = results.finished()
    begun = begun_runs(storage)
    ended, resumed, fresh, retried = {}, [], [], []
    for run in sweep.runs:
        row = rows.pop(run.run_id, None)
        if row is not None and row["status"] == "failed" and retry_failed:
            retried.append(run)
        elif row is not None:
            ended[run.run_id] = row
        elif run.run_id in begun:
            resumed.append(run)
        else:
            fresh.append(run)
    asked = {run.run_id for run in sweep.runs}
    known = {run_id: run.row() for run_id, run in known_runs(record).items()}
    left = {i: known.get(i, {}) for i in sorted(set(begun) - asked - set(rows))}
    steps = {run.run_id: begun[run.run_id] for run in resumed}
    before = tuple(known.values())
    return Plan(ended, tuple(resumed), tuple(fresh), tuple(retried), rows, left, steps, before)


def clear_the_way(plan: Plan, storage: Storage) -> Plan:
    """Delete what stands in the way of a plan; return it without what has ended since it was made.

    For the driver that holds the sweep's lock: another one may have ended runs in the meantime.
    Deletes what is left of runs that are to be tried again, or whose row can't be read, and what a
    process cut off from its driver has written to ended runs.
    """
    results = Results(storage)
    rows = results.ended_since(run.run_id for run in plan.todo)
    for run in plan.retried:
        if rows.get(run.run_id, {}).get("status") == "failed":
            del rows[run.run_id]
            results.forget_run(run.run_id)
            Checkpoints(storage, run.run_id).clear()
    plan = plan.without(rows)
    results.tidy(plan.ended)
    return plan
