"""A figure as data, for charts that a browser draws: the same lines, dots, scales and words.

What a reader hovers over and what is printed cannot disagree, since the one is read off the other.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from analysis.draw.notes import notes_of

MOST_POINTS = 100  # of a line
_PAPER = "#15181d"  # of a dark page
_CONTRAST = 4.5  # that a line needs on it


def chart_json(figure: Figure, linked: Mapping[str, int]) -> str:
    """Write the panels of a figure as JSON, to stand in a page.

    Args:
        figure: drawn by functions of this room.
        linked: number of each run that a point can lead to. Points of other runs are left out;
            lines and bands are of all.

    It has the number of `columns` and the `panels`. Each panel has a `title`, axes `x` and `y`
    (`label`, `scale`, `domain`, and `ticks` where these are chosen), and `series`: `name`,
    `colour` on a light and a dark page, `dash`, `thin`, `symbol`, and the columns `x`, `y`, with
    `low` and `high` of a band or `run` of dots.
    """
    shown = [ax for ax in figure.axes if ax.get_visible()]
    places = [ax.get_subplotspec() for ax in shown]
    chart = {
        "columns": 1 + max((p.colspan.start for p in places if p is not None), default=0),
        "panels": [_panel(ax, figure, linked) for ax in shown],
    }
    text = json.dumps(chart, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")  # nothing may end the script that it stands in


def on_dark(colour: str) -> str:
    """Return a colour's variant for a dark page: the same hue, light enough; greys are mirrored.

    >>> on_dark("#222222"), on_dark("#D55E00"), on_dark("#332288")
    ('#dddddd', '#d55e00', '#8372dc')
    """
    red, green, blue = to_rgb(colour)
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    if saturation < 0.05:
        light = 1 - light
    while _contrast(found := colorsys.hls_to_rgb(hue, light, saturation), _PAPER) < _CONTRAST:
        light += 0.01
    return to_hex(found)


def _panel(ax: Axes, figure: Figure, linked: Mapping[str, int]) -> dict[str, Any]:
    """Describe a panel; it stands alone, so it takes the words that its neighbours show for it."""
    top, bottom, left = _neighbours(ax, figure)
    panel: dict[str, Any] = {
        "title": ax.get_title(loc="left") or top.get_title(loc="left"),
        "x": _axis(ax, "x", bottom),
        "y": _axis(ax, "y", left),
        "series": _all_series(ax, linked),
    }
    if not ax.get_lines():
        panel["note"] = " ".join(words.get_text() for words in ax.texts)
    return panel


def _neighbours(ax: Axes, figure: Figure) -> tuple[Axes, Axes, Axes]:
    """Find the panels on top and at the bottom of its column, and at the left of its row."""
    places = [(other, other.get_subplotspec()) for other in figure.axes if other.get_visible()]
    mine = ax.get_subplotspec()
    if mine is None:
        return ax, ax, ax
    column = [o for o, p in places if p is not None and p.colspan.start == mine.colspan.start]
    row = [o for o, p in places if p is not None and p.rowspan.start == mine.rowspan.start]
    return column[0], column[-1], row[0]


def _axis(ax: Axes, which: str, labelled: Axes) -> dict[str, Any]:
    label = getattr(ax, f"get_{which}label")() or getattr(labelled, f"get_{which}label")()
    axis = ax.xaxis if which == "x" else ax.yaxis
    scale = {"log": "log", "function": "decay"}.get(axis.get_scale(), "linear")
    limits = ax.get_xlim() if which == "x" else ax.get_ylim()
    found: dict[str, Any] = {
        "label": " ".join(line for line in label.splitlines() if "$" not in line),
        "scale": scale,
        "domain": [_short(v, 6) for v in limits],
    }
    if isinstance(axis.get_major_locator(), FixedLocator):
        places = axis.get_majorticklocs().tolist()
        words = axis.get_major_formatter().format_ticks(places)
        found["ticks"] = [[_short(at, 6), word] for at, word in zip(places, words, strict=True)]
    return found


def _all_series(ax: Axes, linked: Mapping[str, int]) -> list[dict[str, Any]]:
    found, names = [], dict[str, str]()
    for line in ax.get_lines():
        colour, label = to_hex(line.get_color()), str(line.get_label())
        if not label.startswith("_"):
            names[colour] = label
        look = {"name": names.get(colour, ""), "colour": [colour, on_dark(colour)]}
        if line.get_transform() != ax.transData:  # a rule across the axes
            words = " ".join(text.get_text() for text in ax.texts).replace("\n", " ")
            level = _short(float(np.ravel(line.get_ydata())[0]), 4)
            found.append(look | {"name": words, "rule": level})
        elif series := _series(ax, line, linked):
            found.append(look | series)
    return found


def _series(ax: Axes, line: Line2D, linked: Mapping[str, int]) -> dict[str, Any]:
    x, y = (np.asarray(v, dtype=np.float64) for v in line.get_data(orig=False))
    notes, dots = notes_of(line), line.get_linestyle() == "None"
    known = np.isfinite(x) & np.isfinite(y)
    if ax.get_xscale() == "log":
        known &= x > 0
    if ax.get_yscale() == "log":
        known &= y > 0
    if notes.runs is not None:
        known &= np.array([run in linked for run in notes.runs], dtype=bool)
    rows = np.flatnonzero(known)
    if not dots:
        rows = rows[_worth_keeping(y[rows])]
    if not len(rows):
        return {}
    series: dict[str, Any] = {"x": _shorts(x[rows], 6), "y": _shorts(y[rows], 4)}
    if dots:
        series["dots"] = True
    elif (dash := getattr(line, "_unscaled_dash_pattern", (0, None))[1]) is not None:
        series["dash"] = [round(2 * float(length), 1) for length in dash]
    if line.get_marker() not in ("None", "", ".", None):
        series["symbol"] = str(line.get_marker())
    if not dots and line.get_linewidth() < 1:
        series["thin"] = True
    if line.get_drawstyle() == "steps-post":
        series["step"] = True
    if notes.runs is not None:
        series["run"] = [linked[notes.runs[i]] for i in rows]
    if notes.low is not None and notes.high is not None and np.isfinite(notes.low[rows]).any():
        series |= {"low": _shorts(notes.low[rows], 4), "high": _shorts(notes.high[rows], 4)}
    return series


def _worth_keeping(y: NDArray[np.float64]) -> NDArray[np.intp]:
    """Choose at most `MOST_POINTS` of a line's points, so that it keeps its extremes.

    Of each of equally long stretches its least and largest value: every n-th point of a line
    that oscillates would be a smooth line.
    """
    if len(y) <= MOST_POINTS:
        return np.arange(len(y))
    kept = {0, len(y) - 1}
    for rows in np.array_split(np.arange(len(y)), MOST_POINTS // 2 - 1):
        kept |= {int(rows[np.argmin(y[rows])]), int(rows[np.argmax(y[rows])])}
    return np.array(sorted(kept))


def _shorts(values: NDArray[np.float64], digits: int) -> list[float | None]:
    return [_short(v, digits) for v in values.tolist()]


def _short(value: float, digits: int) -> float | None:
    """Round a number to as few characters as say it; None if it is none."""
    if not np.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e6 else rounded


def _contrast(colour: tuple[float, float, float], paper: str) -> float:
    """Contrast of two colours (WCAG 2): from 1, the same, to 21, black and white."""
    lights = sorted(_luminance(c) for c in (colour, to_rgb(paper)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(colour: tuple[float, float, float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
