"""What a launch would do: which runs have ended, which go on, which are new.

Reads storage only; used by the launch itself, by `--dry-run` and by the status command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cflows_ray.checkpoint import FOLDER
from cflows_ray.config import RunConfig, SweepConfig
from cflows_ray.display import duration
from cflows_ray.results import Results
from cflows_ray.storage import Storage


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep, sorted by what a launch would do with them.

    Attributes:
        ended: rows of the `runs` table for runs that the sweep asks for, by run id.
        resumed: runs that have begun but not ended.
        fresh: runs that have not begun.
        retried: failed runs that run again (`--retry-failed`).
        unasked: rows of runs on storage that the sweep does not ask for any more.
    """

    ended: dict[str, dict[str, Any]]
    resumed: tuple[RunConfig, ...]
    fresh: tuple[RunConfig, ...]
    retried: tuple[RunConfig, ...] = ()
    unasked: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def todo(self) -> tuple[RunConfig, ...]:
        """Runs to carry out: one of each kind first, then those that are half done.

        Runs of a kind share a compiled program, which others then find in the compilation cache
        instead of compiling it at the same time.
        """
        runs = (*self.resumed, *self.fresh, *self.retried)
        pioneers: dict[object, RunConfig] = {}
        for run in runs:
            pioneers.setdefault(run.kind, run)
        first = {run.run_id for run in pioneers.values()}
        return (*pioneers.values(), *(run for run in runs if run.run_id not in first))

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
        if self.unasked:
            lines.append(
                f"{len(self.unasked)} ended runs on storage are no longer asked for; "
                "they stay there"
            )
        seconds = self.estimate_s()
        if self.todo and seconds is not None:
            text = f"about {duration(seconds)} of computing"
            if concurrent:
                text += f", {duration(seconds / concurrent)} with {concurrent} at a time"
            lines.append(f"estimated from the runs that have ended: {text}")
        return lines

    def estimate_s(self) -> float | None:
        """Return the computing time of what is to do, from ended runs of the same kind."""
        cost: dict[tuple[str, ...], list[float]] = {}
        for row in [*self.ended.values(), *self.unasked.values()]:
            if row["status"] == "finished":
                key = (row["workload"], row["criterion"], row["rule"], row["dtype"])
                cost.setdefault(key, []).append(row["wall_s"] / row["steps"])
        total = 0.0
        for run in self.todo:
            known = cost.get((run.workload, run.criterion, run.rule, run.dtype))
            if known is None:
                return None
            total += run.steps * sum(known) / len(known)
        return total


def make_plan(sweep: SweepConfig, storage: Storage, retry_failed: bool = False) -> Plan:
    """Compare a sweep with what is on storage.

    Raises `OtherSchema` if the storage holds another version of the tables.
    """
    results = Results(storage)
    results.read_sweep()
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
    return Plan(ended, tuple(resumed), tuple(fresh), tuple(retried), rows)


def begun_runs(storage: Storage) -> Mapping[str, int]:
    """Return the steps at the last checkpoint of every run that has one."""
    found: dict[str, int] = {}
    for path in storage.names(FOLDER, recursive=True):
        run_id, _, name = path.partition("/")
        if name.startswith("step-") and name.endswith(".zip"):
            found[run_id] = max(found.get(run_id, 0), int(name[5:-4]))
    return found
