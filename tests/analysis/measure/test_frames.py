"""Frames of `run_paired` score as the same run in a folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import analysis
from analysis.read import run_trace


def test_frames_score_as_a_folder(example_sweep: Path) -> None:
    results = analysis.load(example_sweep)
    whole = analysis.accuracy(results).set_index(["run_id", "flow"])
    bare = {r: results.run_steps(r).drop(columns="run_id") for r in ("gr001s0", "gr001s1")}
    names = [m.name for m in analysis.METRICS]
    one = analysis.accuracy(bare["gr001s0"]).set_index("flow")
    pd.testing.assert_frame_equal(one[names], whole.loc["gr001s0", names])

    labelled = analysis.accuracy({"first": bare["gr001s0"], "second": bare["gr001s1"]})
    assert labelled["run_id"].astype("str").unique().tolist() == ["first", "second"]
    assert analysis.rank(labelled).verdict == "central is nearest in all 2 cells."
    seeds = analysis.accuracy(list(bare.values()))
    assert analysis.summarize(seeds, metrics="final_distance")["n"].tolist() == [2, 2]
    assert analysis.compare(seeds, "central", "stable")["wins"].tolist() == [2]


def test_columns_that_a_flow_added_are_kept(example_sweep: Path) -> None:
    bare = analysis.load(example_sweep).run_steps("gr001s0").assign(toy=3.0, word="x")
    assert run_trace(bare).processes["central"]["toy"].tolist() == [3.0] * 601
    assert "word" not in run_trace(bare).processes["central"]


def test_what_is_no_frame_of_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="frame 'x' must be the steps of run_paired"):
        analysis.accuracy({"x": pd.DataFrame({"step": [0]})})
    with pytest.raises(ValueError, match="must be a path or frames, got int"):
        analysis.accuracy([3])  # type: ignore[list-item]
