"""Hyperparameters with many values are grouped; intervals of many runs have closed forms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from analysis.infer import cell_keys, cells, grouped, intervals, trends
from analysis.infer.intervals import bca, between_ranks, edgeworth, mean_interval, median_interval


def frame_of(**columns: object) -> pd.DataFrame:
    """Frame of `accuracy`, so far as grouping looks at it."""
    place = {"workload": "w", "criterion": "mse", "rule": "a", "flow": "central"}
    frame = pd.DataFrame(place | columns)
    frame.attrs["hyperparameters"] = {"lr": {}, "beta2": {}, "schedule": {}}
    frame.attrs["configuration"] = ["workload", "criterion", "rule", "lr", "beta2", "schedule"]
    return frame


@pytest.mark.parametrize("number", [11, 37, 2000])
def test_ten_groups_of_as_many_values_in_their_order(number: int) -> None:
    lrs = np.repeat(np.random.default_rng(0).permutation(np.geomspace(1e-4, 1e-1, number)), 3)
    found = grouped(frame_of(lr=lrs))
    lr = found.frame["lr"]
    assert lr.cat.categories.size == 10
    sizes = lr.value_counts()
    assert sizes.max() - sizes.min() <= 3  # one value more, of three runs
    ends = [(rows.min(), rows.max()) for _, rows in pd.Series(lrs).groupby(lr, observed=True)]
    assert all(one[1] < other[0] for one, other in pairwise(ends))
    assert found.words == f"{number} values of lr in 10 quantile groups"
    assert cell_keys(found.frame) == ["workload", "criterion", "rule", "lr"]
    assert [cell["lr"] for cell, _ in cells(found.frame, ["lr"])] == list(lr.cat.categories)


def test_few_values_are_left_as_they_are() -> None:
    frame = frame_of(lr=np.geomspace(1e-4, 1e-1, 10), schedule=[f"step:{i}" for i in range(10)])
    found = grouped(frame)
    assert found.frame is frame
    assert found.words == ""


def test_rules_are_grouped_by_themselves_and_null_stays_null() -> None:
    many = np.geomspace(1e-4, 1e-1, 100)
    frame = frame_of(lr=[*many, 0.1, 0.2], beta2=[np.nan] * 100 + [0.9, 0.99])
    frame["rule"] = ["a"] * 100 + ["b"] * 2
    found = grouped(frame).frame
    assert found["lr"].tolist()[100:] == ["0.1", "0.2"]
    assert found["lr"].tolist()[0] == "0.0001 to 0.00019"
    assert found["beta2"].isna().sum() == 100
    assert found["beta2"].dtype == float


def test_several_with_many_values_share_the_cells() -> None:
    rng = np.random.default_rng(1)
    frame = frame_of(lr=rng.uniform(size=900), beta2=rng.uniform(size=900))
    assert len(grouped(frame).frame[["lr", "beta2"]].drop_duplicates()) == 9
    beside = grouped(frame, keep=["lr"]).frame
    assert beside["beta2"].nunique() == 10
    assert beside["lr"].equals(frame["lr"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_many_runs_have_the_interval_of_the_bootstrap(seed: int, sd: float) -> None:
    data = np.random.default_rng(seed).lognormal(sigma=sd, size=300)
    low, high, method = mean_interval(data)
    assert method == "edgeworth"
    slow = bca(data, np.mean, resamples=20_000)
    width = slow.high - slow.low
    assert abs(low - slow.low) < 0.04 * width
    assert abs(high - slow.high) < 0.04 * width
    # Student's t, which knows no skewness, is further off where there is some.
    if sd == 1.0:
        middle = data.mean() + 1.96 * data.std() / np.sqrt(len(data))
        assert abs(middle - slow.high) > 2 * abs(high - slow.high)


def test_closed_forms_cover() -> None:
    rng = np.random.default_rng(0)
    data = rng.lognormal(sigma=0.5, size=(2000, 200))
    means = [edgeworth(row) for row in data]
    medians = [between_ranks(row) for row in data]
    for found, truth in ((means, np.exp(0.125)), (medians, 1.0)):
        cover = np.mean([one.low <= truth <= one.high for one in found])
        assert 0.94 < cover < 0.96


def test_a_median_of_many_runs_costs_no_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "bca", lambda *_, **__: pytest.fail("n² values"))
    assert median_interval(np.arange(200.0)).method == "order"
    with pytest.raises(pytest.fail.Exception):
        median_interval(np.arange(199.0))


def test_a_slope_of_many_runs_is_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lr = np.geomspace(1e-4, 1e-1, 5000)
    seen: list[int] = []
    original = intervals.stats.theilslopes

    def counted(y: np.ndarray, x: np.ndarray) -> object:
        seen.append(len(y))
        return original(y, x)

    monkeypatch.setattr(intervals.stats, "theilslopes", counted)
    frame = frame_of(lr=lr, final_distance=lr**1.5 * rng.lognormal(sigma=0.2, size=5000))
    frame["run_id"] = [f"r{i}" for i in range(5000)]
    frame["run_status"], frame["flow_status"] = "finished", "ok"
    (row,) = trends(frame, "lr", "final_distance").itertuples()
    assert seen == [1000]
    assert row.n == 5000
    assert row.slope == pytest.approx(1.5, abs=0.02)
