"""Figures over many runs: against a hyperparameter, distance over time, variances, horizons.

Every function takes a frame and optionally Axes, and returns the Axes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.draw import style
from analysis.draw.hyperparameter_axis import HyperparameterAxis
from analysis.draw.notes import note_band, note_runs
from analysis.infer import (
    Ranking,
    cells,
    check_accuracy,
    covariance_fit,
    grouped,
    kaplan_meier,
    summarize,
)
from analysis.measure import all_metrics, find_metric
from analysis.read import hyperparameters_of

_MANY_CURVES = 20  # whose extremes would be all that a band shows
_MOST_X = 20  # values of x that have a point of their own on a line
_MOST_DOTS, _FEW_DOTS = 2_000, 500  # of a flow, in one panel


def plot_accuracy(
    accuracy: pd.DataFrame,
    metric: str = "final_distance",
    ax: Axes | None = None,
    *,
    x: str = "lr",
) -> Axes:
    """One metric against a hyperparameter, per flow: mean, 95% band, and each finished run.

    Give the rows of one cell of `panel_keys(accuracy, x)`, so that the runs differ in their seed
    and in x only. The y axis is logarithmic if all values are positive; `HyperparameterAxis` says
    how x is drawn.
    The band is the interval of `summarize`, from three seeds on; of fewer, only the runs are drawn.
    More than 20 values of x are grouped: line and band are of the groups, at their medians.

    Raises `ValueError` for a metric or column that does not exist.

    >>> frame = accuracy(load(example_sweep))
    >>> plot_accuracy(frame.query("rule == 'gradient_descent'")).get_xlabel()
    'learning rate'
    >>> plot_accuracy(frame.query("rule == 'rmsprop'"), x="beta2").get_xlabel()
    'beta2'
    """
    check_accuracy(accuracy)
    ax, chosen = style.axes_or_new(ax), find_metric(metric)
    if x not in accuracy:
        raise ValueError(f"x must be a column of the frame, e.g. 'lr', got {x!r}")
    finished = accuracy[accuracy["run_status"].astype("str") == "finished"]
    finished = finished[finished[metric].notna()]
    axis, looks = HyperparameterAxis(finished, x), style.flow_styles(accuracy)
    groups, middles = _groups(finished, x)
    summary = summarize(groups, by=[x], metrics=[metric])
    for key, rows in cells(summary, ["flow"]):
        flow = str(key["flow"])
        values = finished[finished["flow"].astype("str") == flow]
        look = looks[flow]
        places = axis.places(rows[x] if middles is None else rows[x].astype("str").map(middles))
        middle = rows["median"] if chosen.censored else rows["mean"]
        (line,) = ax.plot(places, middle, marker=look.marker, color=look.colour, ls=look.line,
                          lw=1.8, ms=5, label=look.label)  # fmt: skip
        low, high = (
            rows[name].where(rows["n"] >= style.MIN_BAND) for name in ("ci_low", "ci_high")
        )
        ax.fill_between(places, low, high, color=look.colour, alpha=0.15, lw=0)
        note_band(line, low, high)
        some = _sample(values)
        (dots,) = ax.plot(axis.places(some[x]), some[metric], ".", color=look.colour, ms=4,
                          zorder=1.5, alpha=0.5 if len(some) < _FEW_DOTS else 0.2)  # fmt: skip
        note_runs(dots, some["run_id"])
    if finished.empty:
        style.note(ax, "no finished run has this metric")
    else:
        axis.apply(ax)
        _limit(ax, finished[metric].to_numpy())
    unit = f" ({chosen.unit})" if chosen.unit else ""
    return style.finish(ax, xlabel=axis.label, ylabel=f"{chosen.label}{unit}")


def plot_distance_spread(curves: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative distance over time per flow: median over the runs, and a band from three runs on.

    The band is the whole range of the runs; from 20 runs on, that of the middle 80% of them.

    Give the rows of one configuration of `Study.curves`, so that the runs differ in their seed.

    >>> curves = study(load(example_sweep)).curves.query("rule == 'rmsprop'")
    >>> plot_distance_spread(curves).get_yscale()
    'log'
    """
    ax = style.axes_or_new(ax)
    drawn, looks = False, style.flow_styles(curves)
    for key, rows in cells(curves.dropna(subset="distance"), ["flow"]):
        look = looks[str(key["flow"])]
        steps = rows.groupby("step")["distance"]
        cut = 0.1 if rows["run_id"].nunique() >= _MANY_CURVES else 0.0
        over = steps.quantile(np.array([cut, 0.5, 1 - cut])).unstack()
        over.columns = pd.Index(["min", "median", "max"])
        label = f"{look.label}, {_seeds(rows)}"
        (line,) = ax.plot(over.index, over["median"], color=look.colour, ls=look.line, lw=1.6,
                          label=label)  # fmt: skip
        _range(ax, line, rows, over)
        drawn = drawn or bool((over["median"] > 0).any())
    if drawn:
        ax.set_yscale("log")
    else:
        style.note(ax, "no finished run")
    return style.finish(ax, xlabel=style.STEPS_LABEL, ylabel=style.DISTANCE_LABEL)


def plot_covariance(points: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Measured against predicted variance, one point per direction and averaging window.

    The line is where both agree; the title gives the fitted slope and R² with their intervals.

    >>> plot_covariance(covariance_points(load(example_sweep))).get_title(loc="left")
    'central: slope 1.00 [1.00, 1.00], R² 1.00 [1.00, 1.00]'
    """
    ax = style.axes_or_new(ax, (4.6, 4.4))
    if points.empty:
        style.note(ax, "no averaging window lies within the steps that have a predicted variance")
        return style.finish(
            ax, xlabel="predicted variance (loss)", ylabel="measured variance (loss)"
        )
    titles, looks = [], style.flow_styles(points)
    for key, rows in cells(points, ["flow"]):
        flow = str(key["flow"])
        some = _sample(rows)
        (dots,) = ax.plot(some["predicted"], some["measured"], ".", color=looks[flow].colour, ms=5,
                          alpha=0.45 if len(some) < _FEW_DOTS else 0.2,
                          label=looks[flow].label)  # fmt: skip
        note_runs(dots, some["run_id"])
        fit = covariance_fit(rows, by=[]).iloc[0]
        slope = _with_limits(fit["slope"], fit["slope_low"], fit["slope_high"])
        r2 = _with_limits(fit["r2"], fit["r2_low"], fit["r2_high"])
        known = np.isfinite(fit["slope"])
        titles.append(f"{flow}: " + (f"slope {slope}, R² {r2}" if known else "too few points"))
    both = points[["predicted", "measured"]].to_numpy()
    # Whole decades, so that there are labelled ticks however narrow the range is.
    ends = [10.0 ** np.floor(np.log10(both.min())), 10.0 ** np.ceil(np.log10(both.max()))]
    ax.plot(ends, ends, color=style.INK, lw=1.0, ls="--", label="exact prediction")
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    style.plain_log_axis(ax.xaxis)
    title = "\n".join(titles)
    return style.finish(
        ax, xlabel="predicted variance (loss)", ylabel="measured variance (loss)", title=title
    )


def plot_horizons(
    accuracy: pd.DataFrame, ax: Axes | None = None, *, horizon: str = "horizon_lasting"
) -> Axes:
    """Share of runs before their horizon, over time (Kaplan-Meier; 95% band from three runs on).

    `horizon`: a metric that the end of a run can cut short. Ticks mark runs that ended
    while their prediction still held. Raises `ValueError` for another metric.

    >>> plot_horizons(accuracy(load(example_sweep))).get_ylabel()
    'share still predicted'
    """
    censored = [m.name for m in all_metrics() if m.censored]
    if horizon not in censored:
        raise ValueError(f"horizon must be one of {censored}, got {horizon!r}")
    check_accuracy(accuracy)
    ax = style.axes_or_new(ax)
    finished = accuracy[accuracy["run_status"].astype("str") == "finished"]
    known = finished[finished[horizon].notna()]
    end = float(np.nanmax(known[[horizon, "last_step"]].to_numpy())) if len(known) else 1.0
    looks = style.flow_styles(accuracy)
    for place, (key, rows) in enumerate(cells(known, ["flow"])):
        look = looks[str(key["flow"])]
        width = max(1.4, 3.4 - 1.8 * place)  # wider below, so that curves that coincide both show
        time = rows[horizon].to_numpy()
        observed = rows[f"{horizon}_observed"].fillna(False).to_numpy(dtype=bool)
        curve = kaplan_meier(time, observed)
        high = np.where(np.isnan(curve.high), curve.share, curve.high)
        stretched = [np.append(v, v[-1]) for v in (curve.share, curve.low, high)]
        at = np.append(curve.time, end)
        (line,) = ax.step(at, stretched[0], where="post", color=look.colour, lw=width,
                          label=f"{look.label}, {len(rows)} runs")  # fmt: skip
        if len(rows) >= style.MIN_BAND:
            note_band(line, stretched[1], stretched[2])
            ax.fill_between(at, stretched[1], stretched[2], step="post", color=look.colour,
                            alpha=0.15, lw=0)  # fmt: skip
        cut = np.unique(time[~observed])
        heights = curve.share[np.searchsorted(curve.time, cut, side="right") - 1]
        ax.plot(cut, heights, "|", color=look.colour, ms=9, mew=1.5)
    ax.set_ylim(-0.03, 1.05)
    if known.empty:
        style.note(ax, "no finished run")
    return style.finish(ax, xlabel=style.STEPS_LABEL, ylabel="share still predicted")


def plot_profiles(ranking: Ranking, ax: Axes | None = None) -> Axes:
    """Draw performance profiles: share of runs whose error is at most so large, per flow.

    A curve that is above another everywhere is better whatever error is asked for; a flow that
    ended early is below no error, so its curve stays under 1. `ranking`: from `analysis.rank`.

    >>> plot_profiles(rank(accuracy(load(example_sweep)))).get_xlabel()
    'final distance'
    """
    ax = style.axes_or_new(ax)
    looks = style.flow_styles(ranking.profiles)
    for key, rows in cells(ranking.profiles, ["flow"]):
        look = looks[str(key["flow"])]
        ax.step(rows["error"], rows["share"], where="post", color=look.colour, ls=look.line, lw=1.8,
                label=look.label)  # fmt: skip
    ax.set_ylim(-0.03, 1.05)
    if ranking.profiles.empty:
        style.note(ax, "no run in which two flows can be compared")
    else:
        ax.set_xscale("log")
        style.plain_log_axis(ax.xaxis)
    label = find_metric(ranking.metric).label
    return style.finish(ax, xlabel=label, ylabel="share of runs")


def _groups(finished: pd.DataFrame, x: str) -> tuple[pd.DataFrame, dict[str, float] | None]:
    """Group the values of x if they are many; with the median value of each group, by its text."""
    if finished[x].nunique() <= _MOST_X:
        return finished, None
    others = [name for name in hyperparameters_of(finished) if name != x]
    groups, words = grouped(finished, keep=others, most=_MOST_X)
    medians = finished[x].astype("float64").groupby(groups[x].astype("str").to_numpy()).median()
    return groups, {str(k): float(v) for k, v in medians.items()} if words else None


def _sample(rows: pd.DataFrame) -> pd.DataFrame:
    """At most so many rows, of more a random sample: a figure shows no more dots."""
    return rows if len(rows) <= _MOST_DOTS else rows.sample(_MOST_DOTS, random_state=0)


def plot_skill(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    reference: str = "stable",
    target: str = "discrete",
    phase: str | None = None,
) -> Axes:
    """Skill of every flow against lead time, with 95% bands from three runs on.

    Args:
        table: one cell of `analysis.skill`.
        ax: to draw on; a new one if not given.
        reference: `stable` or `persistence`.
        target: one of the table's.
        phase: one of the table's; by default the one with most forecasts.

    Raises `ValueError` for a reference, target or phase that the table does not have, and for a
    table of several cells.

    >>> plot_skill(skill(load(example_sweep), by=[])).get_xlabel()
    'lead time (steps)'
    """
    if reference not in ("stable", "persistence"):
        raise ValueError(f"reference must be 'stable' or 'persistence', got {reference!r}")
    rows = table[table["target"] == target]
    if phase is None and len(rows):
        phase = str(rows.groupby("phase")["n_forecasts"].sum().idxmax())
    rows = rows[rows["phase"] == phase]
    if rows.empty:
        raise ValueError(f"the table has no rows of target {target!r} and phase {phase!r}")
    if rows.duplicated(["flow", "lead"]).any():
        raise ValueError("give the rows of one cell of analysis.skill, or make it with by=[]")
    ax, name = style.axes_or_new(ax), f"skill_{reference}"
    looks = style.flow_styles(table)
    for key, mine in cells(rows, ["flow"]):
        flow = str(key["flow"])
        if flow == reference:
            continue
        look, mine = looks[flow], mine.sort_values("lead")
        (line,) = ax.plot(mine["lead"], mine[name], color=look.colour, ls=look.line, lw=1.8,
                          label=look.label)  # fmt: skip
        low, high = (
            mine[f"{name}_{end}"].where(mine["n_runs"] >= style.MIN_BAND) for end in ("low", "high")
        )
        ax.fill_between(mine["lead"], low, high, color=look.colour, alpha=0.15, lw=0)
        note_band(line, low, high)
    ax.axhline(0.0, color=style.INK, lw=1.0, ls="--")
    ax.set_xscale("log")
    style.plain_log_axis(ax.xaxis)
    ax.set_ylim(max(-1.0, float(rows[name].min(skipna=True)) - 0.1), 1.05)
    ylabel = f"skill over {reference}\n(1: perfect, 0: no better)"
    return style.finish(ax, xlabel="lead time (steps)", ylabel=ylabel, title=str(phase))


def _range(ax: Axes, middle: Line2D, rows: pd.DataFrame, over: pd.DataFrame) -> None:
    """Draw the range of the curves, or the curves themselves if they are too few for a band."""
    tint, runs = middle.get_color(), list(rows.groupby("run_id", observed=True))
    if len(runs) >= style.MIN_BAND:
        ax.fill_between(over.index, over["min"], over["max"], color=tint, alpha=0.2, lw=0)
        note_band(middle, over["min"], over["max"])
        return
    for _, run in runs if len(runs) > 1 else []:
        ax.plot(run["step"], run["distance"], color=tint, lw=0.7, alpha=0.6)


def _seeds(rows: pd.DataFrame) -> str:
    """Say how many seeds there are, and runs if they differ in more than that."""
    runs, seeds = rows["run_id"].nunique(), rows["seed"].nunique()
    text = f"{seeds} seed" if seeds == 1 else f"{seeds} seeds"
    return text if runs == seeds else f"{runs} runs of {text}"


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
