"""Sampled studies: the same points everywhere, more of them later, what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from cflows_ray.checks import ConfigError
from cflows_ray.sweep import Choice, Grid, LogUniform, SweepConfig, Uniform
from cflows_ray.sweep.options import apply, parse
from cflows_ray.sweep.sampling import as_distribution, points

BOTH = {"lr": LogUniform(1e-4, 1e-2), "beta2": Uniform(0.9, 0.999)}


def study(**grid: Any) -> SweepConfig:
    return SweepConfig("sampled", (Grid("saddle_2d", "rmsprop", **grid),), seeds=(0, 1), steps=5)


def ids(sweep: SweepConfig) -> list[str]:
    return [run.run_id for run in sweep.runs]


def test_the_points_never_change_by_accident() -> None:
    """Other points would run every sampled study again: say so in the changelog if it must be."""
    assert list(points(BOTH, 3, 0)) == [
        {"beta2": 0.9743371, "lr": 0.001931797},
        {"beta2": 0.9248371, "lr": 0.0001931797},
        {"beta2": 0.9000871, "lr": 0.0061088784},
    ]


@pytest.mark.parametrize("n", [1, 5, 64, 200])
@pytest.mark.parametrize("seed", [0, 7])
def test_more_points_keep_those_that_there_were(n: int, seed: int) -> None:
    few, many = (list(points(BOTH, m, seed)) for m in (n, 2 * n + 3))
    assert (len(few), len(many)) == (n, 2 * n + 3)
    assert many[:n] == few
    assert few == list(points(dict(reversed(BOTH.items())), n, seed))
    assert few != list(points(BOTH, n, seed + 1))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_points_fill_the_range_evenly(seed: int) -> None:
    """Of 2^m points one lies in each of 2^m boxes of any shape: a (0, m, 2)-net."""
    found = list(points({"a": Uniform(0.0, 1.0), "b": Uniform(-3.0, 5.0)}, 64, seed))
    a = np.array([p["a"] for p in found])
    b = (np.array([p["b"] for p in found]) + 3.0) / 8.0
    for i in range(7):
        boxes = np.floor(a * 2**i) * 64 + np.floor(b * 2 ** (6 - i))
        assert len(set(boxes)) == 64


def test_distributions() -> None:
    shares = (np.arange(1000) + 0.5) / 1000
    values = [LogUniform(0.01, 100.0).at(s) for s in shares]
    np.testing.assert_allclose(np.log10(values), 4 * shares - 2, atol=1e-7)
    assert all(float(f"{v:.8g}") == v for v in values)
    assert math.isclose(Uniform(-1.0, 3.0).at(0.75), 2.0)
    assert [Choice(("a", "b", "c")).at(s) for s in (0.01, 0.34, 0.99)] == ["a", "b", "c"]
    # rounding never leaves the range
    assert 1 / 3 <= Uniform(1 / 3, 0.5).at(1e-12) < 0.34
    assert 0.6 < Uniform(0.5, 2 / 3).at(1 - 1e-12) <= 2 / 3


def test_a_sampled_study() -> None:
    sweep = study(lrs=LogUniform(1e-4, 1e-2, n=200))
    assert len(sweep.runs) == 400
    assert ids(sweep) == ids(study(lrs=LogUniform(1e-4, 1e-2), samples=200))
    more = study(lrs=LogUniform(1e-4, 1e-2, n=400))
    assert ids(more)[:400] == ids(sweep)
    other = study(lrs=LogUniform(1e-4, 1e-2, n=200), sample_seed=1)
    assert not set(ids(other)) & set(ids(sweep))
    smoke = sweep.smoke().runs
    assert [(run.lr, run.steps) for run in smoke] == [(sweep.runs[0].lr, 5)]


def test_what_is_sampled_is_crossed_with_what_is_listed() -> None:
    sweep = study(
        lrs=LogUniform(1e-4, 1e-2, n=4),
        beta2=Uniform(0.9, 0.99),
        bias_correction=Choice((True, False)),
        momentum=(0.0, 0.5),
        eps=1e-6,
    )
    assert len(sweep.runs) == 4 * 2 * 2
    sampled = {(r.lr, r.hyper["beta2"], r.hyper["bias_correction"]) for r in sweep.runs}
    assert len(sampled) == len({lr for lr, *_ in sampled}) == 4
    assert {flag for *_, flag in sampled} == {True, False}
    listed = study(lrs=(0.1, 0.2), beta2=Uniform(0.9, 0.99, n=3))
    assert len(listed.runs) == 2 * 3 * 2


def test_on_the_command_line() -> None:
    sweep = study(lrs=LogUniform(1e-4, 1e-2, n=8))
    assert apply(sweep, parse(sweep, [])) == sweep
    more = apply(sweep, parse(sweep, ["--samples", "16"]))
    assert ids(more)[:16] == ids(sweep)
    assert len(more.runs) == 32
    listed = apply(sweep, parse(sweep, ["--lrs", "0.1"]))
    assert [run.lr for run in listed.runs] == [0.1, 0.1]
    with pytest.raises(ConfigError, match=r"^samples must be left out where nothing is sampled"):
        apply(listed, parse(listed, ["--samples", "16"]))


RATES = LogUniform(0.01, 1.0, n=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogUniform(0.0, 1.0), "low must be > 0, got 0.0"),
        (lambda: LogUniform(1.0, 0.1), "high must be above low = 1, got 0.1"),
        (lambda: Uniform(0.0, math.inf), "high must be a finite number, got inf"),
        (lambda: Uniform(0.0, 1.0, n=0), "n must be an integer >= 1, got 0"),
        (lambda: Choice(()), r"values must be a non-empty sequence, got \(\)"),
        (lambda: study(lrs=LogUniform(0.1, 1.0)), "samples must be given where .*, got nothing"),
        (lambda: study(lrs=(0.1,), samples=4), "samples must be left out where .*, got 4"),
        (
            lambda: study(lrs=RATES, beta2=Uniform(0.9, 0.99, n=4)),
            "samples must be one number for all of a grid, got 3 and 4",
        ),
        (lambda: study(lrs=RATES, sample_seed=-1), "sample_seed must be an integer >= 0"),
        (lambda: study(lrs=RATES, steps=Uniform(1, 9)), "steps must be the same for all runs"),
        (
            lambda: study(lrs=RATES, bias_correction=Uniform(0, 1)),
            "bias_correction must be a Choice of values, got Uniform",
        ),
        (lambda: study(lrs=Uniform(-1.0, 1.0, n=3)), "lr must be > 0, got -"),
        (lambda: study(lrs=RATES, beta2=Uniform(0.9, 1.5)), "beta2 must be > 0 and < 1, got 1"),
        (lambda: study(lrs=Choice((0.1, 0.2), n=3)), "grids must not give a run twice"),
    ],
)
def test_what_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as info:
        make()
    assert "\n" not in str(info.value)


def test_a_hyperparameter_that_the_rule_does_not_have() -> None:
    with pytest.raises(ConfigError, match=r"^beta2 must be left out for gradient_descent"):
        dataclasses.replace(
            study(lrs=RATES),
            grids=(Grid("saddle_2d", "gradient_descent", lrs=RATES, beta2=Uniform(0.9, 0.99)),),
        )


def test_search_spaces_of_tune() -> None:
    tune = pytest.importorskip("ray.tune")
    pairs = [
        (tune.loguniform(1e-4, 1e-2), LogUniform(1e-4, 1e-2)),
        (tune.uniform(0.5, 1.0), Uniform(0.5, 1.0)),
        (tune.choice([0.9, 0.99]), Choice((0.9, 0.99))),
        (tune.randint(1, 4), Choice((1, 2, 3))),
        (tune.grid_search([0.1, 0.2]), (0.1, 0.2)),
        ((0.1, 0.2), (0.1, 0.2)),
    ]
    for space, expected in pairs:
        assert as_distribution("lrs", space) == expected
    ours = study(lrs=LogUniform(1e-4, 1e-2, n=4), beta2=Choice((0.9, 0.99)))
    theirs = study(lrs=tune.loguniform(1e-4, 1e-2), beta2=tune.choice([0.9, 0.99]), samples=4)
    assert ids(ours) == ids(theirs)
    for space, word in [
        (tune.randn(0.0, 1.0), "Float Normal"),
        (tune.quniform(0.0, 1.0, 0.1), "Float Quantized"),
        (tune.lograndint(1, 5), "Integer LogUniform"),
        (tune.sample_from(lambda _: 1.0), "Function"),
    ]:
        with pytest.raises(ConfigError, match=f"^lrs must be tune.uniform, .*, got {word}$"):
            study(lrs=space, samples=3)
