"""The compiled side of a paired run: all processes advance together, rows stay on the device.

One program does a chunk: a loop of optimizer steps with traced length, whose rows go into a buffer
of fixed capacity. It stops early, with its state as it was *before* the step, when a step needs
more tracked directions; `pairing.py` then grows k and goes on from there. So results do not depend
on how a run is cut into chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.curvature import Loss, float_mode, value_and_grad
from cflows_ray.flows import (
    ABSENT,
    DIVERGED,
    FLOWS,
    OK,
    Counts,
    FlowContext,
    FlowOptions,
    Record,
    Reference,
    Start,
    StepResult,
    discrete,
    undefined_record,
)
from cflows_ray.problem import ParamStructure
from cflows_ray.rules import UpdateRule

ROW_CAPACITY = 256
RUNNING, FINISHED, RUN_DIVERGED = range(3)


class Inputs(NamedTuple):
    """Arrays that a program reads and never changes: the problem's data."""

    data: PyTree
    probe: PyTree
    test_data: PyTree


class PairedState(NamedTuple):
    """Everything that the rest of a run depends on.

    Attributes:
        step: optimizer steps done since the common starting point, int32.
        total: steps to do, int32.
        outcome: RUNNING, FINISHED or RUN_DIVERGED.
        seed: seed of the eigensolver's random rows.
        limits: the loss at the common start, and above which loss the run has diverged.
        start: w_0, shape (d,).
        discrete: the optimizer.
        flows: state of each other process, by name.
    """

    step: Int[Array, ""]
    total: Int[Array, ""]
    outcome: Int[Array, ""]
    seed: Int[Array, ""]
    limits: discrete.LossLimits
    start: Float[Array, " d"]
    discrete: discrete.DiscreteState
    flows: dict[str, Any]


class Row(NamedTuple):
    """One row of the `steps` table but its labels; NaN or -1 where undefined."""

    step: Int[Array, ""]
    record: Record
    counts: Counts
    distance_to_discrete: Float[Array, ""]
    distance_to_midpoint: Float[Array, ""]
    distance_from_start: Float[Array, ""]
    nu_rel_error: Float[Array, ""]
    output_distance: Float[Array, ""]
    train_accuracy: Float[Array, ""]
    test_loss: Float[Array, ""]
    test_accuracy: Float[Array, ""]


class Chunk(NamedTuple):
    """Result of one program call: the state, rows by process, how many, and why it stopped."""

    state: PairedState
    rows: dict[str, Row]
    num_rows: Int[Array, ""]
    needs_more_eigs: Bool[Array, ""]


class PairedProgram:
    """Compiled functions for one problem, parameter structure and set of options.

    Executables are kept by the shapes of their arguments: a call with the same shapes, whatever its
    hyperparameters, seed or data, compiles nothing.

    Attributes:
        compile_s: seconds spent compiling so far.
        num_compilations: executables built so far.
    """

    def __init__(
        self,
        loss: Callable[[Any, Any], Array],
        outputs: Callable[[Any, Any], Array] | None,
        accuracy: Callable[[Any, Any], Array] | None,
        structure: ParamStructure,
        options: FlowOptions,
        flows: tuple[str, ...],
        record_every: int,
    ) -> None:
        self.structure, self.loss = structure, loss
        self.compile_s = 0.0
        self.num_compilations = 0
        self._outputs, self._accuracy = outputs, accuracy
        self._options, self._flows, self._record_every = options, flows, record_every
        self._executables: dict[Any, Any] = {}

    def start(self, rule: UpdateRule, inputs: Inputs, params: Array, numbers: dict, k: int) -> Any:
        """Make the warm-up steps and return the state at the common starting point."""
        template = jnp.zeros((k,), bool)  # carries k as a shape
        return self._call("start", self._start, rule, inputs, params, numbers, template)

    def start_state(
        self, rule: UpdateRule, inputs: Inputs, params: Array, numbers: dict, k: int
    ) -> PairedState:
        """Do what `start` does, uncompiled: for `jax.eval_shape`."""
        return self._start(rule, inputs, params, numbers, jnp.zeros((k,), bool))

    def advance(self, rule: UpdateRule, inputs: Inputs, state: PairedState, stop: Array) -> Chunk:
        """Advance to step `stop`, or until the row buffer is full or k is too small."""
        return self._call("advance", self._advance, rule, inputs, state, stop)

    def advance_pack(
        self, rules: UpdateRule, inputs: Inputs, states: PairedState, stops: Array
    ) -> Chunk:
        """Do what `advance` does for several runs at once; leading axis: the member."""
        return self._call("advance_pack", self._advance_pack, rules, inputs, states, stops)

    def pack_memory(self, rules: UpdateRule, inputs: Inputs, states: PairedState) -> int:
        """Return the bytes that `advance_pack` takes on the device, by the compiler's estimate."""
        stops = jnp.zeros(states.step.shape, jnp.int32)
        args = (rules, inputs, states, stops)
        found = self._executable("advance_pack", self._advance_pack, *args).memory_analysis()
        return int(
            found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
        )

    def grow(self, state: PairedState, k: int) -> PairedState:
        """Return the state with k tracked directions, the new ones random."""
        if k == state.discrete.basis.shape[0]:
            return state
        return self._call("grow", self._grow, state, jnp.zeros((k,), bool))

    def _call(self, name: str, function: Callable, *args: Any) -> Any:
        return self._executable(name, function, *args)(*args)

    def _executable(self, name: str, function: Callable, *args: Any) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten(args)
        key = (name, treedef, tuple((x.shape, x.dtype) for x in leaves))
        if key not in self._executables:
            begin = time.perf_counter()
            self._executables[key] = jax.jit(function).lower(*args).compile()
            self.compile_s += time.perf_counter() - begin
            self.num_compilations += 1
        return self._executables[key]

    def _flat_loss(self, data: PyTree) -> Loss:
        def loss(params: Float[Array, " d"]) -> Float[Array, ""]:
            return self.loss(self.structure.unflatten(params), data).astype(params.dtype)

        return loss

    def _start(
        self, rule: UpdateRule, inputs: Inputs, params: Array, numbers: dict, template: Array
    ) -> PairedState:
        loss = self._flat_loss(inputs.data)
        value, grad = value_and_grad(loss, params)
        preconditioner = rule.preconditioner(rule.update(rule.init(params), grad))
        # the loss alone may happen to be near 0; what one step should gain is a scale as well
        scale = jnp.maximum(jnp.abs(value), jnp.sum(grad**2 / preconditioner))
        limit = numbers["divergence_factor"] * scale

        def warm(_: Array, carry: tuple) -> tuple:
            _, current, state = carry
            grad = value_and_grad(loss, current)[1]
            state = rule.update(state, grad)
            return current, current - grad / rule.preconditioner(state), state

        carry = (params, params, rule.init(params))
        previous, current, rule_state = jax.lax.fori_loop(0, numbers["warmup"], warm, carry)
        start_value, grad = value_and_grad(loss, current)
        key = jax.random.key(numbers["seed"])
        start = Start(
            previous=previous,
            has_previous=numbers["warmup"] > 0,
            params=current,
            rule_state=rule_state,
            absorbed=rule.update(rule_state, grad),
            basis=jax.random.normal(key, (template.shape[0], params.size), params.dtype),
        )
        context = FlowContext(loss, rule, self._options, template.shape[0])
        return PairedState(
            step=jnp.zeros((), jnp.int32),
            total=numbers["steps"],
            outcome=jnp.full((), RUNNING, jnp.int32),
            seed=numbers["seed"],
            limits=discrete.LossLimits(
                start_value, jnp.where(limit > 0, limit, jnp.inf).astype(params.dtype)
            ),
            start=current,
            discrete=discrete.init(context, start),
            flows={name: FLOWS[name].init(context, start) for name in self._flows},
        )

    def _advance(self, rule: UpdateRule, inputs: Inputs, state: PairedState, stop: Array) -> Chunk:
        context = FlowContext(
            self._flat_loss(inputs.data), rule, self._options, state.discrete.basis.shape[0]
        )

        # jitted so that its second use below, inside the loop, is not traced anew
        step = jax.jit(lambda state: self._step(context, inputs, state))

        def unfinished(chunk: Chunk) -> Array:
            reached = (chunk.state.step >= stop) & (stop < chunk.state.total)
            full = chunk.num_rows >= ROW_CAPACITY
            running = chunk.state.outcome == RUNNING
            return running & ~reached & ~full & ~chunk.needs_more_eigs

        def body(chunk: Chunk) -> Chunk:
            moved, rows, wanted, needs_more = step(chunk.state)
            kept = jax.tree.map(
                lambda old, new: jnp.where(needs_more, old, new), chunk.state, moved
            )
            buffers = jax.tree.map(
                lambda buffer, x: buffer.at[chunk.num_rows].set(x), chunk.rows, rows
            )
            grown = jnp.where(wanted & ~needs_more, 1, 0).astype(jnp.int32)
            return Chunk(kept, buffers, chunk.num_rows + grown, needs_more)

        row_shapes = jax.eval_shape(step, state)[1]
        empty = jax.tree.map(lambda x: jnp.zeros((ROW_CAPACITY, *x.shape), x.dtype), row_shapes)
        chunk = Chunk(state, empty, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
        return jax.lax.while_loop(unfinished, body, chunk)

    def _advance_pack(
        self, rules: UpdateRule, inputs: Inputs, states: PairedState, stops: Array
    ) -> Chunk:
        return jax.vmap(self._advance, in_axes=(0, None, 0, 0))(rules, inputs, states, stops)

    def _step(
        self, context: FlowContext, inputs: Inputs, state: PairedState
    ) -> tuple[PairedState, dict[str, Row], Array, Array]:
        """Step every process: next state, rows, whether they are wanted, whether k is too small."""
        is_last = state.step >= state.total
        wanted = is_last | (state.step % self._record_every == 0)
        result, reference = discrete.step(context, state.discrete, state.limits, is_last, wanted)
        diverged = result.state.status == DIVERGED
        wanted, hold = wanted | diverged, is_last | diverged
        results = {"discrete": result}
        for name in self._flows:
            flow_state = state.flows[name]
            results[name] = self._step_flow(context, name, flow_state, reference, hold, wanted)
        needs_more = jnp.zeros((), bool)
        for one in results.values():
            needs_more |= one.needs_more_eigs & ~diverged
        rows = self._rows(inputs, state, results, reference, wanted & ~needs_more)
        ended = jnp.where(is_last, FINISHED, RUNNING)
        moved = state._replace(
            step=jnp.where(hold, state.step, state.step + 1),
            outcome=jnp.where(diverged, RUN_DIVERGED, ended).astype(jnp.int32),
            discrete=results["discrete"].state,
            flows={name: results[name].state for name in self._flows},
        )
        return moved, rows, wanted, needs_more

    def _step_flow(
        self,
        context: FlowContext,
        name: str,
        state: Any,
        reference: Reference,
        is_last: Array,
        wanted: Array,
    ) -> StepResult:
        """Step one flow, unless it has stopped or diverged before."""

        @jax.jit
        def run(state: Any) -> StepResult:
            return FLOWS[name].step(context, state, reference, is_last, wanted)

        def absent(state: Any) -> StepResult:
            record = undefined_record(state.params, context.num_eigs)
            record = record._replace(status=jnp.full((), ABSENT, jnp.int32))
            nu = jax.eval_shape(run, state).nu
            nowhere = None if nu is None else jnp.full(nu.shape, jnp.nan, nu.dtype)
            unknown = jnp.full_like(state.params, jnp.nan)
            return StepResult(state, unknown, nowhere, record, jnp.zeros((), bool))

        return jax.lax.cond(state.status == OK, run, absent, state)

    def _rows(
        self,
        inputs: Inputs,
        state: PairedState,
        results: dict[str, StepResult],
        reference: Reference,
        wanted: Array,
    ) -> dict[str, Row]:
        """Rows of all processes at this step; what costs a network evaluation only where wanted."""

        def evaluate(points: Float[Array, "n d"]) -> tuple:
            # one after the other through one and the same code: networks take long to compile
            return jax.lax.map(lambda w: self._evaluate(inputs, w, reference.params), points)

        def blank(points: Float[Array, "n d"]) -> tuple:
            return (jnp.full(points.shape[0], jnp.nan, points.dtype),) * 4

        points = jnp.stack([result.params for result in results.values()])
        measured = jax.lax.cond(wanted, evaluate, blank, points)
        rows = {}
        for i, (name, result) in enumerate(results.items()):
            undefined = jnp.full((), jnp.nan, state.start.dtype)
            itself = name == "discrete"
            to_midpoint = jnp.linalg.norm(result.params - reference.midpoint)
            nu_error = undefined
            if not itself and result.nu is not None and reference.nu is not None:
                gap = jnp.linalg.norm(jnp.ravel(result.nu - reference.nu))
                nu_error = gap / jnp.linalg.norm(jnp.ravel(reference.nu))
            output_distance, train_accuracy, test_loss, test_accuracy = (x[i] for x in measured)
            rows[name] = Row(
                step=state.step,
                record=result.record,
                counts=result.state.counts,
                distance_to_discrete=undefined
                if itself
                else jnp.linalg.norm(result.params - reference.params),
                distance_to_midpoint=undefined
                if name == "midpoint"
                else jnp.where(reference.has_midpoint, to_midpoint, jnp.nan),
                distance_from_start=jnp.linalg.norm(result.params - state.start),
                nu_rel_error=nu_error,
                output_distance=undefined if itself else output_distance,
                train_accuracy=train_accuracy,
                test_loss=test_loss,
                test_accuracy=test_accuracy,
            )
        return rows

    def _evaluate(self, inputs: Inputs, params: Array, reference: Array) -> tuple:
        """Return output distance, train accuracy, test loss, test accuracy; NaN if undefined."""
        nan = jnp.full((), jnp.nan, params.dtype)
        output_distance, train_accuracy, test_loss, test_accuracy = nan, nan, nan, nan
        with float_mode(params.dtype):
            tree = self.structure.unflatten(params)
            if self._outputs is not None:
                gap = self._outputs(tree, inputs.probe)
                gap = gap - self._outputs(self.structure.unflatten(reference), inputs.probe)
                output_distance = jnp.sqrt(jnp.sum(gap**2) / gap.shape[0])
            if self._accuracy is not None:
                train_accuracy = self._accuracy(tree, inputs.data)
            if inputs.test_data is not None:
                test_loss = self.loss(tree, inputs.test_data)
                if self._accuracy is not None:
                    test_accuracy = self._accuracy(tree, inputs.test_data)
            measured = (output_distance, train_accuracy, test_loss, test_accuracy)
            return tuple(
                jnp.where(jnp.isnan(params[0]), jnp.nan, x).astype(params.dtype) for x in measured
            )

    @staticmethod
    def _grow(state: PairedState, template: Array) -> PairedState:
        """Pad every basis with random rows and every covariance with zeros."""
        k = template.shape[0]

        def grow(process: Any) -> Any:
            changes: dict[str, Any] = {}
            if hasattr(process, "basis"):
                old, num_params = process.basis.shape
                key = jax.random.fold_in(jax.random.key(state.seed), k)
                new_rows = jax.random.normal(key, (k - old, num_params), process.basis.dtype)
                changes["basis"] = jnp.concatenate([process.basis, new_rows])
                changes["fresh"] = jnp.ones((), bool)
            if hasattr(process, "covariance"):
                missing = k - process.covariance.shape[0]
                changes["covariance"] = jnp.pad(process.covariance, ((0, missing), (0, missing)))
            if hasattr(process, "eigvals"):
                missing = k - process.eigvals.shape[0]
                changes["eigvals"] = jnp.pad(
                    process.eigvals, (0, missing), constant_values=-jnp.inf
                )
            return process._replace(**changes)

        return state._replace(
            discrete=grow(state.discrete),
            flows={name: grow(process) for name, process in state.flows.items()},
        )
