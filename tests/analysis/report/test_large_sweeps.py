"""What a person sees of a sweep of many learning rates: as much as of one of few."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from synthetic import CENTRAL, STABLE, RunTruth, write_sweep

import analysis
from analysis.__main__ import main
from analysis.measure import some_runs
from analysis.read import StepReader
from analysis.report import page, study_tables
from analysis.report.fitting import fitted, worst_cells

RATES = 64
# the package hands out a function of this name
nearest = importlib.import_module("analysis.report.sections.nearest")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweep of 64 learning rates of two rules; the flows' distances grow with the rate."""
    runs = []
    for rule in ("gradient_descent", "rmsprop"):
        for i, lr in enumerate(np.geomspace(1e-3, 1e-1, RATES).tolist()):
            flows = {
                "central": replace(CENTRAL, distance=0.02 * (1 + i)),
                "stable": replace(STABLE, distance=0.04 * (1 + i)),
            }
            runs.append(RunTruth(f"{rule[0]}{i:02d}", rule, lr=lr, steps=40, flows=flows))
    runs[3] = replace(runs[3], status="failed", status_detail="of no reason")
    return write_sweep(tmp_path_factory.mktemp("r"), runs, name="large", parts=1)


@pytest.fixture(scope="module")
def accuracy(large: Path) -> pd.DataFrame:
    """Frame of it."""
    return analysis.accuracy(large, bandwidth=2)


def test_terminal_and_page_fit(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(large), "--bandwidth", "2"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 100
    assert len(re.findall(r"^ +0.\S+ to 0.\S+ ", text, re.MULTILINE)) == 20
    assert "Grouped: 64 values of lr in 10 quantile groups." in text
    worst = text[text.index("Worst cells, by final distance of central:") :].splitlines()[1]
    assert re.search(r"1\d\d%  digits_mlp, mse, \w+, lr 0.0[67]\S* to 0.1$", worst)
    html = (large / "report" / "report.html").read_text()
    assert len(html) < 3_000_000
    assert "Grouped: 64 values of lr in 10 quantile groups." in html
    every = pd.read_parquet(large / "report" / "tables" / "accuracy.parquet")
    assert len(every) == 2 * 2 * RATES  # what is pooled above is told apart in the file
    assert every["lr"].nunique() == RATES


def test_exported_tables_fit_as_well(large: Path) -> None:
    """A group a row, and every run and flow in one table beside them."""
    tables = study_tables(analysis.study(large, bandwidth=2))
    assert len(tables["accuracy"]) == 2 * 2 * RATES
    assert len(tables["summary"].query("metric == 'final_distance'")) == 2 * 2 * 10
    assert len(tables["comparison"]) == 2  # pools the rates
    assert len(tables["rank_cells"].query("metric == 'final_distance'")) == 2 * 2 * 10
    assert tables["rank"].groupby("metric")["n_cells"].max().to_dict()["final_distance"] == 20
    assert tables["lr_trend"]["n"].max() > 10  # over the rates themselves


@pytest.mark.parametrize(("most", "groups"), [(100, 10), (40, 10), (39, 3), (11, 1), (3, 1)])
def test_as_little_is_grouped_as_it_takes(accuracy: pd.DataFrame, most: int, groups: int) -> None:
    frame, words = fitted(accuracy, most)
    cells = frame[["rule", "lr", "flow"]].drop_duplicates()
    assert len(cells) <= most
    assert f"64 values of lr in {groups} " in words[0]
    assert frame["lr"].nunique() == groups
    if most == 3:
        assert words[1] == "Shown: the 1 cells of 2 that are worst by final distance of central."
        assert len(cells) == 2
    else:
        assert len(frame) == len(accuracy)  # pooled, and nothing is left out


def test_the_worst_cells_are_named_first(accuracy: pd.DataFrame) -> None:
    lines = worst_cells(fitted(accuracy, 40).accuracy)
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 5
    highest = fitted(accuracy, 40).accuracy["lr"].cat.categories[-1]
    assert all(highest in line for line in lines[1:3])  # of both rules


def test_a_heavy_page_refers_to_files(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    figures = []
    for name in ("one", "two", "three"):
        figure = analysis.plot_loss(analysis.load(_single(tmp_path / name)).run_steps("a")).figure
        figures.append(page.figure(figure, name, tmp_path / "figures" / f"{name}.pdf"))
    text = "".join(figures)
    assert page.lightened(text, tmp_path) == text
    light = page.lightened(text, tmp_path, most=len(text) - 10)
    assert [f"figures/{name}.png" in light for name in ("one", "two", "three")] == [
        False, False, True,
    ]  # fmt: skip
    assert len(light) < len(text) - 1000
    assert (tmp_path / "figures" / "three.png").read_bytes()[:4] == b"\x89PNG"
    assert page.lightened(text, tmp_path, most=10).count(page._DATA) == 0


def _single(folder: Path) -> Path:
    folder.mkdir()
    return write_sweep(folder, [RunTruth(run_id="a", steps=40)], parts=1)


def test_forecasts_read_few_of_the_runs_of_a_rule(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = analysis.study(large, bandwidth=2)
    every = some_runs(found.results, RATES).runs
    assert sorted(every["rule"].value_counts()) == [RATES - 1, RATES]  # one has failed
    few = some_runs(found.results, 5)
    assert few.runs["rule"].value_counts().to_dict() == {"gradient_descent": 5, "rmsprop": 5}
    assert few.runs.attrs == found.results.runs.attrs
    read: list[str] = []
    original = StepReader.read_run

    def noted(self: StepReader, run_id: str, columns: tuple[str, ...] | None) -> pa.Table:
        read.append(run_id)
        return original(self, run_id, columns)

    monkeypatch.setattr(StepReader, "read_run", noted)
    monkeypatch.setattr(nearest, "FORECAST_RUNS", 5)
    assert "5 at random" in nearest._targets(found, ["central", "stable"])
    assert sorted(read) == sorted(few.runs["run_id"])
