"""Oracles of the rivals that are not of the alternating family; valleys to try them in.

Rod flow (dense and of low rank), covariance flow, corrected flow, persistence, and the central flow
without its curvature force. As slow and obvious as `oracles_rivals`, of which they use the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array
from jax.flatten_util import ravel_pytree

from tests.oracles import CRITICAL, DenseLoss, OracleRule, discrete_path, solve_sdcp_oracle
from tests.oracles_rivals import Loss, Point, Rate, Rule, modified

# --- rod flow ------------------------------------------------------------------------------------


class Rod(NamedTuple):
    """Half-way point z̄ = ½(z_t + z_{t+1}) of z = (w, m) at time t + ½, covariance, ν and t.

    ν has absorbed the gradient (its time is that of z̄, too); `t` counts absorbed gradients.
    """

    z: Array
    sigma: Array  # (n, n) dense, or (n, r) with Σ = ZZᵀ
    nu: Array
    t: Array


def rod_step_map(loss: Loss, rule: Rule, z: Array, nu: Array, t: Array) -> Array:
    """F(z) = z⁺ - z of z = (w, m) with P(ν, t) given."""
    d = z.size // (2 if rule.filters[0] else 1)
    w = z[:d]
    m = z[d:] if rule.filters[0] else jnp.zeros_like(w)
    new = rule.increment(Point(w, m, nu, t - 1.0), jax.grad(loss)(w), nu)
    return jnp.concatenate([new.w, new.m]) if rule.filters[0] else new.w


def rod_metric(rule: Rule, nu: Array, t: Array, n: int) -> Array:
    """P on w, 0 on m: m follows w, and its units are those of gradients."""
    d = n // (2 if rule.filters[0] else 1)
    P = jnp.broadcast_to(rule.preconditioner(nu, t), (d,))
    return jnp.concatenate([P, jnp.zeros(n - d)])


def rod_parts(loss: Loss, rule: Rule, rod: Rod, delta: Array, frozen: bool) -> tuple:
    """F₊, F₋, dz̄/dt, dν/dt. Unless frozen, the centre's correction sees P(ν, t) move, too."""
    d = rod.z.size // (2 if rule.filters[0] else 1)
    g, k = jax.grad(loss)((rod.z + delta)[:d]), jax.grad(loss)((rod.z - delta)[:d])
    dnu = jnp.zeros_like(rod.nu)
    if rule.has_nu:
        absorbed = 0.5 * (rule.absorb_square(rod.nu, g) + rule.absorb_square(rod.nu, k))
        dnu = (absorbed - rod.nu) / rule.beta2
    ds = (jnp.zeros_like(rod.nu), 0.0) if frozen else (dnu, 1.0)

    def F(z: Array, nu: Array, t: Array) -> Array:
        return rod_step_map(loss, rule, z, nu, t)

    here = (rod.nu, rod.t)
    ahead, behind = F(rod.z + delta, *here), F(rod.z - delta, *here)
    mean = 0.5 * (ahead + behind)
    tangent = (mean, ds[0], jnp.asarray(ds[1]))
    slope = 0.5 * (
        jax.jvp(F, (rod.z + delta, *here), tangent)[1]
        + jax.jvp(F, (rod.z - delta, *here), tangent)[1]
    )
    return ahead, behind, mean - 0.5 * slope, dnu


def top_displacement(sigma: Array, metric: Array) -> Array:
    """δ = √λ₁ q₁ of a dense Σ, its top eigenpair in the metric."""
    root = jnp.sqrt(metric)
    values, vectors = jnp.linalg.eigh(root[:, None] * sigma * root[None, :])
    # Σ D^{1/2} q / √λ is the top direction also where D is 0
    return sigma @ (root * vectors[:, -1]) / jnp.sqrt(jnp.maximum(values[-1], 1e-300))


def rod_rate_dense(loss: Loss, rule: Rule, rod: Rod, frozen: bool = False) -> Rod:
    """z̄' = ½(F₊ + F₋) - ⅛(DF₊ + DF₋)(F₊ + F₋), Σ' = ¼(F₊F₊ᵀ + F₋F₋ᵀ) - 2Σ."""
    delta = top_displacement(rod.sigma, rod_metric(rule, rod.nu, rod.t, rod.z.size))
    ahead, behind, dz, dnu = rod_parts(loss, rule, rod, delta, frozen)
    spread = 0.25 * (jnp.outer(ahead, ahead) + jnp.outer(behind, behind))
    return Rod(dz, spread - 2 * rod.sigma, dnu, jnp.ones(()))


def rod_euler_low_rank(loss: Loss, rule: Rule, rod: Rod, h: float, frozen: bool = False) -> Rod:
    """One Euler substep, h ≤ ½, with Σ = ZZᵀ truncated to the rank of Z; columns fall in size.

    M = [√(1-2h) Z, √(h/4) F₊, √(h/4) F₋]; the eigenvectors of the small MᵀDM keep the largest.
    """
    ahead, behind, dz, dnu = rod_parts(loss, rule, rod, rod.sigma[:, 0], frozen)
    Z = low_rank(
        jnp.column_stack(
            [np.sqrt(1 - 2 * h) * rod.sigma, np.sqrt(h / 4) * ahead, np.sqrt(h / 4) * behind]
        ),
        rod_metric(rule, rod.nu, rod.t, rod.z.size),
        rod.sigma.shape[1],
    )
    return Rod(rod.z + h * dz, Z, rod.nu + h * dnu, rod.t + h)


def low_rank(M: Array, metric: Array, rank: int) -> Array:
    """Return the rank-r factor nearest to MMᵀ in the metric."""
    _, vectors = jnp.linalg.eigh(M.T @ (metric[:, None] * M))
    return (M @ vectors)[:, ::-1][:, :rank]


def start_rod(loss: Loss, rule: Rule, here: Point, rank: int | None) -> Rod:
    """At time ½: z̄ = ½(z_0 + z_1), Σ = δδᵀ with δ = ½(z_1 - z_0), ν absorbed, half a step on."""
    one = rule.advance(loss, here)
    two = rule.advance(loss, one)

    def z(x: Point) -> Array:
        return jnp.concatenate([x.w, x.m]) if rule.filters[0] else x.w

    delta = 0.5 * (z(one) - z(here))
    sigma = jnp.outer(delta, delta) if rank is None else jnp.zeros((delta.size, rank))
    sigma = sigma if rank is None else sigma.at[:, 0].set(delta)
    nu = 0.5 * (one.nu + two.nu)
    return Rod(0.5 * (z(here) + z(one)), sigma, nu, one.t + 0.5)


# --- covariance flow, corrected flow, central flow without its force ----------------------------


class Covariant(NamedTuple):
    """w, V with Σ = VVᵀ (d, k), ν after absorbing, gradients absorbed."""

    w: Array
    V: Array
    nu: Array
    t: Array


def covariance_rate(loss: Loss, rule: Rule, x: Covariant) -> Covariant:
    """Return w' = -P⁻¹(∇L + ½∇<H, VVᵀ>), V' = P⁻¹HV - 2V, ν seeing g² + diag(HΣH)."""
    P = rule.preconditioner(x.nu, x.t)
    P = jnp.broadcast_to(P, x.w.shape)

    def quadratic(w: Array) -> Array:
        def along(v: Array) -> Array:
            return jax.jvp(lambda y: jax.jvp(loss, (y,), (v,))[1], (w,), (v,))[1]

        return jnp.sum(jax.vmap(along, 1)(x.V))

    g, excess = jax.grad(loss)(x.w), 0.5 * jax.grad(quadratic)(x.w)
    HV = jax.vmap(lambda v: jax.jvp(jax.grad(loss), (x.w,), (v,))[1], 1, 1)(x.V)
    dnu = jnp.zeros_like(x.nu)
    if rule.has_nu:
        square = g**2 + jnp.sum(HV**2, 1)
        square = jnp.sum(square) if rule.kind == "scalar_rmsprop" else square
        dnu = (1 - rule.beta2) / rule.beta2 * (square - x.nu)
    return Covariant(-(g + excess) / P, HV / P[:, None] - 2 * x.V, dnu, jnp.ones(()))


def lift_columns(x: Covariant, P: Array, size: Array, feed: bool) -> Covariant:
    """Lift the singular values of P^{1/2}V to `size`, or, fed, add size² to their squares."""
    P = jnp.broadcast_to(P, x.w.shape)
    values, vectors = jnp.linalg.eigh(x.V.T @ (P[:, None] * x.V))
    values = jnp.maximum(values, 0.0)
    wanted = values + size**2 if feed else jnp.maximum(values, size**2)
    factor = jnp.where(values > 0, jnp.sqrt(wanted / jnp.where(values > 0, values, 1.0)), 1.0)
    return x._replace(V=x.V @ (vectors * factor) @ vectors.T)


def corrected_rate(loss: Loss, rule: Rule, x: Point) -> tuple[Rate, Array, Callable]:
    """Return F - ½DF F of the optimizer's own map: alternating order 2 with no swing."""
    flat, back = ravel_pytree(x)

    def F(y: Array) -> Array:
        return ravel_pytree(rule.advance(loss, back(y)))[0] - y

    return modified(F, 2), flat, back


def persistence(x: Point, steps: int) -> np.ndarray:
    """Return w(t) = w_0."""
    return np.repeat(np.asarray(x.w)[None], steps + 1, axis=0)


def unforced_path(
    loss: Loss, w: np.ndarray, rule: OracleRule, steps: int, substeps: int, warmup: int = 0
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Return w, ν and tr X at integer steps of the central flow with Σ acting on ν alone.

    w' = -P⁻¹∇L, ν' seeing g² + diag(HΣH), X solving the problem for dA/dt = 2 dP/dt - dH/dt
    with H moved by ∇L alone. Without ν there is nothing for X to act on: X = 0, the stable flow.
    """
    ws, nus = discrete_path(loss, w, rule, warmup)
    w, dense, h = ws[-1], DenseLoss(loss), 1 / substeps
    nu = rule.update(nus[-1], dense.grad(w))
    rows: tuple[list, list, list] = ([], [], [])
    for i in range(steps * substeps + 1):
        _, g, H, contract = dense.at(w)
        P = rule.preconditioner(nu, len(w))
        eigvals, U = scipy.linalg.eigh(H, np.diag(P))
        U, lam = U[:, eigvals >= CRITICAL], eigvals[eigvals >= CRITICAL]
        HU, slope, X = H @ U, rule.preconditioner_slope(nu), np.zeros((len(lam), len(lam)))
        dH = np.einsum("abl,l->ab", contract(U), -g / P)

        def rates(X, U=U, HU=HU, dH=dH, g=g, nu=nu, slope=slope):
            dnu = rule.nu_rate(nu, g, np.einsum("ia,ab,ib->i", HU, X, HU))
            dP = np.broadcast_to(slope * dnu, len(g))
            return dnu, 2 * np.einsum("ia,i,ib->ab", U, dP, U) - dH

        stable = rates(X)[1]
        if len(lam) and rule.kind != "gradient_descent":
            X = solve_sdcp_oracle(
                np.diag(2 - lam) + h * stable, lambda V, r=rates, s=stable: h * (r(V)[1] - s)
            )
        if i % substeps == 0:
            for row, value in zip(rows, (w, nu, np.trace(X)), strict=True):
                row.append(value)
        w, nu = w - h * g / P, nu + h * rates(X)[0]
    return np.array(rows[0]), np.array(rows[1]), rows[2]


# --- Berthier's valleys --------------------------------------------------------------------------


def valley_2d(zeta: float, eps: float) -> Loss:
    """½(y + ζx)x² - ε(x + y) of (x, y)."""
    return lambda w: 0.5 * (w[1] + zeta * w[0]) * w[0] ** 2 - eps * (w[0] + w[1])


def valley_3d(eps: float) -> Loss:
    """½(|y| + 3e^{x/2})x² - ε(x + y₁) of (x, y₁, y₂)."""
    return lambda w: (
        0.5 * (jnp.hypot(w[1], w[2]) + 3 * jnp.exp(w[0] / 2)) * w[0] ** 2 - eps * (w[0] + w[1])
    )


def valley_start(eps: float, lr: float, energy: float) -> np.ndarray:
    """Return (x, y) on the loop of an energy ≥ ½(1 - log 2), at y = 2/η, where |x| is least.

    E = y₁²/2 + a²/4 - ½ log a², x = √ε a, y = 2/η + √ε y₁.
    """
    low, high = 1e-12, np.sqrt(2.0)
    for _ in range(200):
        a = 0.5 * (low + high)
        low, high = (a, high) if a**2 / 4 - 0.5 * np.log(a**2) > energy else (low, a)
    return np.array([np.sqrt(eps) * a, 2 / lr])
