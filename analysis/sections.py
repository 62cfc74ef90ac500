"""The report's sections: each takes a `Study` and returns HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import page
from analysis.aggregate import cell_keys, cells, summarize
from analysis.columns import HORIZONS, METRICS
from analysis.columns import metric as metric_named
from analysis.compare import compare, lr_trend
from analysis.console import significant
from analysis.covariance import covariance_fit
from analysis.figures import FigureSet, ranked_runs, run_title
from analysis.study import Study

Section = Callable[[Study, pd.DataFrame, FigureSet], str]

RULE_KEYS = ["workload", "criterion", "rule"]
_SUMMARY = (
    ("final_distance", "final %", 100.0),
    ("mean_distance", "mean %", 100.0),
    ("final_distance_midpoint", "midpoint %", 100.0),
    ("log_loss_error", "log loss", 1.0),
    ("sharpness_error", "sharpness", 1.0),
    ("variance_error", "variance", 1.0),
    ("grad_norm_error", "log |g|²", 1.0),
    ("nu_error", "ν", 1.0),
)
_COMPARED = ("final_distance", "final_distance_midpoint", "mean_distance", "log_loss_error")
_LR_METRICS = ("final_distance", "log_loss_error", "sharpness_error")
_MAX_PANELS = 4  # learning rates shown per rule
_MAX_SINGLE = 6  # rules × workloads up to which single runs of each are shown


def summary(found: Study) -> str:
    """Build the summary table: per rule, learning rate and flow, means with 95% intervals."""
    accuracy = found.accuracy
    keys = cell_keys(accuracy)
    wanted = [*(name for name, *_ in _SUMMARY), "horizon", "edge_fraction"]
    frame = summarize(accuracy, by=keys, metrics=wanted)
    rows: list[dict[str, str]] = []
    for cell, group in cells(frame, [*keys, "flow"]):
        values = group.set_index("metric")
        row: dict[str, str] = {key: _text(cell[key]) for key in keys}
        row |= {"runs": _runs(values), "at edge": _percent(values["mean"]["edge_fraction"])}
        row["flow"] = str(cell["flow"])
        for name, label, factor in _SUMMARY:
            mean, low, high = (
                factor * float(values[c][name]) for c in ("mean", "ci_low", "ci_high")
            )
            row[label] = with_limits(mean, low, high)
        row["horizon"] = _horizon(values, float(accuracy["last_step"].max()))
        rows.append(row)
    caption = (
        "Mean over the finished runs, and the mean's 95% interval below it; first the relative "
    )
    caption += "distance to the optimizer and to its midpoints, then errors of predictions"
    shown = [k for k in keys if k != "lr"]
    return cell_table(rows, [*shown, "lr"], caption, ["flow", *shown]) + _legend()


def comparison(accuracy: pd.DataFrame) -> str:
    """Build the tables that compare central with every other flow on the same runs."""
    flows = sorted(accuracy["flow"].astype("str").unique())
    if "central" not in flows or len(flows) < 2:
        return page.paragraph("These results hold one flow only: nothing to compare.")
    body = page.paragraph(
        "Both flows on the same run, finished runs only. A win is a smaller error; a ratio below 1 "
        "says the same. p: Wilcoxon's signed-rank test; Holm: corrected for all rows of a table."
    )
    for other in flows:
        if other == "central":
            continue
        frame = compare(accuracy, "central", other, metrics=_COMPARED)
        rows = [
            {
                "workload": row.workload,
                "criterion": row.criterion,
                "rule": row.rule,
                "error": metric_named(str(row.metric)).label,
                "pairs": f"{row.n}",
                "central wins": _win(row),
                f"median ratio central / {other}": with_limits(
                    row.median_ratio, row.ratio_low, row.ratio_high
                ),
                "p": _p(row.p_value),
                "p (Holm)": _p(row.p_holm),
                "left out": _left_out(row),
            }
            for row in records(frame)
        ]
        text = ["workload", "criterion", "rule", "error", "left out"]
        body += cell_table(rows, RULE_KEYS, f"central against {other}", text)
    return body


def learning_rates(_found: Study, group: pd.DataFrame, figures: FigureSet) -> str:
    """Draw errors against the learning rate, a column per rule, and the trend table."""
    figure = figures.learning_rates(group, _LR_METRICS)
    caption = (
        "Mean over seeds with its 95% band; dots are runs. Bands of two or three seeds are wide."
    )
    body = page.figure(figure, caption, figures.file("learning_rate", group))
    trends = lr_trend(group, metrics=_LR_METRICS)
    rows = [
        {
            "rule": row.rule,
            "flow": row.flow,
            "error": metric_named(str(row.metric)).label,
            "runs": f"{row.n}",
            "Kendall τ": significant(row.tau),
            "p": _p(row.p_value),
            "p (Holm)": _p(row.p_holm),
            "log-log slope": significant(row.slope),
        }
        for row in records(trends.dropna(subset="tau"))
    ]
    if rows:
        caption = "Does the error rise with the learning rate?"
        body += cell_table(rows, ["rule"], caption, ["rule", "flow", "error"])
    return body


def distances(found: Study, group: pd.DataFrame, figures: FigureSet) -> str:
    """Draw the distance over time, a row per rule and a column per learning rate."""
    curves = found.curves[found.curves["run_id"].isin(group["run_id"])]
    if curves.empty:
        return page.paragraph("No finished run.")
    figure = figures.distances(curves, _MAX_PANELS)
    caption = "Relative distance to the optimizer: median over seeds, and their whole range."
    return page.figure(figure, caption, figures.file("distance", group))


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
    for _, points in cells(found.points, ["workload", "criterion"]):
        figure = figures.covariances(points)
        body += page.figure(
            figure, "Measured against predicted variance.", figures.file("variance", points)
        )
    fit = covariance_fit(found.points, RULE_KEYS)
    rows = [
        {
            "workload": row.workload,
            "criterion": row.criterion,
            "rule": row.rule,
            "flow": row.flow,
            "runs": f"{row.n_runs}",
            "points": f"{row.points}",
            "slope": with_limits(row.slope, row.slope_low, row.slope_high),
            "R²": with_limits(row.r2, row.r2_low, row.r2_high),
            "interval": row.ci_method,
        }
        for row in records(fit)
    ]
    return body + cell_table(rows, RULE_KEYS, "Fits", [*RULE_KEYS, "flow", "interval"])


def horizons(found: Study, figures: FigureSet) -> str:
    """Draw Kaplan-Meier curves of the prediction horizons, and tabulate their medians."""
    body = page.paragraph(
        f"First step whose relative distance is above {100 * found.tolerance:g}%. A run that ends "
        "before is censored (a tick): its horizon is longer than the run. A flow that stopped or "
        "diverged has reached its horizon."
    )
    for _, group in cells(found.accuracy, ["workload", "criterion"]):
        body += page.figure(
            figures.horizons(group),
            "Share of runs still predicted.",
            figures.file("horizon", group),
        )
    longest = float(found.accuracy["last_step"].max())
    frame = summarize(found.accuracy, by=[*RULE_KEYS, "lr"], metrics=HORIZONS)
    rows = [
        {
            "workload": row.workload,
            "criterion": row.criterion,
            "rule": row.rule,
            "lr": f"{row.lr:g}",
            "flow": row.flow,
            "distance to": "midpoints" if row.metric == "horizon_midpoint" else "optimizer",
            "runs": f"{row.n}",
            "censored": f"{row.n_censored}",
            "median (steps)": _step_limits(row.median, row.ci_low, row.ci_high, longest),
        }
        for row in records(frame)
        if row.n
    ]
    if not rows:
        return body
    caption = "Kaplan-Meier medians; >: not reached by the end of the longest run"
    text = [*RULE_KEYS, "flow", "distance to"]
    return body + cell_table(rows, [*RULE_KEYS, "lr"], caption, text)


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
            "largest / smallest - 1": _percent(row["spread"]),
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


def cell_table(
    rows: Sequence[Mapping[str, object]], keys: Sequence[str], caption: str, text: Sequence[str]
) -> str:
    """Make a table that states keys once: in the caption if constant, else where they change."""
    table = pd.DataFrame(rows)
    constant = [k for k in keys if k != "lr" and len(table) > 1 and table[k].nunique() == 1]
    shared = " · ".join(str(table[k].iloc[0]) for k in constant)
    varying = [k for k in keys if k not in constant]
    stated = table[varying].astype("str")
    changed = (stated != stated.shift()).any(axis=1)
    for i, key in enumerate(varying):
        outer = stated[varying[: i + 1]]
        table[key] = stated[key].where((outer != outer.shift()).any(axis=1), "")
    caption = f"{caption} ({shared})" if shared else caption
    shown = table.drop(columns=constant)
    left = [name for name in text if name in shown]
    return page.table(shown, caption=caption, text=left, new_cell=changed.to_list())


def with_limits(value: float, low: float, high: float, *, digits: int = 2) -> str:
    """Format a value with its interval in small print, if it has one."""
    if not np.isfinite(low) and not np.isfinite(high):
        return significant(value, digits)
    limits = f"{significant(low, digits)}, {significant(high, digits)}"
    return f"{significant(value, digits)}<small>[{limits}]</small>"


def _legend() -> str:
    wanted = [name for name, *_ in _SUMMARY] + ["horizon", "edge_fraction"]
    pairs = [(m.label, m.meaning) for m in METRICS if m.name in wanted]
    return "<details><summary class='soft'>What the columns mean</summary>" + (
        page.definitions(pairs) + "</details>"
    )


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """Iterate over a frame's rows as named tuples."""
    yield from frame.itertuples(index=False)


def _runs(values: pd.DataFrame) -> str:
    runs, diverged, failed = (
        int(values[name].iloc[0]) for name in ("n_runs", "n_diverged", "n_failed")
    )
    lost = [f"{n} {word}" for n, word in ((diverged, "diverged"), (failed, "failed")) if n]
    small = f"<small>+ {', '.join(lost)}</small>" if lost else ""
    return f"{runs - diverged - failed}{small}"


def _horizon(values: pd.DataFrame, longest: float) -> str:
    row = values.loc["horizon"]
    median, low, high = (float(values[c]["horizon"]) for c in ("median", "ci_low", "ci_high"))
    return _step_limits(median, low, high, longest) if row["n"] else "-"


def _step_limits(median: float, low: float, high: float, longest: float) -> str:
    """Format a number of steps with its interval; infinite is beyond the longest run."""

    def text(value: float) -> str:
        return f">{longest:.0f}" if np.isinf(value) else f"{value:.0f}"

    if np.isnan(low) or np.isinf(low):
        return text(median)
    return f"{text(median)}<small>[{text(low)}, {text(high)}]</small>"


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


def _p(value: float) -> str:
    return significant(value) if not value < 1e-4 else f"{value:.0e}"


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.0f}%"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
