"""The covariance of the oscillation where a substep starts: the complementarity problem of it.

    0 ⪯ X ⟂ A(t + h) ⪰ 0,     A(t + h) = 2I - Λ + h (stable part) + h B[X],     Σ = U X Uᵀ

in the basis of the critical directions U (UᵀQ̂U = I, HU = Q̂UΛ), frozen for the substep (Cohen et al.
2025; docs/theory.md, "Central flow"). Everything but h is computed once and serves substeps of
several lengths.

| symbol | here |
| --- | --- |
| D_ab = ∇_w (u_aᵀ H u_b) | rows of `hessian_drifts`, in svec coordinates |
| B[X] = 2 dQ̂/dt|_X - dH/dt|_X | `response`, m x m on svec coordinates |
| diag(HΣH) | `grad_variance`; from HU, never from U |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.curvature import Linearization, third_derivative
from cflows_ray.flows.process import FlowContext
from cflows_ray.linalg import (
    SDCP_CONVERGED,
    EigenResult,
    num_pairs,
    pair_indices,
    smat,
    solve_sdcp,
    svec,
)
from cflows_ray.rules import Moments, Motion


class Point(NamedTuple):
    """What a substep knows of the loss where it starts; `preconditioner` is Q̂."""

    t: Float[Array, ""]
    params: Float[Array, " d"]
    rule_state: PyTree
    linear: Linearization
    preconditioner: Float[Array, "..."]
    eig: EigenResult
    num_critical: Int[Array, ""]


class Covariance(NamedTuple):
    """X, how well its problem was solved, and what Σ does to the motion; for one length or n.

    Attributes:
        X: float64, zero but for the critical directions.
        residual: the worst of the problem's three residuals.
        failed: whether the solver did not converge.
        grad_excess: ½ ∇<H, Σ>.
        grad_variance: diag(HΣH).
        stable_rate: dA/dt without oscillation, float64; NaN where no problem was solved.
    """

    X: Float[Array, "*n k k"]
    residual: Float[Array, "*n"]
    failed: Bool[Array, "*n"]
    grad_excess: Float[Array, "*n d"]
    grad_variance: Float[Array, "*n d"]
    stable_rate: Float[Array, "*n k k"]

    def of(self, i: int) -> Covariance:
        """Return the covariance for the i-th length."""
        return jax.tree.map(lambda x: x[i], self)

    def moments(self, grad: Float[Array, " d"]) -> Moments:
        """Return the gradient's moments under Σ, for one length."""
        return Moments(grad, self.grad_excess, self.grad_variance)


class DriftingBasis(NamedTuple):
    """Directions and their third derivatives: all by which Σ acts.

    Attributes:
        U: effective eigenvectors, as rows; UᵀQ̂U = I.
        HU: products with them.
        drifts: rows √(2 - δ_ab) ∇_w (u_aᵀ H u_b), in svec order; 0 but for critical pairs.
    """

    U: Float[Array, "k d"]
    HU: Float[Array, "k d"]
    drifts: Float[Array, "m d"]

    def excess(self, X: Float[Array, "k k"]) -> Float[Array, " d"]:
        """Return ½ ∇<H, Σ>."""
        return 0.5 * svec(X) @ self.drifts

    def variance(self, X: Float[Array, "k k"]) -> Float[Array, " d"]:
        """Return diag(HΣH)."""
        return jnp.sum((X @ self.HU) * self.HU, axis=0)

    def moments(self, grad: Float[Array, " d"], X: Array, has_force: bool) -> Moments:
        """Return the gradient's moments under Σ = U X Uᵀ."""
        X = X.astype(grad.dtype)
        excess = self.excess(X) if has_force else jnp.zeros_like(grad)
        return Moments(grad, excess, self.variance(X))


class Ahead(NamedTuple):
    """A substep whose end is not Euler's; see `adaptive.py`.

    Attributes:
        length: h, in optimizer steps.
        bend: maps rows of velocities v to those w' for which h w' is how far v leads.
        later: what is added, of w and of ds/dt, whatever the velocity.
    """

    length: Float[Array, ""]
    bend: Callable[[Float[Array, "*n d"]], Float[Array, "*n d"]]
    later: Motion


class _Rates(NamedTuple):
    """Rates of A in svec coordinates, float64: A(t + h) = gap + h smat(stable + response svec(X)).

    `stable` is a function of h: with momentum the velocity is that in the middle of a substep.
    """

    gap: Float[Array, "k k"]
    stable: Callable[[Array | float], Float[Array, " m"]]
    response: Float[Array, "m m"]


def no_covariances(point: Point, num_lengths: int) -> tuple[Covariance, Int[Array, ""]]:
    """Return X = 0 for each length, and 0 third derivatives."""
    k, d = point.eig.eigvecs.shape
    zeros = jnp.zeros((num_lengths, d), point.params.dtype)
    none = Covariance(
        X=jnp.zeros((num_lengths, k, k), jnp.float64),
        residual=jnp.zeros((num_lengths,), point.params.dtype),
        failed=jnp.zeros((num_lengths,), bool),
        grad_excess=zeros,
        grad_variance=zeros,
        stable_rate=jnp.full((num_lengths, k, k), jnp.nan, jnp.float64),
    )
    return none, jnp.zeros((), jnp.int32)


def solve_covariances(
    context: FlowContext,
    point: Point,
    guess: Float[Array, "k k"],
    lengths: tuple[float, ...],
    count: Int[Array, ""],
    has_force: bool = True,
) -> tuple[Covariance, Int[Array, ""]]:
    """Return the covariance for substeps of these lengths; and the third derivatives it took.

    Args:
        context: loss and rule.
        point: where the substeps start; must have a critical direction.
        guess: a covariance near by, in the basis of the point's eigenvectors.
        lengths: in optimizer steps.
        count: only for so many leading lengths the problem is solved; X = 0 for the others.
        has_force: whether Σ acts on w, by ½∇<H, Σ>; on the rule's second moment it acts always.
    """
    basis, num_third = drifting_basis(context, point, point.num_critical)
    rates = _rates(context, point, basis, has_force, lambda velocities: velocities)

    def solve(length: Array | float) -> Covariance:
        change = length * rates.stable(length)
        return _solve(point, basis, rates, change, length, rates.stable(0.0), guess, has_force)

    if len(lengths) == 1:
        solved = jax.tree.map(lambda x: x[None], solve(lengths[0]))
    else:
        table = jnp.asarray(lengths, jnp.float64)

        def fill(i: Array, solved: Covariance) -> Covariance:
            return jax.tree.map(lambda all_, one: all_.at[i].set(one), solved, solve(table[i]))

        # a loop, for one compiled copy of the solver
        none = no_covariances(point, len(lengths))[0]
        solved = jax.lax.fori_loop(0, count, fill, none)
    return solved, num_third


def solve_ahead(
    context: FlowContext,
    point: Point,
    basis: DriftingBasis,
    guess: Float[Array, "k k"],
    ahead: Ahead,
    has_force: bool = True,
) -> Covariance:
    """Return the covariance for one substep that is not Euler's, as if of one length.

    Args:
        context: loss and rule.
        point: where the substep starts; must have a critical direction.
        basis: the directions there.
        guess: a covariance near by, in the basis of the point's eigenvectors.
        ahead: the substep.
        has_force: as for `solve_covariances`.
    """
    rates, U = _rates(context, point, basis, has_force, ahead.bend), basis.U
    here = point.t, point.rule_state
    moving = jnp.zeros_like(point.t), ahead.later.state
    rising = jax.jvp(context.rule.edge_preconditioner, here, moving)[1]
    rising = jnp.broadcast_to(rising, point.params.shape)
    shift = basis.drifts @ -ahead.later.params + svec((U * (2.0 * rising)) @ U.T)
    change = ahead.length * rates.stable(0.0) + shift.astype(jnp.float64)
    plain = _rates(context, point, basis, has_force, lambda velocities: velocities)
    stable_rate = plain.stable(0.0)
    solved = _solve(point, basis, rates, change, ahead.length, stable_rate, guess, has_force)
    return jax.tree.map(lambda x: x[None], solved)


def _solve(
    point: Point,
    basis: DriftingBasis,
    rates: _Rates,
    change: Float[Array, " m"],
    length: Array | float,
    stable_rate: Float[Array, " m"],
    guess: Float[Array, "k k"],
    has_force: bool,
) -> Covariance:
    """Return the X for which A ⪰ 0 at a substep's end, and what it does to the motion.

    `change`: of A over the substep without X, svec; `stable_rate`: dA/dt without oscillation, svec.
    """
    k = guess.shape[0]
    sdcp = solve_sdcp(
        rates.gap + smat(change, k), length * rates.response, point.num_critical, guess
    )
    residuals = sdcp.primal_residual, sdcp.dual_residual, sdcp.complementarity
    seen = basis.moments(point.linear.grad, sdcp.X, has_force)
    return Covariance(
        X=sdcp.X,
        residual=jnp.max(jnp.stack(residuals)).astype(basis.U.dtype),
        failed=sdcp.status != SDCP_CONVERGED,
        grad_excess=seen.excess,
        grad_variance=seen.variance,
        stable_rate=smat(stable_rate, k),
    )


def drifting_basis(
    context: FlowContext, point: Point, num_critical: Int[Array, ""]
) -> tuple[DriftingBasis, Int[Array, ""]]:
    """Return the directions at a point, so many of them critical; third derivatives it took."""
    U, HU = effective_eigenvectors(point)
    drifts, num_third = _hessian_drifts(context, point.params, U, num_critical)
    return DriftingBasis(U, HU, drifts), num_third


def effective_eigenvectors(point: Point) -> tuple[Float[Array, "k d"], Float[Array, "k d"]]:
    """Return U = Q̂^{-1/2} V and HU = Q̂UΛ, as rows; zero where the eigenvalue is not known."""
    root, eigvals = jnp.sqrt(point.preconditioner), point.eig.eigvals[:, None]
    U = point.eig.eigvecs / root
    return U, root * jnp.where(jnp.isfinite(eigvals), eigvals, 0.0) * point.eig.eigvecs


def _rates(
    context: FlowContext,
    point: Point,
    basis: DriftingBasis,
    has_force: bool,
    bend: Callable[[Array], Array],
) -> _Rates:
    """Return how fast A = Uᵀ(2Q̂ - H)U changes: its stable part, and the part linear in X.

    Whatever the rule, its motion is affine in the gradient's moments, and these are linear in X: a
    column for each pair of directions, ½∇<H, Σ> in the mean and diag(HΣH) in the variance.
    """
    rule, grad, (U, HU, drifts) = context.rule, point.linear.grad, basis
    rows, cols, scale = _pair_table(U.shape[0])
    scale = scale.astype(U.dtype)[:, None]

    def motion(
        excess: Array, variance: Array, length: Array | float
    ) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Return dw/dt and dQ̂/dt."""
        seen = Moments(grad, excess, variance)
        rate = rule.motion(point.t, point.params, point.rule_state, seen, length)
        here, moving = (point.t, point.rule_state), (jnp.ones_like(point.t), rate.state)
        tangent = jax.jvp(rule.edge_preconditioner, here, moving)[1]
        return rate.params, jnp.broadcast_to(tangent, grad.shape)

    none = jnp.zeros_like(grad)

    def stable(length: Array | float) -> Float[Array, " m"]:
        velocity, rate = motion(none, none, length)
        rates = drifts @ -bend(velocity) + svec((U * (2.0 * rate)) @ U.T)
        return rates.astype(jnp.float64)

    # how the velocity responds does not depend on the length
    response_to = jax.linearize(lambda e, v: motion(e, v, 0.0), none, none)[1]
    response = jnp.zeros((len(rows), len(rows)), U.dtype)
    if has_force:
        velocities = jax.vmap(lambda e: response_to(e, none)[0])(0.5 * drifts)
        response = -bend(velocities) @ drifts.T
    if rule.responds:
        changes = jax.vmap(lambda v: response_to(none, v)[1])(scale * HU[rows] * HU[cols])
        response += 2.0 * (scale * U[rows] * U[cols]) @ changes.T
    gap = jnp.diag((2.0 - point.eig.eigvals).astype(jnp.float64))
    return _Rates(gap, stable, response.astype(jnp.float64))


def _hessian_drifts(
    context: FlowContext, params: Array, U: Float[Array, "k d"], num_critical: Int[Array, ""]
) -> tuple[Float[Array, "m d"], Int[Array, ""]]:
    """Return rows √(2 - δ_ab) ∇_w (u_aᵀ H u_b) for critical pairs, 0 elsewhere, and their number.

    Pairs are ordered so that those of the first c directions are the first c(c+1)/2; the loop's
    length is traced, so nothing recompiles when c changes.
    """
    k = U.shape[0]
    rows, cols, scale = _pair_table(k)
    num_critical_pairs = (num_critical * (num_critical + 1)) // 2

    def fill(p: Array, drifts: Array) -> Array:
        contraction = third_derivative(context.loss, params, U[rows[p]], U[cols[p]])
        return drifts.at[p].set(scale[p].astype(U.dtype) * contraction)

    empty = jnp.zeros((num_pairs(k), U.shape[1]), U.dtype)
    drifts = jax.lax.fori_loop(0, num_critical_pairs, fill, empty)
    return drifts, num_critical_pairs.astype(jnp.int32)


def _pair_table(k: int) -> tuple[Array, Array, Array]:
    rows, cols = pair_indices(k)
    return (
        jnp.asarray(rows),
        jnp.asarray(cols),
        jnp.asarray(np.where(rows == cols, 1.0, np.sqrt(2.0))),
    )
