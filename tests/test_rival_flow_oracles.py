"""The oracles of rod, covariance, corrected and unforced flow and of the rules, by identities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tests.networks import NETWORKS
from tests.oracles import DenseLoss, OracleRule, central_path, discrete_path
from tests.oracles_rivals import (
    Alternating,
    Rule,
    effective_eigh,
    integrate,
    optimizer_path,
    preconditioner_at,
    warmed,
)
from tests.oracles_rivals_others import (
    Covariant,
    Rod,
    corrected_rate,
    covariance_rate,
    lift_columns,
    low_rank,
    rod_euler_low_rank,
    rod_rate_dense,
    start_rod,
    top_displacement,
    unforced_path,
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_rod_centre_is_exact_for_one_unit_step_without_its_correction():
    """½(z_{t+1} + z_{t+2}) - ½(z_t + z_{t+1}) = ½(F₊ + F₋), and Σ becomes ¼(F₊F₊ᵀ + F₋F₋ᵀ)."""
    loss, w = NETWORKS["tanh_regression"]()
    for rule in (Rule("gradient_descent", 0.8), Rule("heavy_ball", 0.4, beta1=0.5)):
        _, here = warmed(loss, w, rule)
        rod = start_rod(loss, rule, here, rank=2)
        path = optimizer_path(loss, rule, here, 2)
        z = np.concatenate([path.w, path.m], 1) if rule.filters[0] else path.w
        np.testing.assert_allclose(rod.z, (z[0] + z[1]) / 2, atol=1e-15)
        new = rod_euler_low_rank(loss, rule, rod, 0.5)
        correction_free = (z[2] - z[0]) / 2
        # the correction is -½ DF F̄: second order in the step
        F = (np.asarray(new.z) - np.asarray(rod.z)) / 0.5
        assert np.linalg.norm(F - correction_free) < 0.8 * np.linalg.norm(correction_free)
        np.testing.assert_allclose(
            new.sigma @ new.sigma.T,
            (np.outer(z[1] - z[0], z[1] - z[0]) + np.outer(z[2] - z[1], z[2] - z[1])) / 8,
            atol=1e-12,
        )


def test_low_rank_rod_tends_to_the_dense_rod():
    loss, w = NETWORKS["tanh_regression"]()
    rule = Rule("gradient_descent", 0.8)
    _, here = warmed(loss, w, rule)
    rod = start_rod(loss, rule, here, None)
    flat, back = ravel_pytree(rod)

    def rate(y):
        return ravel_pytree(rod_rate_dense(loss, rule, back(y)))[0]

    dense = back(jnp.asarray(integrate(rate, flat, 10, 20, "euler")[-1]))
    thin = start_rod(loss, rule, here, len(w))
    step = jax.jit(lambda r: rod_euler_low_rank(loss, rule, r, 1 / 20))
    for _ in range(10 * 20):
        thin = step(thin)
    np.testing.assert_allclose(thin.z, dense.z, atol=1e-9)
    np.testing.assert_allclose(thin.sigma @ thin.sigma.T, dense.sigma, atol=1e-9)


def test_rod_centre_of_gradient_descent_is_the_published_one():
    """z̄' = -(η/2)(g₊ + g₋) - (η²/8)(H₊ + H₋)(g₊ + g₋)."""
    loss, w = NETWORKS["deep_linear"]()
    rng, lr = np.random.default_rng(7), 0.4
    delta = 0.1 * rng.standard_normal(len(w))
    rod = Rod(jnp.asarray(w), jnp.outer(delta, delta), jnp.zeros(len(w)), jnp.ones(()))
    hessian, grad = jax.jit(jax.hessian(loss)), jax.grad(loss)
    both = grad(w + delta) + grad(w - delta)
    H = hessian(w + delta) + hessian(w - delta)
    rate = rod_rate_dense(loss, Rule("gradient_descent", lr), rod)
    np.testing.assert_allclose(rate.z, -lr / 2 * both - lr**2 / 8 * H @ both, atol=1e-12)


def test_rod_growth_on_a_quadratic_is_half_the_square():
    """Σ' / Σ = ½s² - 2 along an oscillation, against 2(s - 2) of the alternating flow."""
    for s in (1.8, 2.0, 2.3):
        loss = lambda w, s=s: 0.5 * s * w[0] ** 2  # noqa: E731
        rod = Rod(jnp.zeros(1), jnp.ones((1, 1)), jnp.zeros(1), jnp.ones(()))
        rate = rod_rate_dense(loss, Rule("gradient_descent", 1.0), rod)
        assert float(rate.sigma[0, 0]) == pytest.approx(s**2 / 2 - 2)
        assert float(rate.z[0]) == 0.0


def test_rod_below_the_edge_sees_the_drift():
    """Far below the edge Σ → ¼F̄F̄ᵀ and δ → ½F̄."""
    loss = lambda w: jnp.sum(w) * 0.1  # noqa: E731
    rule = Rule("gradient_descent", 1.0)
    rod = start_rod(loss, rule, rule.start(jnp.zeros(3)), None)
    flat, back = ravel_pytree(rod)

    def rate(y):
        return ravel_pytree(rod_rate_dense(loss, rule, back(y)))[0]

    end = back(jnp.asarray(integrate(rate, flat, 5, 4)[-1]))
    delta = top_displacement(end.sigma, jnp.ones(3))
    np.testing.assert_allclose(np.abs(delta), 0.05, atol=1e-12)


@pytest.mark.parametrize("columns", [1, 3])
def test_low_rank_keeps_what_the_metric_finds_large(columns):
    rng = np.random.default_rng(columns)
    M, D = rng.standard_normal((6, 4)), rng.uniform(0.2, 3.0, 6)
    Z = np.asarray(low_rank(jnp.asarray(M), jnp.asarray(D), columns))
    left, values, _ = np.linalg.svd(np.sqrt(D)[:, None] * M, full_matrices=False)
    best = (left[:, :columns] * values[:columns] ** 2) @ left[:, :columns].T
    np.testing.assert_allclose(np.sqrt(D)[:, None] * (Z @ Z.T) * np.sqrt(D), best, atol=1e-12)


def test_covariance_flow_descends_its_free_energy_in_w_and_knows_the_edge():
    """W' = -P⁻¹∇_w(L + ½<H, Σ>); V' = 0 where HV = 2PV; ν as of RMSProp with diag(HΣH)."""
    loss, w = NETWORKS["tanh_regression"]()
    rule = Rule("rmsprop", 0.02, beta2=0.9)
    rng = np.random.default_rng(5)
    V = jnp.asarray(0.1 * rng.standard_normal((len(w), 2)))
    nu = jnp.asarray(rng.uniform(0.1, 1.0, len(w)))
    x = Covariant(jnp.asarray(w), V, nu, jnp.ones(()))
    rate = jax.jit(lambda x: covariance_rate(loss, rule, x))(x)
    _, g, H, third = DenseLoss(loss).all(w)
    P = np.asarray(rule.preconditioner(nu, 1.0))
    excess = 0.5 * np.einsum("ijl,ik,jk->l", third, V, V)
    np.testing.assert_allclose(rate.w, -(g + excess) / P, atol=1e-12)
    np.testing.assert_allclose(rate.V, H @ V / P[:, None] - 2 * V, atol=1e-12)
    square = g**2 + np.diag(H @ np.asarray(V) @ np.asarray(V).T @ H)
    np.testing.assert_allclose(rate.nu, (1 / 9) * (square - nu), atol=1e-12)


@pytest.mark.parametrize("feed", [False, True])
def test_lifted_columns_have_lifted_singular_values_and_the_same_span(feed):
    rng = np.random.default_rng(6)
    P, V = rng.uniform(0.5, 2.0, 6), rng.standard_normal((6, 3)) * [1.0, 0.1, 1e-3]
    x = Covariant(jnp.zeros(6), jnp.asarray(V), jnp.zeros(6), jnp.ones(()))
    new = np.asarray(lift_columns(x, jnp.asarray(P), 0.05, feed).V)
    old, lifted = (np.linalg.svd(np.sqrt(P)[:, None] * A, compute_uv=False) for A in (V, new))
    wanted = np.sqrt(old**2 + 0.05**2) if feed else np.maximum(old, 0.05)
    np.testing.assert_allclose(lifted, wanted, rtol=1e-8)
    assert np.linalg.matrix_rank(np.column_stack([V, new]), tol=1e-9) == 3


def test_corrected_flow_of_gradient_descent_is_the_known_one():
    """W' = -η∇L - ½η²H∇L (Barrett and Dherin)."""
    loss, w = NETWORKS["deep_linear"]()
    rule = Rule("gradient_descent", 0.1)
    rate, flat, back = corrected_rate(loss, rule, rule.start(jnp.asarray(w)))
    g, H = jax.grad(loss)(jnp.asarray(w)), jax.jit(jax.hessian(loss))(jnp.asarray(w))
    np.testing.assert_allclose(back(rate(flat)).w, -0.1 * g - 0.005 * H @ g, atol=1e-14)


def test_corrected_flow_with_momentum_has_the_factor_of_its_slow_mode():
    """On a quadratic the slow rate is a + ½a²(1+β)/(1-β) + O(a³), a = ηλ/(1-β) (Ghosh et al.)."""
    beta = 0.8
    for a in (0.02, 0.01):
        rule = Rule("heavy_ball", 1.0, beta1=beta)
        lam = a * (1 - beta)
        loss = lambda w, s=lam: 0.5 * s * w[0] ** 2  # noqa: E731
        rate, flat, _ = corrected_rate(loss, rule, rule.start(jnp.ones(1)))
        w_and_m = np.asarray(jax.jacfwd(rate)(flat))[:2, :2]
        slow = -np.linalg.eigvals(w_and_m).real.max()
        assert slow == pytest.approx(a + 0.5 * a**2 * (1 + beta) / (1 - beta), abs=60 * a**3)


def test_unforced_central_flow_is_stable_without_nu_and_holds_the_edge_with_it():
    loss, w = NETWORKS["tanh_regression"]()
    gd = unforced_path(loss, w, OracleRule("gradient_descent", 0.1), 5, 4)
    stable = integrate(lambda y: -0.1 * jax.grad(loss)(y), jnp.asarray(w), 5, 4, "euler")
    np.testing.assert_allclose(gd[0], stable, atol=1e-13)
    rule = OracleRule("rmsprop", 0.01, 0.95)
    ws, nus, excess = unforced_path(loss, w, rule, 20, 2, 15)
    with_force = central_path(loss, w, rule, 20, 2, 15)
    assert max(excess) > 0
    top = [
        np.max(effective_eigh(loss, x, rule.preconditioner(nu, len(x)))[0])
        for x, nu in zip(ws[::5], nus[::5], strict=True)
    ]
    assert top[1:] == pytest.approx([2.0] * 4, abs=1e-2)  # the warm-up ends above the edge
    assert np.abs(ws[-1] - with_force.params[-1]).max() > 1e-6


def test_rules_here_are_the_rules_of_the_other_oracles():
    loss, w = NETWORKS["gelu_classifier"]()
    for kind in ("gradient_descent", "scalar_rmsprop", "rmsprop"):
        rule = Rule(kind, 0.05, beta2=0.95)
        ours = optimizer_path(loss, rule, rule.start(jnp.asarray(w)), 20)
        theirs, nus = discrete_path(loss, w, OracleRule(kind, 0.05, 0.95), 20)
        np.testing.assert_allclose(ours.w, theirs, atol=1e-12)
        if kind != "gradient_descent":
            np.testing.assert_allclose(ours.nu.reshape(21, -1), nus, atol=1e-13)


def test_adam_and_friends_are_those_of_optax():
    optax = pytest.importorskip("optax")
    loss, w = NETWORKS["tanh_regression"]()
    pairs = [
        (Rule("adam", 0.03), optax.adam(0.03, b2=0.99)),
        (Rule("adam", 0.03, decay=0.1), optax.adamw(0.03, b2=0.99, weight_decay=0.1)),
        (Rule("heavy_ball", 0.1), optax.sgd(0.1, momentum=0.9)),
        (Rule("nesterov", 0.1), optax.sgd(0.1, momentum=0.9, nesterov=True)),
        (
            Rule("rmsprop_momentum", 0.01, beta1=0.5, beta2=0.9),
            optax.rmsprop(0.01, decay=0.9, eps=1e-8, eps_in_sqrt=False, momentum=0.5),
        ),
    ]
    for rule, optimizer in pairs:
        params = jnp.asarray(w)
        state = optimizer.init(params)
        for _ in range(10):
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
        ours = optimizer_path(loss, rule, rule.start(jnp.asarray(w)), 10)
        np.testing.assert_allclose(ours.w[-1], params, rtol=1e-9, atol=1e-10, err_msg=rule.kind)


def test_preconditioner_of_a_split_state_is_the_optimizers():
    loss, w = NETWORKS["tanh_regression"]()
    rule = Rule("adam", 0.03, beta2=0.99)
    _, here = warmed(loss, w, rule)
    z = Alternating(here, jax.tree.map(jnp.zeros_like, here))
    after = rule.advance(loss, here)
    P = rule.preconditioner(after.nu, after.t)
    np.testing.assert_allclose(preconditioner_at(loss, rule, z), P, rtol=1e-14)
