"""Learning rates relative to the edge: closed forms, the search of a pilot, its record, its use."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cflows_ray.checks import ConfigError
from cflows_ray.rules import RULES
from cflows_ray.store import Storage
from cflows_ray.sweep import AroundEdge, AtSharpness, Grid, SweepConfig, Uniform, cli
from cflows_ray.sweep.pilot import Pilot, carry_out, edge_step, edges, find_edge, recorded
from cflows_ray.sweep.session import RunSession
from cflows_ray.sweep.summaries import pilots_in_words
from tests.sweep.fake_run import build_fake
from tests.sweep.launches import stopped


def study(rule: str = "gradient_descent", seeds: tuple[int, ...] = (0, 1), **grid: Any) -> Any:
    return SweepConfig("edge", (Grid("saddle_2d", rule, **grid),), seeds=seeds, steps=30)


def ids(sweep: SweepConfig) -> list[str]:
    return [run.run_id for run in sweep.runs]


# At a sharpness -----------------------------------------------------------------------------


def test_plain_gradient_descent_is_two_over_the_sharpness() -> None:
    rates = [run.lr for run in study(lrs=AtSharpness(50, 100, 200), seeds=(0,)).runs]
    assert rates == [0.04, 0.02, 0.01]
    assert ids(study(lrs=AtSharpness(50, 100))) == ids(study(lrs=(0.04, 0.02)))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_the_rate_is_where_the_rule_itself_has_its_edge(
    momentum: float, nesterov: bool, weight_decay: float
) -> None:
    """S / Q̂ = 2 with the rule's own edge preconditioner Q̂; and twice that step oscillates."""
    if nesterov and not momentum:
        pytest.skip("no such rule")
    import jax.numpy as jnp

    from cflows_ray.curvature import float_mode

    hyper = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    (lr,) = AtSharpness(70.0).rates("gradient_descent", hyper)
    rule = RULES["gradient_descent"](lr=lr, **hyper)
    with float_mode("float64"):
        state = rule.init(jnp.zeros(1))
        metric = rule.edge_preconditioner(jnp.asarray(1.0), state)
    assert math.isclose(70.0 / float(np.ravel(metric)[0]), 2.0, rel_tol=1e-12)


def test_every_momentum_of_a_grid_has_its_own_rates() -> None:
    runs = study(lrs=AtSharpness(50, 100), momentum=(0.0, 0.5), seeds=(0,)).runs
    found = {(run.lr, run.hyper["momentum"]) for run in runs}
    assert found == {(0.04, 0.0), (0.02, 0.0), (0.06, 0.5), (0.03, 0.5)}


# The search ---------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [3e-7, 2e-3, 0.01, 0.0101, 0.5, 40.0])
def test_the_search_finds_the_least_rate_from_above(edge: float) -> None:
    asked: list[float] = []

    def reached(lr: float) -> int | None:
        asked.append(lr)
        return 3 if lr >= edge else None

    found = find_edge(reached)
    assert found.lr is not None
    assert edge <= found.lr <= 1.05 * edge
    assert [lr for lr, _ in found.trials] == asked
    assert len(set(asked)) == len(asked) <= 20


@pytest.mark.parametrize("always", [True, False])
def test_a_search_without_an_edge_ends(always: bool) -> None:
    found = find_edge(lambda _: 0 if always else None)
    assert found.lr is None
    assert len(found.trials) == 15


# A study ------------------------------------------------------------------------------------


def test_pilots_are_made_once_for_all_seeds_and_factors() -> None:
    sweep = study(lrs=AroundEdge((0.5, 2.0), steps=9), momentum=(0.0, 0.5), seeds=(0, 1, 2))
    assert len(sweep.pilots) == 2
    assert (len(sweep.runs), sweep.num_waiting) == (0, 12)
    again = dataclasses.replace(sweep, seeds=(5,), steps=77, flows=("central",), num_eigs=2)
    assert [p.pilot_id for p in again.pilots] == [p.pilot_id for p in sweep.pilots]
    other = study(lrs=AroundEdge((0.5, 2.0), steps=10), momentum=(0.0, 0.5))
    assert not {p.pilot_id for p in other.pilots} & {p.pilot_id for p in sweep.pilots}


def test_what_pilots_found_becomes_learning_rates() -> None:
    sweep = study(lrs=AroundEdge((0.5, 2.0), steps=9), momentum=(0.0, 0.5))
    first, second = (pilot.pilot_id for pilot in sweep.pilots)
    half = sweep.resolved({first: 0.1})
    assert {(run.lr, run.hyper["momentum"]) for run in half.runs} == {(0.05, 0.0), (0.2, 0.0)}
    assert [pilot.pilot_id for pilot in half.pilots] == [second]
    whole = half.resolved({second: 0.3})
    assert ids(whole) == ids(sweep.resolved({first: 0.1, second: 0.3}))
    assert not whole.pilots
    listed = study(lrs=(0.05, 0.2), momentum=0.0)
    assert set(ids(listed)) <= set(ids(whole))
    without = sweep.resolved({first: None, second: 0.3})
    assert {run.hyper["momentum"] for run in without.runs} == {0.5}
    with pytest.raises(ConfigError, match=r"^lrs must have an edge to be around"):
        sweep.resolved({first: None, second: None})


def test_sampled_hyperparameters_have_a_pilot_each() -> None:
    sweep = study("rmsprop", lrs=AroundEdge((1.0,)), beta2=Uniform(0.9, 0.99, n=3))
    assert (len(sweep.pilots), sweep.num_waiting) == (3, 6)
    found = sweep.resolved({p.pilot_id: 0.1 * (i + 1) for i, p in enumerate(sweep.pilots)})
    assert len({(run.lr, run.hyper["beta2"]) for run in found.runs}) == 3
    smoke = sweep.smoke()
    assert (len(smoke.pilots), smoke.pilots[0].run.steps, smoke.num_waiting) == (1, 20, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AtSharpness(), r"sharpness must be a non-empty sequence, got \(\)"),
        (lambda: AtSharpness(50, -1), "sharpness must be > 0, got -1"),
        (lambda: AroundEdge(()), r"factors must be a non-empty sequence, got \(\)"),
        (lambda: AroundEdge((0.0,)), "factors must be > 0, got 0.0"),
        (lambda: AroundEdge(steps=0), "steps must be an integer >= 1, got 0"),
        (
            lambda: study("rmsprop", lrs=AtSharpness(50)),
            r"lrs must be numbers or AroundEdge for rmsprop, .*, got AtSharpness\(50\)",
        ),
        (lambda: study("sgd", lrs=AtSharpness(50)), "rule must be one of .*, got 'sgd'"),
        (lambda: study("sgd", lrs=AroundEdge()), "rule must be one of .*, got 'sgd'"),
        (lambda: study(lrs=AtSharpness(50), beta2=0.9), "beta2 must be left out for gradient"),
        (lambda: study(lrs=AroundEdge(), beta2=0.9), "beta2 must be left out for gradient"),
    ],
)
def test_what_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as info:
        make()
    assert "\n" not in str(info.value)


# Records ------------------------------------------------------------------------------------


def pilot(**grid: Any) -> Pilot:
    (found,) = study(**{"lrs": AroundEdge(steps=40), **grid}).pilots
    return found


def test_a_record(tmp_path: Path) -> None:
    storage, one = Storage(str(tmp_path), "edge"), pilot()
    assert recorded([one], storage) == {}
    carry_out(one, storage, commit="abc", search=lambda _: lambda lr: 2 if lr > 0.2 else None)
    (record,) = recorded([one, pilot(momentum=0.5)], storage).values()
    assert (record["status"], record["commit"]) == ("found", "abc")
    assert record["pilot"]["workload"] == "saddle_2d"
    assert record["trials"][0] == [0.01, None]
    assert edges({one.pilot_id: record}) == {one.pilot_id: record["lr"]}
    carry_out(one, storage, search=lambda _: lambda _: None)
    (record,) = recorded([one], storage).values()
    assert (record["status"], record["lr"]) == ("no edge", None)


def test_what_goes_wrong_is_a_status(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path), "edge")

    def search(_: Pilot) -> Any:
        raise FloatingPointError("seventeen\nmore lines")

    carry_out(pilot(), storage, search=search)
    records = recorded([pilot()], storage)
    (record,) = records.values()
    assert (record["status"], record["detail"]) == ("failed", "FloatingPointError: seventeen")
    (line,) = pilots_in_words([pilot()], records, verbose=False)
    assert line.endswith("failed: FloatingPointError: seventeen; its runs are left out")
    assert edges(records) == {}, "whether there is an edge is not known"


def broken(_: Pilot) -> Any:
    raise FloatingPointError("seventeen")


def test_a_study_whose_pilots_have_all_failed_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = study(lrs=AroundEdge((0.5,), steps=9), momentum=(0.0, 0.5))
    for one in sweep.pilots:
        carry_out(one, Storage(str(tmp_path), "edge"), search=broken)
    assert stopped(sweep, "--storage", str(tmp_path)) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error == (
        "error: no run has a learning rate: pilot saddle_2d/mse gradient_descent: failed: "
        "FloatingPointError: seventeen (and 1 more failed); --retry-failed makes failed pilots "
        "again"
    )
    assert stopped(sweep, "--storage", str(tmp_path), "--dry-run", "--retry-failed") == 0
    assert "2 pilots: 2 to make, for 4 runs" in capsys.readouterr().out


def test_a_study_with_a_failed_pilot_does_not_end_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its other runs are carried out, and the exit code says that some are not there."""
    sweep = study(lrs=AroundEdge((0.5,), steps=9), momentum=(0.0, 0.5))
    storage, (first, second) = Storage(str(tmp_path), "edge"), sweep.pilots
    carry_out(first, storage, search=lambda _: lambda lr: 2 if lr > 0.2 else None)
    carry_out(second, storage, search=broken)
    for run in sweep.resolved(edges(recorded([first], storage))).runs:
        session = RunSession(run, sweep="edge", storage=storage, chunk_steps=50, build=build_fake)
        assert session.advance().status == "finished"
    assert stopped(sweep, "--storage", str(tmp_path)) == 1
    text = capsys.readouterr().out
    assert "2 runs: 2 finished before" in text
    assert "failed: FloatingPointError: seventeen" in text.splitlines()[-1] + text.splitlines()[-2]
    carry_out(second, storage, search=lambda _: lambda _: None)  # without an edge, all is well
    assert stopped(sweep, "--storage", str(tmp_path)) == 0


def test_a_pilot_of_data_replaced_since_is_not_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(seed: int) -> None:
        numbers = np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)
        np.savez(tmp_path / "task.npz", x=numbers[:, :2], y=numbers[:, 2:])

    def make(pilots: Iterable[Pilot], edge: float) -> None:
        for one in pilots:
            carry_out(one, storage, search=lambda _: lambda lr: 2 if lr > edge else None)

    options = {"path": str(tmp_path / "task.npz")}
    grid = Grid("npz", "gradient_descent", lrs=AroundEdge((0.5,)), workload_options=options)
    sweep, storage = SweepConfig("edge", (grid,), steps=30), Storage(str(tmp_path), "edge")
    asked: list[float] = []

    def remember(sweep: SweepConfig, *_: Any) -> int:
        asked.extend(run.lr for run in sweep.runs)
        return 0

    tune = SimpleNamespace(
        connected=lambda *_: contextlib.nullcontext(),
        make_pilots=lambda _, pilots, *__, **___: make(pilots, 0.8),
    )
    monkeypatch.setitem(sys.modules, "cflows_ray.sweep.tune", tune)  # type: ignore[arg-type]
    monkeypatch.setattr(cli, "_carry_out", remember)
    here = ["--storage", str(tmp_path)]
    write(1)
    make(sweep.pilots, 0.2)
    assert stopped(sweep, *here) == 0
    write(2)
    assert stopped(sweep, *here) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "1 pilot was of data replaced since (npz(task.npz)/mlp; fingerprint " in error
    assert "--retry-changed" in error
    assert "--accept-changed" in error
    assert stopped(sweep, *here, "--dry-run") == 0
    assert stopped(sweep, *here, "--accept-changed") == 0
    assert asked == pytest.approx([0.1] * 3, rel=0.05)
    assert stopped(sweep, *here, "--retry-changed") == 0
    assert stopped(sweep, *here) == 0, "it is of the present data now"
    assert asked[3:] == pytest.approx([0.4] * 2, rel=0.05)


def test_many_pilots_are_not_all_listed() -> None:
    sweep = study(lrs=AroundEdge(), momentum=tuple(np.linspace(0.1, 0.9, 20).tolist()))
    records = {p.pilot_id: {"status": "found", "lr": 0.1, "detail": None} for p in sweep.pilots}
    assert len(list(pilots_in_words(sweep.pilots, records, verbose=False))) == 6
    assert len(list(pilots_in_words(sweep.pilots, records, verbose=True))) == 20


def test_a_dry_run_says_how_many_pilots_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = study(lrs=AroundEdge((0.5, 2.0), steps=9), momentum=(0.0, 0.5))
    storage = Storage(str(tmp_path), "edge")
    carry_out(sweep.pilots[0], storage, search=lambda _: lambda lr: 2 if lr > 0.2 else None)
    assert stopped(sweep, "--dry-run", "--storage", str(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "2 pilots: 1 to make, for 8 runs" in text
    assert "4 runs: none done before, 4 new" in text
    assert not storage.exists("sweep.json")


# The optimizer itself -----------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["gradient_descent", "rmsprop"])
def test_a_pilot_of_a_real_optimizer(rule: str, tmp_path: Path) -> None:
    """The record's rate reaches the edge in the asked steps; half of it does not."""
    storage, one = Storage(str(tmp_path), "edge"), pilot(rule=rule)
    carry_out(one, storage)
    (record,) = recorded([one], storage).values()
    assert record["status"] == "found"
    reached = edge_step(one)
    step = reached(record["lr"])
    assert step is not None
    assert step <= 40
    assert reached(record["lr"] / 2) is None
    # monotone where it was tried: what bisection relies on
    trials = sorted((lr, step is not None) for lr, step in record["trials"])
    assert all(not a or b for (_, a), (_, b) in itertools.pairwise(trials))
