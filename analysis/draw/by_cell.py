"""One figure over all cells of a study, however different: a line per cell, a point per run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.draw import style
from analysis.draw.notes import note_runs
from analysis.draw.panels import key_text
from analysis.infer import cell_keys, cells, check_accuracy
from analysis.measure import find_metric

_LINE = 0.26  # inches of height for a cell
_OPTIMIZER = style.FlowStyle("optimizer", style.INK, "o")
_BETWEEN = 0.5  # of the distance between cells: what the flows of one spread over


def plot_cells(
    accuracy: pd.DataFrame,
    metric: str = "final_distance",
    ax: Axes | None = None,
    *,
    by: str | Sequence[str] | None = None,
) -> Axes:
    """One metric of every finished run, a line per cell and a colour per flow; medians are large.

    Args:
        accuracy: from `analysis.accuracy`.
        metric: a column of it; its x axis is logarithmic if all values are positive and they span
            more than a factor of ten. A metric with `percent` is drawn in per cent.
        ax: to draw into; a new one is as high as the cells need.
        by: columns that make a cell and name its line; by default those of `cell_keys` that vary.

    Flows of which a run has no value there are left out of its line. Raises `ValueError` for a
    metric or a column that does not exist.

    >>> ax = plot_cells(accuracy(load(example_sweep)))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['gradient_descent, 0.01', 'gradient_descent, 0.02', 'rmsprop, 0.001']
    """
    check_accuracy(accuracy)
    chosen = find_metric(metric)
    finished = accuracy[accuracy["run_status"].astype("str") == "finished"]
    finished = finished[finished[metric].notna()]
    if chosen.per_run:
        finished = finished.drop_duplicates("run_id")
    keys = _varying(accuracy) if by is None else [by] if isinstance(by, str) else list(by)
    for name in keys:
        if name not in accuracy:
            raise ValueError(f"by must be columns of the frame, got {name!r}")
    found = list(cells(finished, keys))
    ax = style.axes_or_new(ax, (7.0, 1.1 + _LINE * max(3, len(found))))
    factor = 100.0 if chosen.percent else 1.0
    looks = style.flow_styles(accuracy)
    flows = [] if chosen.per_run else sorted(finished["flow"].astype("str").unique())
    for place, (_, rows) in enumerate(found):
        for i, flow in enumerate(flows or [""]):
            mine = rows[rows["flow"].astype("str") == flow] if flow else rows
            shift = _BETWEEN * ((i + 0.5) / max(1, len(flows)) - 0.5)
            _draw(ax, mine, factor * mine[metric], place + shift, looks.get(flow, _OPTIMIZER))
    for flow in flows:
        look = looks[flow]
        ax.plot([], [], look.marker, color=look.colour, ms=6, label=look.label)
    ax.set_yticks(range(len(found)), [_named(cell) for cell, _ in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    values = finished[metric].to_numpy(dtype=np.float64)
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        ax.set_xscale("log")
        style.plain_log_axis(ax.xaxis)
    unit = "%" if chosen.percent else chosen.unit
    label = f"{chosen.label} ({unit})" if unit else chosen.label
    style.finish(ax, xlabel=label, ylabel="", loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    if found:
        return ax
    return style.note(ax, "no finished run has this metric")


def _draw(
    ax: Axes, runs: pd.DataFrame, values: pd.Series, place: float, look: style.FlowStyle
) -> None:
    """Draw a flow's runs of a cell, and their median."""
    if runs.empty:
        return
    height = np.full(len(runs), place)
    (dots,) = ax.plot(values, height, ".", color=look.colour, ms=4, alpha=0.6)
    note_runs(dots, runs["run_id"])
    ax.plot(values.median(), place, look.marker, color=look.colour, ms=6)


def _varying(accuracy: pd.DataFrame) -> list[str]:
    """Return the keys of a cell that are not the same in all, or the rule where all are."""
    keys = [key for key in cell_keys(accuracy) if key != "flows"]
    keys = [key for key in keys if accuracy[key].nunique(dropna=False) > 1]
    return keys or ["rule"]


def _named(cell: dict[str, object]) -> str:
    return ", ".join(text for text in map(key_text, cell.values()) if text not in ("", "-"))
