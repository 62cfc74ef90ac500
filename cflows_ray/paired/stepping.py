"""One optimizer step of a paired run: the optimizer moves, every process steps, rows are made.

What processes have in common is done here, once: time, counts, the last row, processes that have
stopped, divergence of the run, the comparison with the optimizer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.curvature import linearize_gradient, value_and_grad
from cflows_ray.flows import (
    DISCRETE,
    FLOWS,
    Ask,
    Counts,
    FlowContext,
    Listed,
    Process,
    Reference,
    Start,
    Step,
)
from cflows_ray.paired.measure import Evaluations, distances
from cflows_ray.paired.options import PairedOptions
from cflows_ray.schema import StepStatus

RUNNING, FINISHED, RUN_DIVERGED = range(3)
# In place of a row's status: the process had ended before, and has no row.
ABSENT = -1


class Optimizer(NamedTuple):
    """The optimizer between two steps: w_{t-1}, whether it exists, w_t, and s_t without g_t."""

    previous: Float[Array, " d"]
    has_previous: Bool[Array, ""]
    params: Float[Array, " d"]
    rule_state: PyTree


class LossLimits(NamedTuple):
    """Loss at the common start, and the loss above which the run counts as diverged."""

    start: Float[Array, ""]
    diverged: Float[Array, ""]


class ProcessState(NamedTuple):
    """A process in a run.

    Attributes:
        own: its own state.
        params: the point that its last row described, shape (d,).
        status: OK, or how it ended (STOPPED, DIVERGED).
        counts: derivatives since step 0.
        rows: rows so far, and how many of them a solver left unconverged, shape (2,).
    """

    own: Any
    params: Float[Array, " d"]
    status: Int[Array, ""]
    counts: Counts
    rows: Int[Array, "2"]


class PairedState(NamedTuple):
    """Everything that the rest of a run depends on.

    Attributes:
        step: optimizer steps done since the common starting point, int32.
        total: steps to do, int32.
        warmup: steps done before it, int32.
        outcome: RUNNING, FINISHED or RUN_DIVERGED.
        seed: seed of the eigensolver's random rows.
        limits: the loss at the common start, and above which loss the run has diverged.
        start: w_0, shape (d,).
        optimizer: w_t and s_t.
        processes: the optimizer's measurements ("discrete") and the flows, by name.
    """

    step: Int[Array, ""]
    total: Int[Array, ""]
    warmup: Int[Array, ""]
    outcome: Int[Array, ""]
    seed: Int[Array, ""]
    limits: LossLimits
    start: Float[Array, " d"]
    optimizer: Optimizer
    processes: dict[str, ProcessState]

    @property
    def num_eigs(self) -> int:
        """Tracked directions k."""
        return self.processes["discrete"].own.basis.shape[0]


class Row(NamedTuple):
    """One row of the `steps` table: what the process recorded and what is measured of it."""

    step: Int[Array, ""]
    status: Int[Array, ""]
    counts: Counts
    values: dict[str, Array | Listed]


def process_named(name: str) -> Process:
    """Return a process of a run."""
    return DISCRETE if name == "discrete" else FLOWS[name]


def begin(
    context: FlowContext,
    options: PairedOptions,
    params: Float[Array, " d"],
    numbers: dict[str, Array],
) -> PairedState:
    """Make the warm-up steps; return the state at the common starting point."""
    loss, rule = context.loss, context.rule
    value, grad = value_and_grad(loss, params)
    one = jnp.ones((), params.dtype)
    first = rule.step(one, params, rule.absorb(one, rule.init(params), grad), grad)
    # the loss alone may happen to be near 0; what one step should gain is a scale as well
    scale = jnp.maximum(jnp.abs(value), jnp.sum(grad * (params - first)))
    limit = numbers["divergence_factor"] * scale

    def warm(i: Array, carry: tuple) -> tuple:
        _, _, current, state = carry
        t = _count(i + 1, params)
        grad = value_and_grad(loss, current)[1]
        absorbed = rule.absorb(t, state, grad)
        return current, state, rule.step(t, current, absorbed, grad), absorbed

    empty = rule.init(params)
    carry = (params, empty, params, empty)
    carry = jax.lax.fori_loop(0, numbers["warmup"], warm, carry)
    previous, previous_state, current, rule_state = carry
    start_value, grad = value_and_grad(loss, current)
    key = jax.random.key(numbers["seed"])
    t = _count(numbers["warmup"] + 1, params)
    start = Start(
        t=t,
        previous=previous,
        previous_state=previous_state,
        has_previous=numbers["warmup"] > 0,
        params=current,
        rule_state=rule_state,
        absorbed=rule.absorb(t, rule_state, grad),
        basis=jax.random.normal(key, (context.num_eigs, params.size), params.dtype),
    )

    def started(process: Process) -> ProcessState:
        ok = jnp.full((), StepStatus.OK, jnp.int32)
        none = jnp.zeros(2, jnp.int32)
        return ProcessState(process.init(context, start), current, ok, Counts.of(), none)

    return PairedState(
        step=jnp.zeros((), jnp.int32),
        total=numbers["steps"],
        warmup=numbers["warmup"],
        outcome=jnp.full((), RUNNING, jnp.int32),
        seed=numbers["seed"],
        limits=LossLimits(start_value, jnp.where(limit > 0, limit, jnp.inf).astype(params.dtype)),
        start=current,
        optimizer=Optimizer(previous, start.has_previous, current, rule_state),
        processes={name: started(process_named(name)) for name in ("discrete", *options.flows)},
    )


def step_all(
    context: FlowContext, options: PairedOptions, evaluations: Evaluations, state: PairedState
) -> tuple[PairedState, dict[str, Row], Array, Array]:
    """Step every process: next state, rows, whether they are wanted, whether k is too small."""
    is_last = state.step >= state.total
    reference, following = _step_optimizer(context, state)
    value = reference.linear.value
    # not finite, whatever the sign, is diverged; so is what lies above the limit
    diverged = ~(jnp.isfinite(value) & (value <= state.limits.diverged))
    wanted = is_last | diverged | (state.step % options.record_every == 0)
    hold = is_last | diverged
    ask = Ask(hold, wanted)
    moved, steps = {}, {}
    for name, process_state in state.processes.items():
        process = process_named(name)
        steps[name] = _step_process(context, process, process_state, reference, ask)
        moved[name] = _after(process_state, steps[name], ask)
    if_diverged = jnp.where(diverged, StepStatus.DIVERGED, StepStatus.OK)
    steps["discrete"] = steps["discrete"]._replace(
        status=jnp.maximum(steps["discrete"].status, if_diverged).astype(jnp.int32)
    )
    needs_more = jnp.zeros((), bool)
    for one in steps.values():
        needs_more |= one.needs_more_eigs & ~diverged
    wanted_now = wanted & ~needs_more
    rows = _rows(evaluations, options, state, moved, steps, reference, wanted_now)
    ended = jnp.where(is_last, FINISHED, RUNNING)
    after = state._replace(
        step=jnp.where(hold, state.step, state.step + 1),
        outcome=jnp.where(diverged, RUN_DIVERGED, ended).astype(jnp.int32),
        optimizer=jax.tree.map(
            lambda old, new: jnp.where(hold, old, new), state.optimizer, following
        ),
        processes=moved,
    )
    return after, rows, wanted, needs_more


def _count(n: Array, like: Array) -> Float[Array, ""]:
    """Return a number of gradients as a real number."""
    return n.astype(like.dtype)


def _step_optimizer(context: FlowContext, state: PairedState) -> tuple[Reference, Optimizer]:
    """Make one step of the optimizer; return it as others see it, and where it is then."""
    rule, optimizer = context.rule, state.optimizer
    point = linearize_gradient(context.loss, optimizer.params)
    t = _count(state.warmup + state.step + 1, optimizer.params)
    absorbed = rule.absorb(t, optimizer.rule_state, point.grad)
    following = rule.step(t, optimizer.params, absorbed, point.grad)
    reference = Reference(
        t=t,
        params=optimizer.params,
        previous=optimizer.previous,
        following=following,
        has_previous=optimizer.has_previous,
        linear=point,
        state=absorbed,
        has_spiked=~(point.value <= state.limits.start),
    )
    return reference, Optimizer(optimizer.params, jnp.ones((), bool), following, absorbed)


def _step_process(
    context: FlowContext, process: Process, state: ProcessState, reference: Reference, ask: Ask
) -> Step:
    """Step one process, unless it has stopped or diverged before."""

    @jax.jit
    def run(own: Any) -> Step:
        step = process.step(context, own, reference, ask)
        return step._replace(needs_more_eigs=jnp.asarray(step.needs_more_eigs))

    if process is DISCRETE:
        return run(state.own)
    shapes = jax.eval_shape(run, state.own)

    def absent(own: Any) -> Step:
        nothing = jax.tree.map(_undefined, shapes)
        return nothing._replace(state=own, status=jnp.full((), ABSENT, jnp.int32))

    return jax.lax.cond(state.status == StepStatus.OK, run, absent, state.own)


def _undefined(shape: Any) -> Array:
    """Return an array that says nothing: NaN, or zero where there is no NaN."""
    nothing = jnp.nan if jnp.issubdtype(shape.dtype, jnp.floating) else 0
    return jnp.full(shape.shape, nothing, shape.dtype)


def _after(before: ProcessState, step: Step, ask: Ask) -> ProcessState:
    """Return a process after its step; held where the run ends or the process does."""
    is_absent = step.status == ABSENT
    ended = step.status >= StepStatus.STOPPED
    keep = ask.is_last | ended
    is_doubtful = (step.status == StepStatus.EIG_UNCONVERGED) | (
        step.status == StepStatus.SDCP_UNCONVERGED
    )
    rows = jnp.stack([~is_absent, is_doubtful]) & ask.wanted
    return ProcessState(
        own=jax.tree.map(lambda old, new: jnp.where(keep, old, new), before.own, step.state),
        params=jnp.where(is_absent, before.params, step.params),
        status=jnp.where(ended, step.status, before.status).astype(jnp.int32),
        counts=before.counts.plus(step.counts),
        rows=before.rows + rows.astype(jnp.int32),
    )


def _rows(
    evaluations: Evaluations,
    options: PairedOptions,
    state: PairedState,
    moved: dict[str, ProcessState],
    steps: dict[str, Step],
    reference: Reference,
    wanted: Array,
) -> dict[str, Row]:
    """Rows of all processes at this step; what costs a network evaluation only where wanted."""
    points = jnp.stack([step.params for step in steps.values()])
    evaluated = evaluations.at_all(points, reference.params, wanted)
    observed = steps["discrete"].observed
    flows = [name for name, step in steps.items() if "train_loss_predicted" in step.record]
    predicted: dict[str, Array] = {}
    if flows and options.predict_observables:
        predicted = evaluations.predicted([steps[name] for name in flows], reference, wanted)
    rows = {}
    for i, (name, step) in enumerate(steps.items()):
        values = {
            **step.record,
            **distances(step, reference, observed, state.start),
            **{column: x[i] for column, x in evaluated.items()},
        }
        if name in flows:
            at = flows.index(name)
            values |= {column: x[at] for column, x in predicted.items()}
        for column in process_named(name).trivial:
            values.pop(column, None)
        rows[name] = Row(state.step, step.status, moved[name].counts, values)
    return rows
