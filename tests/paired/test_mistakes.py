"""What a loss, its data and its start can be that they should not: a word each, never silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem, run_paired
from cflows_ray.paired.tracing import trace
from cflows_ray.problem import ParamStructure

RULE = GradientDescent(0.1)
QUICK = {"steps": 3, "flows": ("midpoint",)}


def losses(result):
    rows = result.steps
    return rows[rows.process == "discrete"].train_loss.to_numpy()


@pytest.mark.parametrize(
    ("loss", "at_step"),
    [
        (lambda w: jnp.sum(jnp.log(w - 0.75)), 1),  # gradient 4 at 1: steps to 0.6, NaN
        (lambda w: jnp.where(jnp.sum(w) < 1.95, -jnp.inf, jnp.sum(w)), 1),
        (lambda w: jnp.sum(w) + jnp.inf, 0),
        (lambda w: jnp.sum(w) - jnp.inf, 0),
        (lambda w: jnp.sum(w) * jnp.nan, 0),
    ],
    ids=["nan later", "falls to -inf", "starts at inf", "starts at -inf", "starts at nan"],
)
def test_a_loss_that_is_not_finite_has_diverged(loss, at_step):
    result = run_paired(loss, np.ones(2), RULE, **QUICK)
    assert result.status == "diverged"
    rows = result.steps[result.steps.process == "discrete"]
    assert rows.status.iloc[-1] == "diverged"
    assert rows.step.iloc[-1] == at_step
    assert not np.isfinite(losses(result)[-1])


def descend(y, steps=3):
    """Return the losses of gradient descent on |w - y|², by NumPy, from w = 0."""
    w, found = np.zeros(3), []
    for _ in range(steps + 1):
        found.append(np.sum((w - y) ** 2))
        w = w - 0.1 * 2 * (w - y)
    return np.array(found)


class Target:
    def __init__(self, y):
        self.y = y

    def loss(self, w):
        return jnp.sum((w - self.y) ** 2)

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


class TestWhatWasCaptured:
    """Captured data count as they are at the call, and new values compile nothing."""

    def test_replaced_under_one_function(self):
        captured = {"y": np.ones(3)}

        def loss(w):
            return jnp.sum((w - captured["y"]) ** 2)

        first = run_paired(loss, np.zeros(3), RULE, **QUICK)
        captured["y"] = captured["y"] + 10
        second = run_paired(loss, np.zeros(3), RULE, **QUICK)
        np.testing.assert_allclose(losses(first), descend(np.ones(3)), rtol=1e-5)
        np.testing.assert_allclose(losses(second), descend(np.full(3, 11.0)), rtol=1e-5)
        assert second.compile_s == 0

    def test_bound_methods_of_objects_that_compare_equal(self):
        for y in (1.0, 5.0):
            result = run_paired(Target(np.full(3, y)).loss, np.zeros(3), RULE, **QUICK)
            np.testing.assert_allclose(losses(result), descend(np.full(3, y)), rtol=1e-5)
        assert result.compile_s == 0

    def test_a_captured_python_number(self):
        for y in (1.0, 1.0000002):
            result = run_paired(
                lambda w, y=y: jnp.sum((w - y) ** 2), np.zeros(3), RULE, dtype="float64", **QUICK
            )
            np.testing.assert_allclose(losses(result), descend(np.full(3, y)), rtol=1e-12)

    def test_data_changed_in_place(self):
        data = {"y": np.ones(3)}
        problem = Problem(lambda w, d: jnp.sum((w - d["y"]) ** 2), data)
        for factor in (1, 4):
            data["y"] *= factor
            run = PairedRun(problem, RULE, PairedOptions(flows=("midpoint",)))
            state = run.start(np.zeros(3), steps=3, warmup=0, seed=0)
            rows = run.advance(state, 3)[1]
            found = rows[rows.process == "discrete"].train_loss
            np.testing.assert_allclose(found, descend(np.full(3, float(factor))), rtol=1e-5)

    def test_data_as_an_argument(self):
        result = run_paired(
            lambda w, y: jnp.sum((w - y) ** 2), np.zeros(3), RULE, data=np.full(3, 2.0), **QUICK
        )
        np.testing.assert_allclose(losses(result), descend(np.full(3, 2.0)), rtol=1e-5)


def test_a_loss_that_is_not_pure_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="loss_fn must be a pure function") as error:
        run_paired(lambda w: jnp.sum(w**2 * rng.random(2)), np.ones(2), RULE, **QUICK)
    assert "\n" not in str(error.value)


def with_rule(slope):
    """Return Σ w² with a derivative rule of its own: slope · w."""

    @jax.custom_jvp
    def square(x):
        return jnp.sum(x**2)

    square.defjvp(lambda x, t: (square(x[0]), jnp.sum(slope * x[0] * t[0])))
    return lambda w, _: square(w)


def test_derivative_rules_tell_functions_apart():
    structure = ParamStructure.of(np.ones(2), "float32")
    slopes = (2.0, 2.0, 3.0, np.array([2.0, 3.0]), np.array([2.0, 4.0]))
    found = [trace(with_rule(slope), "loss_fn", structure, ())[0] for slope in slopes]
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[3] != found[4]
