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
from cflows_ray.flows import FLOWS, Ask, Counts, FlowContext, Reference
from cflows_ray.flows import grow as grow_state
from cflows_ray.linalg.eigen import top_eigenpairs
from cflows_ray.paired.run import PairedOptions, PairedRun
from cflows_ray.problem import Problem
from cflows_ray.rules import UpdateRule, traced
from tests.benchmarks.measuring import progress
from tests.benchmarks.unit_costs import Flat, flat_problem

FIRST_EFFECTIVE = 1.7  # effective sharpness from which a walk starts: just short of the edge
SETTLE_STEPS = 3
MOST_RAMP_STEPS = 200


@dataclass(frozen=True)
class At:
    """A state of the central flow, what it has cost, the learning rate there, the last record."""

    state: Any
    spent: Counts
    lr: float
    record: Any = None

    @property
    def num_eigs(self) -> int:
        """Tracked directions k."""
        return int(self.state.tracked.basis.shape[0])

    @property
    def num_critical(self) -> int:
        """Critical directions of the last step."""
        return 0 if self.record is None else int(self.record["num_critical"])

    @property
    def counts(self) -> np.ndarray:
        """Gradients, products, third derivatives since the start."""
        return np.array([int(x) for x in self.spent])


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
        central = state.processes["central"]
        return At(central.own, central.counts, lr)

    def advance(self, at: At, num_steps: int) -> At:
        """Make so many steps; tracks more directions, as a paired run does, where that is due."""
        while True:
            state, spent, record, needs_more = self.call(at, num_steps)
            if not needs_more:
                return At(state, spent, at.lr, record)
            k, num_params = at.state.tracked.basis.shape
            at = replace(at, state=grow(at.state, min(2 * k, num_params)))

    def call(self, at: At, num_steps: int) -> tuple[Any, Counts, Any, Array]:
        """Call the compiled program and wait for it: state, counts, last record, k too small."""
        with float_mode("float64"):
            rule = traced(GradientDescent(at.lr), self.options.dtype)
            steps = jnp.asarray(num_steps, jnp.int32)
            args = rule, self.flat.data, (at.state, at.spent), steps
            if at.num_eigs not in self._compiled:
                progress(f"compiles the central flow with k = {at.num_eigs}")
                self._compiled[at.num_eigs] = jax.jit(self._steps).lower(*args).compile()
            return jax.block_until_ready(self._compiled[at.num_eigs](*args))

    def _steps(
        self, rule: UpdateRule, data: PyTree, begin: tuple[Any, Counts], num_steps: Array
    ) -> Any:
        k = begin[0].tracked.basis.shape[0]
        context = FlowContext(lambda w: self.flat.loss(w, data), rule, self.options, k)
        no, yes = jnp.zeros((), bool), jnp.ones((), bool)

        def one(state: Any, spent: Counts) -> tuple[Any, Counts, Any, Array]:
            w = state.params
            where = Reference(
                t=jnp.ones((), w.dtype),  # the learning rate is constant
                params=w,
                previous=w,
                following=w,
                has_previous=no,
                linear=None,  # type: ignore[arg-type]  # the central flow does not look at it
                state=state.rule_state,
                has_spiked=no,
            )
            step = FLOWS["central"].step(context, state, where, Ask(no, yes))
            return step.state, spent.plus(step.counts), step.record, step.needs_more_eigs

        one = jax.jit(one)
        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(one, *begin)[2])

        def body(_: Array, carry: tuple[Any, Counts, Any, Array]) -> tuple:
            *moved, needs_more = one(*carry[:2])
            return (*moved, carry[3] | needs_more)

        return jax.lax.fori_loop(0, num_steps, body, (*begin, blank, no))

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
    with float_mode("float64"):
        return grow_state(state, k, jax.random.key(k))
