"""Settings of single flows: they reach the flow, are recorded, and wrong ones are refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem
from cflows_ray.checks import ConfigError
from cflows_ray.curvature import linearize_gradient
from cflows_ray.declare import NOTHING, declared
from cflows_ray.flows import FLOWS, Ask, FlowContext, Reference, Settings, Start
from cflows_ray.flows.seeds import length, rounding_length, seed_factor, seed_length
from tests.networks import NETWORKS

LOSS, PARAMS = NETWORKS["tanh_regression"]()
RULE = GradientDescent(0.3)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("tolerance", 0.0, "tolerance must be > 0, got 0.0"),
        ("seed_floor", "some", "seed_floor must be one of .*, got 'some'"),
        ("seed_roundings", 0.0, "seed_roundings must be > 0, got 0.0"),
        ("seed_fraction", -1e-3, "seed_fraction must be > 0, got -0.001"),
        ("rod_rank", 0, "rod_rank must be an integer >= 1, got 0"),
        ("rod_rank", 65, "rod_rank must be <= 64, got 65"),
        ("rod_substeps", 1, "rod_substeps must be an integer >= 2, got 1"),
        ("edge_substeps", 65, "edge_substeps must be <= 64, got 65"),
        ("covariance_rank", 1.5, "covariance_rank must be an integer >= 1, got 1.5"),
        ("corrected_sharpness_limit", "9", "corrected_sharpness_limit must be > 0, got '9'"),
        ("target_windows", (5, 7), "target_windows must be one of .*, got '7'"),
        ("target_windows", ("5", "5"), "target_windows must be free of repetitions, got '5'"),
        ("target_windows", None, "target_windows must be a sequence, got None"),
    ],
)
def test_what_a_flow_cannot_use_is_refused_in_one_line(setting, value, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        Settings(**{setting: value})


def test_windows_are_words_in_their_order():
    assert Settings(target_windows=["loop", 5]).target_windows == ("5", "loop")
    assert Settings(target_windows=20).target_windows == ("20",)
    assert Settings(target_windows=[]).target_windows == ()


def test_runs_from_before_a_setting_existed_keep_their_ids():
    # whoever runs an old configuration again gives its substeps: they are in all ids
    old = Settings(substeps=4)
    absent = {name: info.absent for name, info in declared(Settings).items()}
    for name in ("flows", "num_eigs", "substeps", "record_every", "dtype"):
        assert absent.pop(name) is NOTHING
    assert {name: getattr(old, name) for name in absent} == absent


@pytest.mark.parametrize(
    ("given", "scheme", "substeps", "stable"),
    [
        ({}, "adaptive", 4, "chebyshev"),
        ({"substeps": 8}, "euler", 8, "euler"),
        ({"scheme": "extrapolated"}, "extrapolated", 4, "euler"),
        ({"scheme": "adaptive", "substeps": 8}, "adaptive", 8, "chebyshev"),
        ({"scheme": None, "substeps": None, "stable_scheme": None}, "adaptive", 4, "chebyshev"),
        ({"stable_scheme": "euler"}, "adaptive", 4, "euler"),
    ],
)
def test_substeps_alone_mean_fixed_substeps(given, scheme, substeps, stable):
    settings = Settings(**given)
    found = (settings.scheme, settings.substeps, settings.stable_scheme)
    assert found == (scheme, substeps, stable)
    assert dataclasses.replace(settings) == settings


def test_settings_change_the_work_of_the_flow_that_they_name():
    """By the row's counts and the shapes of states; 13 steps of gradient descent in one program."""
    flows = ("alternating", "edge", "rod", "covariance", "corrected")
    options = PairedOptions(
        flows=flows, dtype="float64", alternating_substeps=5, edge_substeps=3, rod_substeps=6,
        covariance_substeps=7, corrected_substeps=9, rod_rank=3, covariance_rank=2,
    )  # fmt: skip
    run = PairedRun(Problem(lambda w, _: LOSS(w)), RULE, options)
    state, rows = run.advance(run.start(PARAMS, steps=3, warmup=3, seed=0), 3)
    gradients = rows.pivot(index="step", columns="process", values="num_gradients").diff().loc[2]
    # Heun evaluates twice a substep; c ± v are two points; a row costs one, power iteration one
    assert gradients["alternating"] == 2 * 2 * 5 + 1
    assert gradients["edge"] == 2 * 2 * 3 + 1
    assert gradients["rod"] == 2 * 6 + 1
    assert gradients["covariance"] == 2 * 7
    assert gradients["corrected"] == 2 * 9 + 1
    assert state.processes["rod"].own.rod.rows.params.shape[0] == 3
    assert state.processes["covariance"].own.rows.shape[0] == 2


# Seeds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-12, 1e-3, 10.0])
def test_seeds_lift_what_is_small_and_leave_what_is_large(size):
    rng = np.random.default_rng(0)
    metric, params, stride, v = (jnp.asarray(rng.uniform(0.5, 2.0, 5)) for _ in range(4))
    v = v * (size / length(metric, v))
    along = (metric, params, v, stride)
    assert seed_factor(PairedOptions(seed_floor="none"), *along) == 1.0
    floor = PairedOptions(seed_floor="fraction", seed_fraction=0.01)
    lifted = size * seed_factor(floor, *along)
    assert lifted == pytest.approx(max(size, 0.01 * float(length(metric, stride))), rel=1e-5)
    fed = size * seed_factor(PairedOptions(seed_roundings=3.0), *along)
    noise = 3.0 * float(rounding_length(metric, params, v))
    assert fed == pytest.approx(np.hypot(size, noise), rel=1e-5)
    # something must begin also where nothing is added later
    default = seed_length(PairedOptions(), *along)
    assert seed_length(PairedOptions(seed_floor="none"), *along) == default > 0


@pytest.mark.parametrize("floor", ["none", "fraction"])
def test_the_swing_of_a_stable_run_stays_at_its_floor(floor):
    """Gradient descent far below the edge: |s - 1| to the power of 60 is nothing."""
    options = PairedOptions(
        flows="alternating", dtype="float64", seed_floor=floor, seed_fraction=0.01
    )
    run = PairedRun(Problem(lambda w, _: LOSS(w)), RULE, options)
    state = run.advance(run.start(PARAMS, steps=60, warmup=3, seed=0), 59)[0]
    flow = state.processes["alternating"]
    (mean, _), (swing, _) = flow.own.split
    stride, size = (np.linalg.norm(x) for x in (mean - flow.params, swing))
    assert stride > 1e-4
    if floor == "none":
        assert 0 < size < 1e-30
    else:
        assert size == pytest.approx(0.01 * stride, rel=1e-6)


# Cheap flows are cheap ----------------------------------------------------------------------------


def primitives(jaxpr):
    """Yield every equation of a jaxpr and of those inside."""
    for equation in jaxpr.eqns:
        yield equation
        for param in equation.params.values():
            for inner in param if isinstance(param, tuple | list) else (param,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from primitives(inner)


def eigenproblems(name, k=3):
    """Return the sizes of all eigenvalue problems in the code of a flow's start and step."""
    options = PairedOptions(dtype="float64", rod_rank=2, covariance_rank=4)
    yes = jnp.ones((), bool)

    def both(w, t):
        context = FlowContext(LOSS, RULE, options, k)
        at, empty = linearize_gradient(LOSS, w), RULE.init(w)
        absorbed = RULE.absorb(t, empty, at.grad)
        start = Start(t, w, empty, yes, w, empty, absorbed, jnp.ones((k, w.size), w.dtype))
        reference = Reference(t, w, w, w, yes, at, absorbed, ~yes)
        state = FLOWS[name].init(context, start)
        return FLOWS[name].step(context, state, reference, Ask(~yes, yes))

    with jax.enable_x64(True):
        traced = jax.make_jaxpr(both)(jnp.asarray(PARAMS), jnp.ones(()))
    found = [e for e in primitives(traced.jaxpr) if e.primitive.name in ("eigh", "qr", "svd")]
    return {e.invars[0].aval.shape[-1] for e in found}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("alternating", set()),
        ("edge", set()),
        ("corrected", set()),
        ("persistence", set()),
        ("midpoint", set()),
        ("rod", {4}),  # of δ and the two F: small Gram matrices, rank + 2
        ("covariance", {4}),  # of V, rank
    ],
)
def test_a_cheap_flow_has_no_eigensolver_in_its_code(name, sizes):
    assert eigenproblems(name) == sizes


def test_an_expensive_flow_has_one():
    assert eigenproblems("stable")


def test_alternating_flows_alone_cost_no_products_but_those_of_recorded_rows():
    """And hyperparameters, seeds and lengths compile nothing."""
    options = PairedOptions(flows=("alternating", "edge"), record_every=10)
    run = PairedRun(Problem(lambda w, _: LOSS(w)), GradientDescent(0.31), options)
    rows = run.advance(run.start(PARAMS, steps=20, warmup=3, seed=0), 20)[1]
    products = rows.pivot(index="step", columns="process", values="num_hvps")
    assert list(products.index) == [0, 10, 20]
    assert (products["edge"] == 0).all()
    assert products["alternating"].diff().loc[10] == 16 * 10
    # the optimizer's eigenvalues: a few products a row, none between
    assert 0 < products["discrete"].diff().loc[10] < 40
    other = PairedRun(Problem(lambda w, _: LOSS(w)), GradientDescent(0.2), options)
    other.advance(other.start(PARAMS * 1.1, steps=11, warmup=1, seed=5), 11)
    assert other.compile_s == 0
