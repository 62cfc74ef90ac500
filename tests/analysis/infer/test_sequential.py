"""Confidence sequences: coverage over all looks at once, by simulation and exactly; cells."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import betaln
from synthetic import FlowTruth, RunTruth, write_sweep

import analysis
from analysis.__main__ import main
from analysis.infer import median_interval, median_sequence, ratio_precision
from analysis.infer.sequential import CONCENTRATION, _least_count
from analysis.measure import accuracy_frame

LOOKS = 200


def missed(values: np.ndarray, median: float, interval: Any) -> bool:
    low, high, _ = interval(values)
    return bool(low > median or high < median)


DISTRIBUTIONS = {
    "lognormal": (lambda rng, n: rng.lognormal(0.0, 1.0, n), 1.0),
    "cauchy": (lambda rng, n: rng.standard_cauchy(n), 0.0),
    "two values": (lambda rng, n: rng.integers(0, 2, n).astype(float), 0.5),
    "mostly one": (lambda rng, n: np.where(rng.random(n) < 0.55, 2.0, rng.random(n)), 2.0),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_all_looks_together_cover(name: str) -> None:
    """A miss at any of 200 looks in at most 5% of the studies (400 of them: 7.5% is 2.3 sigma)."""
    draw, median = DISTRIBUTIONS[name]
    rng = np.random.default_rng(0)
    ever = 0
    for _ in range(400):
        values = draw(rng, LOOKS)
        ever += any(missed(values[:n], median, median_sequence) for n in range(1, LOOKS + 1, 4))
    assert ever / 400 <= 0.075


def test_an_interval_for_one_look_does_not_cover_all_of_them() -> None:
    """Why the method is needed: stopping at the first look that misses."""
    rng = np.random.default_rng(0)
    ever = 0
    for _ in range(40):
        values = rng.lognormal(0.0, 1.0, LOOKS)
        looks = range(10, 100, 10)
        ever += any(missed(values[:n], 1.0, median_interval) for n in looks)
    assert ever / 40 > 0.15


def test_the_probability_of_ever_missing_is_bounded_exactly() -> None:
    """The distribution of the count below the median, carried on over 1,000 looks."""
    alive = np.array([1.0])
    for n in range(1, 1001):
        alive = 0.5 * (np.append(alive, 0.0) + np.insert(alive, 0, 0.0))
        least = _least_count(n)
        alive[:least] = 0.0
        alive[n - least + 1 :] = 0.0
    assert 0.02 < 1.0 - alive.sum() <= 0.05


@pytest.mark.parametrize("n", [1, 7, 40])
def test_the_likelihood_ratio_is_a_martingale(n: int) -> None:
    a = CONCENTRATION

    def ratio(n: int, k: np.ndarray) -> np.ndarray:
        return np.exp(n * np.log(2.0) + betaln(a + k, a + n - k) - betaln(a, a))

    k = np.arange(n + 1)
    np.testing.assert_allclose(0.5 * (ratio(n + 1, k) + ratio(n + 1, k + 1)), ratio(n, k))


def test_the_interval_narrows_and_is_of_order_statistics() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(5.0, 1.0, 2000)
    widths = []
    for n in (20, 100, 500, 2000):
        low, high, method = median_sequence(values[:n])
        assert {low, high} <= set(values[:n])
        assert low < np.median(values[:n]) < high
        widths.append(high - low)
    assert method == "sequence"
    assert all(b < a for a, b in itertools.pairwise(widths))
    assert median_sequence(values[:5]).high == np.inf
    with pytest.raises(ValueError, match="values must be numbers, got NaN"):
        median_sequence([1.0, np.nan])


def frame(
    ratios: dict[float, list[tuple[float, float]]], ended: Sequence[str] = ()
) -> pd.DataFrame:
    """Return an accuracy frame: for each learning rate, distances of central and stable by seed.

    `ended`: flows that stopped in every run in which they have no distance.
    """
    rows = []
    for lr, pairs in ratios.items():
        for seed, pair in enumerate(pairs):
            for flow, distance in zip(("central", "stable"), pair, strict=True):
                where = {"workload": "w", "criterion": "mse", "rule": "r", "lr": lr, "seed": seed}
                lost = "stopped" if flow in ended else "no_data"
                row = {**where, "run_id": f"{lr}-{seed}", "flow": flow, "run_status": "finished"}
                row["flow_status"] = lost if np.isnan(distance) else "ok"
                rows.append({**row, "last_step": 100.0, "final_distance": distance})
    return accuracy_frame(rows)


def test_cells_of_seeds() -> None:
    rng = np.random.default_rng(2)
    known = [(0.1 * s, 1.0) for s in rng.uniform(0.9, 1.1, 40)]
    lost = [(np.nan, 1.0)] * 30 + [(0.1, 1.0)] * 10
    cells = {0.1: known, 0.2: known[:5], 0.3: lost}
    found = ratio_precision(frame(cells, ended=["central"])).set_index("lr")
    ratios = [a for a, _ in known]
    assert found.loc[0.1, "median"] == pytest.approx(np.median(ratios))
    low, high, _ = median_sequence(ratios)
    assert (found.loc[0.1, "low"], found.loc[0.1, "high"]) == (low, high)
    expected = (high - low) / 2 / np.median(ratios)
    assert found.loc[0.1, "halfwidth"] == pytest.approx(expected)
    assert expected < 0.1
    assert found.loc[0.2, "halfwidth"] == np.inf  # too few
    # runs that the central flow did not survive count against it
    assert found.loc[0.3, ["runs", "n", "median"]].tolist() == [40, 10, np.inf]
    assert found.loc[0.1, "run_ids"] == sorted(f"0.1-{seed}" for seed in range(40))


def test_both_exact_and_only_stable_lost() -> None:
    cells = {0.1: [(0.0, 0.0)] * 20, 0.2: [(0.1, np.nan)] * 20}
    found = ratio_precision(frame(cells, ended=["stable"]))
    assert found["median"].tolist() == [1.0, 0.0]
    assert found["halfwidth"].tolist() == [0.0, np.inf]


def test_a_flow_without_data_has_no_ratio() -> None:
    """Unlike one that ended: nobody knows how far off it was."""
    lost = [(np.nan, 1.0)] * 30 + [(0.1, 1.0)] * 20
    found = ratio_precision(frame({0.1: lost, 0.2: [(np.nan, np.nan)]})).set_index("lr")
    assert found.loc[0.1, ["runs", "n", "median", "halfwidth"]].tolist() == [50, 20, 0.1, 0.0]
    assert found.loc[0.2, ["runs", "n"]].tolist() == [1, 0]
    assert np.isnan(found.loc[0.2, "median"])
    assert found.loc[0.2, "halfwidth"] == np.inf


def scored(folder: Path, kinds: dict[str, tuple[int, RunTruth]]) -> pd.DataFrame:
    """Score a sweep that has so many seeds of each kind of run, as the command does."""
    seeds = itertools.count()
    runs = [
        replace(truth, run_id=f"{kind}-{i}", seed=next(seeds), steps=30)
        for kind, (number, truth) in kinds.items()
        for i in range(number)
    ]
    return analysis.accuracy(write_sweep(folder, runs, parts=1), flows=("central", "stable"))


def flows(**stop: int) -> dict[str, FlowTruth]:
    """Flows of a run, stopped at these steps; a stopped one has had an error of 0.1% until then."""
    whole = {"central": FlowTruth(distance=0.02), "stable": FlowTruth(distance=0.1)}
    return whole | {name: FlowTruth(distance=0.001, stop=step) for name, step in stop.items()}


def test_a_flow_that_ended_is_infinitely_far_whatever_its_last_error(tmp_path: Path) -> None:
    lasted, central = RunTruth("", flows=flows()), RunTruth("", flows=flows(central=20))
    stable = RunTruth("", flows=flows(stable=20))
    both = RunTruth("", flows=flows(central=20, stable=10))
    counts = {
        "median": ({"a": (3, lasted), "b": (2, central)}, 0.2, 3),
        "ended": ({"a": (3, lasted), "b": (4, central)}, np.inf, 3),
        "together": ({"a": (1, lasted), "b": (2, both)}, np.inf, 1),
        "reference": ({"a": (3, lasted), "b": (4, stable)}, 0.0, 3),
    }
    for name, (kinds, median, n) in counts.items():
        frame = scored(tmp_path / name, kinds)
        assert frame["final_distance"].notna().all()  # ended flows have their last error
        row = ratio_precision(frame).iloc[0]
        assert row["median"] == pytest.approx(median), name
        assert (row["n"], row["runs"]) == (n, sum(number for number, _ in kinds.values())), name


def test_runs_that_did_not_finish_have_no_ratio(tmp_path: Path) -> None:
    """As in summaries and comparisons; that they ended, whoever adds seeds must know."""
    lasted, worse = RunTruth("", flows=flows()), {"central": FlowTruth(distance=0.9)}
    others = {
        status: (2, RunTruth("", status=status, flows=flows() | worse))
        for status in ("diverged", "failed", "undefined")
    }
    frame = scored(tmp_path, {"a": (3, lasted), **others})
    row = ratio_precision(frame).iloc[0]
    assert (row["n"], row["runs"], len(row["run_ids"])) == (3, 9, 9)
    assert row["median"] == pytest.approx(0.2)
    compared = analysis.compare(frame, "central", "stable").iloc[0]
    assert row["median"] == pytest.approx(compared["median_ratio"])


def test_the_command(example_sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(example_sweep), "--precision"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found
    for cell in found:
        assert len(cell["run_ids"]) == cell["runs"] == cell["n"]
        assert cell["halfwidth"] is None  # a few seeds say nothing yet
        assert cell["median"] > 0
    assert main(["no/such/folder", "--precision"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
