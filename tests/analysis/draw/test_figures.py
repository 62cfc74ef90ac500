"""Figures: what is drawn, in which order, and what the labels say."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from synthetic import CENTRAL, STABLE, RunTruth, study_runs, write_sweep

import analysis
from analysis import Study
from analysis.draw import FigureSet, panels, with_keys
from analysis.draw.style import DIRECTIONS, FLOW_COLOURS
from analysis.infer import panel_keys

PER_RUN = (
    analysis.plot_loss, analysis.plot_sharpness, analysis.plot_distance, analysis.plot_variance,
)  # fmt: skip


def bands(ax: Axes) -> int:
    """Bands that are not empty."""
    return sum(
        isinstance(c, PolyCollection) and any(len(p.vertices) > 0 for p in c.get_paths())
        for c in ax.collections
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Study of three rules; those of later names have the first files."""
    runs = [replace(run, run_id=f"r{i}") for i, run in enumerate(reversed(study_runs(seeds=2)))]
    return analysis.study(write_sweep(tmp_path_factory.mktemp("p"), runs))


@pytest.mark.parametrize("plot", PER_RUN)
def test_steps_without_a_run_id_are_one_run(example_sweep: Path, plot: Any) -> None:
    steps = analysis.load(example_sweep).run_steps("gr001s0").drop(columns="run_id")
    assert plot(steps).lines
    with pytest.raises(ValueError, match="lacks the rows of the process 'discrete'"):
        plot(steps[steps["process"] == "central"])


@pytest.mark.parametrize(("seeds", "expected"), [(2, 0), (3, 2)])
def test_bands_need_three_seeds(tmp_path: Path, seeds: int, expected: int) -> None:
    runs = [
        RunTruth(
            run_id=f"r{seed}", seed=seed, steps=100,
            flows={"central": replace(CENTRAL, distance=0.02 + 0.01 * seed),
                   "stable": replace(STABLE, distance=0.2 + 0.1 * seed)},
        )
        for seed in range(seeds)
    ]  # fmt: skip
    study = analysis.study(write_sweep(tmp_path, runs))
    ax = analysis.plot_distance_spread(study.curves)
    assert bands(ax) == expected
    assert len(ax.lines) == (2 if expected else 6)  # medians, and else the runs
    assert bands(analysis.plot_accuracy(study.accuracy)) == expected
    assert bands(analysis.plot_horizons(study.accuracy)) == expected


def test_rules_are_in_one_order(found: Study, tmp_path: Path) -> None:
    keys, figures = panel_keys(found.accuracy), FigureSet(tmp_path)
    rules = ["gradient_descent", "rmsprop", "scalar_rmsprop"]
    for frame in (found.accuracy, found.curves, found.points):
        made = panels(with_keys(frame, found.accuracy, keys), keys)
        assert [panel.title for panel in made] == rules
    assert analysis.covariance_fit(found.points)["rule"].tolist() == rules
    figure = figures.horizons(panels(found.accuracy, keys))
    assert len({ax.get_xlim() for ax in figure.axes}) == 1


def test_the_horizons_that_are_drawn(found: Study) -> None:
    frame = found.accuracy.query("rule == 'rmsprop'")
    ax = analysis.plot_horizons(frame)
    times = frame.loc[frame["flow"] == "central", "horizon_lasting"]
    assert set(times) <= set(ax.lines[0].get_xdata()) | {300.0}
    assert analysis.plot_horizons(frame, horizon="horizon_midpoint").lines
    with pytest.raises(ValueError, match="horizon must be one of"):
        analysis.plot_horizons(frame, horizon="final_distance")


def test_the_edge_is_named_outside_the_axes(example_sweep: Path, tmp_path: Path) -> None:
    results = analysis.load(example_sweep)
    ax = analysis.plot_sharpness(results.run_steps("gr001s0"))
    ax.figure.canvas.draw()
    words = ax.texts[0]
    assert words.get_text() == "edge of\nstability"
    box, inside = words.get_window_extent(), ax.get_window_extent()
    assert box.x0 > inside.x1
    assert box.x1 < ax.figure.bbox.x1
    figure = FigureSet(tmp_path).runs(results, {"gr001s0": "best", "gr001s1": "worst"}, 20.0)
    assert [len(ax.texts) for ax in figure.axes] == [0, 0, 0, 1]


def test_no_label_is_clipped(found: Study, tmp_path: Path) -> None:
    figures, results = FigureSet(tmp_path), found.results
    runs = results.runs["run_id"].astype("str").tolist()
    keys = panel_keys(found.accuracy)
    curves = panels(with_keys(found.curves, found.accuracy, keys), keys)
    for figure in (
        figures.runs(results, {runs[0]: "best", runs[1]: "worst"}, 20.0),
        figures.one_run(results, runs[0], 20.0),
        figures.distances(curves, 2),
    ):
        figure.canvas.draw()
        boxes = [ax.get_tightbbox() for ax in figure.axes]
        assert min(box.x0 for box in boxes) >= 0
        assert max(box.x1 for box in boxes) <= figure.bbox.x1
        for one, other in pairwise(boxes):
            assert one.x1 <= other.x0 or one.y0 >= other.y0 + 1, "neighbours overlap"


def test_ticks_of_steps_are_whole_and_labels_say_what_is_drawn(tmp_path: Path) -> None:
    results = analysis.load(write_sweep(tmp_path, [RunTruth(run_id="a", steps=3)]))
    ax = analysis.plot_distance(results.run_steps("a"))
    assert np.all(ax.get_xticks() == np.round(ax.get_xticks()))
    label = ax.get_ylabel()
    assert "relative distance" in label
    assert "w_t - w_0" in label


def test_directions_have_no_colour_of_a_flow() -> None:
    assert not set(DIRECTIONS) & set(FLOW_COLOURS.values())


def test_too_few_points_for_a_slope() -> None:
    points = pd.DataFrame(
        {"run_id": ["a"] * 2, "flow": "central", "predicted": [1.0, 2.0], "measured": [1.0, 2.5]}
    )
    assert analysis.plot_covariance(points).get_title(loc="left") == "central: too few points"


def test_plots_take_axes_and_return_them(example_sweep: Path) -> None:
    import matplotlib.pyplot as plt

    results = analysis.load(example_sweep)
    steps = results.run_steps("gr001s0")
    for plot in (analysis.plot_loss, analysis.plot_sharpness, analysis.plot_variance):
        ax = plt.figure().subplots()
        assert plot(steps, ax) is ax
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.lines
    with pytest.raises(ValueError, match="must hold the rows of one run, got 6"):
        analysis.plot_loss(results.steps)
    with pytest.raises(ValueError, match=r"lacks the columns \['process'\]"):
        analysis.plot_loss(steps.drop(columns="process"))


def test_plots_change_no_global_setting(example_sweep: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    analysis.plot_distance(analysis.load(example_sweep).run_steps("gr001s0"))
    assert dict(mpl.rcParams) == before


def test_the_legend_names_what_any_column_shows(tmp_path: Path) -> None:
    plain = {"central": replace(CENTRAL, loss=0.0)}  # its prediction is its loss
    runs = [RunTruth(run_id="a", flows=plain), RunTruth(run_id="b", flows={"central": CENTRAL})]
    results = analysis.load(write_sweep(tmp_path, runs))
    figure = FigureSet(tmp_path).runs(results, {"a": "best", "b": "worst"}, 20.0)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "central flow's prediction" in labels
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize(
    ("limits", "labelled"),
    [((1e-3, 1e-2), 2), ((0.012, 0.3), 3), ((0.3, 0.9), 3), ((0.95, 1.05), 3), ((1e-4, 1.0), 4)],
)
def test_a_logarithmic_axis_has_labels_at_any_range(
    limits: tuple[float, float], labelled: int
) -> None:
    import matplotlib.pyplot as plt

    from analysis.draw.style import finish

    ax = plt.figure().subplots()
    ax.set(yscale="log", ylim=limits)
    finish(ax, xlabel="x", ylabel="y")
    ax.figure.canvas.draw()
    ticks = [*ax.yaxis.get_major_ticks(), *ax.yaxis.get_minor_ticks()]
    shown = [
        t.label1.get_text() for t in ticks if limits[0] <= t.get_loc() <= limits[1] * (1 + 1e-9)
    ]
    assert len([text for text in shown if text]) >= labelled


@pytest.mark.parametrize("names", [("central", "stable"), ("central", "edge", "null", "rod")])
def test_the_legend_of_many_flows_covers_no_label(tmp_path: Path, names: tuple[str, ...]) -> None:
    run = RunTruth(run_id="a", steps=200, flows=dict.fromkeys(names, CENTRAL))
    figure = FigureSet(tmp_path).runs(analysis.load(write_sweep(tmp_path, [run])), {"a": "x"}, 20.0)
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert min(ax.get_tightbbox().y0 for ax in figure.axes) >= legend.y1
