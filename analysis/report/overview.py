"""What was read and what a reader must know of it: in words, for the terminal and the page."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from analysis.draw import flow_styles
from analysis.infer import cell_keys
from analysis.measure import DOUBTFUL_SHARE, Metric, all_metrics
from analysis.read import ENDED, Results

_MOST_FILES = 10  # bad ones that are listed


class RunCounts(NamedTuple):
    """How many runs of a cell finished, diverged and failed, or had no derivatives."""

    finished: int
    diverged: int
    failed: int
    undefined: int


def run_counts(statistics: pd.DataFrame) -> RunCounts:
    """Count the runs of a cell, from its rows of `summarize`."""
    runs, *others = (
        int(statistics[name].iloc[0])
        for name in ("n_runs", "n_diverged", "n_failed", "n_loss_undefined")
    )
    return RunCounts(runs - sum(others), *others)


def doubt_mark(statistics: pd.DataFrame) -> str:
    """Return the sign beside a flow's numbers in a cell with doubtful runs; else nothing.

    Args:
        statistics: the flow's rows of `summarize` in the cell.
    """
    return "!" if int(statistics["n_doubtful"].iloc[0]) else ""


def doubt_legend(statistics: pd.DataFrame) -> list[str]:
    """Say what the sign means, if it stands anywhere in a table of `summarize`."""
    if not int(statistics["n_doubtful"].sum()):
        return []
    return [
        f"!: in some run more than {100 * DOUBTFUL_SHARE:g}% of the flow's rows are doubtful; why, "
        "says the column doubt of steps (docs/theory.md)."
    ]


def shown_metrics(section: str, accuracy: pd.DataFrame) -> list[Metric]:
    """Metrics that declare to be shown in a section, of those that the frame has.

    >>> [m.name for m in shown_metrics("trend", accuracy(load(example_sweep)))]
    ['final_distance', 'log_loss_error', 'sharpness_error']
    """
    return [m for m in all_metrics() if section in m.shown_in and m.name in accuracy]


def overview(results: Results, accuracy: pd.DataFrame) -> list[str]:
    """Say what was read: runs by status, flows that ended early, files left out."""
    status = results.runs["status"].astype("str").value_counts()
    parts = [f"{status.get('finished', 0)} finished"]
    parts += [f"{n} {name}" for name, n in sorted(status.items()) if name != "finished"]
    runs = "1 run" if len(results.runs) == 1 else f"{len(results.runs)} runs"
    lines = [f"{results.location}: {runs} ({', '.join(parts)})"]
    if status.get("undefined", 0):
        lines.append(
            "  undefined: at the start a derivative of the loss is not finite; no failure of a flow"
        )
    of_flows = accuracy[accuracy["run_status"].astype("str") != "undefined"]
    for ending in ENDED:
        ended = of_flows[of_flows["flow_status"].astype("str") == ending]
        for flow, rows in ended.groupby("flow", observed=True):
            label = flow_styles(accuracy)[str(flow)].label
            which = f"1 {label}" if len(rows) == 1 else f"{len(rows)} {label}s"
            lines.append(f"  {which} {ending} before the run's end: its last error counts")
    if not results.problems.empty:
        number = len(results.problems)
        files = "1 bad file was" if number == 1 else f"{number} bad files were"
        lines.append(f"  PARTIAL RESULT: {files} left out:")
        listed = results.problems.head(_MOST_FILES)
        lines += [f"    {row.file}: {row.problem}" for row in listed.itertuples()]
        if number > len(listed):
            lines.append(f"    and {number - len(listed)} more")
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
