"""Scores the runs of a folder, batch by batch: in this process or in several, each run once."""

from __future__ import annotations

import importlib
import os
import pickle
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

import pyarrow as pa

from analysis.measure.metric import Metric
from analysis.measure.metrics import METRICS
from analysis.measure.score_cache import ScoreCache
from analysis.measure.scored import Plan, score_runs
from analysis.measure.scoring import check_optimizer
from analysis.read import (
    BadFileError,
    Results,
    StepReader,
    Trace,
    check_columns,
    processes_of,
    references,
    traces_from_table,
)

_WORTH_A_PROCESS = 300  # runs: a further process takes as long to start as it needs for so many


class _Task(NamedTuple):
    """Runs that are scored together, and what reads them."""

    reader: StepReader
    run_ids: list[str]
    sampled: frozenset[str]


class _Work(NamedTuple):
    """What is the same for all tasks."""

    plan: Plan
    columns: tuple[str, ...]
    measured_against: tuple[str, ...]


class _Done(NamedTuple):
    """Scored runs of a task, and its bad files with what is wrong with them."""

    scored: pa.Table
    problems: list[tuple[str, str]]


def cores() -> int:
    """Count the processor cores that this process may use.

    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def scored_tables(
    results: Results,
    plan: Plan,
    columns: Sequence[str],
    *,
    sampled: Collection[str] = (),
    workers: int | None = 1,
    cache: bool = False,
) -> Iterator[pa.Table]:
    """Yield tables of scored runs of `plan.schema`: every run that has ended and has steps, once.

    Args:
        results: from `load`.
        plan: what is computed of a run.
        columns: of `steps` that this reads.
        sampled: runs that get what a study has beside the metrics.
        workers: processes to score in; 1 for this one, None for one a processor core.
        cache: take scores that lie beside the results, and leave those made now there.

    Raises `ResultsError` if the results were loaded without the process `discrete`, or for a bad
    file, if they were loaded to raise it.
    """
    check_optimizer(results)
    ended = results.runs[results.runs["status"].astype("str") != "running"]
    waiting = dict.fromkeys(str(run_id) for run_id in ended["run_id"])
    kept = ScoreCache(results, plan, sampled) if cache else None
    if kept is not None:
        for table in kept.tables(waiting):
            for run_id in table["run_id"].unique().to_pylist():
                del waiting[run_id]
            yield table
    tasks = [
        _Task(results.reader.of(run_ids), run_ids, frozenset(run_ids).intersection(sampled))
        for run_ids in results.reader.tasks(waiting)
    ]
    measured_against = references(processes_of(results.runs))
    work = _Work(plan, check_columns([*columns, "status"], results.reader.schema), measured_against)
    most = cores() if workers is None else workers
    for done in _carried_out(tasks, work, min(most, len(waiting) // _WORTH_A_PROCESS)):
        for file, problem in done.problems:
            results.set_aside(BadFileError(file, problem))
        if kept is not None:
            kept.keep(done.scored)
        yield done.scored
    if kept is not None:
        kept.tidy()


def _carried_out(tasks: Sequence[_Task], work: _Work, workers: int) -> Iterator[_Done]:
    """Carry out the tasks, in several processes if they can be sent there."""
    sent = _pickled(work) if workers > 1 and len(tasks) > 1 else None
    number = 0
    if sent is not None:
        try:
            for done in _in_processes(tasks, sent, workers):
                number += 1
                yield done
        except (BrokenProcessPool, pickle.PicklingError):
            pass  # such as a process killed for memory: what is left is done here
    for task in tasks[number:]:
        yield _carry_out(task, work)


def _in_processes(tasks: Sequence[_Task], sent: bytes, workers: int) -> Iterator[_Done]:
    # Not forked: pyarrow's threads would be missing in the child.
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin, initargs=(sent,)
    ) as pool:
        queue: deque[Future[_Done]] = deque()
        try:
            for task in tasks:
                queue.append(pool.submit(_carry_out_here, task))
                if len(queue) > 2 * workers:  # so that finished tables do not pile up
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_WORK: list[_Work] = []  # of a process of the pool


def _begin(sent: bytes) -> None:
    work, added = pickle.loads(sent)
    METRICS.add(added)
    _WORK[:] = [work]


def _carry_out_here(task: _Task) -> _Done:
    return _carry_out(task, _WORK[0])


def _carry_out(task: _Task, work: _Work) -> _Done:
    problems: list[tuple[str, str]] = []

    def traces() -> Iterator[Trace]:
        for table in task.reader.batches(task.run_ids, work.columns):
            if isinstance(table, BadFileError):
                problems.append((table.file, table.problem))
            else:
                yield from traces_from_table(table, work.measured_against)

    return _Done(score_runs(traces(), work.plan, task.sampled), problems)


def _pickled(work: _Work) -> bytes | None:
    """Pack the work and the metrics that were registered here; None if another process lacks one.

    A metric goes as the place where it is found: its function bears the same name, and so can not
    be sent.
    """
    added = {}
    for name, metric in METRICS.additions().items():
        place = metric if isinstance(metric, str) else _place(metric)
        if place is None:
            return None
        added[name] = place
    return pickle.dumps((work, added))


def _place(metric: Metric) -> str | None:
    """Return "module:attribute" of a metric, if it can be imported from there."""
    module = metric.function.__module__
    if module == "__main__":
        return None
    try:
        found = getattr(importlib.import_module(module), metric.name, None)
    except ImportError:
        return None
    return f"{module}:{metric.name}" if found is metric else None
