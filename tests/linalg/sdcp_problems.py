"""Complementarity problems with known solutions, and the check of one, in NumPy."""

import jax.numpy as jnp
import numpy as np

from cflows_ray.linalg.sdcp import SDCP_CONVERGED, solve_sdcp
from cflows_ray.linalg.symmetric import num_pairs, pair_indices


def svec(A):
    rows, cols = pair_indices(len(A))
    return np.array(
        [A[a, b] * (1 if a == b else np.sqrt(2)) for a, b in zip(rows, cols, strict=True)]
    )


def smat(x, k):
    A = np.zeros((k, k))
    for value, a, b in zip(x, *pair_indices(k), strict=True):
        A[a, b] = A[b, a] = value / (1 if a == b else np.sqrt(2))
    return A


def constructed(k, rank, kind, seed, skew=0.0):
    """Make a problem with a known solution pair (unique in X if rank >= m)."""
    rng = np.random.default_rng(seed)
    m = num_pairs(k)
    factor = rng.standard_normal((m, rank))
    K = rng.standard_normal((m, m))
    B = factor @ factor.T / rank + skew * (K - K.T)
    Q, _ = np.linalg.qr(rng.standard_normal((k, k)))
    values = rng.uniform(0.1, 1.0, k)
    num_oscillating = k if kind == "all" else int(rng.integers(1, k))
    x, y = values.copy(), values.copy()
    x[num_oscillating:], y[:num_oscillating] = 0, 0
    if kind == "degenerate":  # one direction with neither X nor Y
        x[num_oscillating - 1] = 0
    X, Y = (Q * x) @ Q.T, (Q * y) @ Q.T
    return Y - smat(B @ svec(X), k), B, X, Y


def congruence(t):
    """Change of units of the directions: X -> T X T, Y -> Y / (T T), in svec coordinates too."""
    rows, cols = pair_indices(len(t))
    return np.outer(t, t), t[rows] * t[cols]


def check_solution(A, B, result, tol=1e-9):
    """Recompute the three conditions from the definition, in NumPy."""
    X = np.asarray(result.X)
    Y = A + smat(B @ svec(X), len(A))
    size = np.linalg.norm(A)
    assert int(result.status) == SDCP_CONVERGED
    assert np.linalg.eigvalsh(X)[0] >= -tol * np.linalg.norm(X)
    assert np.linalg.eigvalsh(Y)[0] >= -tol * size
    assert abs(np.sum(X * Y)) <= tol * size * np.linalg.norm(X)
    np.testing.assert_allclose(result.Y, Y, atol=tol * (size + np.linalg.norm(Y - A)))


def solve(A, B, *args, **options):
    return solve_sdcp(jnp.asarray(A), jnp.asarray(B), *args, **options)
