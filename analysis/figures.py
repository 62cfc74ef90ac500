"""Which runs to show, and writing their figures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.aggregate import cells
from analysis.plots import run_figure
from analysis.tables import Results

DPI = 160


def representative_run(accuracy: pd.DataFrame, metric: str = "final_distance") -> str | None:
    """Run at the median of the first flow's metric (central, if there), among finished runs.

    None if no finished run has the metric.

    >>> representative_run(accuracy(load(example_sweep)).query("rule == 'rmsprop'"))
    'rm0001s0'
    """
    ranked = ranked_runs(accuracy, metric)
    return None if ranked.empty else str(ranked.index[(len(ranked) - 1) // 2])


def ranked_runs(accuracy: pd.DataFrame, metric: str = "final_distance") -> pd.Series:
    """Sort run ids by the metric of the first flow (central, if there), best first."""
    flows = accuracy["flow"].astype("str")
    first = "central" if (flows == "central").any() else min(flows, default="central")
    rows = accuracy[(flows == first) & (accuracy["run_status"].astype("str") == "finished")]
    series = rows.set_index(rows["run_id"].astype("str"))[metric]
    return series.dropna().sort_values(kind="stable")


def run_title(accuracy: pd.DataFrame, run_id: str) -> str:
    """Describe a run in words, from its row of `accuracy`."""
    row = accuracy[accuracy["run_id"].astype("str") == run_id].iloc[0]
    words = [row["workload"], row["criterion"], row["rule"]]
    return " · ".join(map(str, words)) + f" · lr {row['lr']:g} · seed {row['seed']}"


def write_run_figures(
    results: Results, accuracy: pd.DataFrame, folder: Path, *, bandwidth: float
) -> list[Path]:
    """Write one PNG per workload, criterion and rule, and return the files.

    Each shows loss, eigenvalues, distance and variance of the representative run.
    """
    written = []
    for cell, group in cells(accuracy, ["workload", "criterion", "rule"]):
        run_id = representative_run(group)
        if run_id is None:
            continue
        title = f"{run_title(group, run_id)} (median of {group['run_id'].nunique()} runs)"
        figure = run_figure(results.run_steps(run_id), title, bandwidth=bandwidth)
        written.append(save(figure, folder, "run_" + "_".join(str(v) for v in cell.values())))
    return written


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write a figure as PNG at print resolution; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    figure.savefig(file, dpi=DPI)
    return file
