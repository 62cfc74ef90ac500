"""Figures of one run: loss, effective eigenvalues, distance, variances.

Every function takes the `steps` rows of one run (those of `cflows_ray.run_paired` too) and
optionally Axes, and returns the Axes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.draw import style
from analysis.measure import (
    DEFAULT_BANDWIDTH,
    EDGE,
    predicted,
    relative_distance,
    time_average,
    total,
    variance_series,
)
from analysis.read import REFERENCE_FLOW, Trace, common_steps, run_trace


def plot_loss(
    steps: pd.DataFrame, ax: Axes | None = None, *, bandwidth: float = DEFAULT_BANDWIDTH
) -> Axes:
    """Training loss: the optimizer's, its time average, and what each flow predicts for it.

    >>> results = load(example_sweep)
    >>> ax = plot_loss(results.run_steps("gr001s0"))
    >>> ax.get_ylabel()
    'training loss'
    """
    ax, trace = style.axes_or_new(ax), run_trace(steps)
    optimizer = trace.scored("discrete")
    step = optimizer["step"]
    ax.plot(step, optimizer["train_loss"], color=style.GREY, lw=0.6, alpha=0.7, label="optimizer")
    average = time_average(step, optimizer["train_loss"], bandwidth)
    ax.plot(step, average, color=style.INK, lw=2.2, label="its time average")
    looks = style.flow_styles(steps)
    for flow in trace.flows:
        columns, look = trace.scored(flow), looks[flow]
        prediction = predicted(columns, "train_loss")
        differs = np.any(np.isfinite(prediction) & (prediction != columns["train_loss"]))
        ax.plot(columns["step"], columns["train_loss"], color=look.colour, lw=1.2, label=look.label)
        if differs:
            ax.plot(
                columns["step"], prediction, color=look.colour, lw=1.8, ls=(0, (4, 1.5)),
                label=f"{look.label}'s prediction",
            )  # fmt: skip
    _mark_stops(ax, trace, "train_loss", looks)
    if np.nanmin(optimizer["train_loss"], initial=np.inf) > 0:
        ax.set_yscale("log")
    return style.finish(ax, xlabel=style.STEPS_LABEL, ylabel="training loss", title="Loss")


def plot_sharpness(
    steps: pd.DataFrame,
    ax: Axes | None = None,
    *,
    bandwidth: float = DEFAULT_BANDWIDTH,
    reference: str = REFERENCE_FLOW,
) -> Axes:
    """Effective eigenvalues of the optimizer and the flows, with the edge of stability at 2.

    Of the reference flow only the largest: it leaves the edge, and its others would hide the rest.

    >>> plot_sharpness(load(example_sweep).run_steps("gr001s0")).get_ylabel()
    'effective eigenvalues'
    """
    ax, trace = style.axes_or_new(ax), run_trace(steps)
    optimizer = trace.scored("discrete")
    step, eigs = optimizer["step"], optimizer["effective_eigs"]
    for j in range(eigs.shape[1]):
        label = "optimizer" if j == 0 else None
        ax.plot(step, eigs[:, j], color=style.GREY, lw=0.5, alpha=0.6, label=label)
    average = time_average(step, optimizer["effective_sharpness"], bandwidth)
    ax.plot(step, average, color=style.INK, lw=2.0, label="its sharpness, time average")
    looks = style.flow_styles(steps)
    for flow in reversed(trace.flows):
        columns, look = trace.scored(flow), looks[flow]
        many = flow != reference
        values = columns["effective_eigs"] if many else columns["effective_sharpness"][:, None]
        for j in range(values.shape[1]):
            label, width = (look.label, 1.8) if j == 0 else (None, 0.9)
            ax.plot(columns["step"], values[:, j], color=look.colour, lw=width, label=label)
    ax.axhline(EDGE, color=style.INK, lw=1.0, ls="--")
    ax.annotate(
        "edge of\nstability", (1.0, EDGE), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", ha="left", va="center", fontsize=8.5, color=style.INK,
    )  # fmt: skip
    shown = np.concatenate([average[np.isfinite(average)], [EDGE]])
    ax.set_ylim(min(0.0, float(np.nanmin(shown))), 1.6 * float(np.max(shown)))
    return style.finish(
        ax, xlabel=style.STEPS_LABEL, ylabel="effective eigenvalues", title="Curvature"
    )


def plot_distance(steps: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative distance of each flow to the optimizer, and to its midpoints (dotted).

    >>> plot_distance(load(example_sweep).run_steps("gr001s0")).get_yscale()
    'log'
    """
    ax, trace = style.axes_or_new(ax), run_trace(steps)
    optimizer = trace.scored("discrete")
    looks = style.flow_styles(steps)
    for flow in trace.flows:
        columns, look = trace.scored(flow), looks[flow]
        _, here, there = common_steps(columns["step"], optimizer["step"])
        start = optimizer["distance_from_start"][there]
        for column, dashes, label in (
            ("distance_to_discrete", "-", f"{look.label} to optimizer"),
            ("distance_to_midpoint", ":", f"{look.label} to midpoints"),
        ):
            relative = relative_distance(columns[column][here], start)
            ax.plot(
                columns["step"][here], relative, color=look.colour, lw=1.4, ls=dashes, label=label
            )
    ax.set_yscale("log")
    return style.finish(
        ax, xlabel=style.STEPS_LABEL, ylabel=style.DISTANCE_LABEL, title="Distance in weights"
    )


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
    ax, trace = style.axes_or_new(ax), run_trace(steps)
    drawn, looks = False, style.flow_styles(steps)
    for flow in trace.flows:
        columns, look = trace.scored(flow), looks[flow]
        variances = columns["sigma_eigs"]
        _, measured = variance_series(columns, bandwidth)
        for j in range(min(directions, measured.shape[1])):
            if not (variances[:, j] > 0).any() and not np.isfinite(measured[:, j]).any():
                continue
            tint = style.DIRECTIONS[j % len(style.DIRECTIONS)]
            ax.plot(
                columns["step"], measured[:, j], color=tint, lw=2.2, alpha=0.45,
                label=f"measured, direction {j + 1}",
            )  # fmt: skip
            ax.plot(
                columns["step"], np.where(variances[:, j] > 0, variances[:, j], np.nan), color=tint,
                lw=1.3, ls=(0, (4, 1.5)), label=f"{look.label}, direction {j + 1}",
            )  # fmt: skip
            drawn = drawn or bool(np.isfinite(measured[:, j]).any())
        positive = total(measured)[total(measured) > 0]
        if len(positive):
            ax.set_yscale("log")
            low, high = float(np.min(positive)), float(np.max(positive))
            ax.set_ylim(max(1e-2 * low, 1e-5 * high), 20 * high)
    if not drawn:
        style.note(ax, "no averaging window lies within the steps that have a predicted variance")
    return style.finish(
        ax,
        xlabel=style.STEPS_LABEL,
        ylabel="variance in P's metric (loss)",
        title="Oscillation variance",
    )


def _mark_stops(ax: Axes, trace: Trace, column: str, looks: Mapping[str, style.FlowStyle]) -> None:
    """Put a cross where a flow stopped or diverged."""
    for flow in trace.flows:
        columns = trace.scored(flow)
        values: NDArray[np.float64] = columns[column]
        if trace.flow_ending(flow) is not None and len(values):
            ax.plot(columns["step"][-1], values[-1], "x", color=looks[flow].colour, ms=7, mew=2)
