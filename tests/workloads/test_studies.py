"""The paper's studies as data: complete, within their rules, and shrinkable."""

from __future__ import annotations

import pytest

from cflows_ray.workloads import full_options
from sweeps import paper_gd, paper_rmsprop, paper_scalar_rmsprop
from sweeps.paper_studies import ARCHITECTURES, around, study, take_scale

STUDIES = {
    "gradient_descent": paper_gd.RATES,
    "scalar_rmsprop": paper_scalar_rmsprop.RATES,
    "rmsprop": paper_rmsprop.RATES,
}


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("rule", sorted(STUDIES))
def test_every_architecture_both_criteria_five_rates_five_seeds(rule, scale):
    sweep = study("example", rule, STUDIES[rule], scale)
    kinds = {(g.workload, g.criterion): g for g in sweep.grids}
    assert set(kinds) == {(w, c) for w in ARCHITECTURES for c in ("mse", "cross_entropy")}
    assert all(len(grid.lrs) >= 5 for grid in sweep.grids)
    assert len(sweep.seeds) >= 5
    assert 10 <= sweep.warmup <= 15
    assert len(sweep.runs) == 7 * 2 * 5 * 5
    assert {run.rule for run in sweep.runs} == {rule}
    if rule != "gradient_descent":
        assert {run.hyper["beta2"] for run in sweep.runs} == {0.99}


@pytest.mark.parametrize(
    ("rule", "rate"),
    [("gradient_descent", 2 / 200), ("scalar_rmsprop", 2 / 400), ("rmsprop", 2e-5)],
)
def test_rates_that_the_paper_quotes(rule, rate):
    assert rate in STUDIES[rule]["paper"]["vit_cifar10"]["mse"]


def test_the_cpu_scale_is_spelt_out_and_smaller():
    sweep = study("example", "rmsprop", paper_rmsprop.RATES, "cpu")
    for grid in sweep.grids:
        assert grid.workload_options == full_options(grid.workload, {"scale": "cpu"})
        paper = full_options(grid.workload, {"scale": "paper"})
        assert grid.workload_options["num_examples"] < paper["num_examples"]


def test_one_architecture_as_a_smoke_test():
    sweep = study("example", "rmsprop", paper_rmsprop.RATES, "cpu").only(("vit_cifar10",)).smoke()
    assert len(sweep.runs) == 2
    assert {run.workload for run in sweep.runs} == {"vit_cifar10"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--only", "vit_cifar10"], ("cpu", ["--only", "vit_cifar10"])),
        (["--scale", "paper", "--smoke-test"], ("paper", ["--smoke-test"])),
        (["--smoke-test", "--scale=cpu"], ("cpu", ["--smoke-test"])),
    ],
)
def test_scale_is_taken_from_the_command_line(arguments, expected):
    assert take_scale(arguments) == expected


@pytest.mark.parametrize("arguments", [["--scale", "gpu"], ["--scale"]])
def test_unknown_scale(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        take_scale(arguments)
    assert caught.value.code == 2
    assert "scale must be one of ['cpu', 'paper']" in capsys.readouterr().err


def test_rates_around_a_centre():
    rates = around(0.1, 0.3)
    assert rates["mse"] == (0.07, 0.085, 0.1, 0.125, 0.15)
    assert 0.3 in rates["cross_entropy"]
