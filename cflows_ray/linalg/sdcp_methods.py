"""The iterations behind ``solve_sdcp``, on an equilibrated problem.

Semismooth Newton for speed, an interior-point method for safety. Both return candidates that carry
their own residuals, computed from nothing but the problem and X.

| symbol | meaning |
| --- | --- |
| Z | one matrix for both unknowns, X = Z₊ and Y = Z₋ (its psd parts), so <X, Y> = 0 always |
| S(Q) | m x m matrix with S(Q) svec(M) = svec(Q M Qᵀ) |
| G, d | Nesterov-Todd scaling: G⁻¹ X G⁻ᵀ = Gᵀ Y G = diag(d) |
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.linalg.symmetric import pair_indices, smat, svec

METHOD_ZERO = 0
METHOD_LINEAR = 1
METHOD_NEWTON = 2
METHOD_INTERIOR_POINT = 3
METHOD_CLOSED_FORM = 4

_EPS = float(np.finfo(np.float64).eps)
_LAST_STAGE = 13  # of newton: ten steps; it converges in 3 to 6 or not at all


class Scaled(NamedTuple):
    """An equilibrated problem; inactive directions carry identities, so that X is zero there."""

    A: Float[Array, "s s"]
    B: Float[Array, "m m"]
    A_norm: Float[Array, ""]  # without the padding
    mask: Float[Array, "s s"]  # 1 on the active block, else 0


class Candidate(NamedTuple):
    """A trial solution X̂ with its three residuals."""

    X: Float[Array, "s s"]
    residuals: Float[Array, "3"]
    num_iterations: Int[Array, ""]
    method: Int[Array, ""]


def safe_ratio(numerator: Array, denominator: Array) -> Array:
    """Divide with 0/0 = 0."""
    safe = jnp.where(denominator > 0, denominator, 1.0)
    return jnp.where(denominator > 0, numerator / safe, jnp.where(numerator > 0, jnp.inf, 0.0))


def apply_operator(problem: Scaled, X: Array) -> Array:
    """Return smat(B svec X)."""
    return smat(problem.B @ svec(X), X.shape[0])


def judge(problem: Scaled, X: Array, iterations: Array, method: Array | int) -> Candidate:
    """Compute the three residuals of X from nothing but the problem and X."""
    X = problem.mask * X
    Y = problem.A + apply_operator(problem, X)
    good = jnp.all(jnp.isfinite(X)) & jnp.all(jnp.isfinite(Y))
    pair = jnp.where(good, jnp.stack([X, Y]), 0.0)
    smallest = jnp.linalg.eigvalsh(pair)[:, 0]
    X_norm, scale = jnp.linalg.norm(X), problem.A_norm
    residuals = jnp.stack(
        [
            safe_ratio(jnp.maximum(-smallest[0], 0.0), X_norm),
            safe_ratio(jnp.maximum(-smallest[1], 0.0), scale),
            safe_ratio(jnp.abs(jnp.sum(pair[0] * pair[1])), X_norm * scale),
        ]
    )
    residuals = jnp.where(good & jnp.isfinite(residuals), residuals, jnp.inf)
    return Candidate(X, residuals, iterations, jnp.asarray(method, dtype=jnp.int32))


def better(first: Candidate, second: Candidate) -> Candidate:
    """Return the candidate with the smaller worst residual, with the iterations of the second."""
    take = jnp.max(second.residuals) < jnp.max(first.residuals)
    best = jax.tree.map(lambda a, b: jnp.where(take, b, a), first, second)
    return best._replace(num_iterations=second.num_iterations)


def merge(problem: Scaled, X: Array) -> Array:
    """Return one matrix for both unknowns; its psd part is a projected gradient step from X."""
    return X - (problem.A + apply_operator(problem, X))


class _NewtonState(NamedTuple):
    """What the Newton loop carries."""

    Z: Float[Array, "s s"]
    values: Float[Array, " s"]  # eigenvalues of Z, rounding cleared
    Q: Float[Array, "s s"]  # eigenvectors of Z
    F: Float[Array, " m"]
    stage: Int[Array, ""]  # which Z comes next, see newton
    X: Float[Array, "s s"]  # Z₊ of the smallest error so far
    error: Float[Array, ""]  # its ‖F‖ / ‖A‖
    method: Int[Array, ""]  # and where it came from
    solves: Int[Array, ""]


def newton(problem: Scaled, guess: Array, best: Candidate, number: Array, tol: float) -> Candidate:
    """Semismooth Newton on F(Z) = Z₋ - A - B[Z₊] = 0; the better of its Z₊ and ``best``.

    Since <Z₊, Z₋> = 0, ‖F‖ bounds the residuals of X = Z₊. One loop, so that each part is
    compiled once; its Z are, by stage,

        0. -A: solves the problem if A is psd (X = 0);
        1. the Newton step from zero with Θ = 1: solves it if B x = -a has X ⪰ 0 (Y = 0);
        2. the guess;
        3. and on: Newton steps.

    The first attempt (number 0) begins at stage 0, the next one at its guess.
    """
    size = guess.shape[0]
    A = svec(problem.A)

    def step(state: _NewtonState) -> _NewtonState:
        stage = state.stage
        given = (stage == 0) | (stage == 2)
        Z = lax.cond(
            given,
            lambda _: jnp.where(stage == 0, -problem.A, guess),
            lambda state: _newton_point(problem, state),
            state,
        )
        finite = jnp.all(jnp.isfinite(Z))
        Z = jnp.where(finite, Z, -problem.A)
        values, Q = jnp.linalg.eigh(Z)
        rounding = 4 * size * _EPS * jnp.max(jnp.abs(values))
        values = jnp.where(jnp.abs(values) > rounding, values, 0.0)
        X = (Q * jnp.maximum(values, 0.0)[None, :]) @ Q.T
        F = svec(X - Z) - A - problem.B @ svec(X)
        error = safe_ratio(jnp.linalg.norm(F), problem.A_norm)
        better = error < state.error
        return _NewtonState(
            *(Z, values, Q, F),
            stage=jnp.where(finite | (stage < 3), stage + 1, _LAST_STAGE),
            X=jnp.where(better, X, state.X),
            error=jnp.where(better, error, state.error),
            method=jnp.where(better, jnp.minimum(stage, METHOD_NEWTON), state.method),
            solves=state.solves + jnp.where(given, 0, 1).astype(jnp.int32),
        )

    zero, blank = jnp.zeros((), dtype=jnp.int32), jnp.zeros_like(guess)
    state = _NewtonState(
        *(blank, blank[0], blank, jnp.zeros_like(A), 2 * number),
        *(blank, jnp.full((), jnp.inf), zero, best.num_iterations),
    )
    state = lax.while_loop(
        lambda state: (state.error > 0.01 * tol) & (state.stage < _LAST_STAGE), step, state
    )
    method = jnp.where(number > 0, METHOD_INTERIOR_POINT, state.method).astype(jnp.int32)
    return better(best, judge(problem, state.X, state.solves, method))


def _newton_point(problem: Scaled, state: _NewtonState) -> Array:
    """Next Z: in the eigenbasis of Z, (I - Θ + B Θ) dZ = F, Θ_ij = (λ_i⁺ - λ_j⁺)/(λ_i - λ_j)."""
    size = state.Z.shape[0]
    rows, cols = pair_indices(size)
    signs = 2.0 * jnp.diagonal(problem.mask) - 1.0
    linear = state.stage == 1
    values = jnp.where(linear, signs, state.values)
    Q = jnp.where(linear, jnp.eye(size), state.Q)
    F = jnp.where(linear, svec(-problem.mask * problem.A), state.F)
    Z = jnp.where(linear, jnp.diag(jnp.minimum(signs, 0.0)), state.Z)

    plus, spread = jnp.maximum(values, 0.0), jnp.abs(values)
    plus, spread = plus[rows] + plus[cols], spread[rows] + spread[cols]
    theta = jnp.where(spread > 0, plus / jnp.where(spread > 0, spread, 1.0), 1.0)
    S = _congruence(Q.T)
    # the shift keeps the step finite where the solution is not unique, and vanishes with F
    shift = jnp.where(linear, 0.0, 1e-3 * jnp.minimum(state.error, 1e-3))
    K = (S @ problem.B @ S.T) * theta[None, :] + jnp.diag(1.0 - theta + shift * theta)
    return Z + smat(S.T @ jnp.linalg.solve(K, S @ F), size)


def _congruence(Q: Array) -> Array:
    """Return the m x m matrix S with S svec(M) = svec(Q M Qᵀ)."""
    rows, cols = pair_indices(Q.shape[0])
    weight = np.where(rows == cols, np.sqrt(0.5), 1.0)
    left, right = Q[rows], Q[cols]
    product = left[:, rows] * right[:, cols] + left[:, cols] * right[:, rows]
    return product * jnp.asarray(weight[:, None] * weight[None, :])


class _InteriorState(NamedTuple):
    """What the interior-point loop carries."""

    X: Float[Array, "s s"]
    Y: Float[Array, "s s"]
    R: Float[Array, "s s"]  # A + B[X] - Y
    error: Float[Array, ""]  # the larger of ‖R‖ and <X, Y> / ‖X‖, over ‖A‖
    iterations: Int[Array, ""]
    moving: Bool[Array, ""]


def interior_point(
    problem: Scaled, best: Candidate, enabled: Array, tol: float, max_iterations: int
) -> tuple[Array, Candidate]:
    """Primal-dual interior point with Nesterov-Todd scaling and Mehrotra's corrector.

    Starts at X = Y = 2 I, outside the linear constraint, and needs no guess. Returns Z = X - Y, to
    start Newton from, and the better of X and ``best``. Not ``enabled``, it makes no iteration
    (under ``vmap`` a conditional would run it all the same).
    """
    size = problem.A.shape[0]

    def make(X: Array, Y: Array, iterations: Array, moving: Array) -> _InteriorState:
        R = problem.A + apply_operator(problem, X) - Y
        inner = jnp.abs(jnp.sum(X * Y)) / jnp.linalg.norm(X)
        error = jnp.maximum(jnp.linalg.norm(R), inner) / problem.A_norm
        return _InteriorState(X, Y, R, error, iterations, moving)

    def step(state: _InteriorState) -> _InteriorState:
        dX, dY, alpha = _interior_step(problem, state)
        new = make(state.X + alpha * dX, state.Y + alpha * dY, state.iterations + 1, alpha > 1e-6)
        stuck = state._replace(iterations=state.iterations + 1, moving=jnp.array(False))
        good = jnp.isfinite(new.error)
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, stuck)

    def going(state: _InteriorState) -> Array:
        return (state.error > 0.01 * tol) & (state.iterations < max_iterations) & state.moving

    X = 2.0 * jnp.eye(size)
    state = lax.while_loop(going, step, make(X, X, jnp.zeros_like(best.num_iterations), enabled))
    spent = best.num_iterations + state.iterations
    trial = judge(problem, state.X, spent, METHOD_INTERIOR_POINT)
    return state.X - state.Y, better(best, trial)


def _interior_step(problem: Scaled, state: _InteriorState) -> tuple[Array, Array, Array]:
    """Return dX, dY and the step length.

    In scaled coordinates the Newton step for a target t of the complementarity equation solves
    (I + S B Sᵀ) dx = r - S svec(R) with r_ij = 2 t_ij / (d_i + d_j), well conditioned for monotone
    B, and dy = r - dx.
    """
    size = state.X.shape[0]
    L, M = jnp.linalg.cholesky(jnp.stack([state.X, state.Y]))
    U, d, Vt = jnp.linalg.svd(M.T @ L)
    root = lax.rsqrt(d)
    G, H = (L @ Vt.T) * root[None, :], (M @ U) * root[None, :]  # H = G⁻ᵀ
    S = _congruence(G.T)
    inverse = jnp.linalg.inv(S @ problem.B @ S.T + jnp.eye(S.shape[0]))
    infeasibility = S @ svec(state.R)
    D, mu = jnp.diag(d), jnp.mean(d * d)

    def direction(_: Array | int, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        # first the predictor (target -D²), then the corrector, from what the predictor found
        target, _, _, reach, _ = carry
        r = svec(2.0 * target / (d[:, None] + d[None, :]))
        dx = inverse @ (r - infeasibility)
        dX, dY = smat(dx, size), smat(r - dx, size)
        pair = jnp.stack([dX, dY]) * (root[:, None] * root[None, :])[None]
        lowest = jnp.min(jnp.linalg.eigvalsh(jnp.where(jnp.isfinite(pair), pair, 0.0)))
        new_reach = 1.0 / jnp.maximum(-lowest, _EPS)
        alpha = jnp.minimum(1.0, new_reach)
        mu_affine = jnp.sum((D + alpha * dX) * (D + alpha * dY)) / size
        sigma = jnp.clip(mu_affine / mu, 0.0, 1.0) ** 3
        target = sigma * mu * jnp.eye(size) - D * D - 0.5 * (dX @ dY + dY @ dX)
        return target, dX, dY, new_reach, reach

    start = (-D * D, jnp.zeros_like(D), jnp.zeros_like(D), mu, mu)
    _, dX, dY, reach, predictor_reach = lax.fori_loop(0, 2, direction, start)
    fraction = 0.9 + 0.09 * jnp.minimum(1.0, predictor_reach)
    return G @ dX @ G.T, H @ dY @ H.T, jnp.minimum(1.0, fraction * reach)
