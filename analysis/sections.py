"""The report's sections: each takes a `Study` and returns HTML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis import page
from analysis.aggregate import cell_keys, cells, panel_keys, summarize
from analysis.columns import HORIZONS, METRICS
from analysis.columns import metric as metric_named
from analysis.compare import compare, lr_trend
from analysis.console import significant
from analysis.covariance import covariance_fit
from analysis.figures import FigureSet, ranked_runs, run_title
from analysis.panels import all_rows, batches, key_text, panels, with_keys
from analysis.study import Study
from analysis.tabulate import (
    cell_table,
    key_columns,
    p_text,
    percent,
    records,
    step_limits,
    with_limits,
)

Section = Callable[[Study, pd.DataFrame, FigureSet], str]

RULE_KEYS = ["workload", "criterion", "rule"]
_SUMMARY = (
    ("final_distance", "final %", 100.0),
    ("mean_distance", "mean %", 100.0),
    ("final_distance_midpoint", "midpoint %", 100.0),
    ("log_loss_error", "log(loss)", 1.0),
    ("sharpness_error", "sharpness", 1.0),
    ("variance_error", "variance", 1.0),
    ("grad_norm_error", "log |g|²", 1.0),
    ("nu_error", "ν", 1.0),
)
_COMPARED = ("final_distance", "final_distance_midpoint", "mean_distance", "log_loss_error")
_LR_METRICS = ("final_distance", "log_loss_error", "sharpness_error")
_HORIZON_NAMES = {
    "horizon_lasting": "lasting",
    "horizon": "first crossing",
    "horizon_midpoint": "first crossing, to midpoints",
}
_MAX_RATES = 4  # learning rates shown per panel
_MAX_PANELS = 4  # of one figure; more of them make a further figure
_MAX_SINGLE = 6  # rules × workloads up to which single runs of each are shown


def summary(found: Study) -> str:
    """Build the summary table: per rule, learning rate and flow, means with 95% intervals."""
    accuracy = found.accuracy
    keys = cell_keys(accuracy)
    wanted = [*(name for name, *_ in _SUMMARY), "horizon_lasting", "edge_fraction"]
    frame = summarize(accuracy, by=keys, metrics=wanted)
    rows: list[dict[str, str]] = []
    for cell, group in cells(frame, [*keys, "flow"]):
        values = group.set_index("metric")
        row: dict[str, str] = {key: key_text(cell[key]) for key in keys}
        row |= {"runs": _runs(values), "at edge": percent(values["mean"]["edge_fraction"])}
        row["flow"] = str(cell["flow"])
        for name, label, factor in _SUMMARY:
            mean, low, high = (
                factor * float(values[c][name]) for c in ("mean", "ci_low", "ci_high")
            )
            row[label] = with_limits(mean, low, high)
        row["lasting horizon"] = _horizon(values, float(accuracy["last_step"].max()))
        rows.append(row)
    caption = (
        "Mean over the finished runs, and the mean's 95% interval below it; first the relative "
    )
    caption += "distance to the optimizer and to its midpoints, then errors of predictions"
    shown = [k for k in keys if k != "lr"]
    return cell_table(rows, [*shown, "lr"], caption, ["flow", *shown]) + _legend()


def comparison(accuracy: pd.DataFrame) -> str:
    """Build the tables that compare central with every other flow on the same runs."""
    flows, keys = sorted(accuracy["flow"].astype("str").unique()), panel_keys(accuracy)
    if "central" not in flows or len(flows) < 2:
        return page.paragraph("These results hold one flow only: nothing to compare.")
    body = page.paragraph(
        "Both flows on the same run, finished runs only. A win is a smaller error; a ratio below 1 "
        "says the same. p: Wilcoxon's signed-rank test; Holm: corrected for all rows of a table."
    )
    for other in flows:
        if other == "central":
            continue
        frame = compare(accuracy, "central", other, keys, _COMPARED)
        rows = [
            key_columns(row, keys)
            | {
                "error": metric_named(str(row.metric)).label,
                "pairs": f"{row.n}",
                "central wins": _win(row),
                f"median ratio central / {other}": with_limits(
                    row.median_ratio, row.ratio_low, row.ratio_high
                ),
                "p": p_text(row.p_value),
                "p (Holm)": p_text(row.p_holm),
                "left out": _left_out(row),
            }
            for row in records(frame)
        ]
        text = [*keys, "error", "left out"]
        body += cell_table(rows, keys, f"central against {other}", text)
    return body


def learning_rates(found: Study, group: pd.DataFrame, figures: FigureSet) -> str:
    """Draw errors against the learning rate, a column per panel, and the trend table."""
    keys = panel_keys(found.accuracy)
    caption = "Mean over seeds; dots are runs. From three seeds on, with a 95% band."
    body = ""
    for some in batches(panels(group, keys), _MAX_PANELS):
        figure = figures.learning_rates(some, group, _LR_METRICS)
        body += page.figure(figure, caption, figures.file("learning_rate", all_rows(some)))
    trends = lr_trend(group, _LR_METRICS, keys)
    shown = [key for key in keys if key not in ("workload", "criterion")]
    rows = [
        key_columns(row, shown)
        | {
            "flow": row.flow,
            "error": metric_named(str(row.metric)).label,
            "runs": f"{row.n}",
            "Kendall τ": significant(row.tau),
            "p": p_text(row.p_value),
            "p (Holm)": p_text(row.p_holm),
            "log-log slope": significant(row.slope),
        }
        for row in records(trends.dropna(subset="tau"))
    ]
    if rows:
        caption = "Does the error rise with the learning rate?"
        body += cell_table(rows, shown, caption, [*shown, "flow", "error"])
    return body


def distances(found: Study, group: pd.DataFrame, figures: FigureSet) -> str:
    """Draw the distance over time, a row per panel and a column per learning rate."""
    curves = found.curves[found.curves["run_id"].isin(group["run_id"])]
    if curves.empty:
        return page.paragraph("No finished run.")
    keys = panel_keys(found.accuracy)
    caption = (
        "Relative distance to the optimizer: median over seeds, and their whole range from three "
        "seeds on; of fewer, each."
    )
    body = ""
    for some in batches(panels(with_keys(curves, group, keys), keys), _MAX_PANELS):
        file = figures.file("distance", all_rows(some))
        body += page.figure(figures.distances(some, _MAX_RATES), caption, file)
    return body


def single_runs(found: Study, group: pd.DataFrame, figures: FigureSet) -> str:
    """Draw loss and curvature of the best, a representative and the worst run.

    Of each rule; in a study of many rules and workloads, of each workload.
    """
    body = ""
    many = len(found.accuracy.groupby(RULE_KEYS, observed=True)) > _MAX_SINGLE
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
        caption = f"{name}: {which}, by final distance of the central flow."
        body += page.figure(figure, caption, figures.file("runs", rows))
        middle = str(ranked.index[chosen["representative"]])
        figure = figures.one_run(found.results, middle, found.bandwidth)
        caption = f"{run_title(rows, middle)}: distance and variance of the representative run."
        body += page.figure(figure, caption, figures.file("run", rows))
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
    for _, points in cells(found.points, ["workload", "criterion"]):
        for some in batches(panels(points, keys), _MAX_PANELS):
            file = figures.file("variance", all_rows(some))
            figure = figures.covariances(some)
            body += page.figure(figure, "Measured against predicted variance.", file)
    fit = covariance_fit(found.points, keys)
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
        for some in batches(panels(group, keys), _MAX_PANELS):
            file = figures.file("horizon", all_rows(some))
            caption = "Share of runs before their lasting horizon, with a 95% band."
            body += page.figure(figures.horizons(some), caption, file)
    longest = float(found.accuracy["last_step"].max())
    frame = summarize(found.accuracy, by=[*keys, "lr"], metrics=HORIZONS)
    rows = [
        key_columns(row, [*keys, "lr"])
        | {
            "flow": row.flow,
            "horizon": _HORIZON_NAMES[str(row.metric)],
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


def bandwidths(found: Study) -> str:
    """Tabulate the smoothed metrics at half, once and twice the bandwidth."""
    table = found.sensitivity
    if table.empty:
        return page.paragraph("No run is long enough for a time average.")
    shown = table.reset_index()
    rows = [
        {
            "flow": row["flow"],
            "metric": metric_named(row["metric"]).label,
            **{f"{b:g} steps": significant(row[b], 3) for b in table.columns if b != "spread"},
            "largest / smallest - 1": percent(row["spread"]),
        }
        for _, row in shown.iterrows()
    ]
    caption = "Mean over all finished runs, by the bandwidth of the time average; each over the "
    caption += "steps that its window sees, so wider ones begin later"
    return cell_table(rows, ["flow"], caption, ["flow", "metric"])


def failures(found: Study) -> str:
    """Tabulate runs that did not finish, flows that ended early, and files that were left out."""
    runs = found.results.runs
    status = runs["status"].astype("str")
    bad = runs[~status.isin(["finished", "running"])]
    body = ""
    if not bad.empty:
        rows = [
            {
                "run": row.run_id, "rule": row.rule, "lr": f"{row.lr:g}", "seed": row.seed,
                "status": row.status,
                "why": "" if pd.isna(row.status_detail) else row.status_detail,
            }
            for row in records(bad)
        ]  # fmt: skip
        body += page.table(
            pd.DataFrame(rows), caption="Runs that did not finish (counted, not averaged)",
            text=["run", "rule", "status"], wrap=["why"],
        )  # fmt: skip
    odd = found.accuracy[found.accuracy["flow_status"].astype("str") != "ok"]
    if not odd.empty:
        rows = [
            {
                "run": row.run_id, "rule": row.rule, "lr": f"{row.lr:g}", "seed": row.seed,
                "flow": row.flow, "what": _flow_status(row),
            }
            for row in records(odd)
        ]  # fmt: skip
        body += page.table(
            pd.DataFrame(rows), caption="Flows that stopped, diverged or left no steps",
            text=["run", "rule", "flow", "what"],
        )  # fmt: skip
    problems = found.results.problems
    if not problems.empty:
        body += page.table(problems, caption="Files left out", wrap=["file", "problem"])
    if (running := int((status == "running").sum())) > 0:
        body += page.paragraph(f"{running} runs had not ended when this was made.")
    return body or page.paragraph("Nothing: every run finished, no flow ended early, no bad file.")


def _legend() -> str:
    wanted = [name for name, *_ in _SUMMARY] + ["horizon_lasting", "edge_fraction"]
    pairs = [(m.label, m.meaning) for m in METRICS if m.name in wanted]
    return "<details><summary class='soft'>What the columns mean</summary>" + (
        page.definitions(pairs) + "</details>"
    )


def _runs(values: pd.DataFrame) -> str:
    runs, diverged, failed = (
        int(values[name].iloc[0]) for name in ("n_runs", "n_diverged", "n_failed")
    )
    lost = [f"{n} {word}" for n, word in ((diverged, "diverged"), (failed, "failed")) if n]
    small = f"<small>+ {', '.join(lost)}</small>" if lost else ""
    return f"{runs - diverged - failed}{small}"


def _horizon(values: pd.DataFrame, longest: float) -> str:
    name = "horizon_lasting"
    median, low, high = (float(values[c][name]) for c in ("median", "ci_low", "ci_high"))
    return step_limits(median, low, high, longest) if values["n"][name] else "-"


def _win(row: Any) -> str:
    if row.n == 0:
        return "-"
    limits = f"{100 * row.win_low:.0f}, {100 * row.win_high:.0f}"
    return f"{100 * row.win_rate:.0f}%<small>[{limits}]</small>"


def _left_out(row: Any) -> str:
    counts = (
        (row.n_diverged, "diverged"), (row.n_failed, "failed"), (row.n_undefined, "undefined"),
    )  # fmt: skip
    words = [f"{n} {word}" for n, word in counts if n]
    ended = ((row.n_stopped, "flow stopped"), (row.n_flow_diverged, "flow diverged"))
    words += [f"({n} {word})" for n, word in ended if n]
    return ", ".join(words)


def _flow_status(row: Any) -> str:
    if row.flow_status == "no_data":
        return "no steps on storage"
    if np.isnan(row.last_step):
        return f"{row.flow_status} at once"
    return f"{row.flow_status} after step {row.last_step:.0f}"
