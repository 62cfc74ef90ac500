"""Configurations are kept apart in every figure and table, and panels say what tells them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from settings import SETTINGS, study_of

import analysis
from analysis.draw import FigureSet, Panel, batches, panels, run_title, titles, with_keys
from analysis.infer import panel_keys


def labels(figure: Any) -> list[str]:
    """Text of all legends of a figure."""
    legends = [ax.get_legend() for ax in figure.axes]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_panel_is_of_one_configuration(tmp_path: Path, setting: str) -> None:
    found = study_of(tmp_path, setting)
    keys, expected = panel_keys(found.accuracy), SETTINGS[setting][1]
    assert keys == ["workload", "criterion", "rule", setting]
    figures = FigureSet(tmp_path)
    made = panels(with_keys(found.curves, found.accuracy, keys), keys)
    figure = figures.distances(made, 4)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"{t}, lr 0.01" for t in expected]
    assert set(labels(figure)) == {"central flow, 2 seeds", "stable flow, 2 seeds"}

    made = panels(found.accuracy, keys)
    assert [len(p.rows) for p in made] == [4] * len(expected)
    figure = figures.horizons(made)
    assert [ax.get_title(loc="left") for ax in figure.axes] == expected
    assert set(labels(figure)) == {"central flow, 2 runs", "stable flow, 2 runs"}
    figure = figures.against(made, found.accuracy, ["final_distance"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == expected
    figure = figures.covariances(panels(found.points, keys))
    assert [ax.get_title(loc="left").split("\n")[0] for ax in figure.axes] == expected


def test_runs_that_differ_in_more_than_their_seed_are_not_called_seeds(tmp_path: Path) -> None:
    curves = study_of(tmp_path, "beta2").curves
    ax = analysis.plot_distance_spread(curves)
    assert ax.get_legend().get_texts()[0].get_text() == "central flow, 6 runs of 2 seeds"


def test_titles_say_what_differs_and_no_more() -> None:
    common = {"workload": "w", "criterion": "mse", "substeps": 4, "bias_correction": None}
    rules = [common | {"rule": rule} for rule in ("gradient_descent", "rmsprop")]
    assert titles(rules) == ["gradient_descent", "rmsprop"]
    one, other = rules[0] | {"beta2": float("nan")}, rules[1] | {"beta2": 0.9}
    assert titles([one, other]) == ["gradient_descent", "rmsprop, beta2 0.9"]
    assert titles(rules[:1]) == ["gradient_descent"]


def test_a_single_run_is_told_from_the_others(example_sweep: Path) -> None:
    frame = analysis.accuracy(analysis.load(example_sweep))
    assert run_title(frame, "rm0001s1") == "rmsprop, lr 0.001, seed 1"


def test_batches_are_even(example_sweep: Path) -> None:
    frame = analysis.accuracy(analysis.load(example_sweep))
    made = [Panel(str(i), frame) for i in range(5)]
    assert [len(some) for some in batches(made, 4)] == [2, 3]
    assert [len(some) for some in batches(made[:4], 4)] == [4]
    assert batches([], 4) == []
