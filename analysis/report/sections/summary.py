"""Section of the summary table: per rule, hyperparameters and flow, means with 95% intervals."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.draw import key_text
from analysis.infer import cell_keys, cells, summarize
from analysis.measure import Metric, Study
from analysis.read import hyperparameters_of
from analysis.report import page
from analysis.report.cells import cell_table
from analysis.report.fitting import PAGE_ROWS, fitted, worst_cells
from analysis.report.numbers import DASH, percent, significant, step_limits, with_limits
from analysis.report.overview import doubt_legend, doubt_mark, run_counts, shown_metrics


def summary(found: Study) -> str:
    """Build the table of all metrics that are shown in a summary, and its legend."""
    accuracy, words = fitted(found.accuracy, PAGE_ROWS)
    keys, metrics = cell_keys(accuracy), shown_metrics("summary", accuracy)
    of_run, of_flow = ([m for m in metrics if m.per_run is side] for side in (True, False))
    frame = summarize(accuracy, by=keys, metrics=[m.name for m in metrics])
    longest = float(accuracy["last_step"].max())
    rows: list[dict[str, str]] = []
    for cell, group in cells(frame, [*keys, "flow"]):
        values = group.set_index("metric")
        row: dict[str, str] = {key: key_text(cell[key]) for key in keys}
        row |= {"runs": _runs(values)} | {m.short: _of_run(m, values) for m in of_run}
        row["flow"] = str(cell["flow"])
        mark = doubt_mark(values)
        rows.append(row | {m.short: _marked(_of_flow(m, values, longest), mark) for m in of_flow})
    caption = (
        "Mean over the finished runs, and the mean's 95% interval below it; of horizons, the "
        "Kaplan-Meier median. ≥: in some run the flow ended first, and its last error counts"
    )
    shown = [k for k in keys if k != "lr"]
    table = cell_table(rows, [*shown, "lr"], caption, ["flow", *shown])
    said = [*words, *worst_cells(accuracy)] if words else []
    said += doubt_legend(frame)
    body = "".join(page.paragraph(line) for line in said)
    return body + table + _legend(metrics, accuracy, keys)


def _of_run(metric: Metric, values: pd.DataFrame) -> str:
    mean = float(values["mean"][metric.name])
    return percent(mean) if metric.percent else significant(mean)


def _of_flow(metric: Metric, values: pd.DataFrame, longest: float) -> str:
    statistics = ("median" if metric.censored else "mean", "ci_low", "ci_high")
    middle, low, high = (float(values[name][metric.name]) for name in statistics)
    if metric.censored:
        known = values["n"][metric.name] > 0
        return step_limits(middle, low, high, longest) if known else DASH
    factor = 100.0 if metric.percent else 1.0
    text = with_limits(factor * middle, factor * low, factor * high)
    if metric.is_error and values["n_censored"][metric.name] > 0:
        return page.Html(f"≥{text}")
    return text


def _marked(text: str, mark: str) -> str:
    """Put the sign of doubt before what is set below a number."""
    return page.Html(f"{mark} {text}") if mark and text != DASH else text


def _runs(values: pd.DataFrame) -> str:
    counts = run_counts(values)
    lost = [f"{n} {word}" for word, n in counts._asdict().items() if n and word != "finished"]
    return (
        page.with_small(str(counts.finished), f"+ {', '.join(lost)}")
        if lost
        else str(counts.finished)
    )


def _legend(metrics: Sequence[Metric], accuracy: pd.DataFrame, keys: Sequence[str]) -> str:
    facts = hyperparameters_of(accuracy)
    pairs = [(key, facts[key]["meaning"]) for key in keys if "meaning" in facts.get(key, {})]
    pairs += [(m.short, m.meaning) for m in metrics]
    return "<details><summary class='soft'>What the columns mean</summary>" + (
        page.definitions(pairs) + "</details>"
    )
