"""How a sweep stands, from storage alone (the command is `cflows_ray/status.py`).

Works while the sweep runs and after, from any machine that can read its folder. What is printed is
as long for 100,000 runs as for ten: a table by workload and rule, and reasons, each once.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from cflows_ray.checks import ConfigError
from cflows_ray.schema import NOT_FINISHED, RUN_STATUSES
from cflows_ray.store import Results, Storage, begun_runs, is_alive, read_lock
from cflows_ray.sweep.display import duration, print_whole, say
from cflows_ray.sweep.run_config import RunConfig

OPEN_STATUSES = ("running", "interrupted", "waiting")
MAX_REASONS = 10
MAX_OPEN = 10
GROUP = ("workload", "criterion", "rule")


class KnownRuns(Mapping[str, RunConfig]):
    """The runs that a launch asked for, by run id, by what it wrote to sweep.json.

    Those that an older or a newer version wrote, and this one does not know, are left out; a run
    is checked again only when it is asked for, or else 100,000 would take their time.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._record: Mapping[str, Mapping[str, Any]] = record.get("runs", {})
        accepted: dict[tuple[Any, ...], bool] = {}
        self._known: dict[str, tuple[str, ...]] = {}
        for run_id, values in self._record.items():
            form = _form(values)
            if form not in accepted:
                accepted[form] = _is_known(values)
            if accepted[form]:
                self._known[run_id] = tuple(str(values.get(name)) for name in GROUP)

    def __getitem__(self, run_id: str) -> RunConfig:
        if run_id not in self._known:
            raise KeyError(run_id)
        return RunConfig(**self._record[run_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._known

    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Return workload, criterion and rule of every run."""
        return self._known


def _form(values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what decides whether this version knows a configuration: all but its numbers."""
    return tuple(
        (name, "number" if isinstance(value, int | float) else repr(value))
        for name, value in values.items()
    )


def _is_known(values: Mapping[str, Any]) -> bool:
    try:
        RunConfig(**values)
    except (TypeError, ValueError):
        return False
    return True


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
    runs: Mapping[str, RunConfig]
    statuses: dict[str, str]
    details: dict[str, str] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    wall_s: float = 0.0
    num_unknown: int = 0


def sweep_status(storage: Storage) -> SweepStatus:
    """Return how the sweep in a folder stands.

    Raises `ConfigError` if no sweep was launched there, `OtherSchema` if its tables are of another
    version, `StorageError` if they can't be read.
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
    begun = begun_runs(storage)  # before the rows: a run that ends meanwhile has ended
    rows = results.finished(("status", "status_detail", "wall_s"))
    runs = KnownRuns(record)
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


def print_status(status: SweepStatus, console: Console, verbose: bool = False) -> None:
    """Print how a sweep stands: failures first, then a table, then what is being done.

    Args:
        status: what to print.
        console: where to.
        verbose: print a line for every run, too.
    """
    if status.driver is None:
        at_work = "no driver is at work"
    else:
        seen = duration(max(0.0, time.time() - status.driver["renewed"]))
        at_work = f"process {status.driver['pid']} on {status.driver['host']} is at work"
        at_work += f" (seen {seen} ago)"
    done = sum(status.statuses[run_id] in RUN_STATUSES for run_id in status.runs)
    say(console, f"{status.name}: {done} of {len(status.runs)} runs done, {at_work}")
    for line in [] if verbose else [r for s in NOT_FINISHED for r in _reasons(status, s)]:
        say(console, line)
    print_whole(console, _table(status))
    for line in _every_run(status) if verbose else _open_runs(status):
        say(console, line)
    if status.num_unknown:
        words = "configuration that another version of cflows_ray wrote"
        say(console, f"{status.num_unknown} more asked for, with a {words}")
    say(console, f"computing time of the runs that are done: {duration(status.wall_s)}")


def _reasons(status: SweepStatus, word: str) -> Iterator[str]:
    """Say why runs ended otherwise: each reason once, with one run, the frequent ones first.

    Reasons that differ in numbers only, such as the step, are one.
    """
    groups: dict[str, list[str]] = {}
    for run_id, found in status.statuses.items():
        if found == word:
            reason = status.details.get(run_id, "no reason given")
            groups.setdefault(re.sub(r"\d+", "#", reason), []).append(run_id)
    shares = sorted(groups.values(), key=len, reverse=True)
    for run_ids in shares[:MAX_REASONS]:
        reason = status.details.get(run_ids[0], "no reason given")
        more = f" (and {len(run_ids) - 1} more like it)" if len(run_ids) > 1 else ""
        yield f"{run_ids[0]}  {status.runs[run_ids[0]]}: {word}: {reason}{more}"
    if rest := sum(map(len, shares[MAX_REASONS:])):
        yield f"... and {rest} more {word} for other reasons; --verbose lists them"


def _open_runs(status: SweepStatus) -> Iterator[str]:
    """Say where runs stand that have begun and not ended."""
    run_ids = sorted(status.steps)
    for run_id in run_ids[:MAX_OPEN]:
        yield _line(status, run_id)
    if len(run_ids) > MAX_OPEN:
        word = status.statuses[run_ids[0]]
        yield f"... and {len(run_ids) - MAX_OPEN} more {word}; --verbose lists them"


def _every_run(status: SweepStatus) -> Iterator[str]:
    """Say how every run stands, failures first."""
    order = (*NOT_FINISHED, *OPEN_STATUSES, "finished")
    ids: dict[str, list[str]] = {word: [] for word in order}
    for run_id in status.runs:
        ids.setdefault(status.statuses[run_id], []).append(run_id)
    for run_ids in ids.values():
        yield from (_line(status, run_id) for run_id in run_ids)


def _line(status: SweepStatus, run_id: str) -> str:
    """Say how one run stands."""
    run, word = status.runs[run_id], status.statuses[run_id]
    text = f"{run_id}  {run}: {word}"
    if run_id in status.steps:
        return f"{text}, step {status.steps[run_id]} of {run.steps}"
    return text + (f": {status.details[run_id]}" if run_id in status.details else "")


def _table(status: SweepStatus) -> Table:
    """Return the number of runs by workload, criterion, rule and status; failures first."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in GROUP:
        table.add_column(name)
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for run_id, group in _groups(status).items():
        counts.setdefault(group, Counter())[status.statuses[run_id]] += 1
    there = sum(counts.values(), Counter[str]())
    words = [s for s in (*RUN_STATUSES, *OPEN_STATUSES) if s == "finished" or there[s]]
    for name in ("runs", *words):
        table.add_column(name, justify="right")
    worst_first = sorted(
        counts.items(), key=lambda item: [-item[1][status] for status in NOT_FINISHED]
    )
    for group, count in worst_first:
        cells = [str(count[word]) if count[word] else "" for word in words]
        table.add_row(*group, str(count.total()), *cells)
    return table


def _groups(status: SweepStatus) -> Mapping[str, tuple[str, ...]]:
    if isinstance(status.runs, KnownRuns):
        return status.runs.groups()
    return {i: tuple(getattr(run, n) for n in GROUP) for i, run in status.runs.items()}
