"""What a row of the central flow says: its columns, Σ, status, and what there is to doubt."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.flows.central_covariance import Covariance, Point, effective_eigenvectors
from cflows_ray.flows.loops import loop_columns
from cflows_ray.flows.process import (
    FlowContext,
    FlowOptions,
    Listed,
    Oscillation,
    Recorded,
    Reference,
    spectrum_columns,
)
from cflows_ray.flows.spectrum import tracking_row_status, worst_required_residual
from cflows_ray.flows.trust import edge_doubt
from cflows_ray.schema import Doubt, StepStatus


class Said(NamedTuple):
    """What the row says: columns and Σ of the first substep, the worst status, all doubts."""

    record: Recorded
    oscillation: Oscillation
    status: Int[Array, ""]
    doubt: Int[Array, ""]


def nothing_said(basis: Float[Array, "k d"]) -> Said:
    """Return the row before the first substep, with nothing in it; k and d as of the basis."""
    (k, d), dtype = basis.shape, basis.dtype
    nan, nans = jnp.full((), jnp.nan, dtype), jnp.full((k,), jnp.nan, dtype)
    undefined = jnp.full((), -1, jnp.int32)
    record: dict[str, Array | Listed] = dict.fromkeys(NUMBERS, nan)
    record |= {name: Listed(nans, undefined) for name in LISTS}
    record |= {"num_critical": undefined}
    none = Oscillation(jnp.zeros((k, d), dtype), jnp.zeros((), jnp.int32))
    return Said(record, none, jnp.full((), StepStatus.OK, jnp.int32), jnp.zeros((), jnp.int32))


NUMBERS = (
    "train_loss",
    "train_loss_predicted",
    "grad_norm_sq",
    "grad_norm_sq_predicted",
    "effective_sharpness",
    "sigma_trace",
    "eig_residual",
    "sdcp_residual",
    "growth_rate",
    "loop_period",
    "flow_error",
)
LISTS = ("effective_eigs", "sigma_eigs", "displacement_sq")


def say(
    context: FlowContext,
    reference: Reference,
    point: Point,
    covariances: Covariance,
    error: Float[Array, ""],
    is_first: Bool[Array, ""],
    said: Said,
    doubts: Int[Array, ""],
) -> Said:
    """Return the row after a substep: it speaks for all substeps, so the worst of each is kept."""
    options = context.options
    record, oscillation = jax.lax.cond(
        is_first,
        lambda: _predict(context, reference, point, covariances.of(0)),
        lambda: (said.record, said.oscillation),
    )
    eig_residual = worst_required_residual(point.eig, options.near_threshold, top=is_first)
    sdcp_residual = jnp.max(covariances.residual)
    record |= {
        "eig_residual": jnp.fmax(record["eig_residual"], eig_residual),
        "sdcp_residual": jnp.fmax(record["sdcp_residual"], sdcp_residual),
        "flow_error": jnp.fmax(record["flow_error"], jnp.where(is_first, error, jnp.nan)),
    }
    status = jnp.maximum(said.status, _status(point, covariances, options))
    return Said(record, oscillation, status, said.doubt | doubts)


def doubt(
    held: Float[Array, "k k"],
    has_moved: Bool[Array, ""],
    point: Point,
    covariances: Covariance,
    is_first: Bool[Array, ""],
) -> Int[Array, ""]:
    """Return what there is to doubt: a third derivative, and at a step's start the edge.

    Args:
        held: X of the last substep.
        has_moved: whether there was one.
        point: where the flow is.
        covariances: there.
        is_first: whether a step starts there.
    """
    edge = edge_doubt(point.eig.eigvals[0], point.num_critical, held, has_moved)
    # D enters A's rate; where the gradient is finite, nothing else in it may be infinite
    is_asked = (point.num_critical > 0) & jnp.all(jnp.isfinite(point.linear.grad))
    is_finite = jnp.all(jnp.isfinite(covariances.of(0).stable_rate))
    third = jnp.where(is_asked & ~is_finite, int(Doubt.NOT_FINITE), 0)
    return jnp.where(is_first, edge, 0) | third.astype(jnp.int32)


def _status(point: Point, covariances: Covariance, options: FlowOptions) -> Int[Array, ""]:
    failed = jnp.any(covariances.failed)
    solved = jnp.where(failed, StepStatus.SDCP_UNCONVERGED, StepStatus.OK)
    status = jnp.maximum(tracking_row_status(point.eig, options), solved)
    finite = jnp.isfinite(point.linear.value) & (point.num_critical >= 0)
    return jnp.where(finite, status, StepStatus.DIVERGED).astype(jnp.int32)


def _predict(
    context: FlowContext, reference: Reference, point: Point, covariance: Covariance
) -> tuple[dict[str, Any], Oscillation]:
    """Return everything that the central flow predicts at its present point, and Σ."""
    dtype, grad = point.params.dtype, point.linear.grad
    X, U = covariance.X, effective_eigenvectors(point)[0]
    inactive = jnp.arange(X.shape[0]) >= point.num_critical
    # shifting the unused diagonal down keeps Σ's eigenvectors inside the critical subspace
    shift = 1.0 + jnp.linalg.norm(X)
    variances, directions = jnp.linalg.eigh(X - jnp.diag(jnp.where(inactive, shift, 0.0)))
    variances, directions = variances[::-1], directions[:, ::-1].astype(dtype)
    along = directions.T @ (U @ (point.preconditioner * (reference.params - point.params)))
    variances = jnp.where(inactive, jnp.nan, jnp.maximum(variances, 0.0)).astype(dtype)
    norm_sq = jnp.vdot(grad, grad)
    trace = jnp.sum(X.astype(dtype) * (U @ U.T))
    num_lists = jnp.where(jnp.isnan(trace), -1, point.num_critical)
    record = {
        "train_loss": point.linear.value,
        "train_loss_predicted": point.linear.value + jnp.trace(X).astype(dtype),
        "grad_norm_sq": norm_sq,
        "grad_norm_sq_predicted": norm_sq + jnp.sum(covariance.grad_variance),
        "sigma_eigs": Listed(variances, num_lists),
        "displacement_sq": Listed(jnp.where(inactive, jnp.nan, along**2), num_lists),
        "sigma_trace": trace,
        "eig_residual": jnp.full((), jnp.nan, dtype),
        "sdcp_residual": jnp.full((), jnp.nan, dtype),
        "flow_error": jnp.full((), jnp.nan, dtype),
        **spectrum_columns(point.eig.eigvals, context.options.critical_threshold),
        **loop_columns(
            covariance.stable_rate, directions, ~inactive, context.rule.growth_gain(point.t)
        ),
    }
    spread = jnp.sqrt(jnp.where(inactive, 0.0, jnp.nan_to_num(variances)))
    rows = spread[:, None] * (directions.T @ U)
    return record, Oscillation(rows, jnp.maximum(point.num_critical, 0))
