"""A figure as data: lines keep their extremes, and colours are legible on a dark page."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.draw.charts import MOST_POINTS, chart_json, on_dark
from analysis.draw.style import FLOW_COLOURS, FlowStyle, flow_styles


def test_a_long_line_keeps_its_extremes() -> None:
    figure = Figure()
    ax = figure.subplots()
    steps = np.arange(5000.0)
    swing = np.where(steps % 2 == 0, 3.0, 1.0)
    swing[1234] = 7.0
    ax.plot(steps, swing)
    series = json.loads(chart_json(figure, {}))["panels"][0]["series"][0]
    assert len(series["x"]) <= MOST_POINTS
    assert (min(series["y"]), max(series["y"])) == (1, 7)
    assert series["x"][series["y"].index(7)] == 1234
    assert series["x"] == sorted(series["x"])


def test_colours_are_legible_on_a_dark_page() -> None:
    def light(colour: str) -> float:
        rgb = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    paper = light("#15181d")
    colours = [style.colour for style in _styles()] + ["#222222", "#882255", "#332288"]
    for colour in colours:
        assert (light(on_dark(colour)) + 0.05) / (paper + 0.05) >= 4.4, colour
    assert len({on_dark(colour) for colour in colours}) == len(set(colours))


def _styles() -> list[FlowStyle]:
    return list(flow_styles(pd.DataFrame({"flow": list(FLOW_COLOURS)})).values())
