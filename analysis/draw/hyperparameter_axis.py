"""The x axis of a hyperparameter: how its values are spread, what its ticks and label say."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.draw.panels import key_text
from analysis.infer import is_numeric
from analysis.read import hyperparameters_of

MOST_TICKS = 6  # values up to which each of them is a tick
_LABELS = {"lr": "learning rate"}  # where the files declare none


class HyperparameterAxis:
    """Axis for the values of one hyperparameter in a frame.

    `scale` is chosen by the values:

    - `category` where they are no numbers, or some are null: next to each other, in order;
    - `log` for the learning rate, and for positive values over more than a factor of 8;
    - `decay` for values of at least a half and below 1 of which 1 - x varies by at least a factor
      of 2, such as the decay of an average: logarithmic in 1 - x, growing to the right;
    - `linear` for all others.

    The label is the one that the files declare, else the column's name.

    >>> def scale(*values):
    ...     return HyperparameterAxis(pd.DataFrame({"beta": values}), "beta").scale
    >>> scale(0.9, 0.99, 0.999), scale(1e-8, 1e-4), scale(1.0, 2.0), scale(True, False)
    ('decay', 'log', 'linear', 'category')
    """

    def __init__(self, frame: pd.DataFrame, name: str) -> None:
        values = frame[name]
        self.values = sorted(values.dropna().unique().tolist())
        if values.isna().any():
            self.values.append(None)
        self.label = hyperparameters_of(frame).get(name, {}).get("label") or _LABELS.get(name, name)
        self.scale = self._scale(values, name)

    def places(self, values: pd.Series) -> NDArray[np.float64]:
        """Where values stand on the axis."""
        if self.scale != "category":
            return values.to_numpy(dtype=np.float64)
        nulls = values.isna()
        return np.array(
            [
                float(self.values.index(None if null else value))
                for value, null in zip(values.tolist(), nulls, strict=True)
            ]
        )

    def apply(self, ax: Axes) -> None:
        """Set scale and ticks, the values themselves if they are few."""
        few = len(self.values) <= MOST_TICKS
        if self.scale == "category":
            ax.set_xticks(range(len(self.values)), [key_text(v) for v in self.values])
            ax.set_xlim(-0.5, len(self.values) - 0.5)
            return
        if self.scale == "log":
            ax.set_xscale("log")
        elif self.scale == "decay":
            ax.set_xscale("function", functions=(_to_decades, _from_decades))
        if few or self.scale == "decay":
            chosen = np.linspace(0, len(self.values) - 1, min(len(self.values), MOST_TICKS))
            ticks = [self.values[i] for i in np.unique(chosen.round().astype(int))]
            ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
            ax.minorticks_off()

    def _scale(self, values: pd.Series, name: str) -> str:
        if not is_numeric(values) or None in self.values:
            return "category"
        numbers = np.array(self.values, dtype=np.float64)
        if not len(numbers) or name == "lr":
            return "log"
        low, high = numbers[0], numbers[-1]
        if low >= 0.5 and high < 1 and 1 - low >= 2 * (1 - high) * (1 - 1e-9):
            return "decay"
        return "log" if low > 0 and high > 8 * low else "linear"


def _to_decades(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log10(np.clip(1 - np.asarray(values, dtype=np.float64), 1e-12, None))


def _from_decades(places: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 - 10.0 ** -np.asarray(places, dtype=np.float64)
