"""The command line of a study: `main(SWEEP)` at the end of its file.

Everything is checked before Ray is even imported. A mistake gets one line and exit code 2, also one
in the study's own file, which Python meets before `main` is called.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from rich.console import Console

from cflows_ray.checks import ConfigError, integer, require
from cflows_ray.store import OtherSchema, Results, Storage, StorageError, SweepLocked
from cflows_ray.sweep.config import SweepConfig
from cflows_ray.sweep.data import check_all_data
from cflows_ray.sweep.display import Display, print_whole, say
from cflows_ray.sweep.more_seeds import cells_of, measured, next_round, share, with_added_seeds
from cflows_ray.sweep.options import Options, apply, parse
from cflows_ray.sweep.pilot import edges, of_replaced_data, recorded
from cflows_ray.sweep.placement import cluster_address
from cflows_ray.sweep.plan import make_plan
from cflows_ray.sweep.provenance import commit
from cflows_ray.sweep.summaries import failed_pilots, pilots_in_words, plan_table, summary_table

INTERRUPTED = 130  # exit code of a launch that a person stopped
# What can be said to a launch that meets results of data replaced since.
ANSWERS = (
    "--retry-changed makes them again, --accept-changed leaves them, and another --name keeps the "
    "two apart"
)


def main(
    sweep: SweepConfig, arguments: Sequence[str] | None = None, *, about: str = ""
) -> NoReturn:
    """Run a study's command line and exit; `about` is what `--help` says first.

    Exit codes: 0, every run has ended with a result; 1, some have failed (or a pilot has), were
    given up or storage can't be written; 2, a mistake in the request; 130, stopped by a person.
    """
    console = Console(highlight=False)
    try:
        options = parse(sweep, sys.argv[1:] if arguments is None else list(arguments), about)
        code = launch(apply(sweep, options), options, console)
    except (ConfigError, OtherSchema, SweepLocked) as error:
        code = _complain(error, 2)
    except StorageError as error:
        code = _complain(error, 1)
    except KeyboardInterrupt:
        words = "stopped at once; launch again to go on from the last checkpoints"
        code = _complain(words, INTERRUPTED)
    sys.exit(code)


Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]
# What Python says when a study gives a field that does not exist, or leaves one out.
_WRONG_FIELDS = re.compile(r"(Grid|SweepConfig|Execution|RunConfig)\.__init__\(\) (got|missing) ")


def explaining_mistakes(before: Hook) -> Hook:
    """Return an exception hook that says a mistake in a study's file in one line (exit code 2).

    Only for what the configuration's own checks refuse while the file is being read; any other
    error goes to the hook `before`, with its traceback.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        place = _place_in_study(trace)
        mistake = isinstance(error, ConfigError)
        mistake |= isinstance(error, TypeError) and bool(_WRONG_FIELDS.match(str(error)))
        if not mistake or place is None or hasattr(sys, "ps1"):
            before(kind, error, trace)
        else:
            raise SystemExit(_complain(f"{error} ({place})", 2))

    return hook


def _place_in_study(trace: TracebackType | None) -> str | None:
    """Return file and line of the study at which an error arose; None if it was elsewhere."""
    place = None
    reading = False
    while trace is not None:
        code = trace.tb_frame.f_code
        if trace.tb_frame.f_globals.get("__name__") == "__main__":
            reading |= code.co_name == "<module>"
            place = f"{Path(code.co_filename).name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place if reading else None


# A study's file is read from its top to its bottom before `main` could catch anything.
sys.excepthook = explaining_mistakes(sys.excepthook)


def _complain(error: object, code: int) -> int:
    """Print one line for a person; return the exit code."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def launch(sweep: SweepConfig, options: Options, console: Console) -> int:
    """Say what is to do, do it, say what came of it; return the exit code."""
    _check_budget(options)
    storage = Storage(sweep.execution.storage, sweep.name)
    say(console, f"{sweep.name} in {storage.location}")
    with contextlib.ExitStack() as cluster:
        sweep, failed = _with_pilots(sweep, storage, options, console, cluster)
        if failed is not None and not sweep.runs and not options.dry_run:
            return _complain(f"no run has a learning rate: {failed}", 1)
        go = _carry_out if options.until_halfwidth is None else _until_precise
        code = go(sweep, storage, options, console)
        if failed is None or options.dry_run:
            return code
        say(console, failed)
        return code or 1


def _check_budget(options: Options) -> None:
    """Raise `ConfigError` unless width and budget are given together, and can be."""
    if options.until_halfwidth is None:
        ok = options.budget is None
        require(ok, "budget", "left out without until_halfwidth", options.budget)
        return
    share("until_halfwidth", options.until_halfwidth)
    if options.budget is None:
        raise ConfigError("budget must be given with until_halfwidth, got nothing")
    integer("budget", options.budget, 1)


def _until_precise(sweep: SweepConfig, storage: Storage, options: Options, console: Console) -> int:
    """Carry out a sweep, then more seeds of its wide cells until all are known or all is spent."""
    halfwidth = share("until_halfwidth", str(options.until_halfwidth))
    known = with_added_seeds(sweep, Results(storage).finished(("run_id",)))
    code, before = _carry_out(known, storage, options, console), -1
    while code != INTERRUPTED and not options.dry_run:
        cells = cells_of(sweep, measured(storage.location))
        following = next_round(sweep, cells, halfwidth, options.budget or 0)
        say(console, following.words)
        size = sum(cell.size for cell in cells)
        if following.sweep is None or size == before:  # nothing has ended: runs that are given up
            break
        before = size
        code = _carry_out(following.sweep, storage, options, console)
    return code


def _with_pilots(
    sweep: SweepConfig,
    storage: Storage,
    options: Options,
    console: Console,
    cluster: contextlib.ExitStack,
) -> tuple[SweepConfig, str | None]:
    """Return the sweep with learning rates found by pilots, those that are missing made first.

    Beside it, which have failed, in words. A dry run says only how many are missing.
    """
    if not sweep.pilots:
        return sweep, None
    records = _standing_records(sweep, storage, options, console)
    missing = [pilot for pilot in sweep.pilots if pilot.pilot_id not in records]
    waiting = sweep.num_waiting
    say(console, f"  {len(sweep.pilots)} pilots: {len(missing)} to make, for {waiting} runs")
    if missing and not options.dry_run:
        if cluster_address(sweep.execution) is None:
            check_all_data([pilot.run for pilot in missing])
        from cflows_ray.sweep.tune import connected, make_pilots  # imports Ray

        display = Display(sweep.name, (), {}, console)
        cluster.enter_context(connected(sweep.execution, display))
        make_pilots(sweep, missing, storage, display, commit=commit())
        records = recorded(sweep.pilots, storage)
    for line in pilots_in_words(sweep.pilots, records, options.verbose):
        say(console, f"  {line}")
    return sweep.resolved(edges(records)), failed_pilots(sweep.pilots, records)


def _standing_records(
    sweep: SweepConfig, storage: Storage, options: Options, console: Console
) -> dict[str, dict[str, Any]]:
    """Return the records of pilots, by pilot id, without those that are to be made again.

    Raises `ConfigError` for pilots of data that have been replaced since, unless that was answered.
    """
    records = recorded(sweep.pilots, storage)
    if options.retry_failed:
        records = {i: record for i, record in records.items() if record["status"] != "failed"}
    changed, told = of_replaced_data(sweep.pilots, records)
    if not changed:
        return records
    say(console, f"  {told}")
    if options.retry_changed:
        return {i: record for i, record in records.items() if i not in changed}
    if not (options.accept_changed or options.dry_run):
        raise ConfigError(f"{told}: {ANSWERS}")
    return records


def _carry_out(sweep: SweepConfig, storage: Storage, options: Options, console: Console) -> int:
    """Plan, carry out and report a sweep whose learning rates are known."""
    plan = make_plan(sweep, storage, options.retry_failed, options.retry_changed)
    for line in plan.lines(sweep.execution.workers):
        say(console, f"  {line}")
    if options.dry_run:
        print_whole(console, plan_table(plan, sweep.runs))
        for run in plan.todo if options.verbose else ():
            say(console, f"  would {plan.what(run)}: {run.run_id}  {run}")
        return 0
    if plan.left_with_other_data and not options.accept_changed:
        raise ConfigError(f"{plan.told_of_changed_data}: {ANSWERS}")
    if cluster_address(sweep.execution) is None:
        check_all_data(plan.todo)
    from cflows_ray.sweep.tune import run_sweep  # imports Ray: not before all is checked

    ended = {run_id: row["status"] for run_id, row in plan.ended.items()}
    display = Display(sweep.name, sweep.runs, ended, console)
    outcome = run_sweep(sweep, plan, storage, display, commit=commit())
    rows = Results(storage).finished()
    asked = [rows[run.run_id] for run in sweep.runs if run.run_id in rows]
    if asked:
        print_whole(console, summary_table(asked, len(sweep.runs)))
    for reason in outcome.lost.values():
        say(console, f"given up after too many faults: {reason}")
    again = shlex.join(["python", *sys.argv])
    if outcome.storage_error is not None:
        raise StorageError(f"{outcome.storage_error}; mend that, then go on with: {again}")
    say(console, f"results: {storage.location}")
    if len(asked) < len(sweep.runs):
        say(console, f"{len(sweep.runs) - len(asked)} runs are not done; go on with: {again}")
        return INTERRUPTED if outcome.interrupted else 1
    say(console, f"analyse: python -m analysis {shlex.quote(_for_person(storage))}")
    return 1 if any(row["status"] == "failed" for row in asked) else 0


def _for_person(storage: Storage) -> str:
    """Return the sweep's folder as short as it can be typed here."""
    if not storage.is_local:
        return storage.location
    with contextlib.suppress(ValueError, OSError):  # elsewhere, or the folder we were in is gone
        return str(Path(storage.location).relative_to(Path.cwd()))
    return storage.location
