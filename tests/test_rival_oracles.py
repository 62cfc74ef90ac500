"""The oracles of the rival flows, held to the identities that define them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.networks import NETWORKS
from tests.oracles_rivals import (
    Alternating,
    Point,
    Rule,
    alternating_rate,
    edge_rate,
    effective_eigh,
    integrate,
    lift,
    modified,
    optimizer_path,
    rounding_size,
    scheme,
    start_alternating,
    warmed,
)
from tests.oracles_rivals_others import (
    valley_2d,
    valley_3d,
    valley_start,
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def cosine(t):
    return 0.1 + 0.9 * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(t, 200.0) / 200.0))


EXACT = {
    "gradient descent": Rule("gradient_descent", 0.8),
    "scheduled": Rule("gradient_descent", 1.2, schedule=cosine),
    "heavy ball": Rule("heavy_ball", 0.4, beta1=0.5),
    "heavy ball, scheduled": Rule("heavy_ball", 0.6, beta1=0.5, schedule=cosine),
    "nesterov": Rule("nesterov", 0.3, beta1=0.6),
    "decay": Rule("heavy_ball", 0.4, beta1=0.5, decay=0.01),
    "scalar rmsprop": Rule("scalar_rmsprop", 0.03, beta2=0.95, bias_correction=True),
    "rmsprop": Rule("rmsprop", 0.02, beta2=0.95),
    "rmsprop, momentum": Rule("rmsprop_momentum", 0.01, beta1=0.5, beta2=0.95),
    "adam": Rule("adam", 0.03, beta2=0.99, schedule=cosine),
}


SPLITS = [*((name, None) for name in EXACT), ("gradient descent", 1.0), ("adam", 1.0)]


@pytest.mark.parametrize(("name", "threshold"), SPLITS)
def test_unit_step_of_the_first_order_is_the_optimizer(name, threshold):
    """With the whole state's alternating part, for every rule; ν, m and t included."""
    rule, (loss, w) = EXACT[name], NETWORKS["tanh_regression"]()
    before, here = warmed(loss, w, rule)
    z = start_alternating(loss, rule, before, here, threshold)
    rate, flat, back = alternating_rate(loss, rule, z, 1)
    path = jax.vmap(back)(integrate(rate, flat, 30, 1, "euler"))
    real = optimizer_path(loss, rule, here, 30)
    sign = (-1.0) ** np.arange(31)
    for field in Point._fields:
        mean, swing = (np.asarray(getattr(part, field)) for part in (path.mean, path.swing))
        got = mean + sign.reshape(-1, *[1] * (mean.ndim - 1)) * swing
        scale = np.abs(getattr(real, field)).max() + 1e-300
        assert np.abs(got - getattr(real, field)).max() <= 1e-10 * scale, field


def test_without_the_alternating_part_of_nu_the_unit_step_is_not_exact():
    loss, w = NETWORKS["tanh_regression"]()
    rule = EXACT["rmsprop"]
    before, here = warmed(loss, w, rule)
    z = start_alternating(loss, rule, before, here, 1.0)
    z = z._replace(swing=z.swing._replace(w=z.swing.w + 0.01))
    z = z._replace(mean=z.mean._replace(w=here.w - z.swing.w))
    real = optimizer_path(loss, rule, here, 1).w[-1]
    off = {}
    for keep in (True, False):
        rate, flat, back = alternating_rate(loss, rule, z, 1, keep)
        one = back(jnp.asarray(integrate(rate, flat, 1, 1, "euler")[-1]))
        off[keep] = np.linalg.norm(one.mean.w - one.swing.w - real) / np.linalg.norm(real - here.w)
    assert off[True] < 1e-12
    assert 1e-4 < off[False] < 0.2


def test_first_order_is_the_edge_flow():
    """In polar form, with a fixed preconditioner that is no multiple of the identity."""
    loss, w = NETWORKS["tanh_regression"]()
    rng = np.random.default_rng(0)
    P = jnp.asarray(rng.uniform(0.5, 2.0, len(w)))
    v = jnp.asarray(0.05 * rng.standard_normal(len(w)))

    def pair(y):
        c, v = jnp.split(y, 2)
        g, k = jax.grad(loss)(c + v), jax.grad(loss)(c - v)
        return jnp.concatenate([-0.5 * (g + k) / P, 0.5 * (g - k) / P - 2 * v])

    length = jnp.sqrt(jnp.vdot(v, P * v))
    ours = integrate(pair, jnp.concatenate([w, v]), 4, 40)
    polar = integrate(
        lambda y: edge_rate(loss, P, y), jnp.concatenate([w, v / length, length[None]]), 4, 40
    )
    d = len(w)
    np.testing.assert_allclose(polar[:, :d], ours[:, :d], atol=1e-6)
    np.testing.assert_allclose(polar[:, d:-1] * polar[:, -1:], ours[:, d:], atol=1e-6)
    np.testing.assert_allclose(np.sum(polar[:, d:-1] ** 2 * P, 1), 1.0, atol=1e-6)


@pytest.mark.parametrize(("order", "slope"), [(1, 2), (2, 3)])
def test_the_time_one_map_agrees_with_the_optimizer_to_the_order(order, slope):
    """A step of the flow differs from A by O(G^{order+1}): halve η, see the power."""
    loss, w = NETWORKS["tanh_regression"]()
    rng = np.random.default_rng(1)
    v = jnp.asarray(rng.standard_normal(len(w)) * 0.3)
    gaps = []
    for lr in (0.1, 0.05, 0.025):
        # v is scaled so that -2v is no large rate: only the centre's motion is expanded
        F = lambda x, lr=lr: -lr * jax.grad(loss)(x)  # noqa: E731
        end = integrate(modified(F, order), jnp.asarray(w) + v, 1, 20)[-1]
        gaps.append(np.linalg.norm(end - (w + v + F(jnp.asarray(w) + v))))
    fitted = np.log2(np.array(gaps[:-1]) / np.array(gaps[1:]))
    np.testing.assert_allclose(fitted, slope, atol=0.25)


@pytest.mark.parametrize(
    ("name", "substeps", "order"),
    [("euler", 4, 1), ("heun", 4, 2), ("midpoint", 4, 2), ("rkc4", 2, 2), ("rk4", 2, 4)],
)
def test_schemes_have_their_orders(name, substeps, order):
    def f(y):
        return jnp.array([y[1] * y[0], jnp.sin(y[0]) - y[1]])

    y, errors = jnp.array([1.0, 0.3]), []
    exact = integrate(f, y, 2, 200)[-1]
    for n in (substeps, 2 * substeps, 4 * substeps):
        errors.append(np.linalg.norm(integrate(f, y, 2, n, name)[-1] - exact))
    fitted = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(fitted[-1], order, atol=0.35)


@pytest.mark.parametrize(("stages", "bound"), [(4, 9.8), (6, 22.8)])
def test_chebyshev_is_stable_as_far_as_it_says(stages, bound):
    step = scheme(f"rkc{stages}")
    grows = [
        float(step(lambda y, s=s: -s * y, jnp.ones(1), 1.0)[0]) for s in (0.5, bound / 2, bound)
    ]
    assert np.abs(grows).max() <= 1.0
    assert abs(float(step(lambda y: -1.3 * bound * y, jnp.ones(1), 1.0)[0])) > 1.0


def test_centre_rates_on_a_quadratic():
    """λ at order 1, λ + λ²/2 at order 2; v: λ - 2 and (λ-2) - (λ-2)²/2."""
    lam = jnp.array([0.3, 1.0, 2.2])
    rule = Rule("gradient_descent", 1.0)
    here = rule.start(jnp.ones(3))
    z = Alternating(here, here)
    for order in (1, 2):
        rate, flat, back = alternating_rate(lambda w: 0.5 * jnp.sum(lam * w**2), rule, z, order)
        new = back(rate(flat))
        g, k = -lam, lam - 2
        expected = (g, k) if order == 1 else (g - g**2 / 2, k - k**2 / 2)
        np.testing.assert_allclose(new.mean.w, expected[0], atol=1e-14)
        np.testing.assert_allclose(new.swing.w, expected[1], atol=1e-14)
        assert float(new.mean.t) == 1.0
        assert float(new.swing.t) == 0.0


def test_momentum_turns_at_the_edge_of_the_design():
    """On a quadratic the swing neither grows nor falls at 2(1+β)/(1-β), Adam's edge; Nesterov's."""
    for kind, edge in (("heavy_ball", 2 * 1.9), ("nesterov", 2 * 1.9 / 2.8)):
        rule = Rule(kind, 1.0, beta1=0.9)
        for factor, grows in ((0.99, False), (1.01, True)):
            lam = factor * edge
            swing = Point(jnp.ones(1), -lam / 1.9 * jnp.ones(1), jnp.zeros(1), jnp.zeros(()))
            z = Alternating(rule.start(jnp.zeros(1)), swing)
            rate, flat, back = alternating_rate(lambda w, s=lam: 0.5 * s * w[0] ** 2, rule, z, 1)
            end = back(jnp.asarray(integrate(rate, flat, 200, 4)[-1]))
            assert (abs(float(end.swing.w[0])) > 1.0) is grows


@pytest.mark.parametrize(("kind", "growth"), [("heavy_ball", 19.0), ("nesterov", 1.4378)])
def test_growth_of_the_swing_past_the_edge(kind, growth):
    """It is g (s - 2), g = 1 / (1 + 2Q'(-1)/Q(-1)), s = Q(-1) ηλ; (1+β)/(1-β) for heavy ball."""
    rule, excess = Rule(kind, 1.0, beta1=0.9), 1e-5
    lam = (2 + excess) / rule.gain_fast
    here = rule.start(jnp.zeros(1))
    z = Alternating(here, here)
    rate, flat, _ = alternating_rate(lambda w: 0.5 * lam * w[0] ** 2, rule, z, 1)
    top = np.linalg.eigvals(np.asarray(jax.jacfwd(rate)(flat))).real.max()
    assert top / excess == pytest.approx(growth, rel=1e-2)


def test_start_splits_the_real_iterate_and_finds_the_swing():
    """A quadratic with one direction past 1.5: v is exactly the oscillation along it."""
    lam, P = np.array([1.8, 0.4, 0.1]), 1 / 0.7
    rule = Rule("gradient_descent", 0.7)
    loss = lambda w: 0.5 * jnp.sum(jnp.asarray(lam * P) * w**2)  # noqa: E731
    before, here = warmed(loss, np.ones(3), rule, 3)
    z = start_alternating(loss, rule, before, here)
    np.testing.assert_allclose(z.mean.w + z.swing.w, here.w, atol=1e-15)
    factor = 0.25 * (2 - (1 - 1.8) - 1 / (1 - 1.8))
    np.testing.assert_allclose(z.swing.w, [factor * here.w[0], 0, 0], atol=1e-14)


def test_lift_is_a_floor_or_a_source_and_leaves_direction_and_mean():
    rng = np.random.default_rng(3)
    P = jnp.asarray(rng.uniform(0.5, 2.0, 5))
    v = jnp.asarray(rng.standard_normal(5))
    swing = Point(v, 2 * v, v * 0, jnp.zeros(()))
    z = Alternating(Rule("heavy_ball", 1.0).start(jnp.ones(5)), swing)
    length = float(jnp.sqrt(jnp.vdot(v, P * v)))
    assert lift(z, P, 0.5 * length, feed=False).swing.w == pytest.approx(v)
    for size, feed, factor in ((3.0, False, 3.0), (1.0, True, np.sqrt(2))):
        new = lift(z, P, size * length, feed)
        np.testing.assert_allclose(new.swing.w, factor * v, rtol=1e-13)
        np.testing.assert_allclose(new.swing.m, 2 * factor * v, rtol=1e-13)
        np.testing.assert_array_equal(new.mean.w, z.mean.w)


def test_rounding_size_is_the_spread_of_real_rounding():
    rng = np.random.default_rng(4)
    w, v = rng.standard_normal(50), rng.standard_normal(50)
    P = rng.uniform(0.5, 2.0, 50)
    u = v / np.sqrt(np.sum(P * v**2))
    draws = w * (1 + 1e-4 * rng.standard_normal((4000, 50)))
    off = (draws.astype(np.float32) - draws) @ (P * u)
    size = rounding_size(jnp.asarray(w), jnp.asarray(P), jnp.asarray(v), jnp.float32)
    assert float(size) == pytest.approx(off.std(), rel=0.1)


def test_a_swing_below_rounding_needs_reach():
    """At 1e-18 of the parameters, c ± v is c; with a reach the swing still turns to the top."""
    loss, w = NETWORKS["tanh_regression"]()
    rule = Rule("gradient_descent", 0.3)
    P = np.full(len(w), 1 / 0.3)
    values, U = effective_eigh(loss, w, P)
    swing = Point(jnp.asarray(1e-18 * U[:, -1]), *[x * 0 for x in rule.start(jnp.asarray(w))[1:]])
    z = Alternating(rule.start(jnp.asarray(w) - swing.w), swing)
    for least, expected in ((None, -2.0), (1e-6, values[-1] - 2.0)):
        rate, flat, back = alternating_rate(loss, rule, z, 1, least=least)
        got = np.asarray(back(rate(flat)).swing.w) @ (P * U[:, -1]) / 1e-18
        assert got == pytest.approx(expected, abs=1e-5)


DRIFTS = [(0.0, 2.0, 0.0), (0.3, 1.19, -0.81), (0.6, -1.24, -3.24)]


@pytest.mark.parametrize(("zeta", "second", "first"), DRIFTS)
def test_drift_of_the_loop_energy(zeta, second, first):
    """ΔE / (η² ε Σ y₁²) = 2 - 9ζ² for gradient descent and order 2, -9ζ² for order 1 (Berthier)."""
    for kind, value in {"descent": second, "order 2": second, "order 1": first}.items():
        got = measured_drift(kind, zeta, eps=1e-3, lr=0.3, loops=2)
        assert got == pytest.approx(value, abs=0.02), kind


def test_curvature_of_the_wide_valley():
    """Along x at x = 0 it is |y| + 3, and the drift is ε(1, 1, 0)."""
    loss, w = valley_3d(0.01), jnp.array([0.0, 1.2, -0.9])
    np.testing.assert_allclose(jax.grad(loss)(w), [-0.01, -0.01, 0.0], atol=1e-15)
    assert float(jax.hessian(loss)(w)[0, 0]) == pytest.approx(4.5)


def measured_drift(kind: str, zeta: float, eps: float, lr: float, loops: int) -> float:
    """E where y₁ crosses 0 upwards, where it is free of the phase; Σ over the steps between."""
    loss, rule = valley_2d(zeta, eps), Rule("gradient_descent", lr)
    w = jnp.asarray(valley_start(eps, lr, 0.5))
    x = lr / 2 * (eps - 1.5 * zeta * w[0] ** 2)
    none = jnp.zeros(2)
    z = Alternating(
        Point(jnp.array([x, w[1]]), none, none, jnp.zeros(())),
        Point(jnp.array([w[0], lr * w[0] * x / 2]), none, none, jnp.zeros(())),
    )
    rate, flat, back = alternating_rate(loss, rule, z, 2 if kind == "order 2" else 1)
    steps = int(1.5 * loops * 2 * np.pi / (lr * np.sqrt(2 * eps))) + 50
    many = (1, "euler") if kind == "descent" else (4, "rk4")
    path = jax.vmap(back)(integrate(rate, flat, steps, *many))
    y = (np.asarray(path.mean.w)[:, 1] - 2 / lr) / np.sqrt(eps)
    log_a2 = np.log(np.asarray(path.swing.w)[:, 0] ** 2 / eps)
    k = np.nonzero((y[:-1] <= 0) & (y[1:] > 0))[0][: loops + 1]
    assert len(k) == loops + 1
    part = -y[k] / (y[k + 1] - y[k])
    at = log_a2[k] + part * (log_a2[k + 1] - log_a2[k])
    energy = np.exp(at) / 4 - at / 2
    sums = np.concatenate([[0.0], np.cumsum(y**2)])[k] + part * y[k] ** 2
    return (energy[-1] - energy[0]) / (lr**2 * eps * (sums[-1] - sums[0]))
