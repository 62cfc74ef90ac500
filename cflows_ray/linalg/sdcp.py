"""The semidefinite complementarity problem of the central flow, solved inside JAX.

    find X ⪰ 0  with  Y = A + smat(B svec X) ⪰ 0  and  <X, Y> = 0.

A is k x k symmetric; B acts on ``svec`` coordinates (m = k(k+1)/2), monotone: symmetric positive
semidefinite up to a small skew part. For symmetric B it is: minimise ½<X, B X> + <A, X>, X ⪰ 0.

| symbol | meaning |
| --- | --- |
| T, β | scaling: Â = T A T, B̂ = (T⊗T) B (T⊗T) / β, X = T X̂ T / β; powers of two, so exact |

Methods, cheapest first, each accepted only if the residuals of its X, computed afresh, are small:
X = 0; the closed form of one direction; B x = -a (all directions oscillate, Y = 0); semismooth
Newton on Z from the guess; a primal-dual interior-point method with Nesterov-Todd scaling, which
needs no guess, polished by Newton. The number of active directions is traced: changing it never
recompiles.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from cflows_ray.linalg.sdcp_methods import (
    METHOD_CLOSED_FORM,
    METHOD_ZERO,
    Candidate,
    Scaled,
    apply_operator,
    interior_point,
    merge,
    newton,
    safe_ratio,
)
from cflows_ray.linalg.symmetric import num_pairs, pair_indices, pair_positions, smat, svec

SDCP_CONVERGED = 0
SDCP_UNCONVERGED = 1

_TINY = float(np.finfo(np.float64).tiny)
# Up to three active directions have their own program where k > 5; below that, running them padded
# to k costs some 20 µs a solve, and the second program a third of the compile time
_SMALL, _PADDED_UP_TO = 3, 5


class SDCPResult(NamedTuple):
    """Solution of one problem, float64, and how far to trust it.

    With hats for the equilibrated problem (unit-free, so that the residuals do not change when A,
    B or single directions are rescaled), ‖·‖ the Frobenius norm and λ the smallest eigenvalue:

        primal_residual = max(0, -λ(X̂)) / ‖X̂‖
        dual_residual   = max(0, -λ(Ŷ)) / ‖Â‖
        complementarity = |<X̂, Ŷ>| / (‖X̂‖ ‖Â‖)

    with 0/0 = 0, and infinity where the input is not finite.

    Attributes:
        X: (k, k), zero outside the leading num_active block.
        Y: (k, k), A + smat(B svec X) on that block, zero outside.
        primal_residual: Scalar, see above.
        dual_residual: Scalar, see above.
        complementarity: Scalar, see above.
        num_iterations: Linear systems of size m that were factorised.
        status: ``SDCP_CONVERGED`` if all three residuals are <= tol, else ``SDCP_UNCONVERGED``.
        method: Which method produced X (``METHOD_*`` of ``sdcp_methods``).
    """

    X: Float[Array, "k k"]
    Y: Float[Array, "k k"]
    primal_residual: Float[Array, ""]
    dual_residual: Float[Array, ""]
    complementarity: Float[Array, ""]
    num_iterations: Int[Array, ""]
    status: Int[Array, ""]
    method: Int[Array, ""]


def solve_sdcp(
    A: Float[Array, "k k"],
    B: Float[Array, "m m"],
    num_active: Int[Array, ""] | int | None = None,
    X_guess: Float[Array, "k k"] | None = None,
    *,
    tol: float = 1e-10,
    max_iterations: int = 60,
) -> SDCPResult:
    """Find X ⪰ 0 with Y = A + smat(B svec X) ⪰ 0 and <X, Y> = 0.

    Runs under ``jit``, ``vmap`` and ``lax.scan``. Never raises for what the arrays hold: a problem
    without a solution (B = 0 with A not psd) or with NaN in it comes back ``SDCP_UNCONVERGED``
    with the best X found (zeros for NaN).

    Args:
        A: (k, k) symmetric; only its upper triangle is read.
        B: (m, m), m = k(k+1)/2, acting on ``svec`` coordinates; may be rank-deficient or zero,
            and slightly non-symmetric.
        num_active: Only the leading num_active x num_active block of A, and the block of B that
            belongs to it, enter (traced; clipped to 0..k). Default k.
        X_guess: (k, k) warm start, such as the previous solution. Any finite matrix is safe.
        tol: Bound on each of the three residuals of ``SDCPResult``.
        max_iterations: Bound on interior-point iterations.

    Returns:
        The solution; where it is not unique, one of them.

    Raises:
        ValueError: If the shapes disagree.
        RuntimeError: If 64-bit types are off; call it inside ``with jax.enable_x64(True):``.

    Example:
        >>> with jax.enable_x64(True):
        ...     result = solve_sdcp(-jnp.eye(2), 2.0 * jnp.eye(3))
        >>> result.X.tolist(), int(result.status)
        ([[0.5, 0.0], [0.0, 0.5]], 0)
    """
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape[0] == 0:
        raise ValueError(f"A must have shape (k, k), k >= 1, got {A.shape}")
    k = A.shape[0]
    if B.shape != (num_pairs(k), num_pairs(k)):
        raise ValueError(f"B must have shape {(num_pairs(k),) * 2} for k={k}, got {B.shape}")
    if X_guess is not None and X_guess.shape != A.shape:
        raise ValueError(f"X_guess must have shape {A.shape}, got {X_guess.shape}")
    if jax.dtypes.canonicalize_dtype(np.float64) != np.dtype(np.float64):
        raise RuntimeError("solve_sdcp needs float64: call it inside `with jax.enable_x64(True):`")
    guess = jnp.zeros(A.shape) if X_guess is None else X_guess
    A, B, guess = (jnp.asarray(M, dtype=jnp.float64) for M in (A, B, guess))
    count = jnp.clip(jnp.asarray(k if num_active is None else num_active, dtype=jnp.int32), 0, k)
    return _solve(A, B, count, guess, tol, max_iterations)


@functools.partial(jax.jit, static_argnames=("tol", "max_iterations"))
def _solve(
    A: Array, B: Array, count: Array, guess: Array, tol: float, max_iterations: int
) -> SDCPResult:
    """Clean the input, run the program for its size, judge the result."""
    k = A.shape[0]
    _, cols = pair_indices(k)
    active = jnp.arange(k, dtype=jnp.int32) < count
    pairs = active[cols]
    A = jnp.where(active[:, None] & active[None, :], smat(svec(A), k), 0.0)
    B = jnp.where(pairs[:, None] & pairs[None, :], B, 0.0)
    finite = jnp.all(jnp.isfinite(A)) & jnp.all(jnp.isfinite(B))

    def several(A: Array, B: Array) -> tuple[Array, Array, Candidate]:
        problem, T, unit = _equilibrate(A, B, active)
        X_guess = jnp.where(jnp.isfinite(guess), 0.5 * (guess + guess.T), 0.0)
        found = _find(problem, X_guess * problem.mask / T * unit, count, tol, max_iterations)
        Y = problem.mask * (problem.A + apply_operator(problem, found.X)) / T
        return found.X * T / unit, Y, found

    if k == 1:
        X, Y, found = _closed_form(A, B, finite)
    else:
        X, Y, found = lax.cond(
            finite & (count > 1), several, lambda A, B: _closed_form(A, B, finite), A, B
        )
    converged = jnp.all(found.residuals <= tol)
    status = jnp.where(converged, SDCP_CONVERGED, SDCP_UNCONVERGED).astype(jnp.int32)
    primal, dual, complementarity = found.residuals
    return SDCPResult(
        X, Y, primal, dual, complementarity, found.num_iterations, status, found.method
    )


def _closed_form(A: Array, B: Array, finite: Array) -> tuple[Array, Array, Candidate]:
    """One direction: X = max(0, -A/B), without a solution where A < 0 and B <= 0.

    No direction arrives as A = 0. Input that is not finite gives zeros and infinite residuals.
    """
    a, b = jnp.where(finite, A[0, 0], 0.0), jnp.where(finite, B[0, 0], 0.0)
    x = jnp.where((a < 0) & (b > 0), -a / jnp.where(b > 0, b, 1.0), 0.0)
    x = jnp.where(jnp.isfinite(x), x, 0.0)
    y = a + b * x
    residuals = jnp.stack(
        [
            jnp.zeros(()),
            safe_ratio(jnp.maximum(-y, 0.0), jnp.abs(a)),
            jnp.where(x > 0, safe_ratio(jnp.abs(y), jnp.abs(a)), 0.0),
        ]
    )
    residuals = jnp.where(finite, residuals, jnp.inf)
    method = jnp.where(x > 0, METHOD_CLOSED_FORM, METHOD_ZERO).astype(jnp.int32)
    corner = jnp.zeros_like(A)
    X = corner.at[0, 0].set(x)
    return X, corner.at[0, 0].set(y), Candidate(X, residuals, jnp.zeros_like(method), method)


def _equilibrate(
    A: Array, B: Array, active: Bool[Array, " k"]
) -> tuple[Scaled, Float[Array, "k k"], Float[Array, ""]]:
    """Scale directions and units away; returns the problem, T's outer square t tᵀ, and β.

    T comes from B: first its (aa, aa) diagonal, then a few sweeps of symmetric equilibration of
    the k x k table |B[(ab), (ab)]|^½, for directions whose diagonal entry is small or zero while
    they take part in off-diagonal pairs. A direction that B does not touch is scaled by A.
    """
    rows, cols = pair_indices(A.shape[0])
    table = jnp.sqrt(jnp.abs(jnp.diagonal(B)))[pair_positions(A.shape[0])]

    def sweep(_: int, t: Array) -> Array:
        return t * _rsqrt(t * jnp.max(table * t[None, :], axis=1))

    t = lax.fori_loop(0, 4, sweep, _rsqrt(jnp.diagonal(table)))
    touched = jnp.max(table, axis=1) > 0
    t = jnp.where(touched, t, 0.0)
    t = t * _rsqrt(jnp.max(jnp.abs(A) * t[:, None] * t[None, :]))
    t = _power_of_two(jnp.where(touched, t, _rsqrt(jnp.abs(jnp.diagonal(A)))))

    T = t[:, None] * t[None, :]
    A, B = A * T, B * T[rows, cols][:, None] * T[rows, cols][None, :]
    B_unit = _power_of_two(jnp.max(jnp.abs(B)))
    padding = jnp.where(active, 0.0, 1.0)
    problem = Scaled(
        A + jnp.diag(padding),
        B / B_unit + jnp.diag(padding[cols]),
        jnp.linalg.norm(A),
        (active[:, None] & active[None, :]).astype(A.dtype),
    )
    return problem, T, B_unit


def _rsqrt(x: Array) -> Array:
    """Return x^-½, but 1 where x is not positive."""
    return jnp.where(x > 0, lax.rsqrt(jnp.where(x > 0, x, 1.0)), 1.0)


def _power_of_two(x: Array) -> Array:
    """Largest power of two <= x, 1 for x not positive and normal: scaling by it is exact."""
    bits = lax.bitcast_convert_type(x, jnp.uint64) & jnp.uint64(0x7FF0000000000000)
    power = lax.bitcast_convert_type(bits, jnp.float64)
    return jnp.where((x >= _TINY) & jnp.isfinite(x), power, 1.0)


def _find(
    problem: Scaled, X_guess: Array, count: Array, tol: float, max_iterations: int
) -> Candidate:
    """Try the methods in order until one is accepted; else return the best.

    Few directions in a larger problem have a small program for the quick methods. The loop over
    two attempts is there to compile Newton once for both of its uses.
    """
    k = X_guess.shape[0]
    zero = jnp.zeros((), dtype=jnp.int32)
    unknown = Candidate(jnp.zeros_like(X_guess), jnp.full(3, jnp.inf), zero, zero)

    def small() -> tuple[Array, Candidate]:
        n, m = _SMALL, num_pairs(_SMALL)
        part = problem._replace(A=problem.A[:n, :n], B=problem.B[:m, :m], mask=problem.mask[:n, :n])
        best = unknown._replace(X=unknown.X[:n, :n])
        best = newton(part, merge(part, X_guess[:n, :n]), best, zero, tol)
        return zero + 1, best._replace(X=jnp.pad(best.X, ((0, k - n), (0, k - n))))

    def attempt(carry: tuple[Array, Candidate]) -> tuple[Array, Candidate]:
        number, best = carry
        enabled = (number > 0) & jnp.any(best.residuals > tol)
        Z, best = lax.cond(
            number == 0,
            lambda best: (merge(problem, X_guess), best),
            lambda best: interior_point(problem, best, enabled, tol, max_iterations),
            best,
        )
        return number + 1, newton(problem, Z, best, number, tol)

    def going(carry: tuple[Array, Candidate]) -> Array:
        return (carry[0] < 2) & jnp.any(carry[1].residuals > tol)

    start = (zero, unknown)
    if k > _PADDED_UP_TO:
        start = lax.cond(count <= _SMALL, small, lambda: (zero, unknown))
    return lax.while_loop(going, attempt, start)[1]
