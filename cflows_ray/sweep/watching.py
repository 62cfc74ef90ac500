"""What a launch learns from Tune while trials go on, told to the display; knows no Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from cflows_ray.schema import NOT_FINISHED
from cflows_ray.sweep.display import Display
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.stopping import NOT_BEGUN, STORAGE_FAILED


def runs_of(settings: Mapping[str, Any]) -> list[RunConfig]:
    """Return the runs that a trial with these settings carries out."""
    return [RunConfig(**values) for values in json.loads(settings["runs"])]


class Watching:
    """Passes what Tune reports to the display, and remembers what the launch must know.

    Args:
        display: what a person sees.
        reason: says in one line why a trial's process failed.

    Attributes:
        running: ids of the trials that have a process.
        lost: why runs were given up, by run id.
        again: packs of runs that Tune has given up while it still had to try them again.
    """

    def __init__(self, display: Display, reason: Callable[[Any], str]) -> None:
        self._display = display
        self._reason = reason
        self.running: set[str] = set()
        self.lost: dict[str, str] = {}
        self.again: list[list[RunConfig]] = []
        self._recovered: tuple[str, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Give Tune nothing to save: a launch is never restored from its state."""
        return {}

    def on_step_end(self, **info: Any) -> None:  # noqa: ARG002
        """Draw, where that does not happen by itself."""
        self._display.tick()

    def on_trial_start(self, *, trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Note that runs have a process."""
        self.running.add(trial.trial_id)
        for run in self._open_runs_of(trial):
            self._display.started(run.run_id)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **info: Any) -> None:  # noqa: ARG002
        """Note a chunk."""
        if result["status"] in (STORAGE_FAILED, NOT_BEGUN):
            for run in self._open_runs_of(trial):
                self._display.waits(run.run_id)
            return
        runs = {run.run_id: run for run in runs_of(trial.config)}
        for member in result["members"]:
            run, status = runs[member["run_id"]], member["status"]
            self._display.progressed(run.run_id, member)
            for note in member["notes"]:
                self._display.note(f"{run}: {note}")
            if status in NOT_FINISHED:
                self._display.note(f"{run}: {status}: {member['detail'] or 'no reason given'}")

    def on_trial_complete(self, *, trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Note that runs have no process any more."""
        self.running.discard(trial.trial_id)
        for run in runs_of(trial.config):
            self._display.left(run.run_id)

    def on_trial_recover(self, *, trial: Any, iteration: int, **info: Any) -> None:  # noqa: ARG002
        """Note that runs have lost their process and will be started again."""
        self.running.discard(trial.trial_id)
        self._recovered = trial.trial_id, iteration
        for run in self._open_runs_of(trial):
            self._display.waits(run.run_id)
            self._display.note(f"{run}: {self._reason(trial)}; goes on from its last checkpoint")

    def on_trial_error(self, *, trial: Any, iteration: int, **info: Any) -> None:  # noqa: ARG002
        """Note that runs were given up."""
        self.running.discard(trial.trial_id)
        # Tune tells of a process that was lost between two trials twice, as of the process and as
        # of its task; the second finds the trial waiting, and gives it up whatever `max_failures`.
        if self._recovered == (trial.trial_id, iteration):
            self.again.append(runs_of(trial.config))
            return
        for run in self._open_runs_of(trial):
            self.lost[run.run_id] = f"{run}: {self._reason(trial)}"
            self._display.given_up(run.run_id)
            self._display.note(f"{run}: {self._reason(trial)}; given up")

    def _open_runs_of(self, trial: Any) -> list[RunConfig]:
        """Return the trial's runs that have not ended."""
        return [run for run in runs_of(trial.config) if self._display.is_open(run.run_id)]
