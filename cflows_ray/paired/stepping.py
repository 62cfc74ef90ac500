"""One optimizer step of a paired run: the optimizer moves, every process steps, rows are made.

What processes have in common is done here, once: time, counts, the last row, processes that have
stopped, divergence of the run, the comparison with the optimizer.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cflows_ray.curvature import linearize_gradient, value_and_grad
from cflows_ray.flows import (
    DISCRETE,
    FLOWS,
    Ask,
    Counts,
    FlowContext,
    Process,
    Reference,
    Start,
    Step,
)
from cflows_ray.paired.differences import Checked
from cflows_ray.paired.doubts import Doubts, doubt_of
from cflows_ray.paired.measure import Evaluations, distances
from cflows_ray.paired.options import PairedOptions
from cflows_ray.paired.restarts import is_restart, start_at, where_due
from cflows_ray.paired.state import (
    ABSENT,
    ENDINGS,
    FINISHED,
    RUN_DIVERGED,
    RUNNING,
    LossLimits,
    Optimizer,
    PairedState,
    ProcessState,
    Row,
)
from cflows_ray.paired.targets import (
    Windows,
    add_step,
    begin_windows,
    half_distance,
    mean_columns,
    said,
)
from cflows_ray.schema import Doubt, StepStatus


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
        checked=Checked.nothing(),
        longest_step=jnp.zeros((), params.dtype),
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
    none, no = jnp.zeros(2, jnp.int32), jnp.zeros((), bool)
    ends = none if options.restart_every else None
    own, doubts = process.init(context, start), Doubts.none(start.params)
    return ProcessState(own, start.params, ok, no, Counts.of(), none, doubts, ends)


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
    is_recorded = state.step % options.record_every == 0
    wanted = (ends | restarts | is_recorded) & ~state.is_again
    hold = ends | restarts
    ask = Ask(hold, wanted)
    stride = jnp.linalg.norm(reference.params - reference.previous)
    longest = jnp.maximum(state.longest_step, stride)
    moved, steps = {}, {}
    for name, process_state in state.processes.items():
        process = process_named(name)
        step = _step_process(context, process, process_state, reference, ask)
        steps[name] = step._replace(doubt=_doubt(process_state, step, state.checked, longest))
        moved[name] = _after(process_state, steps[name], ask)
    if options.restart_every:
        # the optimizer is measured once at a step, when its row is made
        before, now = state.processes["discrete"], steps["discrete"]
        measured = _after(before, now, ask._replace(is_last=ends))
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
        longest_step=longest,
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
        doubts = anew.doubts._replace(rows=before.doubts.rows)
        flows[name] = anew._replace(rows=before.rows, doubts=doubts, ends=_ends(before))
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
    """Step one process, unless it has stopped or diverged, and a row says so."""

    @jax.jit
    def run(own: Any) -> Step:
        step = process.step(context, own, reference, ask)
        return step._replace(
            needs_more_eigs=jnp.asarray(step.needs_more_eigs),
            doubt=jnp.asarray(step.doubt, jnp.int32),
        )

    if process is DISCRETE:
        return run(state.own)
    shapes = jax.eval_shape(run, state.own)

    def absent(own: Any) -> Step:
        nothing = jax.tree.map(_undefined, shapes)
        return nothing._replace(state=own, status=jnp.full((), ABSENT, jnp.int32))

    is_due = (state.status == StepStatus.OK) | (state.is_unsaid & ask.wanted)
    step = jax.lax.cond(is_due, run, absent, state.own)
    return step._replace(status=jnp.where(is_due, jnp.maximum(step.status, state.status), ABSENT))


def _doubt(
    before: ProcessState, step: Step, checked: Checked, longest: Float[Array, ""]
) -> Int[Array, ""]:
    """Return the doubts of a step's row; none where the process has no row."""
    counts = before.counts.plus(step.counts)
    found = doubt_of(step, before.params, before.doubts, counts, checked, longest)
    return jnp.where(step.status == ABSENT, 0, found)


def _undefined(shape: Any) -> Array:
    """Return an array that says nothing: NaN, or zero where there is no NaN."""
    nothing = jnp.nan if jnp.issubdtype(shape.dtype, jnp.floating) else 0
    return jnp.full(shape.shape, nothing, shape.dtype)


def _after(before: ProcessState, step: Step, ask: Ask) -> ProcessState:
    """Return a process after its step; held where the run ends or the process does.

    Where the step at which it ends has no row, the next row says it, of the same state.
    """
    is_absent = step.status == ABSENT
    ended = step.status >= StepStatus.STOPPED
    keep = ask.is_last | ended
    is_unconverged = (jnp.asarray(step.doubt) & int(Doubt.UNCONVERGED)) > 0
    is_row = ~is_absent & ask.wanted
    rows = jnp.stack([is_row, is_unconverged & is_row])
    return ProcessState(
        own=_where(keep, before.own, step.state),
        params=jnp.where(is_absent, before.params, step.params),
        status=jnp.where(ended, step.status, before.status).astype(jnp.int32),
        is_unsaid=jnp.where(is_absent, before.is_unsaid, ended & ~is_row),
        counts=before.counts.plus(step.counts),
        rows=before.rows + rows.astype(jnp.int32),
        doubts=before.doubts.after(step, jnp.asarray(step.doubt), is_row),
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
        doubt = jnp.asarray(step.doubt)
        rows[name] = Row(state.step, step.status, doubt, moved[name].counts, values)
    return rows
