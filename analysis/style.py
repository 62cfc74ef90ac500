"""One look for all figures: colours that colour-blind readers can tell apart, light axes.

Nothing here touches matplotlib's global settings: functions style the Axes that they are given.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, NullFormatter

INK = "#222222"
GREY = "#9a9a9a"
# Okabe and Ito's palette, which keeps apart for the common kinds of colour blindness.
FLOW_COLOURS = {"central": "#0072B2", "stable": "#D55E00", "midpoint": "#009E73"}
_OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9")
DIRECTIONS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
MARKERS = {"central": "o", "stable": "s"}


def colour(flow: str) -> str:
    """Colour of a flow; the same wherever it is drawn."""
    if flow in FLOW_COLOURS:
        return FLOW_COLOURS[flow]
    return _OTHER_COLOURS[sum(map(ord, flow)) % len(_OTHER_COLOURS)]


def axes_or_new(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """Return the given Axes, or those of a new figure."""
    if ax is not None:
        return ax
    return plt.subplots(figsize=size, layout="constrained")[1]


def finish(ax: Axes, *, xlabel: str, ylabel: str, title: str | None = None, **legend: Any) -> Axes:
    """Label the axes, lighten the frame, and put a legend if anything is labelled."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if title:
        ax.set_title(title, fontsize=11, loc="left", color=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=9)
    ax.grid(visible=True, color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
    if ax.get_yscale() == "log":
        low, high = ax.get_ylim()
        plain_log_axis(ax.yaxis, label_between=high < 30 * low)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8.5, frameon=True, framealpha=0.85, edgecolor="none", **legend)
    return ax


def plain_log_axis(axis: Axis, *, label_between: bool) -> None:
    """Label a logarithmic axis with 0.1 rather than 10⁻¹; with 2 and 5 in between if wanted."""
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    between = FuncFormatter(_two_and_five) if label_between else NullFormatter()
    axis.set_minor_formatter(between)


def note(ax: Axes, text: str) -> Axes:
    """Say in the middle of empty axes why they are empty."""
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=GREY, wrap=True)
    return ax


def _two_and_five(value: float, _position: object) -> str:
    text = f"{value:g}"
    return text if text.strip("0.").partition("e")[0] in ("2", "5") else ""
