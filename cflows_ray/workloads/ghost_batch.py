"""Means over a batch that is visited slice by slice, so that a large full batch fits in memory.

With slices of size b the loss of n examples is

    L = (1/n) [ Σ_slices Σ_{i in slice} l_i + Σ_{i in the rest} l_i ],

a `lax.scan` over the n // b full slices and one plain term for the rest, so no example is padded
or weighted. Each slice is under `jax.checkpoint`: nothing computed inside it is kept, so gradients,
Hessian-vector products and third derivatives, which differentiate through the scan, hold the
intermediate values of one slice at a time. They pay for it by computing each slice's forward pass
once more per order of differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from cflows_ray.lazy import LazyModule

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, PyTree
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")


def mean_over_examples(
    per_example: Callable[[Any, Any], Array], ghost_batch: int
) -> Callable[[Any, Any], Float[Array, ""]]:
    """`mean(params, data)`: the mean of `per_example(params, batch) -> (n, ...)` over the batch.

    Args:
        per_example: a number for each example (or position) of a batch; must not mix examples.
        ghost_batch: examples in a slice; 0, or at least n, computes the mean at once.

    Example:
        >>> import numpy as np
        >>> mean = mean_over_examples(lambda w, batch: w * batch, ghost_batch=2)
        >>> float(mean(jnp.float32(2.0), np.arange(5, dtype=np.float32)))
        4.0
    """

    def total(params: PyTree, batch: PyTree) -> tuple[Array, int]:
        values = per_example(params, batch)
        return jnp.sum(values), values.size

    def mean(params: PyTree, data: PyTree) -> Float[Array, ""]:
        n = jax.tree.leaves(data)[0].shape[0]
        if not 0 < ghost_batch < n:
            return jnp.mean(per_example(params, data))
        data = jax.tree.map(jnp.asarray, data)
        cut = n - n % ghost_batch
        slices = jax.tree.map(lambda a: a[:cut].reshape(-1, ghost_batch, *a.shape[1:]), data)
        slice_total = jax.checkpoint(lambda w, batch: total(w, batch)[0])

        def add(carry: Array, batch: PyTree) -> tuple[Array, None]:
            return carry + slice_total(params, batch), None

        first = jax.tree.map(lambda a: a[0], slices)
        shape = jax.eval_shape(per_example, params, first)
        result, _ = jax.lax.scan(add, jnp.zeros((), shape.dtype), slices)
        if cut < n:
            result = result + slice_total(params, jax.tree.map(lambda a: a[cut:], data))
        return result / (n * (shape.size // ghost_batch))

    return mean
