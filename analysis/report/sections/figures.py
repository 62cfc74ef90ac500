"""Sections of figures: against hyperparameters, over time, single runs, variances, horizons."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.draw import (
    FigureSet,
    HyperparameterAxis,
    Panel,
    all_rows,
    batches,
    flow_styles,
    panels,
    ranked_runs,
    run_title,
    with_keys,
)
from analysis.infer import (
    PLACE,
    cells,
    covariance_fit,
    is_numeric,
    main_flow,
    panel_keys,
    summarize,
    trends,
)
from analysis.measure import SAMPLED_RUNS, Study, all_metrics, find_metric
from analysis.read import declare_like
from analysis.report import page
from analysis.report.cells import cell_table, key_columns, records
from analysis.report.drawn import drawn
from analysis.report.fitting import PAGE_ROWS, fitted
from analysis.report.numbers import p_text, significant, step_limits, with_limits
from analysis.report.overview import shown_metrics

_MOST_PANELS = 12  # of one workload in one section
_MAX_RATES = 4  # learning rates shown per panel
_MAX_SINGLE = 6  # rules × workloads up to which single runs of each are shown


def against(found: Study, group: pd.DataFrame, figures: FigureSet, *, x: str) -> str:
    """Draw errors against a hyperparameter, a column per panel, and the trend table."""
    keys, metrics = panel_keys(found.accuracy, x), shown_metrics("trend", group)
    names = [m.name for m in metrics]
    made = panels(group, keys)
    if x != "lr":  # panels of rules without it, or with one value, would show nothing
        made = [panel for panel in made if panel.rows[x].nunique() > 1]
    if not made:
        return page.paragraph("It does not vary here.")
    label = HyperparameterAxis(group, x).label
    caption = (
        "Mean over seeds, or over a group of values where they are many; dots are runs, at most "
        "2,000 of a flow. From three runs on, with a 95% band."
    )
    body, made = _first(made)
    for some in batches(made, figures.most_panels):
        figure = figures.against(some, group, names, x)
        kind = "learning_rate" if x == "lr" else x
        body += drawn(figures, figure, caption, kind, all_rows(some))
    if not is_numeric(group[x]):
        return body
    shown = [key for key in keys if key not in ("workload", "criterion")]
    rows = [
        key_columns(row, shown)
        | {
            "flow": row.flow,
            "error": find_metric(str(row.metric)).label,
            "runs": f"{row.n}",
            "Kendall τ": significant(row.tau),
            "p": p_text(row.p_value),
            "p (Holm)": p_text(row.p_holm),
            "log-log slope": significant(row.slope),
        }
        for row in records(trends(group, x, names, keys).dropna(subset="tau"))
    ]
    if rows:
        caption = f"Does the error rise with the {label}?"
        body += cell_table(rows, shown, caption, [*shown, "flow", "error"])
    return body


def distances(found: Study, group: pd.DataFrame, figures: FigureSet) -> str:
    """Draw the distance over time, a row per panel and a column per learning rate."""
    curves = found.curves[found.curves["run_id"].isin(group["run_id"])]
    if curves.empty:
        return page.paragraph("No finished run.")
    keys = panel_keys(found.accuracy)
    caption = (
        "Relative distance to the optimizer: median over runs, and their whole range from three "
        "on (of fewer, each; from 20 on, the middle 80%)."
    )
    if (finished := _finished(group)) > curves["run_id"].nunique():
        caption += f" Of {curves['run_id'].nunique()} runs, drawn at random from {finished}."
    curves = _with_groups(curves, group, [*keys, "lr"])
    body, made = _first(panels(curves, keys))
    for some in batches(made, figures.most_panels):
        figure = figures.distances(some, _MAX_RATES)
        body += drawn(figures, figure, caption, "distance", all_rows(some))
    return body


def single_runs(found: Study, group: pd.DataFrame, figures: FigureSet) -> str:
    """Draw loss and curvature of the best, a representative and the worst run.

    Of each rule; in a study of many rules and workloads, of each workload.
    """
    body = ""
    many = len(found.accuracy.groupby(list(PLACE), observed=True)) > _MAX_SINGLE
    for cell, rows in cells(group, [] if many else ["rule"]):
        name = cell.get("rule", "all rules")
        ranked = ranked_runs(rows)
        if ranked.empty:
            body += page.paragraph(f"{name}: no finished run.")
            continue
        chosen = {"best": 0, "representative": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
        shown = {}
        for which, place in chosen.items():
            if str(ranked.index[place]) not in shown:  # with one or two runs they coincide
                shown[str(ranked.index[place])] = which
        titles = {run: f"{which}: {run_title(rows, run)}" for run, which in shown.items()}
        figure = figures.runs(found.results, titles, found.bandwidth)
        which = f"{', '.join(shown.values())} of {len(ranked)} finished runs"
        if len(ranked) == 1:
            which = "the only finished run"
        label = flow_styles(rows)[main_flow(rows)].label
        caption = f"{name}: {which}, by final distance of the {label}."
        body += drawn(figures, figure, caption, "runs", rows)
        middle = str(ranked.index[chosen["representative"]])
        figure = figures.one_run(found.results, middle, found.bandwidth)
        caption = f"{run_title(rows, middle)}: distance and variance of the representative run."
        body += drawn(figures, figure, caption, "run", rows)
    return body


def variances(found: Study, figures: FigureSet) -> str:
    """Draw predicted against measured variances, and fit them."""
    if found.points.empty:
        return page.paragraph("No averaging window lies within steps with a predicted variance.")
    body = page.paragraph(
        "Each point is one eigenvector of Σ in one averaging window: the predicted eigenvalue, and "
        "the time-averaged squared displacement of the optimizer along it, in P's metric. A right "
        "prediction has slope 1 and lies on the dashed line."
    )
    keys = panel_keys(found.accuracy)
    if (finished := _finished(found.accuracy)) > SAMPLED_RUNS:
        body += page.paragraph(f"Of {SAMPLED_RUNS} runs, drawn at random from {finished}.")
    all_points = _with_groups(found.points, found.accuracy, keys)
    for _, points in cells(all_points, ["workload", "criterion"]):
        words, made = _first(panels(points, keys))
        body += words
        for some in batches(made, figures.most_panels):
            figure, caption = figures.covariances(some), "Measured against predicted variance."
            body += drawn(figures, figure, caption, "variance", all_rows(some))
    fit = covariance_fit(all_points, keys).head(PAGE_ROWS)
    rows = [
        key_columns(row, keys)
        | {
            "flow": row.flow,
            "runs": f"{row.n_runs}",
            "points": f"{row.points}",
            "slope": with_limits(row.slope, row.slope_low, row.slope_high),
            "R²": with_limits(row.r2, row.r2_low, row.r2_high),
            "interval": row.ci_method,
        }
        for row in records(fit)
    ]
    return body + cell_table(rows, keys, "Fits", [*keys, "flow", "interval"])


def horizons(found: Study, figures: FigureSet) -> str:
    """Draw Kaplan-Meier curves of the prediction horizons, and tabulate their medians."""
    body = page.paragraph(
        "Lasting horizon: the step from which on the relative distance stays above "
        f"{100 * found.tolerance:g}%, to the end of the run. A run that ends below is censored (a "
        "tick): its horizon is longer than the run. A flow that stopped or diverged has reached "
        "its horizon. The first crossing says little where the optimizer has hardly left its start."
    )
    keys = panel_keys(found.accuracy)
    for _, group in cells(found.accuracy, ["workload", "criterion"]):
        words, made = _first(panels(group, keys))
        body += words
        for some in batches(made, figures.most_panels):
            caption = "Share of runs before their lasting horizon, with a 95% band."
            body += drawn(figures, figures.horizons(some), caption, "horizon", all_rows(some))
    longest = float(found.accuracy["last_step"].max())
    censored = [m.name for m in all_metrics() if m.censored and m.name in found.accuracy]
    shown, _ = fitted(found.accuracy, PAGE_ROWS // len(censored))
    frame = summarize(shown, by=[*keys, "lr"], metrics=censored)
    rows = [
        key_columns(row, [*keys, "lr"])
        | {
            "flow": row.flow,
            "horizon": find_metric(str(row.metric)).label,
            "runs": f"{row.n}",
            "censored": f"{row.n_censored}",
            "median (steps)": step_limits(row.median, row.ci_low, row.ci_high, longest),
        }
        for row in records(frame)
        if row.n
    ]
    if not rows:
        return body
    caption = "Kaplan-Meier medians; >: not reached by the end of the longest run"
    text = [*keys, "flow", "horizon"]
    return body + cell_table(rows, [*keys, "lr"], caption, text)


def _first(made: list[Panel]) -> tuple[str, list[Panel]]:
    """Choose the panels of a section, and say so where some are left out."""
    if len(made) <= _MOST_PANELS:
        return "", made
    return page.paragraph(f"The first {_MOST_PANELS} of {len(made)} panels."), made[:_MOST_PANELS]


def _finished(accuracy: pd.DataFrame) -> int:
    rows = accuracy[accuracy["run_status"].astype("str") == "finished"]
    return int(rows["run_id"].nunique())


def _with_groups(frame: pd.DataFrame, accuracy: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Give a frame of runs the keys of `accuracy`, whose values may be groups of its own."""
    of_groups = [key for key in keys if isinstance(accuracy[key].dtype, pd.CategoricalDtype)]
    own = [key for key in of_groups if key in frame and key not in PLACE]
    return with_keys(declare_like(frame.drop(columns=own), frame), accuracy, keys)
