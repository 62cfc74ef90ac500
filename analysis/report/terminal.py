"""The accuracy table on a terminal: a few significant figures, aligned, with a legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.draw import key_text
from analysis.infer import PLACE, cell_keys, cells, summarize
from analysis.measure import Metric
from analysis.read import Results
from analysis.report.fitting import SCREEN_ROWS, fitted, worst_cells
from analysis.report.numbers import DASH, percent, significant, steps_text
from analysis.report.overview import (
    doubt_legend,
    doubt_mark,
    overview,
    run_counts,
    shown_metrics,
    warnings_of,
)

_WIDTH = 118  # of the legend's lines


def accuracy_text(
    accuracy: pd.DataFrame, results: Results, *, bandwidth: float, tolerance: float
) -> str:
    """Write the terminal report: what was read, the table per workload and rule, the legend.

    Its columns are the metrics that are shown in a summary: first the run's, then the flows'.
    """
    lines = [*overview(results, accuracy), ""]
    if accuracy.empty:
        return "\n".join([*lines, "No run has ended yet: nothing to score."])
    whole = accuracy
    accuracy, words = fitted(whole, SCREEN_ROWS)
    keys = cell_keys(accuracy)
    headings = [k for k in keys if k != "lr"]
    metrics = shown_metrics("summary", accuracy)
    of_run, of_flow = ([m for m in metrics if m.per_run is side] for side in (True, False))
    summary = summarize(accuracy, by=keys, metrics=[m.name for m in metrics])
    longest = float(accuracy["last_step"].max())
    blocks = [
        (cell, _rows(group, of_run, of_flow, longest)) for cell, group in cells(summary, headings)
    ]
    heads = [m.short.partition(" ") for m in of_flow]  # in two lines
    left = ["lr", "runs", *(m.short for m in of_run), "flow"]
    heading = [
        [*("" for _ in left), *(top if below else "" for top, _, below in heads)],
        [*left, *(below or top for top, _, below in heads)],
    ]
    widths = _widths([*heading, *(row for _, rows in blocks for row in rows)])
    rule = "  " + "─" * (sum(widths) + 2 * (len(widths) - 1))
    place = left.index("flow")
    for cell, rows in blocks:
        title = " · ".join(_keyword(k, v) for k, v in cell.items() if key_text(v) != DASH)
        table = [*_aligned(heading, widths, place), rule, *_aligned(rows, widths, place)]
        lines += [title, *table, ""]
    if words:
        lines += [*words, *worst_cells(accuracy), ""]
    lines += [*_legend(metrics, bandwidth, tolerance), *doubt_legend(summary)]
    return "\n".join(lines + warnings_of(whole, bandwidth))


def _rows(
    summary: pd.DataFrame, of_run: Sequence[Metric], of_flow: Sequence[Metric], longest: float
) -> list[list[str]]:
    """One line per learning rate and flow; what the flows share is on the first of them."""
    body = []
    for here, group in cells(summary, ["lr"]):
        for i, (flow, rows) in enumerate(cells(group, ["flow"])):
            values = rows.set_index("metric")
            left = [
                key_text(here["lr"]),
                _runs(values),
                *(_number(m, values, longest) for m in of_run),
            ]
            if i > 0:
                left = ["" for _ in left]
            mark = doubt_mark(values)
            texts = [_number(m, values, longest) for m in of_flow]
            numbers = [text if text == DASH else text + mark for text in texts]
            body.append([*left, str(flow["flow"]), *numbers])
    return body


def _runs(values: pd.DataFrame) -> str:
    counts = run_counts(values)
    lost = counts.diverged + counts.failed + counts.undefined
    return f"{counts.finished}+{lost}x" if lost else f"{counts.finished}"


def _number(metric: Metric, values: pd.DataFrame, longest: float) -> str:
    if metric.censored:
        return steps_text(float(values["median"][metric.name]), longest)
    mean = float(values["mean"][metric.name])
    if metric.percent and metric.per_run:
        return percent(mean)
    bound = "≥" if metric.is_error and values["n_censored"][metric.name] > 0 else ""
    return bound + significant(100 * mean if metric.percent else mean)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(text) for text in column) for column in zip(*rows, strict=True)]


def _aligned(rows: Sequence[Sequence[str]], widths: Sequence[int], left: int) -> list[str]:
    """Lines of columns set right, but for the one at the place `left`."""
    return [
        "  "
        + "  ".join(
            text.ljust(width) if i == left else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _keyword(name: str, value: Any) -> str:
    if name in PLACE:
        return str(value)
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


def _legend(metrics: Sequence[Metric], bandwidth: float, tolerance: float) -> list[str]:
    """Say what the columns mean, by the metrics' own declarations."""
    unlike = [m.short for m in metrics if not m.is_error and not m.per_run]
    but = f", but for {', '.join(unlike)}" if unlike else ""
    lines = [f"Means over the finished runs (seeds) of a cell; smaller is better{but}."]
    names = [
        (
            "runs",
            "Finished runs; +nx: n more that diverged, failed or are undefined, not averaged.",
        )
    ]
    names += [(m.short, m.meaning) for m in sorted(metrics, key=lambda m: not m.per_run)]
    width = max(len(name) for name, _ in names)
    for name, text in names:
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=f"  {name.ljust(width)}  ",
            subsequent_indent=" " * (width + 4),
        )  # fmt: skip
    lines.append("≥: in some run the flow ended first; from then on its last error counts.")
    if any(m.censored for m in metrics):
        lines.append(
            f"Horizons: Kaplan-Meier medians, with a tolerance of {100 * tolerance:g}%; >: most "
            "runs end before."
        )
    lines += [
        "Time averages, of optimizer and prediction alike: Gaussian kernel, bandwidth "
        f"{bandwidth:g} steps; steps within",
        f"{4 * bandwidth:g} of either end are left out. {DASH}: not defined.",
    ]
    return lines
