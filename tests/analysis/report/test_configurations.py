"""Configurations are kept apart in every table of the report and on the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings import SETTINGS, study_of
from synthetic import RunTruth, write_sweep

import analysis
from analysis.draw import FigureSet
from analysis.report import accuracy_text, sections, study_tables


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
    tmp_path: Path,
) -> None:
    found = study_of(tmp_path, "beta2")
    figures = FigureSet(tmp_path / "figures", most_panels=2)
    for body in (
        sections.distances(found, found.accuracy, figures),
        sections.against(found, found.accuracy, figures, x="lr"),
        sections.variances(found, figures),
        sections.horizons(found, figures),
    ):
        assert body.count("<figure>") == 2
    kinds = ("distance", "learning_rate", "variance", "horizon")
    names = [f"{k}-digits_mlp-mse-rmsprop{n}.png" for k in kinds for n in ("", "-2")]
    assert [file.name for file in figures.files] == names
    assert all(file.exists() for file in figures.files)


def test_what_a_rule_has_not_is_not_said(tmp_path: Path) -> None:
    runs = [RunTruth(run_id=f"b{b}", rule="rmsprop", beta2=b, steps=40) for b in (0.9, 0.99)]
    results = analysis.load(write_sweep(tmp_path, [*runs, RunTruth(run_id="gd", steps=40)]))
    text = accuracy_text(analysis.accuracy(results), results, bandwidth=20, tolerance=0.05)
    heads = [line for line in text.splitlines() if line.startswith("digits_mlp")]
    name = "digits_mlp · mse · "
    expected = ("gradient_descent", "rmsprop · beta2=0.9", "rmsprop · beta2=0.99")
    assert heads == [name + rest for rest in expected]
