"""Frames of `cflows_ray.run_paired` as results: what measures a folder measures them too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pandas as pd

from analysis.read import CONFIGURATION, Source, Trace, declared_processes, opened, run_trace

Frames = pd.DataFrame | Sequence[pd.DataFrame] | Mapping[str, pd.DataFrame | Sequence[pd.DataFrame]]
"""One frame `result.steps`; several, of one configuration; or either by label, one cell each."""

_TEXTS = ("sweep", "workload_options", "schedule", "scheme", "dtype", "bias_correction")


class Tables(Protocol):
    """What is measured: the table of runs, and their steps one by one."""

    @property
    def runs(self) -> pd.DataFrame:
        """One row per run."""

    @property
    def step_columns(self) -> list[str]:
        """Names of the columns of `steps`."""

    def traces(self, columns: Iterable[str] | None = None) -> Iterator[Trace]:
        """Iterate over the runs' steps."""

    def leaves_out(self, process: str) -> bool:
        """Whether a filter keeps a process out."""


@dataclass(frozen=True, eq=False)
class PairedFrames:
    """Frames of `run_paired` in memory, as `Tables`; the label is the cell, and in its workload."""

    runs: pd.DataFrame
    steps: Mapping[str, pd.DataFrame]

    @property
    def step_columns(self) -> list[str]:
        """Names of the columns that any of the frames has."""
        return list(
            dict.fromkeys(name for frame in self.steps.values() for name in map(str, frame))
        )

    def traces(self, columns: Iterable[str] | None = None) -> Iterator[Trace]:  # noqa: ARG002
        """Iterate over the runs' steps; `columns` are not looked at: all is in memory."""
        for run_id, frame in self.steps.items():
            yield replace(run_trace(frame), run_id=run_id)

    def leaves_out(self, process: str) -> bool:  # noqa: ARG002
        """Say that no filter keeps a process out."""
        return False


def tables_of(given: Source | Frames) -> Tables:
    """Open a folder, or take frames of `run_paired`. Raises `ValueError` for anything else.

    >>> tables_of(pd.DataFrame({"step": [0]}))
    Traceback (most recent call last):
    ValueError: frame 'run' must be the steps of run_paired
    """
    if isinstance(given, pd.DataFrame):
        return _paired({"run": [given]})
    if isinstance(given, Mapping):
        return _paired(
            {str(k): [v] if isinstance(v, pd.DataFrame) else list(v) for k, v in given.items()}
        )
    if isinstance(given, (list, tuple)):
        return _paired({"run": list(given)})
    return opened(given)  # type: ignore[arg-type]


def _paired(labelled: Mapping[str, Sequence[pd.DataFrame]]) -> PairedFrames:
    rows: list[dict[str, object]] = []
    steps: dict[str, pd.DataFrame] = {}
    for label, frames in labelled.items():
        for seed, frame in enumerate(frames):
            if not isinstance(frame, pd.DataFrame):
                raise ValueError(f"results must be a path or frames, got {type(frame).__name__}")
            if "process" not in frame or "discrete" not in set(frame["process"].astype("str")):
                raise ValueError(f"frame {label!r} must be the steps of run_paired")
            run_id = label if len(frames) == 1 else f"{label}, {seed}"
            optimizer = frame[frame["process"].astype("str") == "discrete"].sort_values("step")
            lost = len(optimizer) > 0 and str(optimizer["status"].iloc[-1]) == "diverged"
            names = sorted(set(frame["process"].astype("str")) - {"discrete"})
            steps[run_id] = frame
            rows.append({
                "run_id": run_id, "workload": label, "criterion": "loss", "rule": "run_paired",
                "seed": seed, "flows": ",".join(names), "steps": int(optimizer["step"].iloc[-1]),
                "status": "diverged" if lost else "finished",
            })  # fmt: skip
    names = ["run_id", "sweep", *CONFIGURATION, "seed", "status"]
    runs = pd.DataFrame(rows, columns=names)
    empty = [name for name in names if name not in _TEXTS and runs[name].isna().all()]
    runs = runs.astype(dict.fromkeys(empty, "float64"))
    listed = {str(name) for frame in steps.values() for name in frame["process"].unique()}
    runs.attrs["processes"] = declared_processes([], listed)
    return PairedFrames(runs, steps)
