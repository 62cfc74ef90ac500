"""The order in which a launch begins its runs."""

from __future__ import annotations

import pytest

from cflows_ray.sweep.plan import Plan
from cflows_ray.sweep.run_config import RunConfig


def run(rule: str, lr: float, seed: int = 0) -> RunConfig:
    return RunConfig(workload="saddle_2d", rule=rule, lr=lr, seed=seed)


GD = {(lr, seed): run("gradient_descent", lr, seed) for lr in (0.1, 0.4, 0.2) for seed in (0, 1)}
RMSPROP = {(lr, seed): run("rmsprop", lr, seed) for lr in (1e-4, 2e-4) for seed in (0, 1)}


def test_one_of_each_kind_then_high_learning_rates_first() -> None:
    """What compiles for the others comes first, and of it what compiles most; seeds in order."""
    plan = Plan({}, (), (*RMSPROP.values(), *GD.values()))
    assert plan.todo == (
        GD[0.4, 0],
        RMSPROP[2e-4, 0],
        GD[0.4, 1],
        GD[0.2, 0],
        GD[0.2, 1],
        GD[0.1, 0],
        GD[0.1, 1],
        RMSPROP[2e-4, 1],
        RMSPROP[1e-4, 0],
        RMSPROP[1e-4, 1],
    )


@pytest.mark.parametrize("begun", [(0.1, 1), (0.2, 0)])
def test_what_is_half_done_comes_before_what_has_not_begun(begun: tuple[float, int]) -> None:
    """But for the one that compiles."""
    fresh = [config for key, config in GD.items() if key != begun]
    plan = Plan({}, (GD[begun],), tuple(fresh))
    assert plan.todo[:2] == (GD[0.4, 0], GD[begun])
    assert sorted(plan.todo, key=str) == sorted(GD.values(), key=str)


def test_runs_tried_again_wait_for_their_turn() -> None:
    plan = Plan({}, (), (GD[0.2, 0], GD[0.1, 0]), retried=(GD[0.4, 0], GD[0.1, 1]))
    assert plan.todo == (GD[0.4, 0], GD[0.2, 0], GD[0.1, 0], GD[0.1, 1])
