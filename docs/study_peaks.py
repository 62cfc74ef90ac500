"""A study's metric by how far its optimizers pass the edge before their oscillation turns them."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from page_tables import markdown

from analysis.draw import style
from analysis.measure import find_metric
from analysis.report.numbers import significant

FIGURES = Path(__file__).resolve().parent / "figures"
PEAKS = (0.0, 3.0, 4.0, 5.0, 8.0, np.inf)
"""Classes of the largest effective sharpness that an optimizer passes through."""
NOT_ADAPTING = "gradient_descent"


def peaks(scores: pd.DataFrame, metric: str) -> str:
    """Return a metric of the central flow by the largest effective sharpness on the way.

    Of gradient descent: a rule that adapts turns a large sharpness into a small step soon after.
    The rank correlation (Spearman) of the two over all runs is in the last line.
    """
    shown, runs = find_metric(metric), _central(scores)
    here = runs[runs["rule"] == NOT_ADAPTING]
    rows = []
    for low, high in itertools.pairwise(PEAKS):
        found = here.loc[here["peak_sharpness"].between(low, high, inclusive="left"), metric]
        middle, *ends = (
            significant(100 * x if shown.percent else x)
            for x in (found.median(), found.min(), found.max())
        )
        name = f"above {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"
        name = f"below {high:g}" if low == 0 else name
        rows.append([name, str(len(found)), f"{middle} ({' to '.join(ends)})"])
    unit = " %" if shown.percent else ""
    made = markdown(["peak", "runs", f"{shown.label}{unit}, median (range)"], rows, 1)
    others = runs[runs["rule"] != NOT_ADAPTING]
    correlations = []
    for part in (here, others):
        rho = float(part["peak_sharpness"].corr(part[metric], method="spearman"))
        correlations.append(f"{rho:.2f} over {len(part)} runs")
    return (
        f"{made}\n\nRank correlation of the two: {correlations[0]}; of the rules that adapt, "
        f"{correlations[1]}."
    )


def _central(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[(scores["flow"] == "central") & (scores["run_status"] == "finished")]


def draw_peaks(scores: pd.DataFrame, name: str, metric: str) -> Path:
    """Draw a metric of the central flow against the peak of every run; return the file."""
    mpl.use("Agg")
    shown, runs = find_metric(metric), _central(scores)
    _, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for place, (rule, some) in enumerate(runs.groupby("rule", sort=True)):
        colour, marker = style.DIRECTIONS[place % len(style.DIRECTIONS)], "osD^v"[place % 5]
        values = some[metric] * (100 if shown.percent else 1)
        ax.scatter(some["peak_sharpness"], values, s=22, marker=marker, color=colour, label=rule)
    ax.axvline(2.0, color=style.INK, lw=0.9, ls="--")
    ax.set_xscale("log")
    ax.set_yscale("log")
    style.plain_log_axis(ax.xaxis)
    unit = ", %" if shown.percent else ""
    style.finish(
        ax,
        xlabel="largest effective sharpness of the optimizer (edge of stability: dashed)",
        ylabel=f"{shown.label}, central flow{unit}",
    )
    file = FIGURES / f"{name}-{metric}-peaks.png"
    plt.savefig(file, dpi=100)
    plt.close()
    return file
