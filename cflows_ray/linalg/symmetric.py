"""Symmetric matrices as vectors, so that inner products are kept.

``svec`` lists the pairs (a, b), a <= b, ordered by b and then a: (0,0), (0,1), (1,1), (0,2), (1,2),
(2,2), ...  Off-diagonal entries are multiplied by sqrt 2, so that

    svec(A) · svec(B) = <A, B> = trace(A B).

In this order the first c(c+1)/2 entries are the leading c x c block, whatever k is: a problem on
the first c of k directions is a leading slice.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def num_pairs(k: int) -> int:
    """Return m = k(k+1)/2, the length of ``svec`` of a k x k matrix.

    Raises:
        ValueError: If ``k`` is negative.

    Example:
        >>> num_pairs(3)
        6
    """
    if k < 0:
        raise ValueError(f"k must be >= 0, got {k}")
    return k * (k + 1) // 2


@functools.lru_cache(maxsize=64)
def pair_indices(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the column of every ``svec`` entry of a k x k matrix.

    Args:
        k: Size of the matrix, >= 0.

    Returns:
        ``(rows, cols)``, read-only int32 arrays of shape (m,), rows <= cols.

    Raises:
        ValueError: If ``k`` is negative.

    Example:
        >>> [a.tolist() for a in pair_indices(2)]
        [[0, 0, 1], [0, 1, 1]]
    """
    num_pairs(k)
    cols, rows = np.nonzero(np.tri(k, dtype=bool))
    rows, cols = rows.astype(np.int32), cols.astype(np.int32)
    rows.setflags(write=False)  # shared through the cache
    cols.setflags(write=False)
    return rows, cols


@functools.lru_cache(maxsize=64)
def pair_positions(k: int) -> np.ndarray:
    """Return the symmetric (k, k) int32 table of where entry (a, b) sits in ``svec``.

    Example:
        >>> pair_positions(2).tolist()
        [[0, 1], [1, 2]]
    """
    rows, cols = pair_indices(k)
    table = np.zeros((k, k), dtype=np.int32)
    table[rows, cols] = table[cols, rows] = np.arange(rows.size, dtype=np.int32)
    table.setflags(write=False)
    return table


def svec(A: Float[Array, "*batch k k"]) -> Float[Array, "*batch m"]:
    """Stack the upper triangle of a symmetric matrix, off-diagonals times sqrt 2.

    The strictly lower triangle is not read. Leading axes are batch axes.

    Args:
        A: Symmetric matrices, shape (..., k, k).

    Returns:
        Shape (..., m), m = k(k+1)/2, with ``svec(A) · svec(B) = trace(A B)``; dtype of ``A``.

    Raises:
        ValueError: If the last two axes differ.

    Example:
        >>> [round(x, 3) for x in svec(jnp.array([[1.0, 2.0], [2.0, 3.0]])).tolist()]
        [1.0, 2.828, 3.0]
    """
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ValueError(f"A must have shape (..., k, k), got {A.shape}")
    rows, cols = pair_indices(A.shape[-1])
    weights = jnp.asarray(np.where(rows == cols, 1.0, math.sqrt(2.0)), dtype=A.dtype)
    return jnp.asarray(A)[..., rows, cols] * _lift(weights, A.ndim - 1)


def smat(x: Float[Array, "*batch m"], k: int) -> Float[Array, "*batch k k"]:
    """Inverse of ``svec``: the symmetric k x k matrix with the given entries.

    Args:
        x: Vectors, shape (..., m), m = k(k+1)/2. Leading axes are batch axes.
        k: Size of the matrix (static).

    Returns:
        Exactly symmetric matrices, shape (..., k, k); dtype of ``x``.

    Raises:
        ValueError: If the last axis of ``x`` is not k(k+1)/2 long.

    Example:
        >>> smat(jnp.array([1.0, 0.0, 3.0]), 2).tolist()
        [[1.0, 0.0], [0.0, 3.0]]
    """
    if x.ndim < 1 or x.shape[-1] != num_pairs(k):
        raise ValueError(f"x must have shape (..., {num_pairs(k)}) for k={k}, got {x.shape}")
    weights = jnp.asarray(np.where(np.eye(k, dtype=bool), 1.0, math.sqrt(0.5)), dtype=x.dtype)
    return jnp.asarray(x)[..., pair_positions(k)] * _lift(weights, x.ndim + 1)


def _lift(weights: Array, ndim: int) -> Array:
    """Add leading axes of length one (rank promotion may be an error)."""
    return weights.reshape((1,) * (ndim - weights.ndim) + weights.shape)
