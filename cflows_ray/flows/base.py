"""What a process is: a state, how it starts, and one optimizer step of it with a record.

The registry in `cflows_ray.flows` lists them. A process is a `Flow`: two pure functions on a
NamedTuple state that holds everything the next step reads, the eigensolver's warm start included.
Time is measured in optimizer steps. All shapes are static; k, the number of tracked directions,
grows between compiled chunks (`pairing.py`) when a step reports `needs_more_eigs`.

| symbol | here |
| --- | --- |
| w(t) | `params`, shape (d,) |
| s(t) | `rule_state` |
| V, rows v | `basis`, shape (k, d): eigenvectors of P^{-1/2} H P^{-1/2}, orthonormal |
| U = P^{-1/2} V | effective eigenvectors, normalised UᵀPU = I, HU = PUΛ |
| X | covariance in the basis U: Σ = U X Uᵀ |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.curvature import Loss
from cflows_ray.rules import RuleState, UpdateRule

# Row statuses, in the order of `schema.STEP_STATUSES`; ABSENT marks a process that wrote no row.
OK, EIG_FAILED, SDCP_FAILED, STOPPED, DIVERGED = range(5)
ABSENT = 5


@dataclass(frozen=True)
class FlowOptions:
    """Numerical settings of all processes; static, so a change compiles a new program.

    Attributes:
        substeps: substeps of the central flow per optimizer step, and the least number of the
            stable flow's.
        scheme: how the central flow makes them, one of `checks.SCHEMES`.
        critical_threshold: effective eigenvalues from here on enter the complementarity problem.
        near_threshold: eigenpairs from here on must converge (and the top one always).
        tracking_threshold: every effective eigenvalue above is tracked; when the smallest tracked
            one passes it, the number of tracked directions grows.
        max_eigs: up to so many.
        eig_tolerance: relative residual that a required eigenpair of the central flow must reach.
        record_eig_tolerance: the same where eigenvalues are only recorded (their error is of the
            order of the residual squared).
        sharpness_limit: the stable flow stops when its effective sharpness passes this.
    """

    substeps: int
    scheme: str
    critical_threshold: float
    near_threshold: float
    tracking_threshold: float
    max_eigs: int
    eig_tolerance: float
    record_eig_tolerance: float
    sharpness_limit: float


class FlowContext(NamedTuple):
    """What every process of a run shares: loss of flat parameters, rule, settings, k."""

    loss: Loss
    rule: UpdateRule
    options: FlowOptions
    num_eigs: int


class Start(NamedTuple):
    """The common starting point of all processes.

    Attributes:
        previous: w_{-1}, the iterate before, equal to w_0 where there was none.
        has_previous: whether there was one (a warm-up step was made).
        params: w_0, shape (d,).
        rule_state: s_0, before it absorbs the gradient at w_0.
        absorbed: U(s_0, g_0), where flows start.
        basis: k random rows for the eigensolver, shape (k, d).
    """

    previous: Float[Array, " d"]
    has_previous: Bool[Array, ""]
    params: Float[Array, " d"]
    rule_state: RuleState
    absorbed: RuleState
    basis: Float[Array, "k d"]


class Counts(NamedTuple):
    """Derivatives computed since step 0."""

    gradients: Int[Array, ""]
    hvps: Int[Array, ""]
    third_derivatives: Int[Array, ""]

    @classmethod
    def zero(cls) -> Counts:
        """Return three zeros."""
        return cls(*(jnp.zeros((), jnp.int32) for _ in range(3)))

    def plus(self, gradients: Any = 0, hvps: Any = 0, third_derivatives: Any = 0) -> Counts:
        """Return the counts with these added."""
        added = (gradients, hvps, third_derivatives)
        return Counts(*(a + jnp.asarray(b, jnp.int32) for a, b in zip(self, added, strict=True)))


class Reference(NamedTuple):
    """The optimizer around step t, which other processes may read but never move.

    Attributes:
        params: w_t.
        midpoint: ¼(w_{t-1} + 2w_t + w_{t+1}).
        has_midpoint: False at step 0 of a run without warm-up, where w_{-1} does not exist.
        nu: ν that the step divides by, or None.
    """

    params: Float[Array, " d"]
    midpoint: Float[Array, " d"]
    has_midpoint: Bool[Array, ""]
    nu: Array | None


class Record(NamedTuple):
    """What a process says of itself at step t; NaN or -1 means: not defined for this process."""

    train_loss: Float[Array, ""]
    train_loss_predicted: Float[Array, ""]
    grad_norm_sq: Float[Array, ""]
    grad_norm_sq_predicted: Float[Array, ""]
    effective_eigs: Float[Array, " k"]
    num_critical: Int[Array, ""]
    sigma_eigs: Float[Array, " k"]
    displacement_sq: Float[Array, " k"]
    sigma_trace: Float[Array, ""]
    eig_residual: Float[Array, ""]
    sdcp_residual: Float[Array, ""]
    status: Int[Array, ""]


class StepResult(NamedTuple):
    """State at t + 1, the point at t with its record, and whether k was too small for the step."""

    state: Any
    params: Float[Array, " d"]
    nu: Array | None
    record: Record
    needs_more_eigs: Bool[Array, ""]


class Flow(NamedTuple):
    """A process: `init(context, start)` and `step(context, state, reference, is_last, wanted)`.

    `is_last` says that this is the run's last row: record, but do not move (`hold_if`). `wanted`
    says that the record will be used; a step may save itself that work otherwise. A state has
    fields `params` (d,), `status` (OK, STOPPED or DIVERGED) and `counts`. Its `basis` (k, d) with a
    flag `fresh`, `covariance` (k, k) and `eigvals` (k,), where it has them, grow with k.
    """

    init: Callable[[FlowContext, Start], Any]
    step: Callable[..., StepResult]


def undefined_record(params: Float[Array, " d"], num_eigs: int) -> Record:
    """Return a record in which nothing is defined and the status is OK."""
    nan = jnp.full((), jnp.nan, params.dtype)
    nans = jnp.full((num_eigs,), jnp.nan, params.dtype)
    return Record(
        train_loss=nan,
        train_loss_predicted=nan,
        grad_norm_sq=nan,
        grad_norm_sq_predicted=nan,
        effective_eigs=nans,
        num_critical=jnp.full((), -1, jnp.int32),
        sigma_eigs=nans,
        displacement_sq=nans,
        sigma_trace=nan,
        eig_residual=nan,
        sdcp_residual=nan,
        status=jnp.full((), OK, jnp.int32),
    )


def count_critical(eigvals: Float[Array, " k"], threshold: float) -> Int[Array, ""]:
    """Return how many effective eigenvalues reach the threshold; -1 if not all are finite."""
    count = jnp.sum(eigvals >= threshold)
    return jnp.where(jnp.all(jnp.isfinite(eigvals)), count, -1).astype(jnp.int32)


def hold_if(is_last: Bool[Array, ""], state: Any, moved: Any) -> Any:
    """Return `moved`, or, at the last row, `state` with the new status and counts.

    The final parameters of a process are those that its last row describes.
    """
    kept = jax.tree.map(lambda old, new: jnp.where(is_last, old, new), state, moved)
    return kept._replace(status=moved.status, counts=moved.counts)
