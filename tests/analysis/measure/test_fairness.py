"""A perfect prediction scores zero, and a better one scores better: by simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import CENTRAL, STABLE, FlowTruth, RunTruth, write_sweep

import analysis
from analysis.measure import find_metric
from analysis.measure.scoring import score
from analysis.measure.side_by_side import Scoring
from analysis.read import Trace

STEPS = np.arange(600)
AVERAGED = (
    "log_loss_error", "grad_norm_error", "test_loss_error", "sharpness_error",
    "train_accuracy_error", "test_accuracy_error", "variance_error",
)  # fmt: skip
COLUMNS = {
    "train_loss": "train_loss_predicted", "grad_norm_sq": "grad_norm_sq_predicted",
    "test_loss": "test_loss_predicted", "effective_sharpness": "effective_sharpness",
    "train_accuracy": "train_accuracy", "test_accuracy": "test_accuracy",
}  # fmt: skip


def trace_of(flows: dict[str, dict[str, NDArray]], optimizer: dict[str, NDArray]) -> Trace:
    """Trace of one run; a flow is as long as its columns, and stopped if shorter than the run."""

    def process(columns: dict[str, NDArray]) -> dict[str, NDArray]:
        n = len(next(iter(columns.values())))
        return {"step": STEPS[:n], "status": np.array(["ok"] * n), **columns}

    named = {"discrete": optimizer, **flows}
    return Trace("r", {name: process(columns) for name, columns in named.items()})


def scored(trace: Trace, *names: str) -> dict[str, dict[str, float]]:
    metrics = [find_metric(name) for name in names]
    return {row["flow"]: row for row in score(trace, Scoring(), metrics)}


def zigzag(smooth: NDArray, share: float) -> NDArray:
    return smooth * (1 + share * (-1.0) ** STEPS)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_perfect_prediction_scores_zero(share: float) -> None:
    """Of a loss that falls fast, with or without the oscillation predicted as well."""
    fast = np.exp(-STEPS / 60)
    optimizer = {name: zigzag(fast, share) for name in COLUMNS} | {"distance_from_start": STEPS}
    perfect = {COLUMNS[name]: zigzag(fast, share) for name in COLUMNS}
    swing = np.abs(np.sin(STEPS / 30))[:, None] + 0.1  # loops, which an alternating flow resolves
    perfect |= {"sigma_eigs": swing, "displacement_sq": swing}
    row = scored(trace_of({"f": perfect}, optimizer), *AVERAGED)["f"]
    assert [row[name] for name in AVERAGED] == pytest.approx([0.0] * len(AVERAGED), abs=1e-12)


@pytest.mark.parametrize("off", [0.003, 0.01, 0.1])
def test_what_is_half_a_per_cent_off_scores_half_a_per_cent(off: float) -> None:
    """However fast the loss falls: an average of one side only would cost 0.05 here."""
    fast = np.exp(-STEPS / 60)
    optimizer = {"train_loss": zigzag(fast, 0.2)}
    flow = {"train_loss_predicted": fast * np.exp(off)}
    row = scored(trace_of({"f": flow}, optimizer), "log_loss_error")["f"]
    assert row["log_loss_error"] == pytest.approx(off, rel=0.01)


# How the error of a flow's distance goes over a run of 600 steps: the first is better.
BETTER_AND_WORSE: dict[str, tuple[Callable, Callable]] = {
    "less biased": (lambda t, _: 0.02 + 0 * t, lambda t, _: 0.03 + 0 * t),
    "wrong early, right later": (
        lambda t, _: np.where(t < 100, 0.2, 0.01), lambda t, _: np.where(t < 100, 0.2, 0.1),
    ),
    "right longer": (
        lambda t, _: np.where(t < 400, 0.01, 0.3), lambda t, _: np.where(t < 200, 0.01, 0.3),
    ),
    "as good, but noisy": (
        lambda t, _: 0.02 + 0 * t, lambda t, rng: 0.02 + np.abs(rng.normal(0, 0.01, len(t))),
    ),
    "lasts, the other stops": (
        lambda t, _: 0.0004 * t, lambda t, _: 0.0008 * t[:230],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BETTER_AND_WORSE)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_better_flow_scores_better(case: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    level = float(np.exp(0.5 * rng.normal()))  # of the seed, the same for both
    optimizer = {"distance_from_start": STEPS * 1.0}
    flows = {
        name: {"distance_to_discrete": level * error(STEPS, rng) * STEPS[: len(error(STEPS, rng))]}
        for name, error in zip(("good", "bad"), BETTER_AND_WORSE[case], strict=True)
    }
    rows = scored(trace_of(flows, optimizer), "mean_distance")
    assert rows["good"]["mean_distance"] < rows["bad"]["mean_distance"]


def test_stopping_early_does_not_pay(tmp_path: Path) -> None:
    """The case that was seen: 9% on its own steps against 14%, but 42% against 25% at the end."""
    optimizer = {"distance_from_start": STEPS * 1.0}
    central = 0.25 * STEPS / 600 * STEPS
    stable = (0.42 * STEPS / 250 * STEPS)[:250]
    flows = {
        "central": {"distance_to_discrete": central},
        "stable": {"distance_to_discrete": stable},
    }
    own = float(np.mean(stable[1:] / STEPS[1:250]))
    rows = scored(trace_of(flows, optimizer), "mean_distance", "final_distance")
    central_mean = rows["central"]["mean_distance"]
    lost = 350 / 599
    assert rows["stable"]["mean_distance"] == pytest.approx(
        (1 - lost) * own + lost * 0.418, rel=0.01
    )
    assert rows["stable"]["mean_distance"] > 2 * central_mean

    tiny = FlowTruth(distance=0.001, loss=0.0, stop=100)  # perfect until it stops
    runs = [
        RunTruth(run_id=f"r{i}", seed=i, flows={"central": CENTRAL, "stable": tiny})
        for i in range(6)
    ]
    frame = analysis.accuracy(write_sweep(tmp_path, runs))
    names = ["final_distance", "mean_distance", "log_loss_error"]
    table = analysis.compare(frame, "stable", "central", by=[], metrics=names)
    assert table["wins"].tolist() == [0, 0, 0]
    assert table["n_undefined"].tolist() == [0, 0, 0]  # it has no average, and is not left out
    assert (table["median_ratio"].dropna() >= 1).all()
    assert (table["p_value"] < 0.05).all()
    summary = analysis.summarize(frame, metrics=names).set_index(["flow", "metric"])
    assert summary.loc["stable", "n_censored"].tolist() == [6, 6, 6]
    assert summary.loc["central", "n_censored"].tolist() == [0, 0, 0]


def test_flows_are_scored_over_the_same_steps(tmp_path: Path) -> None:
    """A flow that ends as far off as it was has the score of one that went on so."""
    stays = replace(STABLE, distance=0.1)
    flows = {"central": stays, "stable": replace(stays, stop=400)}
    frame = analysis.accuracy(write_sweep(tmp_path, [RunTruth(run_id="a", flows=flows)]))
    lasted, ended = (frame.set_index("flow").loc[name] for name in ("central", "stable"))
    for metric in (find_metric(n) for n in ("mean_distance", "log_loss_error", "edge_distance")):
        assert ended[metric.name] == pytest.approx(lasted[metric.name], rel=1e-5), metric.name


def test_an_impossible_prediction_is_not_left_out() -> None:
    fast = np.exp(-STEPS / 60)
    flow = {"train_loss_predicted": np.where(STEPS > 300, -1.0, fast)}
    row = scored(trace_of({"f": flow}, {"train_loss": fast}), "log_loss_error")["f"]
    assert row["log_loss_error"] == np.inf


def test_a_missing_prediction_is_not_left_out_either() -> None:
    """A flow whose values are null from some step on is scored there by its last error."""
    optimizer = {"distance_from_start": STEPS * 1.0}
    error = 0.0005 * STEPS
    gone = np.where(STEPS < 300, error * STEPS, np.nan)
    flows = {"gone": {"distance_to_discrete": gone},
             "there": {"distance_to_discrete": error * STEPS}}  # fmt: skip
    rows = scored(trace_of(flows, optimizer), "mean_distance")
    shown = np.mean(error[1:300])
    assert rows["gone"]["mean_distance"] == pytest.approx((shown * 299 + error[299] * 300) / 599)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_flows_are_called_equal(seeds: int, tmp_path: Path) -> None:
    same = FlowTruth(distance=0.1)
    runs = [
        RunTruth(run_id=f"r{i}", seed=i, steps=200, flows={"one": same, "other": same})
        for i in range(seeds)
    ]
    row = analysis.compare(analysis.accuracy(write_sweep(tmp_path, runs)), "one", "other").iloc[0]
    assert (row["win_rate"], row["median_ratio"], row["p_value"]) == (0.5, 1.0, 1.0)
    assert row["win_low"] < 0.5 < row["win_high"]
