"""Derivatives of a loss on flat parameters: gradient, Hessian products, third derivatives.

    H v = ∇²L(w) v            `Linearization.hessian_vectors`, from one linearization
    ∇_w (uᵀ H(w) v)           `third_derivative`, a vector: ∇³L(w)[u, v, ·]

Everything here follows the dtype of `params`: for float32 parameters the loss and all its
derivatives are traced with JAX's 64-bit mode off, whatever mode the caller is in, so that a loss
that makes its own arrays with default dtypes stays in float32. Matrix products use the highest
precision (no TF32 on GPUs). Neither changes JAX's global configuration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

Loss = Callable[[Float[Array, " d"]], Float[Array, ""]]

# Products that a GPU computes in one batch: a full batch of examples each, so that a few fill it,
# and more would only take memory (12 at a time: 24 GB for the paper's ViT in slices of 250).
PRODUCTS_AT_ONCE = 4


@contextlib.contextmanager
def float_mode(dtype: jnp.dtype | str) -> Iterator[None]:
    """Trace the code inside at full precision, in 64-bit mode if and only if `dtype` is float64."""
    with jax.enable_x64(jnp.dtype(dtype) == jnp.float64), jax.default_matmul_precision("highest"):
        yield


@contextlib.contextmanager
def standard_settings() -> Iterator[None]:
    """Run code of ours as it was written for, whatever JAX's settings are outside.

    Strict promotion of ranks and dtypes, guards of transfers, `jax_debug_nans`, `jax_debug_infs`
    and `jax_disable_jit` are off inside: NaN stands here for what is not defined, and programs are
    compiled. A user's own functions are traced outside of it.
    """
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.transfer_guard("allow"),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.disable_jit(False),
    ):
        yield


class Linearization(NamedTuple):
    """A loss at a point: its value, its gradient, and the linear map v ↦ Hv.

    Attributes:
        value: L(w), shape ().
        grad: ∇L(w), shape (d,).
        hessian_vectors: `hessian_vectors(V, count)` maps rows V of shape (k, d) to rows HV of shape
            (k, d). With a traced `count` only the leading rows are asked for; what the others
            become is not defined.
    """

    value: Float[Array, ""]
    grad: Float[Array, " d"]
    hessian_vectors: Callable[..., Float[Array, "k d"]]


def value_and_grad(
    loss: Loss, params: Float[Array, " d"]
) -> tuple[Float[Array, ""], Float[Array, " d"]]:
    """Return L(w) and ∇L(w)."""
    with float_mode(params.dtype):
        return jax.value_and_grad(loss)(params)


def linearize_gradient(loss: Loss, params: Float[Array, " d"]) -> Linearization:
    """Return value, gradient and Hessian products at a point, linearized once.

    The linear map holds the point's intermediate values, so each further product costs only the
    linear part of the computation.

    Example:
        >>> import jax.numpy as jnp
        >>> at = linearize_gradient(lambda w: jnp.sum(w**4), jnp.array([1.0, 2.0]))
        >>> at.hessian_vectors(jnp.eye(2))  # the Hessian diag(12 w²)
        Array([[12.,  0.],
               [ 0., 48.]], dtype=float32)
    """
    with float_mode(params.dtype):
        (value, grad), tangent_map = jax.linearize(jax.value_and_grad(loss), params)

    def product(vector: Float[Array, " d"]) -> Float[Array, " d"]:
        return tangent_map(vector)[1]

    def hessian_vectors(
        vectors: Float[Array, "k d"], count: Array | int | None = None
    ) -> Float[Array, "k d"]:
        count = jnp.asarray(vectors.shape[0] if count is None else count, jnp.int32)
        with float_mode(params.dtype):
            # a batch of products takes a CPU as long as one after the other; a GPU does a small
            # batch in the time of one
            return jax.lax.platform_dependent(
                vectors,
                count,
                cpu=partial(map_rows, product, 1),
                default=partial(map_rows, product, PRODUCTS_AT_ONCE),
            )

    return Linearization(value, grad, hessian_vectors)


def map_rows(
    function: Callable[[Float[Array, " d"]], Float[Array, " d"]],
    batch: int,
    rows: Float[Array, "k d"],
    count: Int[Array, ""],
) -> Float[Array, "k d"]:
    """Apply a function to the leading `count` rows, `batch` of them at a time.

    Rows past `count` that fill up the last batch are computed, others come back as zeros.

    Example:
        >>> map_rows(lambda v: 2 * v, 2, jnp.ones((5, 1)), jnp.array(3)).ravel()
        Array([2., 2., 2., 2., 0.], dtype=float32)
    """
    k, d = rows.shape
    num_blocks = -(-k // batch)
    blocks = jnp.pad(rows, ((0, num_blocks * batch - k), (0, 0))).reshape(num_blocks, batch, d)

    def fill(i: Array, out: Array) -> Array:
        # no batch of one: the compiler makes faster code of a plain function
        block = function(blocks[i, 0])[None] if batch == 1 else jax.vmap(function)(blocks[i])
        return out.at[i].set(block)

    out = jax.lax.fori_loop(0, -(-count // batch), fill, jnp.zeros_like(blocks))
    return out.reshape(-1, d)[:k]


def third_derivative(
    loss: Loss, params: Float[Array, " d"], u: Float[Array, " d"], v: Float[Array, " d"]
) -> Float[Array, " d"]:
    """Return ∇_w (uᵀ H(w) v) = ∇³L(w)[u, v, ·], shape (d,).

    Example:
        >>> import jax.numpy as jnp
        >>> w, e = jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0])
        >>> third_derivative(lambda w: jnp.sum(w**4), w, e, e)  # 24 w along e
        Array([ 0., 48.], dtype=float32)
    """

    def hessian_u(point: Float[Array, " d"]) -> Float[Array, " d"]:
        return jax.jvp(jax.grad(loss), (point,), (u,))[1]

    with float_mode(params.dtype):
        return jax.jvp(hessian_u, (params,), (v,))[1]


class Along(NamedTuple):
    """A loss and its derivatives at a point, with a direction u put into all but one slot.

    Attributes:
        value: L(w), shape ().
        grad: ∇L(w), shape (d,).
        hessian_u: H(w) u, shape (d,).
        third_uu: ∇³L(w)[u, u, ·], shape (d,).
    """

    value: Float[Array, ""]
    grad: Float[Array, " d"]
    hessian_u: Float[Array, " d"]
    third_uu: Float[Array, " d"]

    def slopes(self, u: Float[Array, " d"]) -> Float[Array, "4"]:
        """Return φ and three derivatives of φ(t) = L(w + t u) at t = 0."""
        return jnp.stack([self.value, *(jnp.vdot(u, x) for x in self[1:])])


def derivatives_along(loss: Loss, params: Float[Array, " d"], u: Float[Array, " d"]) -> Along:
    """Return the loss and its first three derivatives as differentiation makes them, in one go.

    Example:
        >>> import jax.numpy as jnp
        >>> w, e = jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0])
        >>> derivatives_along(lambda w: jnp.sum(w**4), w, e).slopes(e)
        Array([17., 32., 48., 48.], dtype=float32)
    """

    def second(point: Float[Array, " d"]) -> tuple[Array, Array, Array]:
        (value, grad), (_, hessian_u) = jax.jvp(jax.value_and_grad(loss), (point,), (u,))
        return value, grad, hessian_u

    with float_mode(params.dtype):
        (value, grad, hessian_u), (_, _, third_uu) = jax.jvp(second, (params,), (u,))
    return Along(value, grad, hessian_u, third_uu)


def averaged(
    function: Callable[[Float[Array, " d"]], PyTree],
    params: Float[Array, " d"],
    rows: Float[Array, "r d"],
    rank: Int[Array, ""],
) -> PyTree:
    """Return f(w) + ½<f''(w), Σ>, Σ = ZᵀZ: the mean of any f over an oscillation of covariance Σ.

    To second order in the oscillation (Cohen et al. 2025; docs/theory.md, "What it predicts"). Two
    directional derivatives a row of Z, no Hessian.

    Args:
        function: f, of parameters (d,); returns arrays, such as a loss or a network's outputs.
        params: w.
        rows: Z; only the leading `rank` rows are looked at.
        rank: how many, traced.

    Example:
        >>> import jax.numpy as jnp
        >>> z = jnp.array([[0.0, 0.5]])
        >>> averaged(lambda w: jnp.sum(w**2), jnp.array([1.0, 2.0]), z, jnp.array(1))  # 5 + |z|²
        Array(5.25, dtype=float32)
    """

    def curved(z: Float[Array, " d"]) -> PyTree:
        def slope(w: Float[Array, " d"]) -> PyTree:
            return jax.jvp(function, (w,), (z,))[1]

        return jax.jvp(slope, (params,), (z,))[1]

    def add(i: Array, total: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: a + 0.5 * b, total, curved(rows[i]))

    with float_mode(params.dtype):
        return jax.lax.fori_loop(0, rank, add, function(params))
