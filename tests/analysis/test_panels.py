"""Configurations are kept apart in every figure and table, and panels say what tells them apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import CENTRAL, STABLE, RunTruth, write_sweep

import analysis
from analysis import sections
from analysis.aggregate import panel_keys
from analysis.console import accuracy_text
from analysis.export import study_tables
from analysis.figures import FigureSet, run_title
from analysis.panels import Panel, batches, panels, titles, with_keys
from analysis.study import Study

OPTIONS = ('{"n": 9, "width": 8}', '{"n": 9, "width": 16}', '{"n": 9, "width": 32}')
SETTINGS: dict[str, tuple[tuple[Any, ...], list[str]]] = {
    "beta2": ((0.9, 0.99, 0.999), [f"rmsprop, beta2 {b}" for b in ("0.9", "0.99", "0.999")]),
    "substeps": ((2, 4, 8), [f"rmsprop, substeps {n}" for n in (2, 4, 8)]),
    "scheme": (
        ("euler", "extrapolated"),
        ["rmsprop, scheme euler", "rmsprop, scheme extrapolated"],
    ),
    "workload_options": (OPTIONS, [f"rmsprop, width {n}" for n in (16, 32, 8)]),
}


def study_of(folder: Path, setting: str, seeds: int = 2) -> Study:
    """Study of one rule and learning rate at each value of a setting, each more wrong."""
    runs = []
    for i, value in enumerate(SETTINGS[setting][0]):
        for seed in range(seeds):
            wrong = (1 + i) * (1 + 0.1 * seed)
            flows = {
                "central": replace(CENTRAL, distance=0.02 * wrong),
                "stable": replace(STABLE, distance=0.2 * wrong),
            }
            run = RunTruth(run_id=f"r{i}{seed}", rule="rmsprop", beta2=0.99, seed=seed, steps=400,
                           flows=flows)  # fmt: skip
            runs.append(replace(run, **{setting: value}))
    return analysis.study(analysis.load(write_sweep(folder, runs)))


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
    figure = figures.learning_rates(made, found.accuracy, ["final_distance"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == expected
    figure = figures.covariances(panels(found.points, keys))
    assert [ax.get_title(loc="left").split("\n")[0] for ax in figure.axes] == expected


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_table_row_is_of_one_configuration(tmp_path: Path, setting: str) -> None:
    found = study_of(tmp_path, setting)
    values = sorted(SETTINGS[setting][0])
    compared = analysis.compare(found.accuracy, "central", "stable")
    assert compared[setting].tolist() == values
    assert (compared["n"] == 2).all()
    assert set(analysis.lr_trend(found.accuracy)[setting]) == set(values)
    fits = analysis.covariance_fit(found.points)
    assert fits[setting].tolist() == values
    assert (fits["n_runs"] == 2).all()
    for name in ("summary", "comparison", "variance", "lr_trend"):
        assert set(study_tables(found)[name][setting]) == set(values), name


def test_the_report_keeps_configurations_apart(tmp_path: Path) -> None:
    found = study_of(tmp_path, "beta2")
    figures = FigureSet(tmp_path / "figures")
    for text in (
        sections.comparison(found.accuracy),
        sections.horizons(found, figures),
        sections.variances(found, figures),
        sections.summary(found),
    ):
        for value in ("0.9", "0.99", "0.999"):
            assert f'<td class="text">{value}</td>' in text
    runs = sections.single_runs(found, found.accuracy, figures)
    assert "rmsprop, beta2 0.99, lr 0.01, seed 0" in runs


def test_more_panels_than_fit_make_further_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "_MAX_PANELS", 2)
    found = study_of(tmp_path, "beta2")
    figures = FigureSet(tmp_path / "figures")
    for body in (
        sections.distances(found, found.accuracy, figures),
        sections.learning_rates(found, found.accuracy, figures),
        sections.variances(found, figures),
        sections.horizons(found, figures),
    ):
        assert body.count("<figure>") == 2
    kinds = ("distance", "learning_rate", "variance", "horizon")
    names = [f"{k}-digits_mlp-mse-rmsprop{n}.png" for k in kinds for n in ("", "-2")]
    assert [file.name for file in figures.files] == names
    assert all(file.exists() for file in figures.files)


def test_runs_that_differ_in_more_than_their_seed_are_not_called_seeds(tmp_path: Path) -> None:
    curves = study_of(tmp_path, "beta2").curves
    ax = analysis.plot_distance_spread(curves)
    assert ax.get_legend().get_texts()[0].get_text() == "central flow, 6 runs of 2 seeds"


def test_what_a_rule_has_not_is_not_said(tmp_path: Path) -> None:
    runs = [RunTruth(run_id=f"b{b}", rule="rmsprop", beta2=b, steps=40) for b in (0.9, 0.99)]
    results = analysis.load(write_sweep(tmp_path, [*runs, RunTruth(run_id="gd", steps=40)]))
    text = accuracy_text(analysis.accuracy(results), results, bandwidth=20, tolerance=0.05)
    heads = [line for line in text.splitlines() if line.startswith("digits_mlp")]
    name = "digits_mlp · mse · "
    expected = ("gradient_descent", "rmsprop · beta2=0.9", "rmsprop · beta2=0.99")
    assert heads == [name + rest for rest in expected]


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
