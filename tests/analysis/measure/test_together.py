"""Runs that are scored together get, bit for bit, the numbers that each gets alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from synthetic import CENTRAL, STABLE, RunTruth, steps_table

from analysis.measure import metric
from analysis.measure import together as module
from analysis.measure.scored import Plan, score_runs
from analysis.measure.scoring import score
from analysis.measure.side_by_side import Scoring, SideBySide
from analysis.measure.together import Together, row_means, together
from analysis.read import Trace, traces_from_table

PLAN = Plan(Scoring(), (10.0,), for_study=True)


def various() -> Iterator[RunTruth]:
    """Yield runs on the same steps, and some that ended early or were recorded less often."""
    stopped = {"central": replace(CENTRAL, stop=301), "stable": STABLE}
    for seed in range(3):
        yield RunTruth(run_id=f"plain{seed}", seed=seed)
        yield RunTruth(run_id=f"stopped{seed}", seed=seed, flows=stopped)
    yield RunTruth(run_id="diverged", steps=400, status="diverged")
    yield RunTruth(run_id="rare", record_every=2)
    yield RunTruth(run_id="alone", flows={"stable": STABLE})
    yield RunTruth(run_id="short", steps=30)


def perturbed(truth: RunTruth, rng: np.random.Generator) -> Trace:
    """Return a run whose numbers are like no other's, some of them missing."""
    schema = steps_table(truth).schema
    frame = steps_table(truth).to_pandas()
    for name in [field.name for field in schema if pa.types.is_floating(field.type)]:
        frame[name] *= np.exp(0.05 * rng.normal(size=len(frame)))
        if name != "distance_from_start":
            frame.loc[rng.integers(len(frame), size=2), name] = np.nan
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    (trace,) = traces_from_table(table)
    return trace


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    rng = np.random.default_rng(0)
    return [perturbed(truth, rng) for truth in various()]


def scored(traces: list[Trace]) -> pd.DataFrame:
    ids = [trace.run_id for trace in traces]
    return score_runs(traces, PLAN, ids).to_pandas()


def test_numbers_do_not_depend_on_the_company(traces: list[Trace]) -> None:
    alone = pd.concat([scored([trace]) for trace in traces], ignore_index=True)
    # float32 curves and lists too; "check_exact" allows NaN beside NaN
    pd.testing.assert_frame_equal(scored(traces), alone, check_exact=True)
    assert alone["mean_distance"].nunique() > len(traces)


def test_runs_on_the_same_steps_share_and_others_do_not(traces: list[Trace]) -> None:
    company: dict[int, list[str]] = {}
    for trace, among in together(iter(traces)):
        company.setdefault(id(among), []).append(trace.run_id)
    plain, stopped = ([f"{kind}{i}" for i in range(3)] for kind in ("plain", "stopped"))
    others = [["diverged"], ["rare"], ["alone"], ["short"]]
    assert sorted(company.values()) == sorted([plain, stopped, *others])


def test_batches_are_of_bounded_size(traces: list[Trace], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 4000)  # two of the plain runs
    taken: list[str] = []

    def watched() -> Iterator[Trace]:
        for trace in traces:
            taken.append(trace.run_id)
            yield trace

    for i, (trace, _) in enumerate(together(watched())):
        assert trace is traces[i]
        assert len(taken) <= i + 5  # never all of them
    assert taken == [trace.run_id for trace in traces]


@pytest.mark.parametrize(("per_run", "calls"), [(True, 1), (False, 2)])
def test_a_metric_of_the_optimizer_is_computed_once_a_run(
    traces: list[Trace], per_run: bool, calls: int
) -> None:
    asked: list[SideBySide] = []

    @metric(label="calls", per_run=per_run, is_error=False)
    def counted(run: SideBySide) -> float:
        """Count calls."""
        asked.append(run)
        return float(len(asked))

    rows = list(score(traces[0], Scoring(), [counted]))
    assert [row["flow"] for row in rows] == ["central", "stable"]
    assert len(asked) == calls
    assert [row["counted"] for row in rows] == [1.0, float(calls)]


def test_means_of_rows_that_lack_different_steps() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(7, 1001))
    for keep in (rng.random((7, 1001)) > 0.3, np.tile(rng.random(1001) > 0.3, (7, 1))):
        expected = [v[k].mean() for v, k in zip(values, keep, strict=True)]
        assert row_means(values, keep).tolist() == expected
    assert np.isnan(row_means(values, np.zeros_like(values, bool))).all()


def test_lists_of_different_lengths_are_averaged_together(traces: list[Trace]) -> None:
    plain = [trace for trace in traces if trace.run_id.startswith("plain")]
    wide = plain[0]
    narrow = replace(
        plain[1],
        processes={
            name: columns | {"sigma_eigs": columns["sigma_eigs"][:, :1]}
            for name, columns in plain[1].processes.items()
        },
        _scored={},
    )
    for i, trace in enumerate((wide, narrow)):
        both = Together([wide, narrow]).average("central", "sigma_eigs", 20.0)[i]
        alone = Together([trace]).average("central", "sigma_eigs", 20.0)[0]
        np.testing.assert_array_equal(both, alone)
    assert both.shape[1] == 1
