"""One run on storage: advance it chunk by chunk, so that it can die at any moment and go on.

Knows neither Ray nor how numbers are made; it ties a paired run to its rows and checkpoints. The
order of writing is what makes a run exact after a fault: rows first, then the checkpoint that says
which parts precede it. A run that starts from a checkpoint deletes all other parts and computes
them again, bit for bit.

    rows -> checkpoint -> ... -> rows -> last checkpoint ("ended") -> merge -> row in `runs`
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from cflows_ray.store import (
    Checkpoint,
    Checkpoints,
    Results,
    ResultsDamaged,
    Storage,
    StorageError,
    steps_table,
)
from cflows_ray.sweep.data import fingerprint
from cflows_ray.sweep.provenance import device, versions
from cflows_ray.sweep.run_config import SETTINGS, RunConfig
from cflows_ray.workloads import DataUnavailable

# Errors of the machine, not of the run: left to whoever retries.
MACHINE_ERRORS = (MemoryError, StorageError, DataUnavailable)
MACHINE_ERROR_NAMES = ("JaxRuntimeError", "XlaRuntimeError")


class Paired(Protocol):
    """What a session asks of the run that it carries out, as `paired.PairedRun` does it.

    States are immutable and opaque; results must not depend on how a run is cut into chunks.
    """

    @property
    def compile_s(self) -> float:
        """Seconds spent compiling so far."""

    @property
    def num_params(self) -> int:
        """Number of parameters."""

    def advance(self, state: Any, num_steps: int) -> tuple[Any, pd.DataFrame]:
        """Return the state after up to so many steps, and their rows."""

    def step(self, state: Any) -> int:
        """Return the optimizer steps done."""

    def is_done(self, state: Any) -> bool:
        """Say whether the run has ended."""

    def outcome(self, state: Any) -> tuple[str, str | None]:
        """Return how it ended, and why."""

    def doubts(self, state: Any) -> str | None:
        """Return how many rows may mean nothing, in words; None for none."""

    def to_arrays(self, state: Any) -> dict[str, np.ndarray]:
        """Return the state as named arrays."""

    def from_arrays(self, arrays: Mapping[str, Any]) -> Any:
        """Return the state of named arrays; raises `ValueError` if they are not this run's."""


def out_of_memory(error: Exception) -> bool:
    """Say whether the device's memory was too small for a computation."""
    return type(error).__name__ in MACHINE_ERROR_NAMES and "RESOURCE_EXHAUSTED" in str(error)


def in_one_line(error: Exception) -> str:
    """Return kind and first line of an error."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}".removesuffix(": ")


class Superseded(RuntimeError):
    """Another process has taken this run over; this one must not write any more."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step, steps: optimizer steps done and asked for.
        status: "running", or how the run ended.
        detail: why, if there is something to say.
        advanced: optimizer steps done by this chunk.
        train_loss, effective_sharpness: of the optimizer at its last recorded step, if known.
    """

    step: int
    steps: int
    status: str
    detail: str | None = None
    advanced: int = 0
    train_loss: float | None = None
    effective_sharpness: float | None = None


def build_paired(config: RunConfig, **thresholds: Any) -> tuple[Paired, Any]:
    """Return the paired run of a configuration and its state at the start.

    `thresholds`: of `PairedOptions`, what a configuration does not have.
    """
    from cflows_ray.paired import PairedOptions, PairedRun
    from cflows_ray.workloads import build_workload

    workload = build_workload(config.workload, config.criterion, **config.workload_options)
    settings = {name: getattr(config, name) for name in SETTINGS}
    options = PairedOptions(**settings, **thresholds)
    paired = PairedRun(workload.problem, config.update_rule, options)
    params = workload.init(config.seed)
    state = paired.start(params, steps=config.steps, warmup=config.warmup, seed=config.seed)
    return paired, state


class RunSession:
    """A run being carried out by this process.

    Attributes:
        notes: what a person should know: from where the run resumed, what was unusable.

    Args:
        config: the run.
        sweep: name of the sweep, for the `runs` table.
        storage: the sweep's folder.
        chunk_steps: optimizer steps in one `advance`.
        checkpoint_every: chunks between checkpoints.
        commit: commit of the code, for the `runs` table.
        absolute: the run with absolute paths, which are opened; `config` is recorded.
        build: makes the paired run and its first state.

    Raises `StorageError` if storage can't be read or written.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        sweep: str,
        storage: Storage,
        chunk_steps: int,
        checkpoint_every: int = 1,
        commit: str | None = None,
        absolute: RunConfig | None = None,
        build: Callable[[RunConfig], tuple[Paired, Any]] = build_paired,
    ) -> None:
        self.config = config
        self._absolute = absolute or config
        self.notes: list[str] = []
        self._sweep = sweep
        self._chunk_steps = chunk_steps
        self._checkpoint_every = checkpoint_every
        self._commit = commit
        self._build = build
        self._results = Results(storage)
        self._checkpoints = Checkpoints(storage, config.run_id)
        self._token = uuid.uuid4().hex
        self._paired: Paired | None = None
        self._state: Any = None
        self._chunks_since_checkpoint = 0
        self._tables: list[pa.Table] = []
        self._facts: dict[str, Any] = {"parts": [], "rows": 0, "wall_s": 0.0, "compile_s": 0.0}
        self._last: dict[str, float] = {}
        self._advanced = 0
        self._restored: Checkpoint | None = None
        self._restore()

    # Starting -------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Find the last usable checkpoint and put the rows back to where it was taken."""
        if self._results.has_run(self.config.run_id):
            return  # died between its row and its end; `advance` says so
        self._checkpoints.note("owner", self._token)
        checkpoint, notes = self._checkpoints.latest()
        self.notes += notes
        if (
            checkpoint is not None
            and "ended" not in checkpoint.facts
            and not self._results.rewind(self.config.run_id, checkpoint.facts["parts"])
        ):
            self.notes.append("rows that the checkpoint relies on are gone")
            checkpoint = None
        if checkpoint is None:
            self._start_over("starts over" if self.notes else None)
            return
        self._restored = checkpoint
        self._facts = dict(checkpoint.facts)
        self.notes.append(f"resumes at step {checkpoint.step}")

    def _start_over(self, note: str | None) -> None:
        """Forget all rows and checkpoints."""
        self._results.rewind(self.config.run_id, [])
        self._checkpoints.forget()
        self._restored, self._paired, self._state = None, None, None
        self._tables, self._chunks_since_checkpoint = [], 0
        self._facts = {"parts": [], "rows": 0, "wall_s": 0.0, "compile_s": 0.0}
        if note:
            self.notes.append(note)

    def _prepare(self) -> None:
        """Build the paired run; put it into the checkpoint's state."""
        paired, state = self._build(self._absolute)
        data = fingerprint(self._absolute)
        if self._facts.get("data", data) != data:
            # A run that has not ended was promised to nobody: better anew than of two data sets.
            self._start_over("data have been replaced since its checkpoint; starts over")
        if self._restored is not None:
            try:
                state = paired.from_arrays(self._restored.arrays)
            except (ValueError, TypeError, KeyError) as error:
                # Written by another version of the code, say: never go on from half a state.
                self._start_over(f"checkpoint does not fit ({error}); starts over")
        self._facts["data"] = data
        self._paired, self._state = paired, state

    # Going on -------------------------------------------------------------------------------

    def advance(self) -> Progress:
        """Compute one chunk, record it, and end the run if that was the last.

        Whatever goes wrong inside the computation is a result (status "failed"); errors of the
        machine and of storage are raised.
        """
        ended = self.prepare()
        if ended is not None:
            return ended
        begin, compiled = time.perf_counter(), self._compile_s()
        try:
            state, frame = self.paired.advance(self._state, self._chunk_steps)
        except Exception as error:
            return self.fail(error)
        wall_s, compile_s = time.perf_counter() - begin, self._compile_s() - compiled
        return self.record(state, frame, wall_s=wall_s, compile_s=compile_s)

    def prepare(self) -> Progress | None:
        """Build the run, or say how it ended if it did."""
        # once begun, a look at its own file will do: to fold it, a driver must have seen its end
        if self._results.has_run(self.config.run_id, folded=self._paired is None):
            row = self._results.read_run(self.config.run_id) or {}
            self._checkpoints.clear()
            return self.progress(row.get("status", "finished"), row.get("status_detail"))
        if "ended" in self._facts:
            return self._finish()
        self._advanced = 0
        if self._paired is None:
            begin = time.perf_counter()
            try:
                self._prepare()
            except Exception as error:
                return self.fail(error)
            self._facts["wall_s"] += time.perf_counter() - begin
            self._facts["compile_s"] += self._compile_s()
        return None

    def record(
        self, state: Any, frame: pd.DataFrame, *, wall_s: float, compile_s: float
    ) -> Progress:
        """Take over a computed chunk: its rows, the state after it, and what it cost in seconds."""
        try:
            before = self._step()
            if len(frame):
                self._tables.append(steps_table(self.config.run_id, frame))
                self._remember(frame)
            # Last, so that whatever fails above leaves state and rows at the same step.
            self._state = state
            self._advanced = self._step() - before
            done = self.paired.is_done(self._state)
        except Exception as error:
            return self.fail(error)
        self._facts["wall_s"] += wall_s
        self._facts["compile_s"] += compile_s
        if done:
            self._facts["doubts"] = self.paired.doubts(self._state)
            return self._end(*self.paired.outcome(self._state))
        self._chunks_since_checkpoint += 1
        if self._chunks_since_checkpoint >= self._checkpoint_every:
            self.save()
        return self.progress()

    def fail(self, error: Exception) -> Progress:
        """End the run with what went wrong in it; raise what is the machine's fault.

        A device's memory that is exhausted twice at the same step is the run's own fault.
        """
        machine = isinstance(error, MACHINE_ERRORS) or type(error).__name__ in MACHINE_ERROR_NAMES
        if machine and not (out_of_memory(error) and self._has_met_it_here()):
            raise error
        return self._end("failed", in_one_line(error))

    def _has_met_it_here(self) -> bool:
        """Say whether the run has run out of memory at this step before; note that it has now."""
        here = str(self._step())
        if self._checkpoints.read_note("out-of-memory") == here:
            return True
        self._checkpoints.note("out-of-memory", here)
        return False

    @property
    def is_prepared(self) -> bool:
        """Whether the paired run is built: not before `prepare`, nor once it has started over."""
        return self._paired is not None

    @property
    def paired(self) -> Paired:
        """The paired run; raises `RuntimeError` unless it is built."""
        if self._paired is None:
            raise RuntimeError("the run must be prepared first")
        return self._paired

    @property
    def state(self) -> Any:
        """State of the paired run after the last chunk."""
        return self._state

    def _compile_s(self) -> float:
        return 0.0 if self._paired is None else self._paired.compile_s

    def save(self) -> None:
        """Write the rows since the last checkpoint, then a checkpoint."""
        if self._paired is None or (not self._chunks_since_checkpoint and not self._tables):
            return
        self._save()

    def _save(self) -> None:
        self._check_owner()
        if self._tables:
            part = self._results.write_part(self.config.run_id, self._tables)
            self._facts["rows"] += sum(table.num_rows for table in self._tables)
            self._facts["parts"] = [*self._facts["parts"], part]
            self._tables = []
        arrays = {} if self._state is None else self.paired.to_arrays(self._state)
        self._checkpoints.save(Checkpoint(self._step(), arrays, dict(self._facts)))
        self._chunks_since_checkpoint = 0

    def _end(self, status: str, detail: str | None) -> Progress:
        """Write the last rows and a checkpoint that says how the run ended; then finish."""
        self._facts["ended"] = [status, detail]
        self._facts["num_params"] = None if self._paired is None else self._paired.num_params
        self._facts["step"] = self._step()
        self._facts["device"] = device()
        self._save()
        return self._finish()

    def _finish(self) -> Progress:
        """Merge the rows, write the run's own row, delete the checkpoints. Can be repeated."""
        status, detail = self._facts["ended"]
        self._check_owner()
        try:
            self._results.merge(self.config.run_id, self._facts["parts"], self._facts["rows"])
        except ResultsDamaged as error:
            self._start_over(f"{error}; starts over")
            return self.progress()
        self._results.write_run(
            {
                **self.config.row(),
                "sweep": self._sweep,
                "data": self._facts.get("data"),
                "num_params": self._facts["num_params"],
                "status": status,
                "status_detail": detail,
                "doubts": self._facts.get("doubts"),
                "wall_s": self._facts["wall_s"],
                "compile_s": self._facts["compile_s"],
                "device": self._facts["device"],
                "versions": json.dumps(versions(), sort_keys=True),
                "commit": self._commit,
            }
        )
        self._checkpoints.clear()
        return self.progress(status, detail)

    # Looking --------------------------------------------------------------------------------

    def _check_owner(self) -> None:
        """Raise `Superseded` if another process has opened this run since."""
        owner = self._checkpoints.read_note("owner")  # None: the run has ended
        if owner != self._token:
            raise Superseded(f"run {self.config.run_id} was taken over by another process")

    def _step(self) -> int:
        if self._state is not None:
            return int(self.paired.step(self._state))
        return self._restored.step if self._restored is not None else 0

    def _remember(self, frame: pd.DataFrame) -> None:
        """Keep the optimizer's last values for the live view."""
        discrete = frame[frame["process"] == "discrete"]
        if len(discrete):
            self._last = {
                name: float(discrete[name].iloc[-1])
                for name in ("train_loss", "effective_sharpness")
                if not pd.isna(discrete[name].iloc[-1])
            }

    def progress(self, status: str = "running", detail: str | None = None) -> Progress:
        """Say where the run stands."""
        step = self._facts.get("step", self._step()) if status != "running" else self._step()
        return Progress(step, self.config.steps, status, detail, self._advanced, **self._last)
