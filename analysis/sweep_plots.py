"""Figures over many runs: accuracy against learning rate, distance over time, variances, horizons.

Every function takes a frame and optionally Axes, and returns the Axes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.aggregate import cells, check_accuracy, summarize
from analysis.columns import HORIZONS
from analysis.columns import metric as metric_named
from analysis.covariance import covariance_fit
from analysis.style import (
    DISTANCE_LABEL,
    INK,
    MARKERS,
    MIN_BAND,
    STEPS_LABEL,
    axes_or_new,
    colour,
    finish,
    note,
    plain_log_axis,
)
from analysis.survival import kaplan_meier


def plot_accuracy(
    accuracy: pd.DataFrame, metric: str = "final_distance", ax: Axes | None = None
) -> Axes:
    """One metric against the learning rate, per flow: mean, 95% band, and each finished run.

    Give the rows of one cell of `aggregate.panel_keys`, so that the runs differ in their seed and
    learning rate only. Both axes are logarithmic if all values are positive.
    The band is the interval of `summarize`, from three seeds on; of fewer, only the runs are drawn.

    >>> frame = accuracy(load(example_sweep))
    >>> plot_accuracy(frame.query("rule == 'gradient_descent'")).get_xlabel()
    'learning rate'
    """
    check_accuracy(accuracy)
    ax, chosen = axes_or_new(ax), metric_named(metric)
    finished = accuracy[accuracy["run_status"].astype("str") == "finished"]
    finished = finished[finished[metric].notna()]
    summary = summarize(finished, by=["lr"], metrics=[metric])
    for key, rows in cells(summary, ["flow"]):
        flow = str(key["flow"])
        values = finished[finished["flow"].astype("str") == flow]
        tint = colour(flow)
        middle = rows["median"] if metric in HORIZONS else rows["mean"]
        ax.plot(rows["lr"], middle, marker=MARKERS.get(flow, "D"), color=tint, lw=1.8, ms=5,
                label=f"{flow} flow")  # fmt: skip
        low, high = (rows[name].where(rows["n"] >= MIN_BAND) for name in ("ci_low", "ci_high"))
        ax.fill_between(rows["lr"], low, high, color=tint, alpha=0.15, lw=0)
        ax.plot(values["lr"], values[metric], ".", color=tint, ms=4, alpha=0.5)
    if finished.empty:
        note(ax, "no finished run has this metric")
    else:
        _learning_rate_axis(ax, finished["lr"].unique())
        _limit(ax, finished[metric].to_numpy())
    unit = f" ({chosen.unit})" if chosen.unit else ""
    return finish(ax, xlabel="learning rate", ylabel=f"{chosen.label}{unit}")


def plot_distance_spread(curves: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative distance over time per flow: median over the runs, and their range from three on.

    Give the rows of one configuration of `Study.curves`, so that the runs differ in their seed.

    >>> from analysis.study import study
    >>> curves = study(load(example_sweep)).curves.query("rule == 'rmsprop'")
    >>> plot_distance_spread(curves).get_yscale()
    'log'
    """
    ax = axes_or_new(ax)
    drawn = False
    for key, rows in cells(curves.dropna(subset="distance"), ["flow"]):
        flow = str(key["flow"])
        over = rows.groupby("step")["distance"].agg(["min", "median", "max", "size"])
        label = f"{flow} flow, {_seeds(rows)}"
        ax.plot(over.index, over["median"], color=colour(flow), lw=1.6, label=label)
        _range(ax, rows, over, colour(flow))
        drawn = drawn or bool((over["median"] > 0).any())
    if drawn:
        ax.set_yscale("log")
    else:
        note(ax, "no finished run")
    return finish(ax, xlabel=STEPS_LABEL, ylabel=DISTANCE_LABEL)


def plot_covariance(points: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Measured against predicted variance, one point per direction and averaging window.

    The line is where both agree; the title gives the fitted slope and R² with their intervals.

    >>> from analysis.covariance import covariance_points
    >>> plot_covariance(covariance_points(load(example_sweep))).get_title(loc="left")
    'central: slope 1.00 [1.00, 1.00], R² 1.00 [1.00, 1.00]'
    """
    ax = axes_or_new(ax, (4.6, 4.4))
    if points.empty:
        note(ax, "no averaging window lies within the steps that have a predicted variance")
        return finish(ax, xlabel="predicted variance (loss)", ylabel="measured variance (loss)")
    titles = []
    for key, rows in cells(points, ["flow"]):
        flow = str(key["flow"])
        ax.plot(rows["predicted"], rows["measured"], ".", color=colour(flow), ms=5, alpha=0.45,
                label=f"{flow} flow")  # fmt: skip
        fit = covariance_fit(rows, by=[]).iloc[0]
        slope = _with_limits(fit["slope"], fit["slope_low"], fit["slope_high"])
        r2 = _with_limits(fit["r2"], fit["r2_low"], fit["r2_high"])
        known = np.isfinite(fit["slope"])
        titles.append(f"{flow}: " + (f"slope {slope}, R² {r2}" if known else "too few points"))
    both = points[["predicted", "measured"]].to_numpy()
    # Whole decades, so that there are labelled ticks however narrow the range is.
    ends = [10.0 ** np.floor(np.log10(both.min())), 10.0 ** np.ceil(np.log10(both.max()))]
    ax.plot(ends, ends, color=INK, lw=1.0, ls="--", label="exact prediction")
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    plain_log_axis(ax.xaxis)
    title = "\n".join(titles)
    return finish(
        ax, xlabel="predicted variance (loss)", ylabel="measured variance (loss)", title=title
    )


def plot_horizons(
    accuracy: pd.DataFrame, ax: Axes | None = None, *, horizon: str = "horizon_lasting"
) -> Axes:
    """Share of runs before their horizon, over time (Kaplan-Meier; 95% band from three runs on).

    `horizon`: one of `columns.HORIZONS`. Ticks mark runs that ended while their prediction still
    held. Raises `ValueError` for another metric.

    >>> plot_horizons(accuracy(load(example_sweep))).get_ylabel()
    'share still predicted'
    """
    if horizon not in HORIZONS:
        raise ValueError(f"horizon must be one of {list(HORIZONS)}, got {horizon!r}")
    check_accuracy(accuracy)
    ax = axes_or_new(ax)
    finished = accuracy[accuracy["run_status"].astype("str") == "finished"]
    known = finished[finished[horizon].notna()]
    end = float(np.nanmax(known[[horizon, "last_step"]].to_numpy())) if len(known) else 1.0
    for place, (key, rows) in enumerate(cells(known, ["flow"])):
        flow = str(key["flow"])
        width = max(1.4, 3.4 - 1.8 * place)  # wider below, so that curves that coincide both show
        time = rows[horizon].to_numpy()
        observed = rows[f"{horizon}_observed"].fillna(False).to_numpy(dtype=bool)
        curve = kaplan_meier(time, observed)
        high = np.where(np.isnan(curve.high), curve.share, curve.high)
        stretched = [np.append(v, v[-1]) for v in (curve.share, curve.low, high)]
        at = np.append(curve.time, end)
        ax.step(at, stretched[0], where="post", color=colour(flow), lw=width,
                label=f"{flow} flow, {len(rows)} runs")  # fmt: skip
        if len(rows) >= MIN_BAND:
            ax.fill_between(at, stretched[1], stretched[2], step="post", color=colour(flow),
                            alpha=0.15, lw=0)  # fmt: skip
        cut = time[~observed]
        heights = [curve.share[np.searchsorted(curve.time, t, side="right") - 1] for t in cut]
        ax.plot(cut, heights, "|", color=colour(flow), ms=9, mew=1.5)
    ax.set_ylim(-0.03, 1.05)
    if known.empty:
        note(ax, "no finished run")
    return finish(ax, xlabel=STEPS_LABEL, ylabel="share still predicted")


def _range(ax: Axes, rows: pd.DataFrame, over: pd.DataFrame, tint: str) -> None:
    """Draw the range of the curves, or the curves themselves if they are too few for a band."""
    runs = list(rows.groupby("run_id", observed=True))
    if len(runs) >= MIN_BAND:
        ax.fill_between(over.index, over["min"], over["max"], color=tint, alpha=0.2, lw=0)
        return
    for _, run in runs if len(runs) > 1 else []:
        ax.plot(run["step"], run["distance"], color=tint, lw=0.7, alpha=0.6)


def _seeds(rows: pd.DataFrame) -> str:
    """Say how many seeds there are, and runs if they differ in more than that."""
    runs, seeds = rows["run_id"].nunique(), rows["seed"].nunique()
    text = f"{seeds} seed" if seeds == 1 else f"{seeds} seeds"
    return text if runs == seeds else f"{runs} runs of {text}"


def _learning_rate_axis(ax: Axes, rates: np.ndarray) -> None:
    """Make the axis logarithmic, with the learning rates themselves as ticks if they are few."""
    ax.set_xscale("log")
    if len(rates) <= 6:
        ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
        ax.minorticks_off()


def _limit(ax: Axes, values: np.ndarray) -> None:
    """Scale the y axis to the runs, not to bands that few seeds make wide."""
    if np.all(values > 0):
        ax.set_yscale("log")
        ax.set_ylim(float(values.min()) / 1.6, float(values.max()) * 1.6)
    else:
        span = float(np.ptp(values)) or 1.0
        ax.set_ylim(float(values.min()) - 0.1 * span, float(values.max()) + 0.1 * span)


def _with_limits(value: float, low: float, high: float) -> str:
    text = f"{value:.2f}"
    return text if np.isnan(low) else f"{text} [{low:.2f}, {high:.2f}]"
