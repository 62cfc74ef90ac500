"""Whole figures: which runs to show, how panels are laid out, what files are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.charts import chart_json
from analysis.draw.many_runs import (
    plot_accuracy,
    plot_covariance,
    plot_distance_spread,
    plot_horizons,
    plot_profiles,
    plot_skill,
)
from analysis.draw.one_run import plot_distance, plot_loss, plot_sharpness, plot_variance
from analysis.draw.panels import Panel, key_text, symbols_of, titles
from analysis.draw.style import put_title
from analysis.infer import Ranking, main_flow, panel_keys
from analysis.read import Results, run_trace

MOST_CHART_BYTES = 900_000  # of the data of a report's charts, a third of what a page may have


def ranked_runs(accuracy: pd.DataFrame) -> pd.Series:
    """Sort run ids by the final distance of the main flow (central, if there), best first."""
    is_main = accuracy["flow"].astype("str") == main_flow(accuracy)
    rows = accuracy[is_main & (accuracy["run_status"].astype("str") == "finished")]
    series = rows.set_index(rows["run_id"].astype("str"))["final_distance"]
    return series.dropna().sort_values(kind="stable")


def run_title(accuracy: pd.DataFrame, run_id: str) -> str:
    """Describe a run in words, from its row of `accuracy`, and as the rows of others need it."""
    keys = panel_keys(accuracy)
    row = accuracy[[*keys, "lr", "seed"]].iloc[np.flatnonzero(accuracy["run_id"] == run_id)[0]]
    # Once for each configuration: runs of it that differ in their seed have the same title.
    records: list[Any] = accuracy[keys].drop_duplicates().to_dict("records")
    mine = [key_text(row[k]) for k in keys]
    place = [[key_text(one[k]) for k in keys] for one in records].index(mine)
    symbols = symbols_of(accuracy)
    title = titles(records, symbols)[place]
    return f"{title}, {symbols.get('lr', 'lr')} {key_text(row['lr'])}, seed {row['seed']}"


class FigureSet:
    """Figures of one report, and the files that they are kept in.

    Args:
        folder: where the files go; names tell the figure and the cell.
        kind: "png", or "pdf" or "svg" for print.
        most_panels: of one figure; more of them make a further figure.
        linked: runs that points of charts lead to, in the order of their table.
    """

    def __init__(
        self, folder: Path, kind: str = "png", *, most_panels: int = 4, linked: Sequence[str] = ()
    ) -> None:
        self.folder, self.most_panels = folder, most_panels
        self.ending = f".{kind}"
        self._linked = {run: place for place, run in enumerate(linked)}
        self._left = MOST_CHART_BYTES
        self.files: list[Path] = []
        self._made: Counter[str] = Counter()

    def file(self, kind: str, rows: pd.DataFrame) -> Path:
        """Name the file of a figure after the workload, criterion and rule of its rows.

        Figures that agree in these are numbered.
        """
        names = [kind]
        for key in ("workload", "criterion", "rule"):
            values = rows[key].astype("str").unique()
            if len(values) == 1:
                names.append(re.sub(r"[^A-Za-z0-9.-]+", "_", values[0]))
        name = "-".join(names)
        self._made[name] += 1
        number = f"-{self._made[name]}" if self._made[name] > 1 else ""
        self.files.append(self.folder / f"{name}{number}{self.ending}")
        return self.files[-1]

    def chart(self, figure: Figure) -> str:
        """Return a figure as data (`chart_json`); nothing once all of a report would be heavy."""
        text = chart_json(figure, self._linked)
        size = len(text.encode())
        if size > self._left:
            return ""
        self._left -= size
        return text

    def against(
        self, panels: Sequence[Panel], accuracy: pd.DataFrame, metrics: Sequence[str], x: str = "lr"
    ) -> Figure:
        """Draw metrics against x: a row per metric, a column per panel, scaled to all runs."""
        figure, axes = _panels(
            len(metrics), len(panels), (3.7, 2.6), share_x="col", share_y="row", below=0.16
        )
        for j, (title, rows) in enumerate(panels):
            for i, metric in enumerate(metrics):
                ax = plot_accuracy(rows, metric, axes[i, j], x=x)
                _inner(ax, top=i == 0, bottom=i == len(metrics) - 1, left=j == 0, title=title)
                if i > 0:
                    _drop_legend(ax)
        for i, metric in enumerate(metrics):
            _share_limits(axes[i], accuracy, metric)
        return figure

    def distances(self, panels: Sequence[Panel], most: int) -> Figure:
        """Draw a row per panel, a column per learning rate (at most `most`, evenly chosen)."""
        distinct = [rows["lr"].drop_duplicates().sort_values().tolist() for _, rows in panels]
        chosen = [_spread(values, most) for values in distinct]
        width = max(len(c) for c in chosen)
        figure, axes = _panels(len(panels), width, (3.4, 2.1), left=1.05, share_y=True)
        for i, ((title, rows), rates) in enumerate(zip(panels, chosen, strict=True)):
            for j in range(width):
                if j >= len(rates):
                    axes[i, j].set_visible(False)
                    continue
                ax = plot_distance_spread(rows[rows["lr"] == rates[j]], axes[i, j])
                last = i == len(panels) - 1
                lr = f"{symbols_of(rows).get('lr', 'lr')} {key_text(rates[j])}"
                _inner(ax, top=True, bottom=last, left=j == 0, title=f"{title}, {lr}")
        return figure

    def runs(self, results: Results, titles: Mapping[str, str], bandwidth: float) -> Figure:
        """Draw loss above curvature, a column per run."""
        shown = {run_id: results.run_steps(run_id) for run_id in titles}
        flows = {flow for steps in shown.values() for flow in run_trace(steps).flows}
        lines = -(-(2 + 2 * len(flows)) // 3)  # of a legend in three columns
        foot = 0.6 + 0.19 * max(0, lines - 2)
        figure, axes = _panels(2, len(titles), (3.6, 2.5), left=0.95, right=0.75, foot=foot)
        for j, (run_id, title) in enumerate(titles.items()):
            steps = shown[run_id]
            _put_fitting_title(plot_loss(steps, axes[0, j], bandwidth=bandwidth), title)
            put_title(plot_sharpness(steps, axes[1, j], bandwidth=bandwidth), "")
            for ax in axes[:, j]:
                _drop_legend(ax)
                if j > 0:
                    ax.set_ylabel("")
            if j < len(titles) - 1:
                for words in axes[1, j].texts:  # the edge is named once, in the right margin
                    words.remove()
        handles: dict[str, Artist] = {}  # of all columns: in some, a flow has no prediction to show
        for ax in axes[0]:
            found, labels = ax.get_legend_handles_labels()
            handles |= {label: artist for artist, label in zip(found, labels, strict=True)}
        figure.legend(
            handles.values(), handles.keys(), loc="lower center", ncols=3, fontsize=9, frameon=False
        )  # fmt: skip
        return figure

    def one_run(self, results: Results, run_id: str, bandwidth: float) -> Figure:
        """Draw distance and variance of one run."""
        steps = results.run_steps(run_id)
        figure, axes = _panels(1, 2, (5.2, 2.9), left=1.05)
        plot_distance(steps, axes[0, 0])
        plot_variance(steps, axes[0, 1], bandwidth=bandwidth)
        return figure

    def covariances(self, panels: Sequence[Panel]) -> Figure:
        """Draw measured against predicted variance."""
        figure, axes = _panels(1, len(panels), (3.4, 3.4), left=0.95, head=0.55)
        for j, (title, rows) in enumerate(panels):
            ax = plot_covariance(rows, axes[0, j])
            put_title(ax, f"{title}\n{ax.get_title(loc='left')}", fontsize=9)
            _inner(ax, top=True, bottom=True, left=j == 0)
        return figure

    def profiles(self, ranking: Ranking) -> Figure:
        """Draw the performance profiles of one ranking."""
        figure, axes = _panels(1, 1, (5.4, 3.0))
        plot_profiles(ranking, axes[0, 0])
        return figure

    def skills(self, table: pd.DataFrame, phases: Sequence[str]) -> Figure:
        """Draw skill against lead time: a row per reference, a column per phase."""
        figure, axes = _panels(2, len(phases), (3.7, 2.4), share_x="col", below=0.3, left=1.05)
        for i, reference in enumerate(("stable", "persistence")):
            for j, phase in enumerate(phases):
                ax = plot_skill(table, axes[i, j], reference=reference, phase=phase)
                _inner(ax, top=i == 0, bottom=i == 1, left=j == 0, title=phase)
        return figure

    def horizons(self, panels: Sequence[Panel]) -> Figure:
        """Draw Kaplan-Meier curves."""
        figure, axes = _panels(1, len(panels), (3.7, 2.4), share_x=True, share_y=True)
        for j, (title, rows) in enumerate(panels):
            ax = plot_horizons(rows, axes[0, j])
            _inner(ax, top=True, bottom=True, left=j == 0, title=title)
        return figure


def _panels(
    rows: int,
    columns: int,
    size: tuple[float, float],
    *,
    share_x: bool | str = False,
    share_y: bool | str = False,
    left: float = 0.75,
    right: float = 0.2,
    head: float = 0.35,
    below: float = 0.6,
    foot: float = 0.0,
) -> tuple[Figure, np.ndarray]:
    """Make a figure of equal panels of this size, with margins fixed in inches.

    Fixed, because matplotlib's own layout engines draw everything twice, which would be half of
    the report's time. `left` is for y labels, also between panels that share none, `right` for
    notes, `head` for titles, `below` under each panel, `foot` for a legend.
    """
    width, height = size
    gap, bottom = 0.2 if share_y else left, 0.5 + foot
    whole = np.array([left + columns * width + (columns - 1) * gap + right,
                      head + rows * height + (rows - 1) * below + bottom])  # fmt: skip
    figure = Figure(figsize=tuple(whole))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)  # type: ignore[arg-type]
    figure.subplots_adjust(
        left=left / whole[0], right=1 - right / whole[0], wspace=gap / width,
        bottom=bottom / whole[1], top=1 - head / whole[1], hspace=below / height,
    )  # fmt: skip
    return figure, axes


def _drop_legend(ax: Axes) -> None:
    if (legend := ax.get_legend()) is not None:
        legend.remove()


def _inner(ax: Axes, *, top: bool, bottom: bool, left: bool, title: str | None = None) -> None:
    """Keep titles on top, x labels at the bottom, y labels and the legend on the left."""
    if title is not None:
        _put_fitting_title(ax, title if top else "")
    if not bottom:
        ax.set_xlabel("")
    if not left:
        ax.set_ylabel("")
        _drop_legend(ax)


def _put_fitting_title(ax: Axes, title: str) -> None:
    """Set a long title smaller, so that it stays over its panel."""
    put_title(ax, title, fontsize=10 * min(1.0, 44 / max(1, len(title))))


def _share_limits(row: np.ndarray, accuracy: pd.DataFrame, metric: str) -> None:
    """Let panels of one row show all their runs on one scale."""
    finished = accuracy[accuracy["run_status"].astype("str") == "finished"]
    values = finished[metric].dropna().to_numpy()
    if len(values) and np.all(values > 0):
        for ax in row:
            ax.set_ylim(values.min() / 1.6, values.max() * 1.6)


def _spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of sorted values, evenly chosen, both ends among them."""
    if len(values) <= most:
        return list(values)
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]
