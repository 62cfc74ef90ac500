"""Settings of JAX under which code is run that was not written for them: no trouble of ours."""

import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedPack, PairedRun, Problem, run_paired
from cflows_ray.workloads import build_workload

SETTINGS = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "transfer_guard": lambda: jax.transfer_guard("disallow_explicit"),
    "disable_jit": lambda: jax.disable_jit(True),
}
X = np.random.default_rng(0).standard_normal((5, 3)).astype("f")


def loss(w):
    return jnp.mean(jnp.tanh(X @ w) ** 2)


def run(rule=GradientDescent(0.1)):  # noqa: B008
    return run_paired(loss, np.ones(3), rule, steps=3, flows=("midpoint",))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_is_what_it_is_without(name):
    without = run()
    with SETTINGS[name]():
        found = run()
    assert (found.status, found.status_detail) == ("finished", None)
    np.testing.assert_array_equal(found.final["discrete"], without.final["discrete"])
    assert found.steps.equals(without.steps)


@pytest.mark.parametrize("name", SETTINGS)
def test_states_and_packs(name):
    options = PairedOptions(flows=("midpoint",))
    with SETTINGS[name]():
        first = PairedRun(Problem(lambda w, _: loss(w)), GradientDescent(0.1), options)
        state = first.start(np.ones(3), steps=3, warmup=0, seed=0)
        state = first.from_arrays(first.to_arrays(state))
        states, _ = PairedPack([first]).advance([state], 2)
        assert first.step(states[0]) == 2
        assert not first.is_done(states[0])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_network_of_ours(name):
    with SETTINGS[name]():
        workload = build_workload("digits_mlp", "cross_entropy", num_examples=12, width=5)
        params = jax.tree.map(np.asarray, workload.init(0))
        jax.eval_shape(jax.grad(workload.problem.loss), params, workload.problem.data)
        jax.eval_shape(workload.problem.accuracy, params, workload.problem.data)


def with_norm(w):
    return jnp.sum(jnp.linalg.norm(w)) + jnp.sum(w)


def test_a_nan_of_the_users_own_is_found_with_its_line():
    assert run_paired(
        with_norm, np.zeros(3), GradientDescent(0.1), steps=2, flows=()
    ).status == "diverged"  # fmt: skip
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan") as error:
        run_paired(with_norm, np.zeros(3), GradientDescent(0.1), steps=2, flows=())
    frames = traceback.extract_tb(error.value.__traceback__)
    assert "with_norm" in {frame.name for frame in frames}


def test_an_infinite_loss_is_found():
    def infinite(w):
        return jnp.sum(1.0 / w)

    with jax.debug_infs(True), pytest.raises(FloatingPointError, match="inf"):
        run_paired(infinite, np.zeros(3), GradientDescent(0.1), steps=2, flows=())


def test_strict_promotion_still_checks_the_users_loss():
    def careless(w):
        return jnp.sum(w + jnp.ones((2, 3)))

    with jax.numpy_rank_promotion("raise"), pytest.raises(ValueError, match="rank_promotion"):
        run_paired(careless, np.ones(3), GradientDescent(0.1), steps=2, flows=())
