"""The accuracy table on a terminal: a few significant figures, aligned, with a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.aggregate import cell_keys, cells, summarize
from analysis.columns import HORIZONS
from analysis.panels import key_text
from analysis.tables import Results

DASH = "-"
_FLOW_COLUMN = 3


@dataclass(frozen=True)
class _Field:
    """A column of the table: heading (two lines), metric, factor on its value, legend."""

    top: str
    bottom: str
    metric: str
    factor: float
    legend: str


_FIELDS = (
    _Field("distance", "final %", "final_distance", 100, "|w_t - w_flow| / |w_t - w_0| at the end"),
    _Field("distance", "mean %", "mean_distance", 100, "the same, mean over all steps"),
    _Field(
        "loss", "error", "log_loss_error", 1,
        "mean |log predicted - log time-averaged loss|: 0.01 is about 1%",
    ),
    _Field(
        "sharp", "error", "sharpness_error", 1,
        "mean |flow's - time-averaged effective sharpness|: the edge is at 2",
    ),
    _Field(
        "var", "error", "variance_error", 1,
        "mean error of the predicted oscillation variance, relative to its mean",
    ),
    _Field(
        "|g|²", "error", "grad_norm_error", 1,
        "mean |log predicted - log time-averaged squared gradient norm|",
    ),
    _Field("ν", "error", "nu_error", 1, "mean relative error of the second moment"),
    _Field(
        "horizon", "lasting", "horizon_lasting", 1,
        "median step from which distance stays above {tolerance:g}%; >: most runs end below",
    ),
)  # fmt: skip


def significant(value: float, digits: int = 2) -> str:
    """Format a number with this many significant figures, never more exact than it looks.

    >>> [significant(v) for v in (0.01234, 3.21, 456.0, 0.0, 2.5e-7, float("nan"))]
    ['0.012', '3.2', '456', '0', '2.5e-07', '-']
    """
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    rounded = f"{value:.{digits - 1}e}"
    magnitude = int(rounded.partition("e")[2])
    if magnitude < -4 or magnitude > 6:
        return rounded
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def accuracy_text(
    accuracy: pd.DataFrame, results: Results, *, bandwidth: float, tolerance: float
) -> str:
    """Write the terminal report: what was read, the table per workload and rule, the legend."""
    lines = [*overview(results, accuracy), ""]
    if accuracy.empty:
        return "\n".join([*lines, "No run has ended yet: nothing to score."])
    keys = cell_keys(accuracy)
    headings = [k for k in keys if k != "lr"]
    wanted = [f.metric for f in _FIELDS] + ["edge_fraction"]
    summary = summarize(accuracy, by=keys, metrics=wanted)
    longest = accuracy["last_step"].max()
    blocks = [(cell, _rows(group, longest)) for cell, group in cells(summary, headings)]
    heading = [["", "", "", "", *(f.top for f in _FIELDS)]]
    heading.append(["lr", "runs", "at edge", "flow", *(f.bottom for f in _FIELDS)])
    widths = _widths([*heading, *(row for _, rows in blocks for row in rows)])
    rule = "  " + "─" * (sum(widths) + 2 * (len(widths) - 1))
    for cell, rows in blocks:
        title = " · ".join(_keyword(k, v) for k, v in cell.items() if key_text(v) != DASH)
        lines += [title, *_aligned(heading, widths), rule, *_aligned(rows, widths), ""]
    lines += _legend(bandwidth, tolerance)
    return "\n".join(lines + warnings_of(accuracy, bandwidth))


def overview(results: Results, accuracy: pd.DataFrame) -> list[str]:
    """Say what was read: runs by status, flows that ended early, files left out."""
    status = results.runs["status"].astype("str").value_counts()
    parts = [f"{status.get('finished', 0)} finished"]
    parts += [f"{n} {name}" for name, n in sorted(status.items()) if name != "finished"]
    runs = "1 run" if len(results.runs) == 1 else f"{len(results.runs)} runs"
    lines = [f"{results.location}: {runs} ({', '.join(parts)})"]
    for ending in ("stopped", "diverged"):
        ended = accuracy[accuracy["flow_status"].astype("str") == ending]
        for flow, rows in ended.groupby("flow", observed=True):
            which = f"1 {flow} flow" if len(rows) == 1 else f"{len(rows)} {flow} flows"
            lines.append(f"  {which} {ending} before the run's end: scored up to there")
    if not results.problems.empty:
        number = len(results.problems)
        files = "1 bad file was" if number == 1 else f"{number} bad files were"
        lines.append(f"  PARTIAL RESULT: {files} left out:")
        lines += [f"    {row.file}: {row.problem}" for row in results.problems.itertuples()]
    return lines


def _rows(summary: pd.DataFrame, longest: float) -> list[list[str]]:
    """One line per learning rate and flow; what the flows share is on the first of them."""
    body = []
    for here, group in cells(summary, ["lr"]):
        for i, (flow, rows) in enumerate(cells(group, ["flow"])):
            values = rows.set_index("metric")
            left = _left(here["lr"], values) if i == 0 else ["", "", ""]
            numbers = [_number(f, values, longest) for f in _FIELDS]
            body.append([*left, str(flow["flow"]), *numbers])
    return body


def _left(lr: float, values: pd.DataFrame) -> list[str]:
    runs, diverged, failed = (
        int(values[name].iloc[0]) for name in ("n_runs", "n_diverged", "n_failed")
    )
    lost = diverged + failed
    edge = float(values["mean"]["edge_fraction"])
    return [
        f"{lr:g}",
        f"{runs - lost}+{lost}x" if lost else f"{runs}",
        DASH if math.isnan(edge) else f"{100 * edge:.0f}%",
    ]


def _number(f: _Field, values: pd.DataFrame, longest: float) -> str:
    if f.metric in HORIZONS:
        median = float(values["median"][f.metric])
        if math.isinf(median):
            return f">{longest:.0f}"
        return DASH if math.isnan(median) else f"{median:.0f}"
    return significant(f.factor * float(values["mean"][f.metric]))


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(text) for text in column) for column in zip(*rows, strict=True)]


def _aligned(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """Lines of right-aligned columns, but for the flow's name."""
    return [
        "  "
        + "  ".join(
            text.ljust(width) if i == _FLOW_COLUMN else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _keyword(name: str, value: Any) -> str:
    if name in ("workload", "criterion", "rule"):
        return str(value)
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


def _legend(bandwidth: float, tolerance: float) -> list[str]:
    lines = [
        "Means over the finished runs (seeds) of a cell; smaller is better but for the horizon."
    ]
    names = [(f"{f.top} {f.bottom}", f.legend.format(tolerance=100 * tolerance)) for f in _FIELDS]
    names.insert(0, ("runs", "finished runs; +nx: n more that diverged or failed, not averaged"))
    names.insert(1, ("at edge", "steps whose time-averaged effective sharpness is at least 1.95"))
    width = max(len(name) for name, _ in names)
    lines += [f"  {name.ljust(width)}  {text}" for name, text in names]
    lines.append(
        f"Time averages: Gaussian kernel, bandwidth {bandwidth:g} steps; steps within "
        f"{4 * bandwidth:g} of either end are left out. {DASH}: not defined."
    )
    return lines


def warnings_of(accuracy: pd.DataFrame, bandwidth: float) -> list[str]:
    """Say what a reader of the table must know: short runs, one seed, unconverged solvers."""
    lines = []
    finished = accuracy[accuracy["run_status"].astype("str") == "finished"]
    if finished.empty:
        lines.append("No run finished, so there is nothing to average; see status_detail in runs.")
    elif finished["log_loss_error"].isna().all():
        lines += _no_loss_error(finished, bandwidth)
    per_cell = accuracy.groupby(cell_keys(accuracy), observed=True, dropna=False)["seed"].nunique()
    if per_cell.max() == 1:
        lines.append("One seed per cell: the table has no spread over seeds, and no intervals.")
    doubtful = accuracy[accuracy["unconverged_fraction"] > 0.01]
    if not doubtful.empty:
        lines.append(
            f"In {len(doubtful)} of {len(accuracy)} run × flow pairs a solver did not converge on "
            "more than 1% of the steps (column unconverged_fraction)."
        )
    return lines


def _no_loss_error(finished: pd.DataFrame, bandwidth: float) -> list[str]:
    """Say why no run has an error of its loss; nothing where the flows ended too early for one."""
    if finished["steps"].max() < 8 * bandwidth:
        return [
            f"Runs are shorter than the averaging window of {8 * bandwidth:g} steps, so errors "
            "against time averages are undefined: try a smaller --bandwidth."
        ]
    if finished["sharpness_error"].notna().any():  # so there are time averages
        return ["The loss is not positive, so log(loss) errors are undefined."]
    return []
