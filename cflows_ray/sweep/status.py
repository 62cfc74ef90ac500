"""How a sweep stands, from storage alone (the command is `cflows_ray/status.py`).

Works while the sweep runs and after, from any machine that can read its folder.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from cflows_ray.checks import ConfigError
from cflows_ray.schema import RUN_STATUSES
from cflows_ray.store import Results, Storage, begun_runs, is_alive, read_lock
from cflows_ray.sweep.config import RunConfig
from cflows_ray.sweep.display import duration, print_whole, say
from cflows_ray.sweep.plan import known_runs

OPEN_STATUSES = ("running", "interrupted", "waiting")
MAX_REASONS = 20


@dataclass(frozen=True)
class SweepStatus:
    """How a sweep stands.

    Attributes:
        name: of the sweep.
        driver: who works on it (the lock's record), or None.
        runs: all runs that the last launch asked for, by run id.
        statuses: of these runs: how they ended, or "running" (begun, and a driver is at work),
            "interrupted" (begun, and none is) or "waiting".
        details: why runs failed or diverged.
        steps: optimizer steps at the last checkpoint of runs that are not done.
        wall_s: computing time of all runs that have ended.
        num_unknown: runs whose configuration another version wrote and this one does not know.
    """

    name: str
    driver: dict[str, Any] | None
    runs: dict[str, RunConfig]
    statuses: dict[str, str]
    details: dict[str, str] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    wall_s: float = 0.0
    num_unknown: int = 0

    def count(self, status: str, run_ids: Iterable[str] | None = None) -> int:
        """Return how many runs (of some) have a status."""
        ids = self.runs if run_ids is None else run_ids
        return sum(self.statuses[run_id] == status for run_id in ids)


def sweep_status(storage: Storage) -> SweepStatus:
    """Return how the sweep in a folder stands.

    Raises `ConfigError` if no sweep was launched there, `OtherSchema` if its tables are of another
    version.
    """
    results = Results(storage)
    record = results.read_sweep()
    if record is None:
        found = [name.split("/") for name in storage.names("", recursive=True)]
        sweeps = sorted(path[0] for path in found if path[1:] == ["sweep.json"])
        hint = f", which holds the sweeps {', '.join(sweeps)}" if sweeps else ""
        raise ConfigError(f"results must be a sweep's folder, got {storage.location!r}{hint}")
    holder = read_lock(storage)
    driver = holder if holder is not None and is_alive(holder) else None
    rows = results.finished()
    begun = begun_runs(storage)
    runs = known_runs(record)
    statuses = {}
    for run_id in runs:
        if run_id in rows:
            statuses[run_id] = rows[run_id]["status"]
        elif run_id in begun:
            statuses[run_id] = "running" if driver else "interrupted"
        else:
            statuses[run_id] = "waiting"
    return SweepStatus(
        name=record["name"],
        driver=driver,
        runs=runs,
        statuses=statuses,
        details={
            i: r["status_detail"] for i, r in rows.items() if i in runs and r["status_detail"]
        },
        steps={i: step for i, step in begun.items() if i in runs and i not in rows},
        wall_s=sum(row["wall_s"] or 0.0 for i, row in rows.items() if i in runs),
        num_unknown=len(record["runs"]) - len(runs),
    )


def print_status(status: SweepStatus, console: Console) -> None:
    """Print how a sweep stands, with the reasons of what went wrong."""
    if status.driver is None:
        at_work = "no driver is at work"
    else:
        seen = duration(max(0.0, time.time() - status.driver["renewed"]))
        at_work = f"process {status.driver['pid']} on {status.driver['host']} is at work"
        at_work += f" (seen {seen} ago)"
    done = sum(status.count(s) for s in RUN_STATUSES)
    say(console, f"{status.name}: {done} of {len(status.runs)} runs done, {at_work}")
    print_whole(console, _table(status))
    for run_id, step in sorted(status.steps.items()):
        run = status.runs[run_id]
        say(console, f"{run_id}  {run}: {status.statuses[run_id]}, step {step} of {run.steps}")
    for word in ("failed", "diverged"):
        ids = [i for i, s in status.statuses.items() if s == word]
        for run_id in ids[:MAX_REASONS]:
            reason = status.details.get(run_id, "no reason given")
            say(console, f"{run_id}  {status.runs[run_id]}: {word}: {reason}")
        if len(ids) > MAX_REASONS:
            say(console, f"... and {len(ids) - MAX_REASONS} more that {word}")
    if status.num_unknown:
        words = "configuration that another version of cflows_ray wrote"
        say(console, f"{status.num_unknown} more asked for, with a {words}")
    say(console, f"computing time of the runs that are done: {duration(status.wall_s)}")


def _table(status: SweepStatus) -> Table:
    """Return the number of runs by workload, criterion, rule and status."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("workload", "criterion", "rule"):
        table.add_column(name)
    words = [s for s in (*RUN_STATUSES, *OPEN_STATUSES) if s == "finished" or status.count(s)]
    for name in ("runs", *words):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, str, str], list[str]] = {}
    for run_id, run in status.runs.items():
        groups.setdefault((run.workload, run.criterion, run.rule), []).append(run_id)
    for key, ids in groups.items():
        counts = [status.count(word, ids) for word in words]
        table.add_row(*key, str(len(ids)), *[str(n) if n else "" for n in counts])
    return table
