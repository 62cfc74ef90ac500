"""The compiled side of a paired run: all processes advance together, rows stay on the device.

One program does a chunk: a loop of optimizer steps with traced length, whose rows go into a buffer
of fixed capacity. It stops early, with its state as it was *before* the step, when a step needs
more tracked directions; `PairedRun` and `PairedPack` then grow k and go on from there. So results
do not depend on how a run is cut into chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cflows_ray.curvature import Along, Loss, derivatives_along
from cflows_ray.flows import FlowContext, grow
from cflows_ray.paired.measure import Evaluations
from cflows_ray.paired.options import PairedOptions
from cflows_ray.paired.smoothness import suspects
from cflows_ray.paired.state import RUNNING, PairedState, Row
from cflows_ray.paired.stepping import begin, step_all
from cflows_ray.paired.tracing import Traced
from cflows_ray.problem import ParamStructure
from cflows_ray.rules import UpdateRule

ROW_CAPACITY = 256


class Inputs(NamedTuple):
    """Arrays that a program reads and never changes: the data, and what functions captured."""

    data: PyTree
    probe: PyTree
    test_data: PyTree
    captured: dict[str, list] = {}  # noqa: RUF012


class Chunk(NamedTuple):
    """Result of one program call: the state, rows by process, how many, and why it stopped."""

    state: PairedState
    rows: dict[str, Row]
    num_rows: Array
    needs_more_eigs: Array


class PairedProgram:
    """Compiled functions for one problem, parameter structure and set of options.

    Executables are kept by the shapes of their arguments: a call with the same shapes, whatever its
    hyperparameters, seed or data, compiles nothing.

    Attributes:
        compile_s: seconds spent compiling so far.
    """

    def __init__(
        self,
        functions: tuple[tuple[str, Traced], ...],
        structure: ParamStructure,
        options: PairedOptions,
    ) -> None:
        self.structure = structure
        self.compile_s = 0.0
        self._functions = dict(functions)
        self._options = options
        self._executables: dict[Any, Any] = {}

    def start(
        self, rule: UpdateRule, inputs: Inputs, params: Array, numbers: dict, k: int
    ) -> PairedState:
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
        if k == state.num_eigs:
            return state
        return self._call("grow", self._grow, state, jnp.zeros((k,), bool))

    @property
    def most_eigs(self) -> int:
        """Tracked directions at most."""
        return self._options.most_eigs

    @property
    def restart_every(self) -> int:
        """Steps after which flows begin anew; 0 for never."""
        return self._options.restart_every

    @property
    def suspects(self) -> str:
        """The operations of the loss that may not be smooth, in words; empty for none."""
        return suspects(self._functions["loss"].jaxpr, len(self.structure.shapes))

    def derivatives(
        self, inputs: Inputs, point: Float[Array, " d"], u: Float[Array, " d"]
    ) -> Along:
        """Return the loss and its derivatives at a point: to find one that is not finite."""
        return self._call("derivatives", self._derivatives, inputs, point, u)

    def slopes(
        self,
        inputs: Inputs,
        point: Float[Array, " d"],
        u: Float[Array, " d"],
        places: Float[Array, " n"],
    ) -> Float[Array, "n 4"]:
        """Return φ and three derivatives of φ(t) = L(w + t u) at several t: to find a jump."""
        return self._call("slopes", self._slopes, inputs, point, u, places)

    def _call(self, name: str, function: Callable, *args: Any) -> Any:
        return self._executable(name, function, *args)(*args)

    def _executable(self, name: str, function: Callable, *args: Any) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten(args)
        key = (name, treedef, tuple((x.shape, x.dtype) for x in leaves))
        if key not in self._executables:
            begin = time.perf_counter()
            self._executables[key] = jax.jit(function).lower(*args).compile()
            self.compile_s += time.perf_counter() - begin
        return self._executables[key]

    def _context(self, rule: UpdateRule, inputs: Inputs, k: int) -> FlowContext:
        return FlowContext(self._flat_loss(inputs), rule, self._options, k)

    def _flat_loss(self, inputs: Inputs) -> Loss:
        traced, captured = self._functions["loss"], inputs.captured["loss"]

        def loss(params: Float[Array, " d"]) -> Float[Array, ""]:
            value = traced(captured, self.structure.unflatten(params), inputs.data)
            return value.astype(params.dtype)

        return loss

    def _evaluations(self, inputs: Inputs) -> Evaluations:
        def function(on_data: str, on_test: str) -> Callable[[Any, Any], Array] | None:
            if on_data not in self._functions:
                return None

            def evaluate(params: PyTree, data: PyTree) -> Array:
                name = on_test if data is inputs.test_data else on_data
                return self._functions[name](inputs.captured[name], params, data)

            return evaluate

        return Evaluations(
            self.structure,
            function("loss", "test_loss"),
            function("outputs", "outputs"),
            function("accuracy", "test_accuracy"),
            inputs.data,
            inputs.probe,
            inputs.test_data,
        )

    def _start(
        self, rule: UpdateRule, inputs: Inputs, params: Array, numbers: dict, template: Array
    ) -> PairedState:
        return begin(self._context(rule, inputs, template.shape[0]), self._options, params, numbers)

    def _advance(self, rule: UpdateRule, inputs: Inputs, state: PairedState, stop: Array) -> Chunk:
        context = self._context(rule, inputs, state.num_eigs)
        evaluations = self._evaluations(inputs)

        # jitted so that its second use below, inside the loop, is not traced anew
        step = jax.jit(lambda state: step_all(context, self._options, evaluations, state))

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

    def _derivatives(self, inputs: Inputs, point: Array, u: Array) -> Along:
        return derivatives_along(self._flat_loss(inputs), point, u)

    def _slopes(self, inputs: Inputs, point: Array, u: Array, places: Array) -> Array:
        loss = self._flat_loss(inputs)

        def at(t: Array) -> Array:
            return derivatives_along(loss, point + t * u, u).slopes(u)

        return jax.lax.map(at, places)

    @staticmethod
    def _grow(state: PairedState, template: Array) -> PairedState:
        k = template.shape[0]
        key = jax.random.fold_in(jax.random.key(state.seed), k)
        return state._replace(processes=grow(state.processes, k, key))
