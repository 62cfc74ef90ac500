"""What every registered process keeps, in one run of all of them and alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem, RMSProp
from cflows_ray.curvature import linearize_gradient
from cflows_ray.flows import FLOWS, Ask, FlowContext, Reference, Start, steps_columns
from tests.networks import NETWORKS

LOSS, PARAMS = NETWORKS["tanh_regression"]()
COMMON = {column.name for column in steps_columns()}
CHEAP = ("alternating", "edge", "rod", "covariance", "corrected", "persistence", "midpoint")
RULE = RMSProp(0.01, beta2=0.95)


@pytest.fixture(scope="module")
def together():
    """All flows in one run, with a resume in the middle; state through NumPy as in a checkpoint."""
    run = PairedRun(Problem(lambda w, _: LOSS(w)), RULE, PairedOptions(flows=tuple(FLOWS)))
    state = run.start(PARAMS, steps=8, warmup=2, seed=0)
    halfway, early = run.advance(state, 5)
    kept = jax.tree.map(np.array, halfway)
    _, straight = run.advance(halfway, 3)
    _, resumed = run.advance(kept, 3)
    return early, straight, resumed


def test_every_flow_has_every_row_and_resumes_bit_for_bit(together):
    early, straight, resumed = together
    rows = pd.concat([early, straight])
    assert rows.groupby("process").step.apply(sorted).map(lambda s: s == list(range(9))).all()
    assert set(rows.process) == {"discrete", *FLOWS}
    assert set(rows.status) == {"ok"}
    pd.testing.assert_frame_equal(straight, resumed, check_exact=True)


def test_predictions_of_every_flow_are_numbers(together):
    rows = together[0]
    predicting = rows[~rows.process.isin(["discrete", "midpoint"])]
    for column in ("train_loss", "train_loss_predicted", "grad_norm_sq_predicted", "nu_rel_error"):
        missing = predicting[predicting[column].isna()].process.unique()
        assert list(missing) == [], column
    # who predicts iterates
    assert set(rows[rows.iterate_distance.notna()].process) == {"alternating", "edge", "rod"}


def test_cheap_flows_run_no_eigensolver(together):
    rows = pd.concat(together[:2])
    # the last row's step is looked at, not made
    by_step = rows[rows.step.between(1, 7)].groupby("process").num_hvps
    products = (by_step.max() - by_step.min()) / 6
    assert products["alternating"] == 16
    assert products[["edge", "persistence", "midpoint"]].eq(0).all()
    assert products["rod"] == 8
    assert products["covariance"] == 32
    assert rows[rows.process.isin(CHEAP)].eig_residual.isna().all()


@pytest.mark.parametrize("rule", [GradientDescent(0.8), RULE], ids=["gradient_descent", "rmsprop"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(FLOWS))
def test_a_step_keeps_structure_and_types_and_records_what_is_declared(name, dtype, rule):
    """By abstract evaluation only: nothing is compiled."""
    process = FLOWS[name]
    if process.needs(rule):
        pytest.skip(process.needs(rule))
    with jax.enable_x64(True):
        context = FlowContext(LOSS, rule, PairedOptions(dtype=dtype), 2)
        w = jnp.asarray(PARAMS, dtype)

        def both(w, t):
            at = linearize_gradient(LOSS, w)
            empty = rule.init(w)
            absorbed = rule.absorb(t, empty, at.grad)
            yes = jnp.ones((), bool)
            start = Start(t, w, empty, yes, w, empty, absorbed, jnp.ones((2, w.size), dtype))
            reference = Reference(t, w, w, w, yes, at, absorbed, ~yes)
            state = process.init(context, start)
            return state, process.step(context, state, reference, Ask(~yes, yes))

        before, step = jax.eval_shape(both, w, jnp.ones((), dtype))
    assert jax.tree.structure(before) == jax.tree.structure(step.state)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(step.state), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    assert step.params.dtype == dtype
    assert set(step.record) <= COMMON
    for column, value in step.record.items():
        for leaf in jax.tree.leaves(value):
            assert leaf.dtype in (jnp.dtype(dtype), jnp.dtype("int32")), column


@pytest.mark.parametrize("name", list(FLOWS))
def test_a_process_has_the_name_it_is_registered_under(name):
    assert FLOWS[name].name == name
