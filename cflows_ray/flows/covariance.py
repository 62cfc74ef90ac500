"""The covariance of the oscillation where a substep starts: the complementarity problem of it.

    0 ⪯ X ⟂ A(t + h) ⪰ 0,     A(t + h) = 2I - Λ + h (stable part) + h B[X],     Σ = U X Uᵀ

in the basis of the critical directions U (UᵀPU = I, HU = PUΛ), frozen for the substep (Cohen et al.
2025; docs/theory.md, "Central flow"). Everything but h is computed once and serves substeps of
several lengths.

| symbol | here |
| --- | --- |
| D_ab = ∇_w (u_aᵀ H u_b) | rows of `hessian_drifts`, in svec coordinates |
| B[X] = 2 dP/dt|_X - dH/dt|_X | `response`, m x m on svec coordinates |
| diag(HΣH) | `grad_variance`; from HU, never from U |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import Linearization, third_derivative
from cflows_ray.flows.base import FlowContext
from cflows_ray.linalg import (
    SDCP_CONVERGED,
    EigenResult,
    num_pairs,
    pair_indices,
    smat,
    solve_sdcp,
    svec,
)
from cflows_ray.rules import RuleState

Rate = Callable[[Float[Array, " d"]], Float[Array, " d"]]


class Point(NamedTuple):
    """What a substep knows of the loss where it starts."""

    params: Float[Array, " d"]
    rule_state: RuleState
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
    """

    X: Float[Array, "*n k k"]
    residual: Float[Array, "*n"]
    failed: Bool[Array, "*n"]
    grad_excess: Float[Array, "*n d"]
    grad_variance: Float[Array, "*n d"]

    def of(self, i: int) -> Covariance:
        """Return the covariance for the i-th length."""
        return jax.tree.map(lambda x: x[i], self)


class _Problem(NamedTuple):
    """A(t + h) = gap + h smat(stable_rate + response svec(X)), in float64."""

    gap: Float[Array, "k k"]
    stable_rate: Float[Array, " m"]
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
    )
    return none, jnp.zeros((), jnp.int32)


def solve_covariances(
    context: FlowContext,
    point: Point,
    guess: Float[Array, "k k"],
    lengths: tuple[float, ...],
    count: Int[Array, ""],
) -> tuple[Covariance, Int[Array, ""]]:
    """Return the covariance for substeps of these lengths; and the third derivatives it took.

    Args:
        context: loss and rule.
        point: where the substeps start; must have a critical direction.
        guess: a covariance near by, in the basis of the point's eigenvectors.
        lengths: in optimizer steps.
        count: only for so many leading lengths the problem is solved; X = 0 for the others.
    """
    U, HU = effective_eigenvectors(point)
    drifts, num_third = _hessian_drifts(context, point.params, U, point.num_critical)
    problem = _assemble(context, point, U, HU, drifts)

    def solve(length: Array | float) -> Covariance:
        sdcp = solve_sdcp(
            problem.gap + smat(length * problem.stable_rate, context.num_eigs),
            length * problem.response,
            point.num_critical,
            guess,
        )
        X = sdcp.X.astype(U.dtype)
        residuals = sdcp.primal_residual, sdcp.dual_residual, sdcp.complementarity
        return Covariance(
            X=sdcp.X,
            residual=jnp.max(jnp.stack(residuals)).astype(U.dtype),
            failed=sdcp.status != SDCP_CONVERGED,
            grad_excess=0.5 * svec(X) @ drifts,
            grad_variance=jnp.sum((X @ HU) * HU, axis=0),
        )

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


def effective_eigenvectors(point: Point) -> tuple[Float[Array, "k d"], Float[Array, "k d"]]:
    """Return U = P^{-1/2} V and HU = PUΛ, as rows; zero where the eigenvalue is not known."""
    root, eigvals = jnp.sqrt(point.preconditioner), point.eig.eigvals[:, None]
    U = point.eig.eigvecs / root
    return U, root * jnp.where(jnp.isfinite(eigvals), eigvals, 0.0) * point.eig.eigvecs


def _assemble(
    context: FlowContext, point: Point, U: Array, HU: Array, drifts: Float[Array, "m d"]
) -> _Problem:
    """Return the parts of A(t + h): its stable part, then the part linear in X."""
    grad = point.linear.grad
    preconditioner_rate = _preconditioner_rate(context, point.rule_state, grad)
    no_variance = jnp.zeros_like(grad)
    stable_rate = drifts @ (grad / point.preconditioner)
    stable_rate += _in_basis(U, 2.0 * preconditioner_rate(no_variance))
    response = 0.5 * (drifts / point.preconditioner) @ drifts.T
    if point.rule_state.nu is not None:
        response += _preconditioner_response(preconditioner_rate, U, HU, no_variance)
    gap = jnp.diag((2.0 - point.eig.eigvals).astype(jnp.float64))
    return _Problem(gap, stable_rate.astype(jnp.float64), response.astype(jnp.float64))


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


def _preconditioner_rate(context: FlowContext, rule_state: RuleState, grad: Array) -> Rate:
    """Return the affine map v ↦ dP/dt, shape (d,), v the gradient's elementwise variance."""

    def rate(variance: Float[Array, " d"]) -> Float[Array, " d"]:
        drift = context.rule.drift(rule_state, grad, variance)
        tangent = jax.jvp(context.rule.preconditioner, (rule_state,), (drift,))[1]
        return jnp.broadcast_to(tangent, grad.shape)

    return rate


def _in_basis(U: Float[Array, "k d"], diagonal: Float[Array, " d"]) -> Float[Array, " m"]:
    """Return svec(Uᵀ diag(p) U)."""
    return svec((U * diagonal) @ U.T)


def _preconditioner_response(
    preconditioner_rate: Rate, U: Float[Array, "k d"], HU: Float[Array, "k d"], no_variance: Array
) -> Float[Array, "m m"]:
    """Return the matrix of X ↦ 2 Uᵀ diag(dP/dt|_X) U on svec coordinates.

    The gradient's variance under Σ = UXUᵀ is diag(HΣH), so its columns are products of HU.
    """
    rows, cols, scale = _pair_table(U.shape[0])
    scale = scale.astype(U.dtype)[:, None]
    linear = jax.linearize(preconditioner_rate, no_variance)[1]
    rates = jax.vmap(linear)(scale * HU[rows] * HU[cols])
    return 2.0 * (scale * U[rows] * U[cols]) @ rates.T


def _pair_table(k: int) -> tuple[Array, Array, Array]:
    rows, cols = pair_indices(k)
    return (
        jnp.asarray(rows),
        jnp.asarray(cols),
        jnp.asarray(np.where(rows == cols, 1.0, np.sqrt(2.0))),
    )
