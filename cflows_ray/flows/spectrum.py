"""Top eigenpairs of the effective Hessian Q̂^{-1/2} H Q̂^{-1/2} at a point, warm-started."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import Linearization
from cflows_ray.flows.process import FlowOptions, Tracked
from cflows_ray.linalg import EIG_CONVERGED, EigenResult, top_eigenpairs
from cflows_ray.schema import StepStatus

# A basis that contains random rows needs this many passes before its lower eigenvalues mean much.
FRESH_PASSES = 12
MAX_PASSES = 60


def effective_eigenpairs(
    point: Linearization,
    preconditioner: Array,
    tracked: Tracked,
    options: FlowOptions,
    *,
    tolerance: float,
    explore: Bool[Array, ""] | bool = True,
    num_active: Int[Array, ""] | None = None,
    near_threshold: float | None = None,
) -> EigenResult:
    """Return eigenpairs of Q̂^{-1/2} H Q̂^{-1/2}, of which the `required_pairs` converge.

    Args:
        point: the loss linearized where the eigenpairs are wanted.
        preconditioner: diagonal of Q̂, scalar or shape (d,), positive.
        tracked: warm start; where some rows are random, all pairs are worked on.
        options: thresholds.
        tolerance: relative residual of the required pairs.
        explore: whether to look for eigenvectors that the basis lacks, at one product or more, and
            to make the top pair converge even where it is far from critical.
        num_active: leading rows to refresh; all unless given.
        near_threshold: pairs from here on are required; `options.near_threshold` unless given.
    """
    inverse_root = 1.0 / jnp.sqrt(preconditioner)
    near = options.near_threshold if near_threshold is None else near_threshold

    def matvecs(rows: Float[Array, "k d"], count: Int[Array, ""]) -> Float[Array, "k d"]:
        return inverse_root * point.hessian_vectors(inverse_root * rows, count)

    def required(eigvals: Float[Array, " k"]) -> Bool[Array, " k"]:
        return required_pairs(eigvals, near, top=explore)

    return top_eigenpairs(
        matvecs,
        tracked.basis,
        tolerance=tolerance,
        required=required,
        num_active=num_active,
        min_passes=jnp.where(tracked.fresh, FRESH_PASSES, jnp.where(explore, 1, 0)),
        min_directions=jnp.where(tracked.fresh, tracked.basis.shape[0], 0),
        max_passes=MAX_PASSES,
    )


def required_pairs(
    eigvals: Float[Array, " k"], near_threshold: float, *, top: Bool[Array, ""] | bool = True
) -> Bool[Array, " k"]:
    """Say which pairs must converge: those at or above the threshold, and `top`, the first."""
    return (eigvals >= near_threshold).at[0].max(top)


def worst_required_residual(
    eig: EigenResult, near_threshold: float, *, top: Bool[Array, ""] | bool = True
) -> Float[Array, ""]:
    """Return the largest residual among the required pairs."""
    required = required_pairs(eig.eigvals, near_threshold, top=top)
    return jnp.max(jnp.where(required, eig.residuals, 0.0))


def eig_row_status(eig: EigenResult) -> Int[Array, ""]:
    """Return OK or EIG_UNCONVERGED."""
    converged = eig.status == EIG_CONVERGED
    return jnp.where(converged, StepStatus.OK, StepStatus.EIG_UNCONVERGED).astype(jnp.int32)


def tracking_row_status(eig: EigenResult, options: FlowOptions) -> Int[Array, ""]:
    """Return OK or EIG_UNCONVERGED, also where more directions are needed than may be tracked."""
    beyond = _some_untracked(eig, options) & (eig.eigvecs.shape[0] >= options.most_eigs)
    status = jnp.where(beyond, StepStatus.EIG_UNCONVERGED, eig_row_status(eig))
    return status.astype(jnp.int32)


def too_few_tracked(eig: EigenResult, options: FlowOptions) -> Bool[Array, ""]:
    """Say whether more directions are to be tracked, and may be."""
    return _some_untracked(eig, options) & (eig.eigvecs.shape[0] < options.most_eigs)


def _some_untracked(eig: EigenResult, options: FlowOptions) -> Bool[Array, ""]:
    """Say whether the smallest tracked eigenvalue passes the tracking threshold."""
    num_tracked, num_params = eig.eigvecs.shape
    return (eig.eigvals[-1] > options.tracking_threshold) & (num_tracked < num_params)
