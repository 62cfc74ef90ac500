"""One look for all figures: colours that colour-blind readers can tell apart, light axes.

Nothing here touches matplotlib's global settings: functions style the Axes that they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from analysis.read import processes_of

INK = "#222222"
GREY = "#9a9a9a"
STEPS_LABEL = "optimizer step"
DISTANCE_LABEL = (
    "relative distance\n" r"$\Vert w_t - w_{\mathrm{flow}}\Vert \,/\, \Vert w_t - w_0\Vert$"
)
# Okabe and Ito's palette, which keeps apart for the common kinds of colour blindness. Ten flows are
# more than it has colours: of one family they share the hue, and lines and markers tell them apart.
_KNOWN = {
    "central": ("#0072B2", "o", "-"),
    "central_unforced": ("#0072B2", "h", (0, (1, 1.2))),
    "stable": ("#D55E00", "s", "-"),
    "corrected": ("#D55E00", "X", (0, (5, 1.5))),
    "persistence": ("#6b6b6b", "|", (0, (1, 2.5))),
    "alternating": ("#009E73", "D", "-"),
    "edge": ("#009E73", "d", (0, (4, 1.5, 1, 1.5))),
    "rod": ("#CC79A7", "^", "-"),
    "covariance": ("#56B4E9", "v", "-"),
}
FLOW_COLOURS = {name: look[0] for name, look in _KNOWN.items()}
_OTHER_COLOURS = ("#E69F00", "#8C6BB1", "#4D4D4D", "#A6761D")
_LABELS = {  # where the files say none
    "alternating": "alternating flow", "edge": "edge flow", "rod": "rod flow",
    "covariance": "covariance flow", "corrected": "corrected gradient flow",
    "central_unforced": "central flow without force",
}  # fmt: skip
# Of Tol's muted scheme, so that no direction has the colour of a flow.
DIRECTIONS = ("#882255", "#999933", "#332288", "#AA4499", "#661100")
MIN_BAND = 3  # runs that a band needs; of two it would be as wide as the axes
_OTHER_MARKERS = ("P", "*", "<", ">", "p")


class FlowStyle(NamedTuple):
    """How a flow is drawn wherever it is: what it is called, its colour, marker and line."""

    label: str
    colour: str
    marker: str
    line: Any = "-"


def flow_styles(frame: pd.DataFrame) -> dict[str, FlowStyle]:
    """Style of every flow of the results that a frame is from, by name.

    The flows known here have colours of their own; others take the next of the palette, in the
    order of their names, so that a flow looks alike in all figures of one folder.

    >>> styles = flow_styles(pd.DataFrame({"flow": ["central", "rod"]}))
    >>> [styles[name].label for name in ("central", "rod")]
    ['central flow', 'rod flow']
    """
    processes = processes_of(frame)
    names = {name for name, facts in processes.items() if facts["predicts"]}
    for column in ("flow", "process"):
        if column in frame:
            names |= set(frame[column].astype("str").unique()) - set(processes)
    others = sorted(names - set(FLOW_COLOURS))
    styles = {}
    for name in sorted(names):
        place = others.index(name) if name in others else 0
        label = str(processes[name]["label"]) if name in processes else name
        other = (
            _OTHER_COLOURS[place % len(_OTHER_COLOURS)],
            _OTHER_MARKERS[place % len(_OTHER_MARKERS)],
            "-",
        )
        styles[name] = FlowStyle(
            _LABELS.get(name, label) if label == name else label, *_KNOWN.get(name, other)
        )
    return styles


def axes_or_new(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """Return the given Axes, or those of a new figure."""
    if ax is not None:
        return ax
    return plt.subplots(figsize=size, layout="constrained")[1]


def finish(ax: Axes, *, xlabel: str, ylabel: str, title: str | None = None, **legend: Any) -> Axes:
    """Label the axes, lighten the frame, and put a legend if anything is labelled."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if xlabel == STEPS_LABEL:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if title:
        put_title(ax, title, fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(colors=INK, labelsize=9)
    ax.grid(visible=True, color="#e6e6e6", linewidth=0.6)
    ax.set_axisbelow(True)
    if ax.get_yscale() == "log":
        plain_log_axis(ax.yaxis)
    if ax.get_legend_handles_labels()[0]:
        # asked for by name, "best" does not warn on a slow machine, as the default does
        place = legend.pop("loc", "best")
        ax.legend(
            loc=place, fontsize=8.5, frameon=True, framealpha=0.85, edgecolor="none", **legend
        )
    return ax


def put_title(ax: Axes, text: str, *, fontsize: float = 10) -> None:
    """Set the left title at its usual place.

    Given outright, because matplotlib otherwise lays out every tick a second time to see whether
    the title must move up, which it never must here.
    """
    ax.set_title(text, fontsize=fontsize, loc="left", color=INK, y=1.0)


def plain_log_axis(axis: Axis) -> None:
    """Label a logarithmic axis with 0.1 rather than 10⁻¹, and between decades if they are few."""
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(BetweenDecades())
    axis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


class BetweenDecades(LogLocator):
    """Minor ticks that are worth a label: at 2 and 5 within two decades, more within one.

    matplotlib's eight unlabelled ticks a decade took a third of the time of drawing.
    """

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Return the ticks' places, chosen by how many decades are shown."""
        low, high = sorted((vmin, vmax))
        if not 0 < high < 100 * low:
            return []
        self.set_params(subs=(2, 3, 4, 5, 7) if high < 6 * low else (2, 5))
        return super().tick_values(vmin, vmax)


def note(ax: Axes, text: str) -> Axes:
    """Say in the middle of empty axes why they are empty."""
    ax.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=GREY, wrap=True)
    return ax
