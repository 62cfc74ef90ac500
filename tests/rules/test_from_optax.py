"""Optax's transformations as rules: the same trajectories and edges as our own rules have."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cflows_ray import (
    Adam,
    AdamW,
    GradientDescent,
    NAdam,
    PairedOptions,
    PairedRun,
    Problem,
    RMSProp,
    from_optax,
    run_paired,
)
from cflows_ray.checks import ConfigError
from tests.networks import NETWORKS

STEPS = 40
COSINE = optax.cosine_decay_schedule(1.0, 60, 0.1)


def rmsprop(lr):
    return optax.rmsprop(lr, decay=0.9, eps=1e-8, eps_in_sqrt=False, momentum=0.9)


# our rule, the transformation
PAIRS = {
    "sgd": (GradientDescent(0.1), optax.sgd(0.1)),
    "heavy ball": (GradientDescent(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    "nesterov": (
        GradientDescent(0.1, momentum=0.9, nesterov=True),
        optax.sgd(0.1, momentum=0.9, nesterov=True),
    ),
    "schedule": (
        GradientDescent(0.1, COSINE, momentum=0.5),
        optax.sgd(lambda count: 0.1 * COSINE(count.astype(jnp.result_type(float))), momentum=0.5),
    ),
    "decay": (
        GradientDescent(0.1, momentum=0.5, weight_decay=0.3),
        optax.chain(
            optax.trace(0.5), optax.add_decayed_weights(0.3), optax.scale_by_learning_rate(0.1)
        ),
    ),
    "rmsprop": (  # at larger rates rounding grows
        RMSProp(0.002, beta2=0.9, bias_correction=True),
        optax.rmsprop(0.002, decay=0.9, eps_in_sqrt=False, bias_correction=True),
    ),
    "rmsprop with momentum": (RMSProp(0.002, beta2=0.9, momentum=0.9), rmsprop(0.002)),
    "adam": (Adam(0.02), optax.adam(0.02)),
    "adamw": (AdamW(0.02, weight_decay=0.3), optax.adamw(0.02, weight_decay=0.3)),
    "nadam": (NAdam(0.02, beta1=0.8), optax.nadam(0.02, b1=0.8)),
}


def path_of(rule, dtype):
    """Return iterates on a network, and the metric in which the edge is at 2."""
    loss, start = NETWORKS["tanh_regression"]()

    @jax.jit
    def run(w):
        def step(carry, i):
            w, state = carry
            t, g = (i + 1).astype(dtype), jax.grad(loss)(w)
            state = rule.absorb(t, state, g)
            edge = rule.edge_preconditioner(t, state)
            nothing = jnp.full_like(w, jnp.nan)
            return (rule.step(t, w, state, g), state), (
                w,
                nothing if edge is None else edge + 0 * w,
            )

        return jax.lax.scan(step, (w, rule.init(w)), jnp.arange(STEPS))[1]

    return run(jnp.asarray(start, dtype))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("dtype", "rounding"), [("float64", 1e-9), ("float32", 2e-3)])
def test_trajectory_and_edge_are_those_of_our_own_rule(name, dtype, rounding):
    rule, transformation = PAIRS[name]
    with jax.enable_x64(dtype == "float64"):
        path, edges = path_of(from_optax(transformation), dtype)
        expected, expected_edges = path_of(rule, dtype)
    assert path.dtype == edges.dtype == np.dtype(dtype)
    np.testing.assert_allclose(path, expected, atol=0.1 * rounding)
    np.testing.assert_allclose(edges, expected_edges, rtol=rounding)
    assert np.ptp(np.linalg.norm(path - path[0], axis=1)) > 0.1


@pytest.mark.parametrize(
    "transformation",
    [optax.lion(0.001), optax.sign_sgd(0.001), optax.lamb(0.01), optax.normalize_by_update_norm()],
)
def test_without_a_linear_filter_there_is_no_edge(transformation):
    assert from_optax(transformation).filtering is None


def test_two_filters_in_a_row():
    """Gains multiply: β₁ = 0.5 and 0.8 make 1/(1.5·1.8); the edge is seen on a quadratic."""
    rule = from_optax(optax.chain(optax.trace(0.5), optax.trace(0.8), optax.scale(-0.1)))
    with jax.enable_x64(True):
        w = jnp.ones(3)
        state = rule.absorb(jnp.ones(()), rule.init(w), w)
        np.testing.assert_allclose(
            rule.edge_preconditioner(jnp.ones(()), state), 1.5 * 1.8 / 0.1, rtol=1e-12
        )


def test_weight_decay_that_is_filtered():
    """Coupled decay ω adds to the Hessian: -2 = -Q(-1) η (λ + ω)."""
    rule = from_optax(
        optax.chain(optax.add_decayed_weights(0.3), optax.trace(0.5), optax.scale(-0.1))
    )
    with jax.enable_x64(True):
        w = jnp.ones(3)
        state = rule.absorb(jnp.ones(()), rule.init(w), w)
        found = 2.0 * rule.edge_preconditioner(jnp.ones(()), state)
        np.testing.assert_allclose(found, 2 * 1.5 / 0.1 - 0.3, rtol=1e-12)


def test_a_transformation_sees_the_parameters_structure():
    """Adafactor's factored second moment: of a matrix it keeps a row and a column."""
    params = {"matrix": jnp.ones((4, 3)), "vector": jnp.ones(2)}
    rule = from_optax(optax.adafactor(0.01, min_dim_size_to_factor=2), params)
    flat = jnp.linspace(0.1, 1.0, 14)
    state = rule.absorb(jnp.ones(()), rule.init(flat), flat)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state.after)}
    assert {(4,), (3,), (2,)} <= shapes
    assert rule.step(jnp.ones(()), flat, state, flat).shape == (14,)
    message = r"^params must be of 14 numbers, as for from_optax, got 13$"
    with pytest.raises(ConfigError, match=message):
        rule.init(flat[1:])


def test_runs_as_discrete_and_midpoint():
    loss, params = NETWORKS["tanh_regression"]()
    settings = {"flows": ("midpoint",), "steps": 6, "dtype": "float32"}
    ours = run_paired(loss, params, Adam(0.02), **settings)
    theirs = run_paired(loss, params, from_optax(optax.adam(0.02)), **settings)
    assert set(theirs.steps.process) == {"discrete", "midpoint"}
    for column in ("train_loss", "effective_sharpness"):
        np.testing.assert_allclose(ours.steps[column], theirs.steps[column], rtol=1e-3)
    assert theirs.steps.effective_sharpness.notna().sum() == 7


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transformation", [optax.sgd(0.1), optax.adam(0.1)], ids=["sgd", "adam"])
def test_parameters_may_be_of_numpys_float64(transformation, dtype):
    """A run has one dtype, that of its options: also where the transformation keeps nothing."""
    result = run_paired(
        lambda w: jnp.sum(w**2),
        np.ones(3),
        from_optax(transformation),
        steps=2,
        flows=("midpoint",),
        dtype=dtype,
    )
    assert result.steps.effective_sharpness.notna().sum() == 3
    assert result.final["discrete"].dtype == dtype


def test_without_an_edge_its_columns_are_null():
    loss, params = NETWORKS["tanh_regression"]()
    result = run_paired(loss, params, from_optax(optax.lion(0.001)), flows=("midpoint",), steps=4)
    rows = result.steps[result.steps.process == "discrete"]
    assert rows.status.eq("ok").all()
    assert rows.train_loss.notna().all()
    for column in ("effective_sharpness", "effective_eigs", "num_critical", "eig_residual"):
        assert rows[column].isna().all()


@pytest.mark.parametrize("flow", ["stable", "central", "alternating", "edge", "rod", "corrected"])
def test_a_flow_is_refused_before_anything_compiles(flow):
    rule = from_optax(optax.adam(0.02))
    problem = Problem(lambda w, _: jnp.sum(w**2))
    with pytest.raises(ConfigError, match=rf"^flows must be defined for the rule \({flow} needs "):
        PairedRun(problem, rule, PairedOptions(flows=(flow,)))


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (0.1, r"transformation must be one of optax, got 0.1"),
        (optax.polyak_sgd(), r"transformation must need gradients and parameters only, got one"),
    ],
)
def test_what_is_no_transformation_is_named(thing, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        from_optax(thing)
