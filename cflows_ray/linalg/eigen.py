"""Top eigenpairs of a symmetric operator, warm-started: block Rayleigh-Ritz with memory.

One pass extends the current block V (k rows) by directions W made of its residuals R = AV - ΘV and
by the last correction C, and takes the top Ritz pairs of span[V, W, C]: the locally optimal block
method of Knyazev (SIAM J. Sci. Comput. 23, 2001) with a full re-orthogonalisation. Only W needs new
products; AV and AC are carried along.

| symbol | here |
| --- | --- |
| A | `matvecs`, maps the leading rows of a (k, d) array |
| V, θ | `eigvecs` (k, d) with orthonormal rows, `eigvals` (k,), descending |

Departures from the paper, with reasons: no preconditioner; a pair that need not converge gives no
direction of its own, the residuals of all such pairs make one together (products are what costs,
and one direction is enough to notice an eigenvector that the block lacks); directions that are
numerically inside the span already (a residual at rounding level, or 3k > d) are masked instead of
dropped, since shapes must not change; the stopping test looks at each pair's own residual, so
negative eigenvalues do no harm; and it asks convergence only of the pairs that the caller requires.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

EIG_CONVERGED = 0
EIG_UNCONVERGED = 1

# Passes after which every residual gives a direction: pairs that must converge but lie close to
# others converge with the gap below the whole block, not with the gaps inside it.
PATIENCE = 3

# maps the leading `count` rows V of a (k, d) array to rows AV; what the others become is not read
Matvecs = Callable[[Float[Array, "k d"], Int[Array, ""]], Float[Array, "k d"]]
Required = Callable[[Float[Array, " k"]], Bool[Array, " k"]]


class EigenResult(NamedTuple):
    """Top eigenpairs, how good they are, and what they cost.

    Attributes:
        eigvals: θ, shape (k,), descending; -inf for rows that were not refreshed.
        eigvecs: rows v with |v| = 1, shape (k, d).
        residuals: |Av - θv| / max(1, |θ|), shape (k,); 0 for rows that were not refreshed.
        num_products: products with A, int32.
        status: `EIG_CONVERGED` if every required pair met the tolerance, else `EIG_UNCONVERGED`.
    """

    eigvals: Float[Array, " k"]
    eigvecs: Float[Array, "k d"]
    residuals: Float[Array, " k"]
    num_products: Int[Array, ""]
    status: Int[Array, ""]


class _Block(NamedTuple):
    """Ritz values, vectors V and products AV; last correction C and AC; what was done so far.

    `rounds` counts the first Rayleigh-Ritz step in span V as well as the passes after it.
    """

    theta: Float[Array, " k"]
    V: Float[Array, "k d"]
    AV: Float[Array, "k d"]
    C: Float[Array, "k d"]
    AC: Float[Array, "k d"]
    rounds: Int[Array, ""]
    num_products: Int[Array, ""]


def orthonormal_rows(rows: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """Return an orthonormal basis of the row space, by QR; rows must be independent."""
    return jnp.linalg.qr(rows.T)[0].T


def top_eigenpairs(
    matvecs: Matvecs,
    guess: Float[Array, "k d"],
    *,
    tolerance: float,
    required: Required | None = None,
    num_active: Int[Array, ""] | int | None = None,
    min_passes: Int[Array, ""] | int = 0,
    min_directions: Int[Array, ""] | int = 0,
    max_passes: int = 100,
) -> EigenResult:
    """Return the k algebraically largest eigenpairs of a symmetric operator.

    Args:
        matvecs: `matvecs(rows, count)`, the operator on the leading `count` rows.
        guess: k independent rows, k <= d; the last result, or random numbers.
        tolerance: largest accepted |Av - θv| / max(1, |θ|) of a required pair.
        required: maps eigenvalues to which of them must converge; all, unless given.
        num_active: only so many leading rows are refreshed, at no cost for the others, which stay
            as they are, no longer orthogonal to the refreshed ones; traced, all unless given.
        min_passes: passes that are made even if the guess is good enough: they look for eigenvalues
            that the guess does not contain.
        min_directions: residuals that give a direction of their own in every pass, required or not;
            traced. k makes a block of random rows converge as a whole.
        max_passes: after so many the result is returned as it is, with `EIG_UNCONVERGED`.

    Never raises for data: read `status`.

    Example:
        >>> import jax
        >>> A = jnp.diag(jnp.arange(1.0, 31.0))
        >>> guess = jax.random.normal(jax.random.key(0), (2, 30))
        >>> result = top_eigenpairs(lambda V, count: V @ A, guess, tolerance=1e-3)
        >>> [round(float(x), 2) for x in result.eigvals], int(result.status)
        ([30.0, 29.0], 0)
    """
    k = guess.shape[0]
    if k > guess.shape[1]:
        raise ValueError(f"guess must have at most d={guess.shape[1]} rows, got {k}")
    accept = jnp.maximum(tolerance, 20 * jnp.finfo(guess.dtype).eps)
    count = jnp.asarray(k if num_active is None else num_active, jnp.int32)
    active = jnp.arange(k) < count

    def unconverged(block: _Block) -> Bool[Array, " k"]:
        needed = jnp.ones(k, bool) if required is None else required(block.theta)
        return active & needed & ~(_residuals(block) <= accept)

    def proceed(block: _Block) -> Bool[Array, ""]:
        passes = block.rounds - 1
        wanted = jnp.any(unconverged(block)) | (passes < min_passes)
        wanted &= (passes < max_passes) & jnp.all(jnp.isfinite(block.theta))
        return (block.rounds == 0) | wanted

    def one_round(block: _Block) -> _Block:
        # one call of `matvecs` for the first step and all passes: it is what takes long to compile
        is_first = block.rounds == 0
        least = jnp.where(block.rounds > PATIENCE, k, min_directions)
        W, num_new = jax.lax.cond(
            is_first,
            lambda: (block.V, count),
            lambda: _search_directions(block, unconverged(block), count, least),
        )
        AW = matvecs(W, num_new)
        AW = jnp.where(jnp.arange(k)[:, None] < num_new, AW, 0.0)
        return jax.lax.cond(
            is_first, lambda: _rotate(block, AW, count), lambda: _extend(block, W, AW, count)
        )

    zeros, zero = jnp.zeros_like(guess), jnp.zeros((), jnp.int32)
    start = _Block(zeros[:, 0], orthonormal_rows(guess), zeros, zeros, zeros, zero, zero)
    block = jax.lax.while_loop(proceed, one_round, start)
    failed = jnp.any(unconverged(block))
    return EigenResult(
        eigvals=jnp.where(active, block.theta, -jnp.inf),
        eigvecs=block.V,
        residuals=jnp.where(active, _residuals(block), 0.0),
        num_products=block.num_products,
        status=jnp.where(failed, EIG_UNCONVERGED, EIG_CONVERGED).astype(jnp.int32),
    )


def _residuals(block: _Block) -> Float[Array, " k"]:
    norms = jnp.linalg.norm(block.AV - block.theta[:, None] * block.V, axis=1)
    return norms / jnp.maximum(1.0, jnp.abs(block.theta))


def _search_directions(
    block: _Block, unconverged: Bool[Array, " k"], count: Array, least: Array | int
) -> tuple[Float[Array, "k d"], Int[Array, ""]]:
    """Return orthonormal rows W ⟂ V, the usable ones first, and how many are usable."""
    index = jnp.arange(block.V.shape[0])
    residual = block.AV - block.theta[:, None] * block.V
    residual = jnp.where(index[:, None] < count, residual, 0.0)
    # the required pairs are the leading ones: everything down to the last that is unconverged
    own = jnp.max(jnp.where(unconverged, index + 1, 0))
    own = jnp.minimum(jnp.maximum(own, least), count)
    rest = jnp.sum(jnp.where(index[:, None] >= own, residual, 0.0), axis=0)
    rows = jnp.where(index[:, None] < own, residual, 0.0)
    rows = jnp.where(index[:, None] == own, rest, rows)
    W, alive, _ = _orthonormalise_against(rows, jnp.where(index[:, None] < count, block.V, 0.0))
    return W, jnp.sum(alive).astype(jnp.int32)


def _rotate(block: _Block, AV: Float[Array, "k d"], count: Array) -> _Block:
    """Rayleigh-Ritz inside span V."""
    V, active = block.V, jnp.arange(AV.shape[0]) < count
    theta, Q = _leading_ritz_pairs(V @ AV.T, active)
    return block._replace(
        theta=jnp.where(active, theta, 0.0),
        V=jnp.where(active[:, None], Q.T @ V, V),
        AV=Q.T @ AV,
        rounds=block.rounds + 1,
        num_products=count,
    )


def _extend(block: _Block, W: Float[Array, "k d"], AW: Float[Array, "k d"], count: Array) -> _Block:
    """One pass: Rayleigh-Ritz in span[V, W, C]."""
    k = W.shape[0]
    active, alive_W = jnp.arange(k) < count, jnp.any(W != 0, axis=1)
    inside = jnp.concatenate([jnp.where(active[:, None], block.V, 0.0), W])

    def correction() -> tuple[Array, Array, Array]:
        # products of C are combined with the same coefficients as C itself, never recomputed
        return _orthonormalise_against(block.C, inside, block.AC, jnp.concatenate([block.AV, AW]))

    C, alive_C, AC = jax.lax.cond(
        block.rounds > 1, correction, lambda: (block.C, jnp.zeros(k, bool), block.AC)
    )
    S, AS = jnp.concatenate([inside, C]), jnp.concatenate([block.AV, AW, AC])
    theta, Q = _leading_ritz_pairs(S @ AS.T, jnp.concatenate([active, alive_W, alive_C]))
    Q = Q[:, :k]
    new = Q.at[:k].set(0.0)
    rows = active[:, None]
    return _Block(
        theta=jnp.where(active, theta[:k], 0.0),
        V=jnp.where(rows, Q.T @ S, block.V),
        AV=jnp.where(rows, Q.T @ AS, 0.0),
        C=jnp.where(rows, new.T @ S, 0.0),
        AC=jnp.where(rows, new.T @ AS, 0.0),
        rounds=block.rounds + 1,
        num_products=block.num_products + jnp.sum(alive_W).astype(jnp.int32),
    )


def _orthonormalise_against(
    rows: Float[Array, "k d"],
    basis: Float[Array, "n d"],
    products: Float[Array, "k d"] | None = None,
    basis_products: Any = None,
) -> tuple[Float[Array, "k d"], Bool[Array, " k"], Any]:
    """Make rows orthonormal and orthogonal to a basis; rows that lie in its span become 0.

    Returns the rows, which of them are alive (these come first), and their products under the same
    row operations. Scaling a short row up scales the rounding errors of its product up as well, to
    spurious eigenvalues of any size in the end; so rows that come with products are given up early.
    """
    eps = jnp.finfo(rows.dtype).eps
    shortest = jnp.finfo(rows.dtype).tiny if products is None else eps**0.4
    dependent = eps if products is None else jnp.cbrt(eps)

    def scale(coefficients: Array, x: Array, y: Any) -> tuple[Array, Any]:
        return coefficients @ x, None if y is None else coefficients @ y

    def project(x: Array, y: Any) -> tuple[Array, Any]:
        overlap = x @ basis.T
        return x - overlap @ basis, None if y is None else y - overlap @ basis_products

    norms = jnp.linalg.norm(rows, axis=1)
    rows, products = scale(jnp.diag(jnp.where(norms > shortest, 1.0 / norms, 0.0)), rows, products)
    for _ in range(2):  # once for the span, once for the rounding that normalisation blows up
        rows, products = project(rows, products)
        gamma, Q = _descending_eigh(rows @ rows.T)
        alive = gamma > jnp.maximum(dependent, jnp.sqrt(eps) * gamma[0])
        inverse_root = jnp.where(alive, 1.0 / jnp.sqrt(jnp.where(alive, gamma, 1.0)), 0.0)
        rows, products = scale(inverse_root[:, None] * Q.T, rows, products)
    return rows, alive, products


def _leading_ritz_pairs(
    T: Float[Array, "n n"], alive: Bool[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Eigenpairs of T on the living directions, descending, then each masked one for itself."""
    T = jnp.where(alive[:, None] & alive[None, :], T, 0.0)
    # a masked direction must sort below every true Ritz value, however negative
    below = -1.0 - 2.0 * jnp.linalg.norm(T)
    return _descending_eigh(T + jnp.diag(jnp.where(alive, 0.0, below)))


def _descending_eigh(T: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    theta, Q = jnp.linalg.eigh(0.5 * (T + T.T))
    return theta[::-1], Q[:, ::-1]
