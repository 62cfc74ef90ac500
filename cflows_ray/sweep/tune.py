"""Sweeps under Ray Tune; the only importer of Ray.

One trial is one actor that carries out one run, or a pack of them, chunk by chunk; Tune schedules
trials, places them, and starts them again after a lost process or machine. What makes a run exact
after any fault lies in `session.py`: a trial finds its own last checkpoint on storage, wherever and
by whomever it is started. So Tune itself keeps nothing that matters (its own state goes to a
temporary folder), and a sweep whose driver was killed is simply launched again.

The driver never imports JAX.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# So many trials wait for machines at most, which is Tune's own limit for a grid.
MAX_WAITING = 200

# Ray reads these when it is imported or started; a user's own settings win.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours lets the chunk finish first
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own state is never used
    "TUNE_MAX_PENDING_TRIALS_PG": str(MAX_WAITING),
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402

from cflows_ray.checks import ConfigError  # noqa: E402
from cflows_ray.store import (  # noqa: E402
    Results,
    Storage,
    StorageError,
    SweepLock,
    fold,
    read_lock,
)
from cflows_ray.sweep.config import SweepConfig  # noqa: E402
from cflows_ray.sweep.data import absolute_options, with_absolute_paths  # noqa: E402
from cflows_ray.sweep.display import Display  # noqa: E402
from cflows_ray.sweep.execution_settings import Execution  # noqa: E402
from cflows_ray.sweep.folding_thread import folding_ended_runs  # noqa: E402
from cflows_ray.sweep.pack_session import PackSession, packs  # noqa: E402
from cflows_ray.sweep.pilot import Pilot, carry_out  # noqa: E402
from cflows_ray.sweep.placement import (  # noqa: E402
    autoscaling_nodes,
    check_fits,
    check_reachable,
    cluster_address,
    in_words,
    largest_pack,
    most_at_once,
    resources_per_run,
)
from cflows_ray.sweep.plan import Plan, clear_the_way  # noqa: E402
from cflows_ray.sweep.plugins import add_pickled, pickled  # noqa: E402
from cflows_ray.sweep.provenance import commit_here, sources, versions  # noqa: E402
from cflows_ray.sweep.run_config import RunConfig  # noqa: E402
from cflows_ray.sweep.session import RunSession  # noqa: E402
from cflows_ray.sweep.stopping import (  # noqa: E402
    NOT_BEGUN,
    STORAGE_FAILED,
    Outcome,
    Stopping,
    stop_if_lost,
    stop_on_signals,
)
from cflows_ray.sweep.watching import Watching, runs_of  # noqa: E402
from cflows_ray.sweep.worker import prepare_process, working_in  # noqa: E402
from cflows_ray.workloads import DataUnavailable  # noqa: E402


class PairedTrial(tune.Trainable):
    """A pack of runs, mostly of one, as a Tune trial.

    `config` holds the runs and how to carry them out, as plain values. An actor is used for many
    trials in turn, so that programs compiled for one serve the next.
    """

    session: PackSession | None = None
    open_session = staticmethod(RunSession)  # tests put fault injection here

    def setup(self, config: dict[str, Any]) -> None:
        """Take runs; they are opened by the first `step`, whose errors are results."""
        self._settings = config
        sources()  # as they are now, when they are imported
        prepare_process(
            gpus=config["gpus"] if _has_gpu() else 0.0,
            cpus=config["cpus"],
            compile_cache=config["compile_cache"],
        )
        add_pickled(config["plugins"], ray.cloudpickle)  # may load JAX

    def step(self) -> dict[str, Any]:
        """Compute one chunk. Errors of storage that no retry mends end the trial, not the actor."""
        try:
            if self.session is None:
                storage = Storage(self._settings["storage"], self._settings["sweep"])
                if (read_lock(storage) or {}).get("stopping"):
                    return {"done": True, "status": NOT_BEGUN}
                self.session = self._open()
            reports = self.session.advance()
        except StorageError as error:
            self.session = None
            if not error.lasting:
                raise
            return {"done": True, "status": STORAGE_FAILED, "detail": str(error)}
        done = self.session.done
        if done:
            self.session = None
        members = [{"run_id": r.run_id, "notes": r.notes, **asdict(r.progress)} for r in reports]
        return {"done": done, "status": "advanced", "members": members}

    def _open(self) -> PackSession:
        settings = self._settings
        storage = Storage(settings["storage"], settings["sweep"])
        sessions = [
            self.open_session(
                run,
                sweep=settings["sweep"],
                storage=storage,
                chunk_steps=settings["chunk_steps"],
                checkpoint_every=settings["checkpoint_every"],
                # a launch by an older checkout does not tell its sources: they are others
                commit=commit_here(settings["commit"], settings.get("sources")),
                absolute=with_absolute_paths(run, settings["absolute_options"]),
            )
            for run in runs_of(settings)
        ]
        return PackSession(sessions, size=settings["pack"], chunk_steps=settings["chunk_steps"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave all runs resumable and take others."""
        self.cleanup()
        self._settings = new_config
        return True

    def cleanup(self) -> None:
        """Leave unfinished runs resumable: called when the trial is stopped."""
        session, self.session = self.session, None
        if session is not None:
            # Whatever can't be saved is computed again from the checkpoint before.
            with contextlib.suppress(Exception):
                session.save()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: the session keeps its own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing: the session finds its own checkpoints."""


def _has_gpu() -> bool:
    """Whether Ray gave this actor a GPU."""
    return bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))


def _reason(trial: Any) -> str:
    """Return why a trial's process failed, in one line."""
    try:
        error = ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except (OSError, AttributeError, TypeError, ValueError, EOFError):
        return "process lost"
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "process killed for want of memory"
    return "process lost"


class _Watcher(Watching, tune.Callback):  # type: ignore[misc]
    """What Tune calls when something happens to a trial."""


class _Queue(tune.search.Searcher):
    """Hands Tune its trials in the plan's order, each when there is room for it.

    Tune would make all trials of a grid at once, keeps what it has made to the end, and may take
    any of those that wait.

    Args:
        work: packs of runs.
        room: how many trials may have a process, or wait for one, at this moment.
    """

    def __init__(self, work: Iterable[list[RunConfig]], room: Callable[[], int]) -> None:
        super().__init__()
        self._work = iter(work)
        self._room = room
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the next trial's runs; as text, or else Tune would take them apart."""
        if len(self._live) >= self._room():
            return None
        pack = next(self._work, None)
        if pack is None:
            return str(self.FINISHED)
        self._live.add(trial_id)
        return {"runs": json.dumps([run.to_json() for run in pack])}

    def on_trial_complete(self, trial_id: str, *result: Any, **info: Any) -> None:  # noqa: ARG002
        """Take note that there is room again."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a launch is never restored from its state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class _Stopper(Stopping, tune.Stopper):
    """What Tune asks when a trial, and when everything, is to stop."""


def _trial_name(trial: Any) -> str:
    first, *others = runs_of(trial.config)
    return first.run_id + (f"+{len(others)}" if others else "")


def run_sweep(
    sweep: SweepConfig,
    plan: Plan,
    storage: Storage,
    display: Display,
    *,
    commit: str | None = None,
    trainable: type[PairedTrial] = PairedTrial,
) -> Outcome:
    """Carry out what `plan` says is to do, on a Ray cluster.

    Ctrl-C (or SIGTERM) once lets every running trial finish its chunk and save; twice stops at
    once, which costs the chunks that are running.

    Raises `ConfigError` for resources that no machine has, `SweepLocked` if another driver works
    on the sweep, `StorageError` if its folder can't be written.
    """
    lock = SweepLock(storage)
    lock.acquire()
    try:
        launched = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record = {"versions": versions(), "commit": commit, "launched": launched}
        Results(storage).write_sweep({**sweep.to_json(), **record})
        plan = clear_the_way(plan, storage)
        display.ended({run_id: row["status"] for run_id, row in plan.ended.items()})
        if not plan.todo:
            fold(storage, at_end=True)
            return Outcome()
        with connected(sweep.execution, display):
            nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
            to_come = autoscaling_nodes()
            resources = resources_per_run(sweep.execution, nodes + to_come)
            if not sweep.execution.autoscaling:
                check_fits(resources, nodes + to_come)
            at_once = max(1, most_at_once(resources, nodes, to_come))
            at_once = min(at_once, sweep.execution.workers or at_once, len(plan.todo))
            size = sweep.execution.pack or largest_pack(resources, len(plan.todo), at_once)
            work = packs(plan.todo, size)
            display.note(
                f"{min(at_once, len(work))} at a time, each with {in_words(resources)}"
                + (f", in packs of up to {size} runs" if size > 1 else "")
            )
            return _fit(sweep, work, storage, display, lock, resources, commit, trainable)
    finally:
        lock.release()


def make_pilots(
    sweep: SweepConfig,
    pilots: Sequence[Pilot],
    storage: Storage,
    display: Display,
    *,
    commit: str | None = None,
    task: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Make pilots, each a task of its own that writes its record; for `connected`.

    Raises `ConfigError` for resources that no machine has, `SweepLocked` if another driver works
    on the sweep, `StorageError` if its folder can't be written.
    """
    execution = sweep.execution
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]] + autoscaling_nodes()
    resources = resources_per_run(execution, nodes)
    if not execution.autoscaling:
        check_fits(resources, nodes)
    runner = ray.remote(task or _pilot).options(
        num_cpus=resources["cpu"],
        num_gpus=resources.get("gpu", 0.0),
        memory=resources.get("memory"),
        max_retries=execution.max_failures,
        retry_exceptions=[StorageError, MemoryError, DataUnavailable],
    )
    settings = {
        "storage": storage.base,
        "sweep": sweep.name,
        "commit": commit,
        "sources": sources(),
        "cpus": resources["cpu"],
        "gpus": resources.get("gpu", 0.0),
        "compile_cache": execution.compile_cache,
        "plugins": pickled(ray.cloudpickle),
        "absolute_options": absolute_options(pilot.run for pilot in pilots),
    }
    most = min(len(pilots), execution.workers or len(pilots))
    lock = SweepLock(storage)
    lock.acquire()
    try:
        waiting = [{**settings, "run": json.dumps(pilot.run.to_json())} for pilot in pilots]
        at_work = [runner.remote(waiting.pop(0)) for _ in range(most)]
        while at_work:
            done, at_work = ray.wait(at_work)
            ray.get(done)
            at_work += [runner.remote(waiting.pop(0)) for _ in done if waiting]
            display.note(f"{len(pilots) - len(waiting) - len(at_work)} of {len(pilots)} pilots")
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    finally:
        lock.release()


def _pilot(settings: dict[str, Any]) -> None:
    """Make a pilot in a process of its own."""
    prepare_process(
        gpus=settings["gpus"] if _has_gpu() else 0.0,
        cpus=settings["cpus"],
        compile_cache=settings["compile_cache"],
    )
    add_pickled(settings["plugins"], ray.cloudpickle)  # may load JAX
    run = RunConfig(**json.loads(settings["run"]))
    carry_out(
        Pilot(run),
        Storage(settings["storage"], settings["sweep"]),
        commit=commit_here(settings["commit"], settings.get("sources")),
        absolute=Pilot(with_absolute_paths(run, settings["absolute_options"])),
    )


def _fit(
    sweep: SweepConfig,
    work: list[list[RunConfig]],
    storage: Storage,
    display: Display,
    lock: SweepLock,
    resources: dict[str, float],
    commit: str | None,
    trainable: type[PairedTrial],
) -> Outcome:
    """Run Tune over packs of runs, some thousand at a time."""
    execution = sweep.execution
    space = {
        "sweep": sweep.name,
        "storage": storage.base,
        "chunk_steps": execution.chunk_steps,
        "checkpoint_every": execution.checkpoint_every,
        "pack": execution.pack,
        "commit": commit,
        "sources": sources(),
        "cpus": resources["cpu"],
        "gpus": resources.get("gpu", 0.0),
        "compile_cache": execution.compile_cache,
        "plugins": pickled(ray.cloudpickle),
        "absolute_options": absolute_options(run for pack in work for run in pack),
    }
    watcher = _Watcher(display, _reason)
    room = _room(execution, resources)
    stopper = _Stopper(watcher.running, lock)
    _quiet_ray()
    display.start()
    try:
        with (
            stop_on_signals(stopper, display),
            stop_if_lost(lock, stopper, display),
            folding_ended_runs(storage, lock, lambda: stopper.storage_error is None),
        ):
            while work and not stopper.requested:
                some, work = work[:TRIALS_AT_ONCE], work[TRIALS_AT_ONCE:]
                callbacks = {"callbacks": [watcher], "stop": stopper}
                _fit_some(
                    sweep, some, space, tune.with_resources(trainable, resources), room, callbacks
                )
                work, watcher.again = work + watcher.again, []
    finally:
        display.all_left()
        display.stop()
    interrupted = stopper.requested and stopper.storage_error is None
    return Outcome(interrupted, stopper.storage_error, watcher.lost)


# Tune keeps 30 kB of every trial that it has ever made. The next thousands start when the last run
# of these has ended: idle for less than a run takes, once in so many.
TRIALS_AT_ONCE = 5000


def _room(execution: Execution, resources: dict[str, float]) -> Callable[[], int]:
    """Return what says how many trials the cluster has room for, machines to come included."""
    to_come = autoscaling_nodes()
    known, asked = 1, -math.inf

    def room() -> int:
        nonlocal known, asked
        if execution.workers is not None:
            return execution.workers
        if time.monotonic() - asked > 1.0:
            nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
            known, asked = max(1, most_at_once(resources, nodes, to_come)), time.monotonic()
        # a cluster that grows by itself grows for those who wait
        return known + (MAX_WAITING if execution.autoscaling else 0)

    return room


def _fit_some(
    sweep: SweepConfig,
    work: list[list[RunConfig]],
    space: dict[str, Any],
    trainable: Any,
    room: Callable[[], int],
    callbacks: dict[str, Any],
) -> None:
    """Run Tune over packs of runs to their end."""
    execution = sweep.execution
    with (
        tempfile.TemporaryDirectory(
            prefix="cflows_ray-tune-", ignore_cleanup_errors=True
        ) as folder,
        working_in(folder),
    ):
        tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=_Queue(work, room),
                num_samples=len(work),
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=execution.max_failures),
                **callbacks,
            ),
        ).fit()


def _quiet_ray() -> None:
    """Leave what happens to trials to the display."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Ray prints ten lines for every lost process, whatever its logging is set to; this switch is
    # its own, though not public, and setting it where it does not exist does no harm.
    ray._private.worker._worker_logs_enabled = False


@contextlib.contextmanager
def connected(execution: Execution, display: Display) -> Iterator[None]:
    """Be connected to the cluster that this machine belongs to, or start a private one."""
    if ray.is_initialized():  # a caller's own cluster, as in tests and notebooks
        yield
        return
    address = cluster_address(execution)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        display.note(f"connecting to the Ray cluster {address}")
        check_reachable(address)
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"address must lead to a Ray cluster, got {address!r}: {why}"
            ) from error
    else:
        display.note("starting Ray on this machine")
        # Private and local: no dashboard, and no authentication token left in the home folder.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(address="local", include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
    try:
        yield
    finally:
        ray.shutdown()
