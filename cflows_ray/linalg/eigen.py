"""Top eigenpairs of a symmetric operator, warm-started: block Rayleigh-Ritz with memory.

One pass extends the current block V (k rows) by its residuals R = AV - ΘV and by the last
correction C, and takes the top k Ritz pairs of span[V, R, C]: the locally optimal block method of
Knyazev (SIAM J. Sci. Comput. 23, 2001) with a full re-orthogonalisation. Only R needs new products
(k a pass); AV and AC are carried along.

| symbol | here |
| --- | --- |
| A | `matvecs`, maps rows (k, d) to rows (k, d) |
| V, θ | `eigvecs` (k, d) with orthonormal rows, `eigvals` (k,), descending |

Departures from the paper, with reasons: no preconditioner; directions that are numerically inside
the span already (a residual at rounding level, or 3k > d) are masked instead of dropped, since
shapes must not change; the stopping test looks at each pair's own residual, so negative eigenvalues
do no harm; and it asks convergence only of the pairs that the caller requires.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

EIG_CONVERGED = 0
EIG_UNCONVERGED = 1

Matvecs = Callable[[Float[Array, "k d"]], Float[Array, "k d"]]
Required = Callable[[Float[Array, " k"]], Bool[Array, " k"]]


class EigenResult(NamedTuple):
    """Top eigenpairs, how good they are, and what they cost.

    Attributes:
        eigvals: θ, shape (k,), descending.
        eigvecs: rows v with |v| = 1, shape (k, d).
        residuals: |Av - θv| / max(1, |θ|), shape (k,).
        num_products: products with A, int32.
        status: `EIG_CONVERGED` if every required pair met the tolerance, else `EIG_UNCONVERGED`.
    """

    eigvals: Float[Array, " k"]
    eigvecs: Float[Array, "k d"]
    residuals: Float[Array, " k"]
    num_products: Int[Array, ""]
    status: Int[Array, ""]


class _Block(NamedTuple):
    """Ritz values, vectors V and products AV; last correction C and AC; passes done."""

    theta: Float[Array, " k"]
    V: Float[Array, "k d"]
    AV: Float[Array, "k d"]
    C: Float[Array, "k d"]
    AC: Float[Array, "k d"]
    passes: Int[Array, ""]


def orthonormal_rows(rows: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """Return an orthonormal basis of the row space, by QR; rows must be independent."""
    return jnp.linalg.qr(rows.T)[0].T


def top_eigenpairs(
    matvecs: Matvecs,
    guess: Float[Array, "k d"],
    *,
    tolerance: float,
    required: Required | None = None,
    min_passes: Int[Array, ""] | int = 0,
    max_passes: int = 100,
) -> EigenResult:
    """Return the k algebraically largest eigenpairs of a symmetric operator.

    Args:
        matvecs: the operator on rows.
        guess: k independent rows, k <= d; the last result, or random numbers.
        tolerance: largest accepted |Av - θv| / max(1, |θ|) of a required pair.
        required: maps eigenvalues to which of them must converge; all, unless given. The top one
            always must.
        min_passes: passes that are made even if the guess is good enough: they look for eigenvalues
            that the guess does not contain.
        max_passes: after so many the result is returned as it is, with `EIG_UNCONVERGED`.

    Never raises for data: read `status`.

    Example:
        >>> import jax
        >>> A = jnp.diag(jnp.arange(1.0, 31.0))
        >>> guess = jax.random.normal(jax.random.key(0), (2, 30))
        >>> result = top_eigenpairs(lambda V: V @ A, guess, tolerance=1e-3)
        >>> [round(float(x), 2) for x in result.eigvals], int(result.status)
        ([30.0, 29.0], 0)
    """
    k = guess.shape[0]
    if k > guess.shape[1]:
        raise ValueError(f"guess must have at most d={guess.shape[1]} rows, got {k}")
    accept = jnp.maximum(tolerance, 20 * jnp.finfo(guess.dtype).eps)

    def unconverged(block: _Block) -> Bool[Array, ""]:
        needed = jnp.zeros(k, bool).at[0].set(True)
        needed = jnp.ones(k, bool) if required is None else needed | required(block.theta)
        return jnp.any(needed & ~(_residuals(block) <= accept))

    def proceed(block: _Block) -> Bool[Array, ""]:
        wanted = unconverged(block) | (block.passes < min_passes)
        return wanted & (block.passes < max_passes) & jnp.all(jnp.isfinite(block.theta))

    V = orthonormal_rows(guess)
    start = _rotate(V, matvecs(V))
    block = jax.lax.while_loop(proceed, lambda b: _extend(matvecs, b), start)
    return EigenResult(
        eigvals=block.theta,
        eigvecs=block.V,
        residuals=_residuals(block),
        num_products=k * (1 + block.passes),
        status=jnp.where(unconverged(block), EIG_UNCONVERGED, EIG_CONVERGED).astype(jnp.int32),
    )


def _residuals(block: _Block) -> Float[Array, " k"]:
    norms = jnp.linalg.norm(block.AV - block.theta[:, None] * block.V, axis=1)
    return norms / jnp.maximum(1.0, jnp.abs(block.theta))


def _rotate(V: Float[Array, "k d"], AV: Float[Array, "k d"]) -> _Block:
    """Rayleigh-Ritz inside span V."""
    T = V @ AV.T
    theta, Q = _descending_eigh(T)
    zeros = jnp.zeros_like(V)
    return _Block(theta, Q.T @ V, Q.T @ AV, zeros, zeros, jnp.zeros((), jnp.int32))


def _extend(matvecs: Matvecs, block: _Block) -> _Block:
    """One pass: Rayleigh-Ritz in span[V, R, C]."""
    k = block.V.shape[0]
    residual = block.AV - block.theta[:, None] * block.V
    W, alive_W, _ = _orthonormalise_against(residual, block.V)
    AW = matvecs(W)
    inside = jnp.concatenate([block.V, W])
    # products of C are combined with the same coefficients as C itself, never recomputed
    C, alive_C, AC = _orthonormalise_against(
        block.C, inside, block.AC, jnp.concatenate([block.AV, AW])
    )
    S, AS = jnp.concatenate([inside, C]), jnp.concatenate([block.AV, AW, AC])
    alive = jnp.concatenate([jnp.ones(k, bool), alive_W, alive_C])
    T = jnp.where(alive[:, None] & alive[None, :], S @ AS.T, 0.0)
    # a masked direction must sort below every true Ritz value, however negative
    below = -1.0 - 2.0 * jnp.linalg.norm(T)
    T = T + jnp.diag(jnp.where(alive, 0.0, below))
    theta, Q = _descending_eigh(T)
    Q = Q[:, :k]
    correction = Q.at[:k].set(0.0)
    return _Block(
        theta[:k], Q.T @ S, Q.T @ AS, correction.T @ S, correction.T @ AS, block.passes + 1
    )


def _orthonormalise_against(
    rows: Float[Array, "k d"],
    basis: Float[Array, "n d"],
    products: Float[Array, "k d"] | None = None,
    basis_products: Any = None,
) -> tuple[Float[Array, "k d"], Bool[Array, " k"], Any]:
    """Make rows orthonormal and orthogonal to a basis; rows that lie in its span become 0.

    Returns the rows, which of them are alive, and their products under the same row operations.
    """
    eps = jnp.finfo(rows.dtype).eps
    tiny = jnp.finfo(rows.dtype).tiny

    def scale(coefficients: Array, x: Array, y: Any) -> tuple[Array, Any]:
        return coefficients @ x, None if y is None else coefficients @ y

    def project(x: Array, y: Any) -> tuple[Array, Any]:
        overlap = x @ basis.T
        return x - overlap @ basis, None if y is None else y - overlap @ basis_products

    norms = jnp.linalg.norm(rows, axis=1)
    rows, products = scale(jnp.diag(jnp.where(norms > tiny, 1.0 / norms, 0.0)), rows, products)
    for _ in range(2):  # once for the span, once for the rounding that normalisation blows up
        rows, products = project(rows, products)
        gamma, Q = jnp.linalg.eigh(rows @ rows.T)
        alive = gamma > jnp.sqrt(eps) * jnp.maximum(gamma[-1], jnp.sqrt(eps))
        inverse_root = jnp.where(alive, 1.0 / jnp.sqrt(jnp.where(alive, gamma, 1.0)), 0.0)
        rows, products = scale(inverse_root[:, None] * Q.T, rows, products)
    return rows, alive, products


def _descending_eigh(T: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    theta, Q = jnp.linalg.eigh(0.5 * (T + T.T))
    return theta[::-1], Q[:, ::-1]
