"""The covariance flow: descent of a free energy in the mean and in the covariance.

    F(w, Σ) = L + ½<H, Σ> - <P, Σ>,     Σ = Σ_i v_i v_iᵀ

    dw/dt = -P⁻¹ (∇L + ½ Σ_i ∇³L[v_i, v_i]),     dv_i/dt = P⁻¹H v_i - 2v_i

and ν sees g² + diag(HΣH), as in the central flow, which is its limit of fast Σ (derived in
docs/rivals-theory.md; compare Chodron de Courcel, arXiv 2606.05326, known by a summary). Σ is a
Gaussian of small width: third derivatives only, so large swings are outside its claim. Rules
without momentum. Once a step the lengths of the rows are fed at rounding level, by their small Gram
matrix, which makes them a block power iteration: no eigensolver of H runs.

Heun, never Euler: loops are not damped at leading order, and Euler makes them grow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cflows_ray.curvature import linearize_gradient, third_derivative, value_and_grad
from cflows_ray.flows.heun import heun_step
from cflows_ray.flows.mean_and_swing import begin_split, resolved_length
from cflows_ray.flows.process import (
    Ask,
    Counts,
    FlowContext,
    FlowOptions,
    Listed,
    Oscillation,
    Process,
    Reference,
    Start,
    Step,
)
from cflows_ray.flows.seeds import LEAST_LENGTH, seed_factor, seed_length
from cflows_ray.rules import Moments, PreconditionedRule, UpdateRule
from cflows_ray.schema import StepStatus


class CovarianceState(NamedTuple):
    """w, the absorbed state s (as of the stable flow), rows V of Σ = VᵀV."""

    params: Float[Array, " d"]
    rule_state: PyTree
    rows: Float[Array, "r d"]


class _Seen(NamedTuple):
    loss: Float[Array, ""]
    excess: Float[Array, ""]  # ½ <H, Σ>
    grad_norm_sq: Float[Array, ""]
    variance: Float[Array, ""]  # tr HΣH
    metric: Float[Array, "..."]
    sharpness: Float[Array, ""]


def init(context: FlowContext, start: Start) -> CovarianceState:
    """Start at (w_0 - v, U(s_0, g_0)); the first row is v of the split, others seeds."""
    grad = value_and_grad(context.loss, start.params)[1]
    split = begin_split(context, start, grad)
    metric = context.rule.edge_preconditioner(start.t, start.absorbed)
    options = context.options
    rank = min(options.covariance_rank, start.params.size)
    key = jax.random.key(0)
    noise = jax.random.normal(key, (rank, start.params.size), start.params.dtype)
    sizes = jnp.sqrt(jnp.sum(metric * noise**2, axis=1))
    stride = context.rule.step(start.t, start.params, start.absorbed, grad) - start.params
    spread = jax.vmap(lambda v: seed_length(options, metric, start.params, v, stride))(noise)
    rows = noise * (spread / sizes)[:, None]
    return CovarianceState(split.mean.params, start.absorbed, rows.at[0].set(split.swing.params))


def step(context: FlowContext, state: CovarianceState, reference: Reference, ask: Ask) -> Step:
    """Advance by one optimizer step; the record is of its beginning."""
    rule, rank = context.rule, state.rows.shape[0]

    def evaluate(t: Float[Array, ""], x: CovarianceState) -> tuple[CovarianceState, _Seen]:
        at = linearize_gradient(context.loss, x.params)
        HV = at.hessian_vectors(x.rows)
        excess = 0.5 * jax.lax.fori_loop(
            0,
            rank,
            lambda i, sum_: sum_ + third_derivative(context.loss, x.params, x.rows[i], x.rows[i]),
            jnp.zeros_like(x.params),
        )
        variance = jnp.sum(HV**2, axis=0)
        motion = rule.motion(t, x.params, x.rule_state, Moments(at.grad, excess, variance), 0.0)
        metric = rule.edge_preconditioner(t, x.rule_state)
        energies = jnp.sum(x.rows * HV, axis=1)
        squared = jnp.sum(metric * x.rows**2, axis=1)
        rate = CovarianceState(motion.params, motion.state, HV / metric - 2.0 * x.rows)
        seen = _Seen(
            loss=at.value,
            excess=0.5 * jnp.sum(energies),
            grad_norm_sq=jnp.vdot(at.grad, at.grad),
            variance=jnp.sum(variance),
            metric=metric,
            sharpness=jnp.max(energies / jnp.maximum(squared, LEAST_LENGTH**2)),
        )
        return rate, seen

    moved = heun_step(
        evaluate,
        state,
        reference.t,
        lambda seen: jnp.abs(seen.sharpness),
        context.options.covariance_substeps,
        ask.is_last,
    )
    seen, following = moved.first, moved.place
    metric = rule.edge_preconditioner(reference.t + 1.0, following.rule_state)
    stride = following.params - state.params
    fed = _feed_rows(context.options, metric, following.params, following.rows, stride)
    finite = jnp.isfinite(seen.loss) & jnp.isfinite(seen.excess)
    return Step(
        state=following._replace(rows=fed),
        params=state.params,
        observed=rule.observed(state.rule_state),
        record={
            "train_loss": seen.loss,
            "train_loss_predicted": seen.loss + seen.excess,
            "grad_norm_sq": seen.grad_norm_sq,
            "grad_norm_sq_predicted": seen.grad_norm_sq + seen.variance,
            "effective_sharpness": seen.sharpness,
            **_variances(seen.metric, state, reference),
        },
        status=jnp.where(finite, StepStatus.OK, StepStatus.DIVERGED).astype(jnp.int32),
        counts=Counts.of(
            gradients=moved.evaluations,
            hvps=rank * moved.evaluations,
            third_derivatives=rank * moved.evaluations,
        ),
        oscillation=Oscillation(state.rows, jnp.full((), rank, jnp.int32)),
    )


def _gram_pairs(
    metric: Float[Array, "..."], rows: Float[Array, "r d"]
) -> tuple[Float[Array, " r"], Float[Array, "r r"]]:
    """Return eigenvalues, falling, and eigenvectors in columns of V Q̂ Vᵀ, float64."""
    gram = ((rows * metric) @ rows.T).astype(jnp.float64)
    ok = jnp.all(jnp.isfinite(gram))
    values, vectors = jnp.linalg.eigh(jnp.where(ok, gram, jnp.eye(gram.shape[0])))
    return jnp.maximum(values[::-1], 0.0), vectors[:, ::-1]


def _feed_rows(
    options: FlowOptions,
    metric: Float[Array, "..."],
    params: Float[Array, " d"],
    rows: Float[Array, "r d"],
    stride: Float[Array, " d"],
) -> Float[Array, "r d"]:
    """Keep each singular value of V Q̂^{1/2} alive, as a swing along its vector (`seeds.py`)."""
    vectors = _gram_pairs(metric, rows)[1]
    # normalised first: in float32, squares of rounding-level rows of one length would vanish
    apart = vectors.T.astype(rows.dtype) @ rows
    factor = jax.vmap(lambda v: seed_factor(options, metric, params, v, stride))(apart)
    return vectors.astype(rows.dtype) @ (factor[:, None] * apart)


def _variances(
    metric: Float[Array, "..."], state: CovarianceState, reference: Reference
) -> dict[str, Any]:
    """Return the variances of Σ in the metric, the optimizer's displacement along each.

    Only those above rounding's reach: the others are seeds.
    """
    values, vectors = _gram_pairs(metric, state.rows)
    apart = vectors.T.astype(state.rows.dtype) @ state.rows
    along = apart @ (metric * (reference.params - state.params))
    squared = jnp.maximum(jnp.sum(metric * apart**2, axis=1), LEAST_LENGTH**2)
    least = jax.vmap(lambda v: resolved_length(metric, state.params, v))(apart)
    count = jnp.sum(squared > least**2).astype(jnp.int32)
    return {
        "sigma_eigs": Listed(values.astype(state.rows.dtype), count),
        "displacement_sq": Listed(along**2 / squared, count),
        "sigma_trace": jnp.sum(state.rows**2),
    }


def needs(rule: UpdateRule) -> str | None:
    """Say why the flow is not defined for a rule; None where it is."""
    one = jnp.ones(())
    if isinstance(rule, PreconditionedRule) and rule.gradient_filter(one) is None:
        return None
    return "a preconditioned rule without momentum"


COVARIANCE = Process(name="covariance", label="covariance flow", init=init, step=step, needs=needs)
