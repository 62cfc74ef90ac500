"""The central flow by itself, compiled, and a walk to a number of critical directions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from cflows_ray import GradientDescent
from cflows_ray.curvature import float_mode, linearize_gradient
from cflows_ray.flows import FLOWS, FlowContext, Record, Reference
from cflows_ray.linalg.eigen import top_eigenpairs
from cflows_ray.paired.run import PairedOptions, PairedRun
from cflows_ray.problem import Problem
from cflows_ray.rules import UpdateRule
from tests.benchmarks.measuring import progress
from tests.benchmarks.unit_costs import Flat, flat_problem

FIRST_EFFECTIVE = 1.7  # effective sharpness from which a walk starts: just short of the edge
SETTLE_STEPS = 3
MOST_RAMP_STEPS = 200


@dataclass(frozen=True)
class At:
    """A state of the central flow, the learning rate there, and the last step's record."""

    state: Any
    lr: float
    record: Record | None = None

    @property
    def num_critical(self) -> int:
        """Critical directions of the last step."""
        return 0 if self.record is None else int(self.record.num_critical)

    @property
    def counts(self) -> np.ndarray:
        """Gradients, products, third derivatives since the start."""
        return np.array([int(x) for x in self.state.counts])


class CentralFlow:
    """Steps of the central flow of gradient descent on a problem, no other process beside it.

    It is the code that a paired run compiles, so what it costs here it costs there.
    """

    def __init__(self, problem: Problem, params: PyTree, options: PairedOptions) -> None:
        self.options = replace(options, flows=("central",))
        self.flat: Flat = flat_problem(problem, params, options.dtype)
        self._problem, self._params = problem, params
        self._compiled: dict[int, Any] = {}

    def twin(self) -> CentralFlow:
        """Return the same flow, not compiled yet."""
        return CentralFlow(self._problem, self._params, self.options)

    def start(self, lr: float, warmup: int) -> At:
        """Return the flow's start after `warmup` optimizer steps."""
        run = PairedRun(self._problem, GradientDescent(lr), self.options)
        state = run.start(self._params, steps=1, warmup=warmup, seed=0)
        return At(state.flows["central"], lr)

    def advance(self, at: At, num_steps: int) -> At:
        """Make so many steps; tracks more directions, as a paired run does, where that is due."""
        while True:
            state, record, needs_more = self.call(at, num_steps)
            if not needs_more:
                return At(state, at.lr, record)
            k, num_params = at.state.basis.shape
            at = replace(at, state=grow(at.state, min(2 * k, num_params)))

    def call(self, at: At, num_steps: int) -> tuple[Any, Record, Array]:
        """Call the compiled program and wait for it."""
        with float_mode("float64"):
            rule = jax.tree.map(
                lambda x: jnp.asarray(x, self.options.dtype), GradientDescent(at.lr)
            )
            args = rule, self.flat.data, at.state, jnp.asarray(num_steps, jnp.int32)
            k = at.state.basis.shape[0]
            if k not in self._compiled:
                progress(f"compiles the central flow with k = {k}")
                self._compiled[k] = jax.jit(self._steps).lower(*args).compile()
            return jax.block_until_ready(self._compiled[k](*args))

    def _steps(self, rule: UpdateRule, data: PyTree, state: Any, num_steps: Array) -> Any:
        k = state.basis.shape[0]
        context = FlowContext(
            lambda w: self.flat.loss(w, data), rule, self.options.flow_options(), k
        )
        no, yes = jnp.zeros((), bool), jnp.ones((), bool)

        def one(state: Any) -> tuple[Any, Record, Array]:
            where = Reference(state.params, state.params, no, state.rule_state.nu)
            result = FLOWS["central"].step(context, state, where, no, yes)
            return result.state, result.record, result.needs_more_eigs

        one = jax.jit(one)
        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, state)[1])

        def body(_: Array, carry: tuple[Any, Record, Array]) -> tuple[Any, Record, Array]:
            moved, record, needs_more = one(carry[0])
            return moved, record, carry[2] | needs_more

        return jax.lax.fori_loop(0, num_steps, body, (state, blank, no))

    def walk_to(self, at: At, wanted: int, growth: float = 1.03) -> At:
        """Raise the learning rate, a little each step, until so many directions are critical.

        For 0 the learning rate is set so that the top effective eigenvalue is `FIRST_EFFECTIVE`,
        or less where it rises so fast that the edge is reached at once. Otherwise the flow stays at
        the edge all the way, as in a run with a learning-rate warm-up; what it returns has kept the
        number for some steps.
        """
        if wanted == 0:
            return self._below_the_edge(at)
        for i in range(MOST_RAMP_STEPS):
            if i % 10 == 0:
                progress(f"learning rate {at.lr:.3g}, {at.num_critical} of {wanted} critical")
            if at.num_critical >= wanted:
                settled = self.advance(at, SETTLE_STEPS)
                if settled.num_critical >= wanted:
                    return settled
                at = settled
            at = self.advance(replace(at, lr=at.lr * growth), 1)
        return at

    def _below_the_edge(self, at: At) -> At:
        """Return a settled state that stays without critical directions for some steps."""
        highest = FIRST_EFFECTIVE / self.sharpness(at)
        for factor in (1.0, 0.8, 0.6, 0.4):
            settled = self.advance(replace(at, lr=factor * highest), SETTLE_STEPS)
            if self.advance(settled, 2 * SETTLE_STEPS).num_critical == 0:
                break
        return settled

    def sharpness(self, at: At) -> float:
        """Return the top eigenvalue of the Hessian at a point."""

        def top(params: Array, guess: Array, data: PyTree) -> Array:
            point = linearize_gradient(lambda w: self.flat.loss(w, data), params)
            return top_eigenpairs(point.hessian_vectors, guess, tolerance=1e-3).eigvals[0]

        with float_mode("float64"):
            normal = np.random.default_rng(0).standard_normal((2, at.state.params.size))
            guess = jnp.asarray(normal, at.state.params.dtype)
            return float(jax.jit(top)(at.state.params, guess, self.flat.data))


def grow(state: Any, k: int) -> Any:
    """Return a central flow's state with k tracked directions, the new ones random."""
    old, num_params = state.basis.shape
    with float_mode("float64"):
        normal = np.random.default_rng(k).standard_normal((k - old, num_params))
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        rows = jnp.asarray(normal, state.basis.dtype)
        return state._replace(
            basis=jnp.concatenate([state.basis, rows]),
            fresh=jnp.ones((), bool),
            covariance=jnp.pad(state.covariance, ((0, k - old), (0, k - old))),
            eigvals=jnp.pad(state.eigvals, (0, k - old), constant_values=-jnp.inf),
        )
