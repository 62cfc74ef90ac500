"""Ranks of several flows: by hand, under censoring, and by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.measure import accuracy_frame

KEYS = {"workload": "w", "criterion": "mse", "rule": "rmsprop"}


def frame_of(errors: dict[str, list[list[float]]], **ended: float) -> pd.DataFrame:
    """Build a frame of accuracy: of each flow, per cell (learning rate), an error per seed."""
    rows = []
    for flow, cells in errors.items():
        for cell, values in enumerate(cells):
            for seed, value in enumerate(values):
                rows.append(KEYS | {
                    "run_id": f"r{cell}-{seed}", "lr": 0.1 * (1 + cell), "seed": seed, "flow": flow,
                    "run_status": "finished", "final_distance": value,
                    "flow_status": "stopped" if flow in ended else "ok",
                    "last_step": ended.get(flow, 600.0),
                })  # fmt: skip
    return accuracy_frame(rows)


def test_ranks_and_pairs_by_hand() -> None:
    found = analysis.rank(frame_of({
        "a": [[0.1, 0.2], [0.1, 0.4]], "b": [[0.2, 0.1], [0.1, 0.5]], "c": [[0.3, 0.3], [0.3, 0.3]],
    }))  # fmt: skip
    ranks = found.cells.pivot_table(index="flow", columns="lr", values="mean_rank")
    assert ranks.to_numpy().tolist() == [[1.5, 1.75], [1.5, 2.25], [3.0, 2.0]]
    assert found.cells.groupby("lr")["nearest"].sum().tolist() == [2, 1]
    overall = found.overall.set_index("flow")
    assert overall["mean_rank"].to_dict() == {"a": 1.625, "b": 1.875, "c": 2.5}
    assert overall["cells_nearest"].to_dict() == {"a": 2, "b": 1, "c": 0}
    pairs = found.pairs.set_index(["first", "second"])
    assert pairs.loc[("a", "b"), ["n", "wins", "ties"]].tolist() == [4, 2, 1]
    assert pairs.loc[("a", "b"), "improvement"] == pytest.approx((0.5 + 0.75) / 2)
    assert pairs.loc[("a", "c"), ["cells_for", "cells_against"]].tolist() == [1, 0]
    assert (pairs["p_holm"] >= pairs["p_value"]).all()


def test_cells_that_disagree_are_told() -> None:
    better, worse = [[0.1, 0.11, 0.12]], [[0.2, 0.21, 0.22]]
    found = analysis.rank(frame_of({"a": better + worse, "b": worse + better}))
    assert not found.agree
    assert found.verdict == (
        "Cells disagree, so that no single number says it: of 2, nearest a in 1, b in 1."
    )
    tied = analysis.rank(frame_of({"a": better + worse + better, "b": worse + better + better}))
    assert tied.verdict.endswith("of 3, nearest a in 2, b in 2 (where flows tie, for each).")
    agreed = analysis.rank(frame_of({"a": better + better, "b": worse + worse}))
    assert agreed.agree
    assert agreed.verdict == "a is nearest in all 2 cells."
    only = analysis.rank(frame_of({"a": better}))
    assert only.verdict == "No run in which two flows can be compared."
    assert only.pairs.empty


def test_flows_that_are_equally_near_are_not_told_apart() -> None:
    same = [[0.1, 0.11], [0.2, 0.22]]
    found = analysis.rank(frame_of({"a": same, "b": same, "c": [[0.5, 0.5], [0.5, 0.5]]}))
    assert found.verdict == "a and b are equally near in all 2 cells."
    pair = found.pairs.set_index(["first", "second"]).loc[("a", "b")]
    assert (pair["improvement"], pair["p_value"], pair["ties"]) == (0.5, 1.0, 4)


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_few_seeds_prove_nothing(seeds: int) -> None:
    """Though one flow is nearer in every run: of n runs a signed rank has p of at least 2^(1-n)."""
    errors = {"a": [[0.1] * seeds], "b": [[0.2] * seeds], "c": [[0.3] * seeds]}
    found = analysis.rank(frame_of(errors))
    assert found.pairs["improvement"].tolist() == [1.0, 1.0, 1.0]
    assert (found.pairs["p_holm"] > 0.05).all()
    assert (found.cells["n_runs"] == seeds).all()


def test_a_flow_that_is_not_defined_everywhere_says_so() -> None:
    both = [[0.1, 0.2], [0.1, 0.2]]
    undefined = [[0.05, 0.05], [np.nan, np.nan]]
    overall = analysis.rank(frame_of({"a": both, "b": both, "some": undefined})).overall
    found = overall.set_index("flow")
    assert found["cells_ranked"].to_dict() == {"a": 2, "b": 2, "some": 1}
    assert found["n_cells"].tolist() == [2, 2, 2]


def test_frames_of_run_paired_are_scored_first() -> None:
    """One, several, or by label, a cell for each."""

    def steps(near: float, far: float) -> pd.DataFrame:
        step = np.arange(41)
        base = {"step": step, "status": "ok", "distance_from_start": 0.1 * step}
        base |= {name: [[0.0]] * len(step) for name in ("sigma_eigs", "displacement_sq")}
        parts = [pd.DataFrame(base | {"process": "discrete"})] + [
            pd.DataFrame(base | {"process": name, "distance_to_discrete": error * step})
            for name, error in (("rod", near), ("stable", far))
        ]
        return pd.concat(parts, ignore_index=True)

    one, other = steps(0.01, 0.02), steps(0.03, 0.02)
    assert analysis.rank(one).verdict == "rod is nearest in the only cell."
    assert analysis.rank([one, one]).cells["n_runs"].tolist() == [2, 2]
    labelled = analysis.rank({"first": [one, one], "second": other})
    assert labelled.verdict.startswith("Cells disagree")
    assert labelled.cells["workload"].unique().tolist() == ["first", "second"]


def test_what_ended_is_behind_and_never_below_an_error() -> None:
    found = analysis.rank(
        frame_of({"lasts": [[0.14] * 3], "tiny": [[0.001] * 3], "gone": [[np.nan] * 3]},
                 tiny=150.0, gone=20.0)
    )  # fmt: skip
    assert found.overall["flow"].tolist() == ["lasts", "tiny", "gone"]
    assert found.overall["mean_rank"].tolist() == [1.0, 2.0, 3.0]
    last = found.profiles.groupby("flow")["share"].max()
    assert last.to_dict() == {"gone": 0.0, "lasts": 1.0, "tiny": 0.0}


def test_profiles_are_shares_of_runs() -> None:
    found = analysis.rank(frame_of({"a": [[0.1, 0.2, 0.4]], "b": [[0.8, 0.8, 0.8]]}))
    a = found.profiles.query("flow == 'a'")
    for error, share in ((0.1001, 1 / 3), (0.21, 2 / 3), (0.41, 1.0)):
        assert np.interp(error, a["error"], a["share"]) == pytest.approx(share, abs=0.02)
    ax = analysis.plot_profiles(found)
    assert len(ax.lines) == 2
    assert ax.get_ylabel() == "share of runs"


def test_variance_shares_by_simulation() -> None:
    rng = np.random.default_rng(0)
    of_rate = rng.normal(0, 2.0, 40)
    errors = [np.exp(m + rng.normal(0, 1.0, 10)).tolist() for m in of_rate]
    shares = analysis.rank(frame_of({"a": errors, "b": errors})).shares.iloc[0]
    between = np.var(of_rate)
    assert shares["learning_rate"] == pytest.approx(between / (between + 1), abs=0.05)
    assert shares[["network", "rule", "learning_rate", "seed"]].sum() == pytest.approx(1.0)
    assert shares[["network", "rule"]].tolist() == pytest.approx([0.0, 0.0])


def test_intervals_of_the_improvement_cover_the_truth() -> None:
    """Flows whose log errors differ by noise alone, five seeds in each of six cells: 552 pairs.

    A bootstrap of five runs has too little variance, by (5 - 1)/5, so that 95% limits cover 92%.
    """
    covered = []
    for sweep in range(2):
        rng = np.random.default_rng(sweep)
        flows = [f"flow{i:02d}" for i in range(24)]
        errors = {flow: np.exp(rng.normal(0, 1, (6, 5))).tolist() for flow in flows}
        pairs = analysis.rank(frame_of(errors)).pairs
        covered += ((pairs["improvement_low"] <= 0.5) & (pairs["improvement_high"] >= 0.5)).tolist()
    assert len(covered) == 552
    assert 0.90 <= np.mean(covered) <= 0.96


def test_mistakes() -> None:
    frame = frame_of({"a": [[0.1]], "b": [[0.2]]})
    with pytest.raises(ValueError, match="metric must be an error, got 'horizon'"):
        analysis.rank(frame, "horizon")
    with pytest.raises(ValueError, match="by: no column 'x'"):
        analysis.rank(frame, by="x")
    found = analysis.rank(frame)  # one run: no interval
    assert found.overall["rank_low"].isna().all()
