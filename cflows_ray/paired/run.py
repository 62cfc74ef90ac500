"""The paired run: an optimizer and the flows that claim to predict it, from one starting point.

`PairedRun` goes on chunk by chunk, with a state that can be saved and restored bit for bit;
`run_paired` (`call.py`) is the same in one call. No Ray here.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, PyTree

from cflows_ray.checks import integer, seed_number
from cflows_ray.curvature import float_mode, standard_settings
from cflows_ray.flows import DTYPES, check_defined
from cflows_ray.paired.doubts import doubts_in_words
from cflows_ray.paired.options import PairedOptions
from cflows_ray.paired.program import Inputs, PairedProgram
from cflows_ray.paired.remarks import check_derivatives, find_for_debugger, is_undefined, remarks_on
from cflows_ray.paired.rows import check_one_loss, steps_frame
from cflows_ray.paired.state import FINISHED, RUN_DIVERGED, RUNNING, PairedState
from cflows_ray.paired.tracing import Traced, fingerprint, trace
from cflows_ray.problem import ParamStructure, Problem, cast_floats
from cflows_ray.rules import UpdateRule, check_range, traced

# Bytes of captured arrays from which on a person is told of `data`.
LARGE_CAPTURE = 50_000_000
# Name, among a saved state's arrays, of one whose leading axis is the tracked directions.
BASIS = "processes.discrete.own.basis"


class PairedRun:
    """A paired run of one problem and rule, chunk by chunk.

    A problem's functions are traced at each start, and compiled programs are shared between runs
    whose functions compute the same, on parameters and data of the same shapes, with the same
    options: a run that differs only in learning rate, β₂, ε, seed, starting point or the values of
    data compiles nothing; of captured data too, but for what a jitted function inside the loss has
    captured. Eight programs are kept; `forget_programs` frees them.

    Args:
        problem: the loss with its data.
        rule: the update rule.
        options: settings.

    Raises `ValueError` where rule and options do not fit together.

    Example:
        >>> import jax.numpy as jnp
        >>> from cflows_ray import GradientDescent, PairedOptions, PairedRun, Problem
        >>> problem = Problem(lambda params, data: jnp.sum((params - data) ** 2), jnp.ones(3))
        >>> run = PairedRun(problem, GradientDescent(lr=0.1), PairedOptions(flows=("stable",)))
        >>> state = run.start(jnp.zeros(3), steps=10, warmup=0, seed=0)
        >>> state, rows = run.advance(state, 4)
        >>> run.step(state), sorted(set(rows.process)), len(rows)
        (4, ['discrete', 'stable'], 8)
    """

    def __init__(self, problem: Problem, rule: UpdateRule, options: PairedOptions) -> None:
        if not isinstance(rule, UpdateRule):
            raise ValueError(f"rule must be an update rule such as GradientDescent, got {rule!r}")
        check_defined(options.flows, rule)
        check_range(rule, options.dtype)
        rule.check_integration(options.longest_substep)
        self.problem, self.rule, self.options = problem, rule, options
        self.inputs = _host_inputs(problem, options.dtype)
        self.fingerprint = ""
        self._program: PairedProgram | None = None
        self._initial: np.ndarray | None = None
        self._compile_s_before = 0.0
        self._computes_in: str | None = None

    def start(self, params: PyTree, *, steps: int, warmup: int, seed: int) -> PairedState:
        """Make `warmup` optimizer steps from `params`; return the state at the common start.

        Raises `ValueError` naming what cannot be used: parameters that are not floating-point
        arrays, a loss that is not a scalar, numbers out of range, a schedule that is not >= 0.
        """
        integer("steps", steps, 1)
        integer("warmup", warmup, 0)
        seed_number("seed", seed)
        self.rule.check_schedule(warmup + steps + 1)
        structure = ParamStructure.of(params, self.options.dtype)
        program = self._use_program(structure)
        with self.mode():
            start_numbers = _start_numbers(warmup, steps, seed, self.options.divergence_factor)
            self._initial = structure.flatten(params)
            flat = jnp.asarray(self._initial)
            k = min(self.options.num_eigs, structure.size)
            state = program.start(self.traced_rule(), self.inputs, flat, start_numbers, k)
            if not self.options.flows:
                return state
            start = np.asarray(jax.device_get(state.start))
            epsilon = float(jnp.finfo(self._computes_in or self.options.dtype).eps)
            checked = check_derivatives(program, self.inputs, start, self._initial, epsilon)
            return state._replace(checked=checked)

    def advance(self, state: PairedState, num_steps: int) -> tuple[PairedState, pd.DataFrame]:
        """Make up to `num_steps` more optimizer steps; return the state and their rows.

        Rows have the columns of the `steps` table but `run_id`, ordered by step and process. The
        chunk that reaches the end holds the row of the last step too. Results do not depend on how
        a run is cut into chunks, to the last bit.

        Raises `ValueError` for a run that has ended.
        """
        integer("num_steps", num_steps, 1)
        if self.is_done(state):
            raise ValueError("state must be of a run that has not ended, it has")
        program = self.program
        frames = []
        with self.mode():
            stop = min(int(state.step) + num_steps, int(state.total))
            is_first = int(state.step) == 0
            traced_stop = jnp.asarray(stop, jnp.int32)
            while int(state.outcome) == RUNNING and (int(state.step) < stop or stop == state.total):
                chunk = program.advance(self.traced_rule(), self.inputs, state, traced_stop)
                state = chunk.state
                frames.append(steps_frame(jax.device_get(chunk.rows), int(chunk.num_rows)))
                if chunk.needs_more_eigs:
                    state = program.grow(
                        state, self.options.grown(state.num_eigs, state.start.size)
                    )
        rows = as_one_frame(frames)
        if is_first:
            check_one_loss(rows, self.options.dtype)
        return state, rows

    def is_done(self, state: PairedState) -> bool:
        """Say whether the run has ended, by reaching its last step or by diverging."""
        return int(jax.device_get(state.outcome)) != RUNNING

    def step(self, state: PairedState) -> int:
        """Return the optimizer steps done since the common starting point."""
        return int(jax.device_get(state.step))

    def outcome(self, state: PairedState) -> tuple[str, str | None]:
        """Return how the run ended, as in `runs.status`, and what there is to say of it.

        A run that came to nothing, or one of its flows, because at its start a derivative of the
        loss is not finite though the loss is, is "undefined": that is the loss's failure.

        An ended run is looked at once more: which derivative was not finite, where it diverged, and
        whether the loss is smooth, where it is made of operations that may not be.

        Raises `FloatingPointError` with the line of the loss that it comes from, where something
        diverged and `jax_debug_nans` or `jax_debug_infs` is set.
        """
        word = {RUNNING: "running", FINISHED: "finished", RUN_DIVERGED: "diverged"}
        is_ended = int(state.outcome) != RUNNING
        status = "undefined" if is_ended and is_undefined(state) else word[int(state.outcome)]
        with self.mode():
            remarks = remarks_on(self.program, self.inputs, state, self._initial)
        if self._computes_in not in (None, self.options.dtype):
            reached = self.options.for_loss_in(self._computes_in).required_residual
            remarks.append(
                f"loss computed in {self._computes_in} in a {self.options.dtype} run: "
                f"eigenpairs to {reached:g}"
            )
        if any(getattr(jax.config, name) for name in ("jax_debug_nans", "jax_debug_infs")):
            structure, data = self.program.structure, self.inputs.data
            find_for_debugger(
                lambda w: self.problem.loss(structure.unflatten(w), data), state, self._initial
            )
        return status, "; ".join(remarks) or None

    def doubts(self, state: PairedState) -> str | None:
        """Return how many rows may mean nothing, by process and reason; None for no doubt.

        As in `runs.doubts`: "central: 12 off the edge, 3 stiff; stable: 4 stiff".
        """
        return doubts_in_words(state.processes)

    def final(self, state: PairedState) -> dict[str, PyTree]:
        """Return the parameters of every process, as NumPy arrays in the structure given."""
        structure = self.program.structure
        points = {name: process.params for name, process in state.processes.items()}
        return {name: structure.unflatten(jax.device_get(w)) for name, w in points.items()}

    def to_arrays(self, state: PairedState) -> dict[str, np.ndarray]:
        """Return the state as named NumPy arrays, bit for bit."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(state)
        return {_path_name(path): np.asarray(jax.device_get(leaf)) for path, leaf in leaves}

    def from_arrays(self, arrays: Mapping[str, Any], params: PyTree | None = None) -> PairedState:
        """Return the state saved by `to_arrays`.

        Args:
            arrays: what `to_arrays` returned.
            params: parameters with the structure of the run's; not needed after `start`.

        Raises `ValueError` naming the array that is missing, left over, or of another shape or
        dtype than this run's: it belongs to another run.
        """
        if params is None:
            structure = self.program.structure
        else:
            structure = ParamStructure.of(params, self.options.dtype)
            self._use_program(structure)
        if BASIS not in arrays:
            raise ValueError(f"saved state must hold {BASIS!r}, it is missing")
        k = np.shape(arrays[BASIS])[0]
        expected = self._abstract_state(structure, k)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(expected)
        names = {_path_name(path): leaf for path, leaf in leaves}
        if names.keys() != arrays.keys():
            differing = sorted(names.keys() ^ arrays.keys())
            raise ValueError(f"saved state must hold this run's arrays, differs in {differing}")
        for name, leaf in names.items():
            found = np.asarray(arrays[name])
            if (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
                raise ValueError(
                    f"saved {name} must be {leaf.dtype}{list(leaf.shape)}, "
                    f"got {found.dtype}{list(found.shape)}"
                )
        with self.mode():
            values = [jnp.asarray(np.asarray(arrays[name])) for name in names]
        return jax.tree_util.tree_unflatten(treedef, values)

    @property
    def compile_s(self) -> float:
        """Seconds that this run spent compiling; 0 where its programs were already there."""
        return 0.0 if self._program is None else self._program.compile_s - self._compile_s_before

    @property
    def num_params(self) -> int:
        """Number of parameters d; known once the run was started."""
        return self.program.structure.size

    @property
    def program(self) -> PairedProgram:
        """The compiled program, shared between runs of one kind; there once the run was started."""
        if self._program is None:
            raise RuntimeError("the run must be started first: call start or from_arrays")
        return self._program

    def _use_program(self, structure: ParamStructure) -> PairedProgram:
        functions, captured = _trace(self.problem, structure, self.inputs)
        _check_results(functions)
        _warn_of_size(functions)
        self._computes_in = functions["loss"].computes_in
        options = self.options.for_loss_in(self._computes_in)
        program = _program(tuple(functions.items()), structure, options)
        inputs = self.inputs._replace(captured=captured)
        self.fingerprint = fingerprint(inputs)
        self.inputs = _on_device(_Keyed(self.fingerprint, inputs), self.options.dtype)
        if program is not self._program:
            self._program, self._compile_s_before = program, program.compile_s
        return program

    def _abstract_state(self, structure: ParamStructure, k: int) -> PairedState:
        with self.mode():
            flat = jnp.zeros(structure.size, structure.dtype)
            zero = jnp.zeros((), jnp.int32)
            return jax.eval_shape(
                lambda: self.program.start_state(
                    self.traced_rule(), self.inputs, flat, _start_numbers(zero, zero, 0, 1.0), k
                )
            )

    def traced_rule(self) -> UpdateRule:
        """Return the rule with float64 arrays as hyperparameters; they are rounded where used."""
        return traced(self.rule, jnp.float64)

    @staticmethod
    @contextlib.contextmanager
    def mode() -> Iterator[None]:
        """Return the context in which compiled programs are made and called.

        64-bit mode for the k x k algebra; `curvature` switches it off again around a float32 loss.
        """
        with standard_settings(), float_mode("float64"):
            yield


def as_one_frame(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the rows of several program calls; a call may have made none."""
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled or frames[:1], ignore_index=True)


# A program maps 1,400 to 2,400 pieces of memory for each k; Linux allows a process 65,530.
@functools.lru_cache(maxsize=8)
def _program(*key: Any) -> PairedProgram:
    return PairedProgram(*key)


def forget_programs() -> None:
    """Let go of all compiled programs and of the data kept on the device.

    Example:
        >>> import cflows_ray
        >>> cflows_ray.forget_programs()
    """
    _program.cache_clear()
    _on_device.cache_clear()


def _host_inputs(problem: Problem, dtype: str) -> Inputs:
    """Return a copy of the problem's data: what happens to it later does not change the run."""
    arrays = (problem.data, problem.probe, problem.test_data)
    return Inputs(*(jax.tree.map(np.array, cast_floats(x, dtype)) for x in arrays))


@dataclass(frozen=True)
class _Keyed:
    """Arrays, compared by a fingerprint of their contents."""

    key: str
    inputs: Inputs = field(compare=False)


@functools.lru_cache(maxsize=2)
def _on_device(arrays: _Keyed, dtype: str) -> Inputs:
    """Return data on the device, one copy for all runs in turn or together."""
    with standard_settings(), float_mode(dtype):
        return jax.device_put(arrays.inputs)


def _trace(
    problem: Problem, structure: ParamStructure, inputs: Inputs
) -> tuple[dict[str, Traced], dict[str, list]]:
    """Trace every function of a problem on what it is evaluated on."""
    wanted = {"loss": (problem.loss, inputs.data)}
    if problem.test_data is not None:
        wanted["test_loss"] = (problem.loss, inputs.test_data)
    if problem.outputs is not None:
        wanted["outputs"] = (problem.outputs, inputs.probe)
    if problem.accuracy is not None:
        wanted["accuracy"] = (problem.accuracy, inputs.data)
        if problem.test_data is not None:
            wanted["test_accuracy"] = (problem.accuracy, inputs.test_data)
    functions, captured = {}, {}
    for name, (function, data) in wanted.items():
        words = "loss_fn" if name == "loss" else name
        functions[name], captured[name] = trace(function, words, structure, data)
    return functions, captured


def _start_numbers(warmup: Any, steps: Any, seed: Any, divergence_factor: Any) -> dict[str, Array]:
    return {
        "warmup": jnp.asarray(warmup, jnp.int32),
        "steps": jnp.asarray(steps, jnp.int32),
        "seed": jnp.asarray(seed, jnp.int64),
        "divergence_factor": jnp.asarray(divergence_factor, jnp.float64),
    }


def _check_results(functions: Mapping[str, Traced]) -> None:
    """Raise `ValueError` unless each function returns one floating-point array, as it should."""
    for name, function in functions.items():
        words, tree = "loss_fn" if name == "loss" else name, function.out_tree
        wanted, what = "a scalar", "a floating-point number"
        if name == "outputs":
            wanted, what = "an array (n, ...)", "floating-point numbers"
        if not jax.tree_util.treedef_is_leaf(tree) or not function.out:
            raise ValueError(f"{words} must return {wanted}, got a {tree}")
        ((shape, dtype),) = function.out
        if (len(shape) > 0) != (name == "outputs"):
            raise ValueError(f"{words} must return {wanted}, got an array of shape {shape}")
        if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
            raise ValueError(f"{words} must return {what}, got {dtype}")
    loss = functions["loss"]
    if loss.computes_in is not None and loss.computes_in not in DTYPES:
        raise ValueError(
            f"loss_fn must compute in {' or '.join(DTYPES)}, got {loss.computes_in} inside: its "
            "second and third derivatives would be rounding noise"
        )


def _warn_of_size(functions: Mapping[str, Traced]) -> None:
    """Warn of functions that captured large arrays."""
    for name, function in functions.items():
        size = function.captured_bytes
        if size >= LARGE_CAPTURE:
            words = "loss_fn" if name == "loss" else name
            warnings.warn(
                f"{words} captured {size / 1e6:.0f} MB of arrays, traced and hashed at each call: "
                "give them as data, run_paired(loss_fn, params, rule, data=...)",
                stacklevel=5,
            )


def _path_name(path: tuple) -> str:
    return ".".join(str(getattr(p, "name", getattr(p, "key", getattr(p, "idx", p)))) for p in path)
