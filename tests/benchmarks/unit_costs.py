"""What one gradient, product, third derivative, SDCP and eigensolver pass cost, measured apart.

Each is timed inside a compiled loop of traced length, as a run computes it: the cost of calling a
compiled program from Python, which is many times that of a small network's gradient, stays out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from cflows_ray.curvature import float_mode, linearize_gradient, third_derivative, value_and_grad
from cflows_ray.linalg.eigen import top_eigenpairs
from cflows_ray.linalg.sdcp import solve_sdcp
from cflows_ray.linalg.symmetric import num_pairs
from cflows_ray.problem import ParamStructure, Problem
from tests.benchmarks.measuring import Clock, item_cost

FlatLoss = Callable[[Array, PyTree], Array]


@dataclass(frozen=True)
class DerivativeCosts:
    """Seconds of one gradient, one linearized gradient, one further product, one third derivative.

    A linearized gradient keeps what its products need; with none asked for it costs what a gradient
    does, or somewhat more.
    """

    gradient_s: float
    linearization_s: float
    product_s: float
    third_s: float

    def seconds(
        self, linearizations: float, gradients: float, products: float, third: float
    ) -> float:
        """Return the time of so many derivatives."""
        return (
            linearizations * self.linearization_s
            + gradients * self.gradient_s
            + products * self.product_s
            + third * self.third_s
        )

    def __str__(self) -> str:
        unit = self.gradient_s
        return (
            f"gradient {1e6 * unit:.4g} µs; in gradients: linearized gradient "
            f"{self.linearization_s / unit:.3g}, product {self.product_s / unit:.3g}, "
            f"third derivative {self.third_s / unit:.3g}"
        )


class Flat(NamedTuple):
    """A problem on flat parameters: `loss(params, data)`, its data and a point."""

    loss: FlatLoss
    data: PyTree
    params: Array


def flat_problem(problem: Problem, params: PyTree, dtype: str = "float32") -> Flat:
    """Return a problem on flat parameters, with its data in the run's dtype."""
    structure = ParamStructure.of(params, dtype)

    def cast(x: Any) -> np.ndarray:
        x = np.asarray(x)
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    def loss(flat: Array, data: PyTree) -> Array:
        return problem.loss(structure.unflatten(flat), data).astype(flat.dtype)

    with float_mode(dtype):
        data = jax.device_put(jax.tree.map(cast, problem.data))
        return Flat(loss, data, jnp.asarray(structure.flatten(params)))


class DerivativeMeter:
    """Measures the derivatives of a loss at any of its points; compiles once.

    Args:
        flat: the loss and its data.
        num_rows: directions of a Hessian product's batch.
    """

    def __init__(self, flat: Flat, num_rows: int = 4) -> None:
        self.flat = flat
        rows = np.random.default_rng(0).standard_normal((num_rows, flat.params.size))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        with float_mode("float64"):
            self._rows = jnp.asarray(rows, flat.params.dtype)
            self._zero = jnp.zeros((), flat.params.dtype)
            self._gradient = self._compile(self._gradient_at)
            self._products = self._compile(self._products_at)
            self._third = self._compile(self._third_at)

    def costs(
        self, params: Array | None = None, repetitions: int = 3, clock: Clock = "wall"
    ) -> DerivativeCosts:
        """Measure at a point, the problem's own unless given."""
        point = self.flat.params if params is None else params
        num_rows = self._rows.shape[0]

        def cost(compiled: Any, count: int) -> float:
            def run(n: int) -> Any:
                with float_mode("float64"):
                    numbers = jnp.asarray(count, jnp.int32), jnp.asarray(n, jnp.int32)
                    args = point, self._rows, self.flat.data, *numbers, self._zero
                    return jax.block_until_ready(compiled(*args))

            return item_cost(run, repetitions, clock)

        gradient_s, all_rows_s = cost(self._gradient, 0), cost(self._products, num_rows)
        # on an accelerator the rows are one batch, whatever their count
        one_by_one = jax.default_backend() == "cpu"
        linearization_s = cost(self._products, 0) if one_by_one else gradient_s
        product_s = max(all_rows_s - linearization_s, 0.0) / num_rows
        third_s = max(cost(self._third, num_rows) - cost(self._third, 0), 0.0) / num_rows
        return DerivativeCosts(gradient_s, linearization_s, product_s, third_s)

    def _compile(self, derivative: Callable[..., Array]) -> Any:
        """Compile a loop of traced length over one derivative."""

        def loop(w: Array, V: Array, data: PyTree, count: Array, n: Array, zero: Array) -> Array:
            def loss(w: Array) -> Array:
                return self.flat.loss(w, data)

            # zero is traced, or the compiler would see that the point never moves
            return jax.lax.fori_loop(0, n, lambda _, w: w - zero * derivative(loss, w, V, count), w)

        whole = jnp.zeros((), jnp.int32)
        args = self.flat.params, self._rows, self.flat.data, whole, whole, self._zero
        return jax.jit(loop).lower(*args).compile()

    @staticmethod
    def _gradient_at(loss: Callable[[Array], Array], w: Array, V: Array, count: Array) -> Array:
        del V, count
        return value_and_grad(loss, w)[1]

    @staticmethod
    def _products_at(loss: Callable[[Array], Array], w: Array, V: Array, count: Array) -> Array:
        at = linearize_gradient(loss, w)
        return at.grad + jnp.sum(at.hessian_vectors(V, count), axis=0)

    @staticmethod
    def _third_at(loss: Callable[[Array], Array], w: Array, V: Array, count: Array) -> Array:
        # several at one point, as the central flow has them: the compiler may share what they share
        def add(i: Array, total: Array) -> Array:
            return total + third_derivative(loss, w, V[i % V.shape[0]], V[(i + 1) % V.shape[0]])

        return jax.lax.fori_loop(0, count, add, jnp.zeros_like(w))


def sdcp_cost(k: int, num_active: int, repetitions: int = 3, clock: Clock = "wall") -> float:
    """Return the seconds of one warm-started solution with so many active directions out of k."""
    rng = np.random.default_rng(0)
    m = num_pairs(k)
    factor = rng.standard_normal((m, 2 * m)) / np.sqrt(2 * m)

    def loop(A: Array, B: Array, count: Array, n: Array) -> Array:
        def body(i: Array, X: Array) -> Array:
            drifting = A * (1.0 + 0.02 * jnp.sin(i.astype(A.dtype)))
            return solve_sdcp(drifting, B, count, X).X

        return jax.lax.fori_loop(0, n, body, jnp.zeros_like(A))

    with float_mode("float64"):
        A = jnp.asarray(np.diag(-0.01 * rng.uniform(0.5, 1.5, k)))
        args = A, jnp.asarray(factor @ factor.T), jnp.asarray(num_active, jnp.int32)
        compiled = jax.jit(loop).lower(*args, jnp.asarray(1, jnp.int32)).compile()

        def run(n: int) -> Any:
            return jax.block_until_ready(compiled(*args, jnp.asarray(n, jnp.int32)))

        return item_cost(run, repetitions, clock)


@dataclass(frozen=True)
class EigenCosts:
    """Seconds of the eigensolver without its products: of one call, of each pass in it."""

    call_s: float
    pass_s: float


def eigensolver_costs(
    num_params: int, k: int, repetitions: int = 3, clock: Clock = "wall"
) -> EigenCosts:
    """Measure the eigensolver's own algebra, on a diagonal operator that costs next to nothing."""

    def loop(diagonal: Array, guess: Array, passes: Array, n: Array) -> Array:
        def body(_: Array, guess: Array) -> Array:
            result = top_eigenpairs(
                lambda rows, count: rows * diagonal,  # noqa: ARG005
                guess,
                tolerance=0.0,
                min_passes=passes,
                max_passes=passes,  # type: ignore[arg-type]
            )
            return result.eigvecs + 1e-3 * guess

        return jax.lax.fori_loop(0, n, body, guess)

    with float_mode("float64"):
        rng = np.random.default_rng(0)
        diagonal = jnp.asarray(np.linspace(-1.0, 2.0, num_params), jnp.float32)
        guess = jnp.asarray(rng.standard_normal((k, num_params)), jnp.float32)

        def whole(x: int) -> Array:
            return jnp.asarray(x, jnp.int32)

        compiled = jax.jit(loop).lower(diagonal, guess, whole(1), whole(1)).compile()

        def cost(passes: int) -> float:
            def run(n: int) -> Any:
                return jax.block_until_ready(compiled(diagonal, guess, whole(passes), whole(n)))

            return item_cost(run, repetitions, clock)

        call_s = cost(0)
        return EigenCosts(call_s, max(cost(4) - call_s, 0.0) / 4)
