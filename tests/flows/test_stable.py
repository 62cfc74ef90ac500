"""The stable flow by its schemes of second order: state, resuming, gradients, the limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem, RMSProp
from cflows_ray.curvature import linearize_gradient
from cflows_ray.flows import FLOWS, Ask, FlowContext, Reference, Start
from cflows_ray.rules import Adam, traced
from tests.flows.stable_flow import LOSS, PARAMS

RULES = {
    "gradient descent": GradientDescent(3.0),
    "rmsprop": RMSProp(0.01),
    "heavy ball": GradientDescent(3.0, momentum=0.9),
    "adam": Adam(0.01),
}


def chebyshev_gradients(sharpness):
    """Return those of a step with substeps=5: three of two stages or more."""
    stages = 1 + np.floor(np.sqrt(1 + 1.54 * 1.25 * sharpness / 3)).astype(int)
    return 3 * np.maximum(2, stages)


def leapfrog_gradients(sharpness):
    """Return those of a step with substeps=5: four substeps or more, and one at the start."""
    rule, one = traced(RULES["heavy ball"], "float32"), jnp.ones(())
    fastest = np.array([rule.fastest_rate(one, s) for s in sharpness])
    return 1 + np.maximum(4, np.ceil(2.0 * fastest)).astype(int)


PATHS = {
    "chebyshev": ("gradient descent", 6.0, chebyshev_gradients),
    "leapfrog": ("heavy ball", 3.5, leapfrog_gradients),
}


@pytest.fixture(scope="module", params=PATHS)
def path(request):
    """Rows of a run past the edge to its limit, and of one that was resumed from NumPy."""
    rule, limit, gradients = PATHS[request.param]
    options = PairedOptions(
        flows=("stable",),
        num_eigs=2,
        stable_scheme="chebyshev",
        substeps=5,
        sharpness_limit=limit,
    )
    run = PairedRun(Problem(lambda w, _: LOSS(w)), RULES[rule], options)
    state = run.start(PARAMS, steps=30, warmup=0, seed=0)
    state, early = run.advance(state, 4)
    kept = jax.tree.map(np.array, state)
    straight, resumed = run.advance(state, 26)[1], run.advance(kept, 26)[1]
    return limit, gradients, (early, straight, resumed)


def test_the_flow_resumes_bit_for_bit(path):
    _, straight, resumed = path[2]
    pd.testing.assert_frame_equal(straight, resumed, check_exact=True)


def test_gradients_are_counted_and_the_flow_stops_at_its_limit(path):
    limit, gradients, rows = path
    flow = pd.concat(rows[:2])
    flow = flow[flow.process == "stable"]
    assert flow.status.iloc[-1] == "stopped"
    assert set(flow.status.iloc[:-1]) == {"ok"}
    assert flow.effective_sharpness.iloc[-1] > limit
    per_step = gradients(flow.effective_sharpness.to_numpy()[:-1])
    assert len(set(per_step)) > 1
    np.testing.assert_array_equal(np.diff(flow.num_gradients, prepend=0)[:-1], per_step)
    assert flow.num_gradients.diff().iloc[-1] == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_state_has_the_structure_and_types_of_the_euler_flow(rule, dtype):
    with jax.enable_x64(True):
        states = []
        for scheme in ("euler", "chebyshev"):
            options = PairedOptions(dtype=dtype, stable_scheme=scheme)
            step = one_step(RULES[rule], options)
            states.append(jax.eval_shape(step, jnp.asarray(PARAMS, dtype)))
        old, new = states
        assert jax.tree.structure(old) == jax.tree.structure(new)
        for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)


def one_step(rule, options):
    """Return a function of w that makes one step of the flow from there and returns its state."""

    def step(w):
        at, empty, yes = linearize_gradient(LOSS, w), rule.init(w), jnp.ones((), bool)
        t = jnp.ones((), w.dtype)
        absorbed = rule.absorb(t, empty, at.grad)
        start = Start(t, w, empty, yes, w, empty, absorbed, jnp.ones((2, w.size), w.dtype))
        reference = Reference(t, w, w, w, yes, at, absorbed, ~yes)
        context = FlowContext(LOSS, rule, options, 2)
        flow = FLOWS["stable"]
        return flow.step(context, flow.init(context, start), reference, Ask(~yes, yes)).state

    return step
