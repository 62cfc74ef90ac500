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
from cflows_ray.paired.restarts import is_restart, start_at, where_due
from cflows_ray.paired.targets import (
    Windows,
    add_step,
    begin_windows,
    half_distance,
    mean_columns,
    said,
)
from cflows_ray.schema import StepStatus

RUNNING, FINISHED, RUN_DIVERGED = range(3)
# How a process ends, in the order in which they are counted.
ENDINGS = (StepStatus.STOPPED, StepStatus.DIVERGED)
# In place of a row's status: the process had ended before, and has no row.
ABSENT = -1


class Optimizer(NamedTuple):
    """The optimizer between two steps.

    Attributes:
        previous, previous_state: w_{t-1}, and s_{t-1} without g_{t-1}; the latter is kept only
            where flows begin anew.
        has_previous: whether they exist.
        params, rule_state: w_t, and s_t without g_t.
    """

    previous: Float[Array, " d"]
    previous_state: PyTree
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
        counts: derivatives since it started.
        rows: rows so far, and how many of them a solver left unconverged, shape (2,).
        ends: in how many earlier forecasts it ended in which of `ENDINGS`, shape (2,); kept only
            where flows begin anew.
    """

    own: Any
    params: Float[Array, " d"]
    status: Int[Array, ""]
    counts: Counts
    rows: Int[Array, "2"]
    ends: Int[Array, "2"] | None


class PairedState(NamedTuple):
    """Everything that the rest of a run depends on.

    Attributes:
        step: optimizer steps done since the common starting point, int32.
        total: steps to do, int32.
        warmup: steps done before it, int32.
        outcome: RUNNING, FINISHED or RUN_DIVERGED.
        seed: seed of the eigensolver's random rows.
        limits: the loss at the common start, and above which loss the run has diverged.
        start: where the flows started, shape (d,).
        start_step: step at which they did, int32.
        is_again: whether this step's rows are made, and flows have begun anew.
        optimizer: w_t and s_t.
        processes: the optimizer's measurements ("discrete") and the flows, by name.
        windows: means of the present windows, where some were asked for.
    """

    step: Int[Array, ""]
    total: Int[Array, ""]
    warmup: Int[Array, ""]
    outcome: Int[Array, ""]
    seed: Int[Array, ""]
    limits: LossLimits
    start: Float[Array, " d"]
    start_step: Int[Array, ""]
    is_again: Bool[Array, ""]
    optimizer: Optimizer
    processes: dict[str, ProcessState]
    windows: Windows | None

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
    kept = previous_state if options.restart_every else None
    optimizer = Optimizer(previous, kept, numbers["warmup"] > 0, current, rule_state)
    key = jax.random.key(numbers["seed"])
    basis = jax.random.normal(key, (context.num_eigs, params.size), params.dtype)
    whole = optimizer._replace(previous_state=previous_state)
    start = start_at(context, _count(numbers["warmup"] + 1, params), whole, basis)
    names = ("discrete", *options.flows)
    start_value = value_and_grad(loss, current)[0]
    return PairedState(
        step=jnp.zeros((), jnp.int32),
        total=numbers["steps"],
        warmup=numbers["warmup"],
        outcome=jnp.full((), RUNNING, jnp.int32),
        seed=numbers["seed"],
        limits=LossLimits(start_value, jnp.where(limit > 0, limit, jnp.inf).astype(params.dtype)),
        start=current,
        start_step=jnp.zeros((), jnp.int32),
        is_again=jnp.zeros((), bool),
        optimizer=optimizer,
        processes={name: _started(context, options, process_named(name), start) for name in names},
        windows=_windows(options, current),
    )


def _started(
    context: FlowContext, options: PairedOptions, process: Process, start: Start
) -> ProcessState:
    ok = jnp.full((), StepStatus.OK, jnp.int32)
    none = jnp.zeros(2, jnp.int32)
    ends = none if options.restart_every else None
    return ProcessState(process.init(context, start), start.params, ok, Counts.of(), none, ends)


def _ends(process: ProcessState) -> Int[Array, "2"] | None:
    """Count how a process's forecasts ended, the present one among them."""
    if process.ends is None:
        return None
    ended = [process.status == status for status in ENDINGS]
    return process.ends + jnp.stack(ended).astype(jnp.int32)


def _windows(options: PairedOptions, like: Float[Array, " d"]) -> Windows | None:
    if not options.target_windows:
        return None
    return begin_windows(options.target_windows, options.flows, like)


def step_all(
    context: FlowContext, options: PairedOptions, evaluations: Evaluations, state: PairedState
) -> tuple[PairedState, dict[str, Row], Array, Array]:
    """Step every process: next state, rows, whether they are wanted, whether k is too small."""
    is_last = state.step >= state.total
    reference, following = _step_optimizer(context, state)
    value = reference.linear.value
    # not finite, whatever the sign, is diverged; so is what lies above the limit
    diverged = ~(jnp.isfinite(value) & (value <= state.limits.diverged))
    ends = is_last | diverged
    restarts = is_restart(state.step, options.restart_every, state.is_again) & ~ends
    wanted = (ends | (state.step % options.record_every == 0)) & ~state.is_again
    hold = ends | restarts
    ask = Ask(hold, wanted)
    moved, steps = {}, {}
    for name, process_state in state.processes.items():
        process = process_named(name)
        steps[name] = _step_process(context, process, process_state, reference, ask)
        moved[name] = _after(process_state, steps[name], ask, ~state.is_again)
    if options.restart_every:
        # the optimizer is measured once at a step, when its row is made
        before, now = state.processes["discrete"], steps["discrete"]
        measured = _after(before, now, ask._replace(is_last=ends), ~state.is_again)
        moved["discrete"] = _where(state.is_again, before, measured)
    if_diverged = jnp.where(diverged, StepStatus.DIVERGED, StepStatus.OK)
    steps["discrete"] = steps["discrete"]._replace(
        status=jnp.maximum(steps["discrete"].status, if_diverged).astype(jnp.int32)
    )
    needs_more = jnp.zeros((), bool)
    for one in steps.values():
        needs_more |= one.needs_more_eigs & ~diverged
    wanted_now = wanted & ~needs_more
    windows = state.windows
    if windows is not None:
        is_counted = state.step > state.start_step
        windows = add_step(windows, options.target_windows, steps, reference, is_counted)
    rows = _rows(
        evaluations, options, state._replace(windows=windows), moved, steps, reference, wanted_now
    )
    ended = jnp.where(is_last, FINISHED, RUNNING)
    after = state._replace(
        step=jnp.where(hold, state.step, state.step + 1),
        outcome=jnp.where(diverged, RUN_DIVERGED, ended).astype(jnp.int32),
        is_again=restarts,
        optimizer=_where(hold, state.optimizer, following),
        processes=moved,
        windows=None if windows is None else said(windows, wanted),
    )
    if options.restart_every:
        after = where_due(
            restarts & ~needs_more, lambda state: _begin_anew(context, options, state), after
        )
    return after, rows, wanted, needs_more


def _begin_anew(context: FlowContext, options: PairedOptions, state: PairedState) -> PairedState:
    """Return the state with all flows started where the optimizer is."""
    t = _count(state.warmup + state.step + 1, state.start)
    discrete = state.processes["discrete"]
    start = start_at(context, t, state.optimizer, discrete.own.basis)
    flows = {}
    for name in options.flows:
        before = state.processes[name]
        anew = _started(context, options, process_named(name), start)
        flows[name] = anew._replace(rows=before.rows, ends=_ends(before))
    return state._replace(
        start=start.params,
        start_step=state.step,
        processes={"discrete": discrete, **flows},
        windows=_windows(options, start.params),
    )


def _where(condition: Array, first: Any, second: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), first, second)


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
    before = optimizer.rule_state if context.options.restart_every else None
    has_previous = jnp.ones((), bool)
    return reference, Optimizer(optimizer.params, before, has_previous, following, absorbed)


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


def _after(before: ProcessState, step: Step, ask: Ask, is_said: Array) -> ProcessState:
    """Return a process after its step; held where the run ends or the process does.

    An end that no row says (`is_said`) is not one yet: the process stays, and the next row says it.
    """
    is_absent = step.status == ABSENT
    ended = step.status >= StepStatus.STOPPED
    keep = ask.is_last | ended
    is_doubtful = (step.status == StepStatus.EIG_UNCONVERGED) | (
        step.status == StepStatus.SDCP_UNCONVERGED
    )
    rows = jnp.stack([~is_absent, is_doubtful]) & ask.wanted
    return ProcessState(
        own=_where(keep, before.own, step.state),
        params=jnp.where(is_absent, before.params, step.params),
        status=jnp.where(ended & is_said, step.status, before.status).astype(jnp.int32),
        counts=before.counts.plus(step.counts),
        rows=before.rows + rows.astype(jnp.int32),
        ends=before.ends,
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
            "distance_to_half": half_distance(
                step, state.processes[name].params, reference, state.step == state.start_step
            ),
            "start_step": state.start_step,
            **{column: x[i] for column, x in evaluated.items()},
        }
        if name in flows:
            at = flows.index(name)
            values |= {column: x[at] for column, x in predicted.items()}
        if state.windows is not None:
            values |= mean_columns(state.windows, options.target_windows, name)
        for column in process_named(name).trivial:
            values.pop(column, None)
        rows[name] = Row(state.step, step.status, moved[name].counts, values)
    return rows
