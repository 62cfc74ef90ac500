"""Figures of one run: loss, effective eigenvalues, distance, variances.

Every function takes the `steps` rows of one run (those of `cflows_ray.run_paired` too) and
optionally Axes, and returns the Axes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.metrics import EDGE, relative_distance
from analysis.scoring import predicted, total, variance_series
from analysis.smoothing import DEFAULT_BANDWIDTH, time_average
from analysis.style import (
    DIRECTIONS,
    DISTANCE_LABEL,
    GREY,
    INK,
    STEPS_LABEL,
    axes_or_new,
    colour,
    finish,
    note,
)
from analysis.trace import Trace, common_steps, trace_from_table
from cflows_ray.schema import arrow_schema


def plot_loss(
    steps: pd.DataFrame, ax: Axes | None = None, *, bandwidth: float = DEFAULT_BANDWIDTH
) -> Axes:
    """Training loss: the optimizer's, its time average, and what each flow predicts for it.

    >>> results = load(example_sweep)
    >>> ax = plot_loss(results.run_steps("gr001s0"))
    >>> ax.get_ylabel()
    'training loss'
    """
    ax, trace = axes_or_new(ax), run_trace(steps)
    optimizer = trace.scored("discrete")
    step = optimizer["step"]
    ax.plot(step, optimizer["train_loss"], color=GREY, lw=0.6, alpha=0.7, label="optimizer")
    average = time_average(step, optimizer["train_loss"], bandwidth)
    ax.plot(step, average, color=INK, lw=2.2, label="its time average")
    for flow in trace.flows:
        columns = trace.scored(flow)
        prediction = predicted(columns, "train_loss")
        differs = np.any(np.isfinite(prediction) & (prediction != columns["train_loss"]))
        ax.plot(
            columns["step"], columns["train_loss"], color=colour(flow), lw=1.2, label=f"{flow} flow"
        )
        if differs:
            ax.plot(
                columns["step"], prediction, color=colour(flow), lw=1.8, ls=(0, (4, 1.5)),
                label=f"{flow} flow's prediction",
            )  # fmt: skip
    _mark_stops(ax, trace, "train_loss")
    if np.nanmin(optimizer["train_loss"], initial=np.inf) > 0:
        ax.set_yscale("log")
    return finish(ax, xlabel=STEPS_LABEL, ylabel="training loss", title="Loss")


def plot_sharpness(
    steps: pd.DataFrame, ax: Axes | None = None, *, bandwidth: float = DEFAULT_BANDWIDTH
) -> Axes:
    """Effective eigenvalues of the optimizer and the flows, with the edge of stability at 2.

    >>> plot_sharpness(load(example_sweep).run_steps("gr001s0")).get_ylabel()
    'effective eigenvalues'
    """
    ax, trace = axes_or_new(ax), run_trace(steps)
    optimizer = trace.scored("discrete")
    step, eigs = optimizer["step"], optimizer["effective_eigs"]
    for j in range(eigs.shape[1]):
        label = "optimizer" if j == 0 else None
        ax.plot(step, eigs[:, j], color=GREY, lw=0.5, alpha=0.6, label=label)
    average = time_average(step, optimizer["effective_sharpness"], bandwidth)
    ax.plot(step, average, color=INK, lw=2.0, label="its sharpness, time average")
    for flow in reversed(trace.flows):
        columns = trace.scored(flow)
        many = flow != "stable"  # the stable flow's further eigenvalues only hide the rest
        values = columns["effective_eigs"] if many else columns["effective_sharpness"][:, None]
        for j in range(values.shape[1]):
            label, width = (f"{flow} flow", 1.8) if j == 0 else (None, 0.9)
            ax.plot(columns["step"], values[:, j], color=colour(flow), lw=width, label=label)
    ax.axhline(EDGE, color=INK, lw=1.0, ls="--")
    ax.annotate(
        "edge of\nstability", (1.0, EDGE), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", ha="left", va="center", fontsize=8.5, color=INK,
    )  # fmt: skip
    shown = np.concatenate([average[np.isfinite(average)], [EDGE]])
    ax.set_ylim(min(0.0, float(np.nanmin(shown))), 1.6 * float(np.max(shown)))
    return finish(ax, xlabel=STEPS_LABEL, ylabel="effective eigenvalues", title="Curvature")


def plot_distance(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative distance of each flow to the optimizer, and to its midpoints (dotted).

    >>> plot_distance(load(example_sweep).run_steps("gr001s0")).get_yscale()
    'log'
    """
    ax, trace = axes_or_new(ax), run_trace(steps)
    optimizer = trace.scored("discrete")
    for flow in trace.flows:
        columns = trace.scored(flow)
        _, here, there = common_steps(columns["step"], optimizer["step"])
        start = optimizer["distance_from_start"][there]
        for column, style, label in (
            ("distance_to_discrete", "-", f"{flow} flow to optimizer"),
            ("distance_to_midpoint", ":", f"{flow} flow to midpoints"),
        ):
            relative = relative_distance(columns[column][here], start)
            ax.plot(
                columns["step"][here], relative, color=colour(flow), lw=1.4, ls=style, label=label
            )
    ax.set_yscale("log")
    return finish(ax, xlabel=STEPS_LABEL, ylabel=DISTANCE_LABEL, title="Distance in weights")


def plot_variance(
    steps: pd.DataFrame,
    ax: Axes | None = None,
    *,
    bandwidth: float = DEFAULT_BANDWIDTH,
    directions: int = 3,
) -> Axes:
    """Variance of the oscillation along Σ's first eigenvectors: predicted (dashed) and measured.

    Measured is the time average of the squared displacement (Gaussian kernel).

    >>> plot_variance(load(example_sweep).run_steps("gr001s0")).get_title(loc="left")
    'Oscillation variance'
    """
    ax, trace = axes_or_new(ax), run_trace(steps)
    drawn = False
    for flow in trace.flows:
        columns = trace.scored(flow)
        variances = columns["sigma_eigs"]
        _, measured = variance_series(columns, bandwidth)
        for j in range(min(directions, measured.shape[1])):
            if not (variances[:, j] > 0).any() and not np.isfinite(measured[:, j]).any():
                continue
            tint = DIRECTIONS[j % len(DIRECTIONS)]
            ax.plot(
                columns["step"], measured[:, j], color=tint, lw=2.2, alpha=0.45,
                label=f"measured, direction {j + 1}",
            )  # fmt: skip
            ax.plot(
                columns["step"], np.where(variances[:, j] > 0, variances[:, j], np.nan), color=tint,
                lw=1.3, ls=(0, (4, 1.5)), label=f"{flow} flow, direction {j + 1}",
            )  # fmt: skip
            drawn = drawn or bool(np.isfinite(measured[:, j]).any())
        positive = total(measured)[total(measured) > 0]
        if len(positive):
            ax.set_yscale("log")
            low, high = float(np.min(positive)), float(np.max(positive))
            ax.set_ylim(max(1e-2 * low, 1e-5 * high), 20 * high)
    if not drawn:
        note(ax, "no averaging window lies within the steps that have a predicted variance")
    return finish(
        ax, xlabel=STEPS_LABEL, ylabel="variance in P's metric (loss)", title="Oscillation variance"
    )


def run_trace(steps: pd.DataFrame) -> Trace:
    """Trace of the frame of one run; without a column `run_id`, all its rows are taken for one.

    Raises `ValueError` unless it is the frame of one run, with the optimizer that all is measured
    against.
    """
    needed = {"step", "process", "status"} - set(steps.columns)
    if needed:
        raise ValueError(f"steps: the frame lacks the columns {sorted(needed)}")
    if "run_id" not in steps:  # as of `cflows_ray.run_paired`
        steps = steps.assign(run_id="run")
    ids = steps["run_id"].astype("str").unique()
    if len(ids) != 1:
        raise ValueError(f"steps: must hold the rows of one run, got {len(ids)}")
    if "discrete" not in set(steps["process"].astype("str")):
        raise ValueError("steps: the frame lacks the rows of the process 'discrete'")
    schema = arrow_schema("steps")
    fields = [f for f in schema if f.name in steps]
    plain = steps[[f.name for f in fields]].astype(
        {n: "str" for n in ("run_id", "process", "status") if n in steps}
    )
    return trace_from_table(
        str(ids[0]), pa.Table.from_pandas(plain, schema=pa.schema(fields), preserve_index=False)
    )


def _mark_stops(ax: Axes, trace: Trace, column: str) -> None:
    """Put a cross where a flow stopped or diverged."""
    for flow in trace.flows:
        columns = trace.scored(flow)
        values: NDArray[np.float64] = columns[column]
        if trace.flow_ending(flow) is not None and len(values):
            ax.plot(columns["step"][-1], values[-1], "x", color=colour(flow), ms=7, mew=2)
