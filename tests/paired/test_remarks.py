"""What a run says of itself: which derivative was not finite, and where; rows that are doubtful."""

import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem
from cflows_ray.paired.state import FINISHED, RUN_DIVERGED
from cflows_ray.schema import StepStatus


def started(loss, params, warmup=0, **options):
    options = PairedOptions(**{"flows": (), "num_eigs": 1, **options})
    run = PairedRun(Problem(lambda w, _: loss(w)), GradientDescent(0.1), options)
    return run, run.start(params, steps=9, warmup=warmup, seed=0)


def diverged(state):
    return state._replace(outcome=jnp.asarray(RUN_DIVERGED, jnp.int32))


ZERO = np.array([0.0, 1.0])


@pytest.mark.parametrize(
    ("loss", "params", "words"),
    [
        (
            lambda p: jnp.linalg.norm(p["w"]) + jnp.sum(p["b"] ** 2),
            {"w": np.zeros(3), "b": np.ones(2)},
            "the gradient with respect to ['w'] is not finite at the starting point "
            "though the loss is",
        ),
        (
            lambda p: sum(jnp.sum(jnp.sqrt(x)) for x in p),
            [np.zeros(1)] * 5,
            "the gradient with respect to [0], [1], [2] and 2 more is not finite",
        ),
        (lambda w: jnp.sum(jnp.sqrt(w)), ZERO, "the gradient is not finite at the start"),
        (lambda w: jnp.sum(w**1.5), ZERO, "the Hessian is not finite at the starting point though "
         "the gradient is"),
        (
            lambda p: jnp.sum(p["u"] ** 2.5) + jnp.sum(p["v"] ** 2),
            {"u": ZERO, "v": ZERO},
            "the third derivative with respect to ['u'] is not finite at the starting point though "
            "the Hessian is",
        ),
    ],
    ids=["norm at 0", "many leaves", "square root of 0", "Hessian", "third derivative"],
)  # fmt: skip
def test_the_derivative_that_is_not_finite_is_named(loss, params, words):
    run, state = started(loss, params)
    _, detail = run.outcome(diverged(state))
    assert words in detail


def test_a_loss_that_is_not_finite_needs_no_derivative():
    run, state = started(lambda w: jnp.sum(w) * jnp.inf, np.ones(2))
    assert run.outcome(diverged(state))[1] == "loss not finite at the starting point"


def test_before_the_warm_up():
    run, state = started(lambda w: jnp.sum(jnp.sqrt(w)), ZERO, warmup=2)
    assert "is not finite before the warm-up though" in run.outcome(diverged(state))[1]
    # what was given is not known to a run that goes on from a saved state
    run, state = started(lambda w: jnp.sum(jnp.sqrt(w) + w), np.ones(2), warmup=2)
    state = state._replace(start=jnp.zeros(2))
    assert "is not finite at the starting point though" in run.outcome(diverged(state))[1]


def test_at_the_step_before_the_divergence():
    run, state = started(lambda w: jnp.sum(jnp.sqrt(w)), np.ones(2))
    optimizer = state.optimizer._replace(previous=jnp.zeros(2))
    state = state._replace(step=jnp.asarray(5, jnp.int32), optimizer=optimizer)
    assert "the gradient is not finite at step 4 though" in run.outcome(diverged(state))[1]


def test_where_a_flow_ended():
    run, state = started(lambda w: jnp.sum(jnp.sqrt(w)), np.ones(2), flows=("midpoint",))
    flow = state.processes["midpoint"]._replace(
        params=jnp.zeros(2), status=jnp.asarray(StepStatus.DIVERGED, jnp.int32)
    )
    state = state._replace(
        step=jnp.asarray(5, jnp.int32),
        outcome=jnp.asarray(FINISHED, jnp.int32),
        processes=state.processes | {"midpoint": flow},
    )
    detail = run.outcome(state)[1]
    assert "the gradient is not finite where the midpoint flow ended though the loss is" in detail


@pytest.mark.parametrize(
    ("before", "last", "says"),
    [(0.2, -0.1, True), (-0.1, 0.2, True), (0.3, 0.2, False)],
    ids=["on the other side", "back again", "never there"],
)
def test_a_kink_that_the_optimizer_oscillates_over(before, last, says):
    run, state = started(lambda w: jnp.sum(jnp.abs(w) + w**2), np.array([0.5]))
    assert run.outcome(state)[1] is None
    points = {"previous": jnp.array([before], "f"), "params": jnp.array([last], "f")}
    state = state._replace(
        outcome=jnp.asarray(FINISHED, jnp.int32), optimizer=state.optimizer._replace(**points)
    )
    detail = run.outcome(state)[1]
    assert (detail is not None and "the loss is not smooth (abs at" in detail) == says


@pytest.mark.parametrize(("doubtful", "says"), [(5, False), (6, True)])
def test_mostly_unconverged_rows(doubtful, says):
    run, state = started(lambda w: jnp.sum(w**2), np.ones(2), max_eigs=2)
    rows = jnp.asarray([10, doubtful], jnp.int32)
    discrete = state.processes["discrete"]._replace(rows=rows)
    state = state._replace(processes={"discrete": discrete})
    words = "6 of 10 rows of discrete are unconverged"
    assert run.outcome(state) == ("running", words if says else None)


def test_the_limit_of_tracked_directions():
    """Curvatures 18, 17, 2: one tracked direction is too few, and more are not allowed."""
    scale = np.array([9.0, 8.5, 1.0])
    run, state = started(lambda w: jnp.sum(scale * w**2), np.full(3, 1e-2), max_eigs=1)
    state, rows = run.advance(state, 4)
    assert set(rows.status) == {"eig_unconverged"}
    assert run.outcome(state)[1] == (
        "4 of 4 rows of discrete are unconverged; the limit of 1 tracked directions was reached"
    )
    assert run.step(state) == 4
