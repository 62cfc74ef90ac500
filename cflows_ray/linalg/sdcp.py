"""The semidefinite complementarity problem of the central flow, solved inside JAX.

    find X ⪰ 0  with  Y = A + smat(B svec X) ⪰ 0  and  <X, Y> = 0.

A is k x k symmetric; B acts on ``svec`` coordinates (m = k(k+1)/2), monotone: symmetric positive
semidefinite up to a small skew part. For symmetric B it is: minimise ½<X, B X> + <A, X>, X ⪰ 0.

| symbol | meaning |
| --- | --- |
| T, β | scaling: Â = T A T, B̂ = (T⊗T) B (T⊗T) / β, X = T X̂ T / β; powers of two, so exact |
| Z | one matrix for both unknowns, X = Z₊ and Y = Z₋ (psd parts), so <X, Y> = 0 always |
| S(Q) | m x m matrix with S(Q) svec(M) = svec(Q M Qᵀ) |

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

from cflows_ray.linalg.symmetric import num_pairs, pair_indices, pair_positions, smat, svec

SDCP_CONVERGED = 0
SDCP_UNCONVERGED = 1

METHOD_ZERO = 0
METHOD_LINEAR = 1
METHOD_NEWTON = 2
METHOD_INTERIOR_POINT = 3
METHOD_CLOSED_FORM = 4

_EPS = float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)
# Up to three active directions have their own program where k > 5; below that, running them padded
# to k costs some 20 µs a solve, and the second program a third of the compile time
_SMALL, _PADDED_UP_TO = 3, 5
_LAST_STAGE = 13  # of _newton: ten steps; it converges in 3 to 6 or not at all


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
        method: Which method produced X (``METHOD_*``).
    """

    X: Float[Array, "k k"]
    Y: Float[Array, "k k"]
    primal_residual: Float[Array, ""]
    dual_residual: Float[Array, ""]
    complementarity: Float[Array, ""]
    num_iterations: Int[Array, ""]
    status: Int[Array, ""]
    method: Int[Array, ""]


class _Scaled(NamedTuple):
    """An equilibrated problem; inactive directions carry identities, so that X is zero there."""

    A: Float[Array, "s s"]
    B: Float[Array, "m m"]
    A_norm: Float[Array, ""]  # without the padding
    mask: Float[Array, "s s"]  # 1 on the active block, else 0


class _Candidate(NamedTuple):
    """A trial solution X̂ with its three residuals."""

    X: Float[Array, "s s"]
    residuals: Float[Array, "3"]
    num_iterations: Int[Array, ""]
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

    def several(A: Array, B: Array) -> tuple[Array, Array, _Candidate]:
        problem, T, unit = _equilibrate(A, B, active)
        X_guess = jnp.where(jnp.isfinite(guess), 0.5 * (guess + guess.T), 0.0)
        found = _find(problem, X_guess * problem.mask / T * unit, count, tol, max_iterations)
        Y = problem.mask * (problem.A + _apply(problem, found.X)) / T
        return found.X * T / unit, Y, found

    if k == 1:
        X, Y, found = _closed_form(A, B, finite)
    else:
        X, Y, found = lax.cond(
            finite & (count > 1), several, lambda A, B: _closed_form(A, B, finite), A, B
        )
    converged = jnp.all(found.residuals <= tol)
    status = jnp.where(converged, SDCP_CONVERGED, SDCP_UNCONVERGED).astype(jnp.int32)
    return SDCPResult(X, Y, *found.residuals, found.num_iterations, status, found.method)


def _closed_form(A: Array, B: Array, finite: Array) -> tuple[Array, Array, _Candidate]:
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
            _ratio(jnp.maximum(-y, 0.0), jnp.abs(a)),
            jnp.where(x > 0, _ratio(jnp.abs(y), jnp.abs(a)), 0.0),
        ]
    )
    residuals = jnp.where(finite, residuals, jnp.inf)
    method = jnp.where(x > 0, METHOD_CLOSED_FORM, METHOD_ZERO).astype(jnp.int32)
    corner = jnp.zeros_like(A)
    found = _Candidate(corner, residuals, jnp.zeros_like(method), method)
    return corner.at[0, 0].set(x), corner.at[0, 0].set(y), found


# --- scaling and judging -------------------------------------------------------------------------


def _equilibrate(
    A: Array, B: Array, active: Bool[Array, " k"]
) -> tuple[_Scaled, Float[Array, "k k"], Float[Array, ""]]:
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
    problem = _Scaled(
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


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Divide with 0/0 = 0."""
    safe = jnp.where(denominator > 0, denominator, 1.0)
    return jnp.where(denominator > 0, numerator / safe, jnp.where(numerator > 0, jnp.inf, 0.0))


def _apply(problem: _Scaled, X: Array) -> Array:
    return smat(problem.B @ svec(X), X.shape[0])


def _judge(problem: _Scaled, X: Array, iterations: Array, method: Array | int) -> _Candidate:
    """Compute the three residuals of X from nothing but the problem and X."""
    X = problem.mask * X
    Y = problem.A + _apply(problem, X)
    good = jnp.all(jnp.isfinite(X)) & jnp.all(jnp.isfinite(Y))
    pair = jnp.where(good, jnp.stack([X, Y]), 0.0)
    smallest = jnp.linalg.eigvalsh(pair)[:, 0]
    X_norm, scale = jnp.linalg.norm(X), problem.A_norm
    residuals = jnp.stack(
        [
            _ratio(jnp.maximum(-smallest[0], 0.0), X_norm),
            _ratio(jnp.maximum(-smallest[1], 0.0), scale),
            _ratio(jnp.abs(jnp.sum(pair[0] * pair[1])), X_norm * scale),
        ]
    )
    residuals = jnp.where(good & jnp.isfinite(residuals), residuals, jnp.inf)
    return _Candidate(X, residuals, iterations, jnp.asarray(method, dtype=jnp.int32))


def _better(first: _Candidate, second: _Candidate) -> _Candidate:
    """The candidate with the smaller worst residual, with the iterations of the second."""
    take = jnp.max(second.residuals) < jnp.max(first.residuals)
    best = jax.tree.map(lambda a, b: jnp.where(take, b, a), first, second)
    return best._replace(num_iterations=second.num_iterations)


# --- the methods ---------------------------------------------------------------------------------


def _find(
    problem: _Scaled, X_guess: Array, count: Array, tol: float, max_iterations: int
) -> _Candidate:
    """Try the methods in order until one is accepted; else return the best.

    Few directions in a larger problem have a small program for the quick methods. The loop over
    two attempts is there to compile Newton once for both of its uses.
    """
    k = X_guess.shape[0]
    zero = jnp.zeros((), dtype=jnp.int32)
    unknown = _Candidate(jnp.zeros_like(X_guess), jnp.full(3, jnp.inf), zero, zero)

    def small() -> tuple[Array, _Candidate]:
        n, m = _SMALL, num_pairs(_SMALL)
        part = problem._replace(A=problem.A[:n, :n], B=problem.B[:m, :m], mask=problem.mask[:n, :n])
        best = unknown._replace(X=unknown.X[:n, :n])
        best = _newton(part, _merge(part, X_guess[:n, :n]), best, zero, tol)
        return zero + 1, best._replace(X=jnp.pad(best.X, ((0, k - n), (0, k - n))))

    def attempt(carry: tuple[Array, _Candidate]) -> tuple[Array, _Candidate]:
        number, best = carry
        Z, best = lax.cond(
            number == 0,
            lambda best: (_merge(problem, X_guess), best),
            lambda best: _interior_point(problem, best, tol, max_iterations),
            best,
        )
        return number + 1, _newton(problem, Z, best, number, tol)

    def going(carry: tuple[Array, _Candidate]) -> Array:
        return (carry[0] < 2) & jnp.any(carry[1].residuals > tol)

    start = (zero, unknown)
    if k > _PADDED_UP_TO:
        start = lax.cond(count <= _SMALL, small, lambda: (zero, unknown))
    return lax.while_loop(going, attempt, start)[1]


def _merge(problem: _Scaled, X: Array) -> Array:
    """One matrix for both unknowns; its psd part is a projected gradient step from X."""
    return X - (problem.A + _apply(problem, X))


class _NewtonState(NamedTuple):
    Z: Float[Array, "s s"]
    values: Float[Array, " s"]  # eigenvalues of Z, rounding cleared
    Q: Float[Array, "s s"]  # eigenvectors of Z
    F: Float[Array, " m"]
    stage: Int[Array, ""]  # which Z comes next, see _newton
    X: Float[Array, "s s"]  # Z₊ of the smallest error so far
    error: Float[Array, ""]  # its ‖F‖ / ‖A‖
    method: Int[Array, ""]  # and where it came from
    solves: Int[Array, ""]


def _newton(
    problem: _Scaled, guess: Array, best: _Candidate, number: Array, tol: float
) -> _Candidate:
    """Semismooth Newton on F(Z) = Z₋ - A - B[Z₊] = 0; the better of its Z₊ and ``best``.

    Since <Z₊, Z₋> = 0, ‖F‖ bounds the residuals of X = Z₊. One loop, so that each part is
    compiled once; its Z are, by stage,

        0. -A: solves the problem if A is psd (X = 0);
        1. the Newton step from zero with Θ = 1: solves it if B x = -a has X ⪰ 0 (Y = 0);
        2. the guess;
        3. and on: Newton steps.

    The first attempt (number 0) begins at stage 0, the next one at its guess.
    """
    size = guess.shape[0]
    A = svec(problem.A)

    def step(state: _NewtonState) -> _NewtonState:
        stage = state.stage
        given = (stage == 0) | (stage == 2)
        Z = lax.cond(
            given,
            lambda _: jnp.where(stage == 0, -problem.A, guess),
            lambda state: _newton_point(problem, state),
            state,
        )
        finite = jnp.all(jnp.isfinite(Z))
        Z = jnp.where(finite, Z, -problem.A)
        values, Q = jnp.linalg.eigh(Z)
        rounding = 4 * size * _EPS * jnp.max(jnp.abs(values))
        values = jnp.where(jnp.abs(values) > rounding, values, 0.0)
        X = (Q * jnp.maximum(values, 0.0)[None, :]) @ Q.T
        F = svec(X - Z) - A - problem.B @ svec(X)
        error = jnp.linalg.norm(F) / problem.A_norm
        better = error < state.error
        return _NewtonState(
            *(Z, values, Q, F),
            stage=jnp.where(finite | (stage < 3), stage + 1, _LAST_STAGE),
            X=jnp.where(better, X, state.X),
            error=jnp.where(better, error, state.error),
            method=jnp.where(better, jnp.minimum(stage, METHOD_NEWTON), state.method),
            solves=state.solves + jnp.where(given, 0, 1).astype(jnp.int32),
        )

    zero, blank = jnp.zeros((), dtype=jnp.int32), jnp.zeros_like(guess)
    state = _NewtonState(
        *(blank, blank[0], blank, jnp.zeros_like(A), 2 * number),
        *(blank, jnp.full((), jnp.inf), zero, best.num_iterations),
    )
    state = lax.while_loop(
        lambda state: (state.error > 0.01 * tol) & (state.stage < _LAST_STAGE), step, state
    )
    method = jnp.where(number > 0, METHOD_INTERIOR_POINT, state.method).astype(jnp.int32)
    return _better(best, _judge(problem, state.X, state.solves, method))


def _newton_point(problem: _Scaled, state: _NewtonState) -> Array:
    """Next Z: in the eigenbasis of Z, (I - Θ + B Θ) dZ = F, Θ_ij = (λ_i⁺ - λ_j⁺)/(λ_i - λ_j)."""
    size = state.Z.shape[0]
    rows, cols = pair_indices(size)
    signs = 2.0 * jnp.diagonal(problem.mask) - 1.0
    linear = state.stage == 1
    values = jnp.where(linear, signs, state.values)
    Q = jnp.where(linear, jnp.eye(size), state.Q)
    F = jnp.where(linear, svec(-problem.mask * problem.A), state.F)
    Z = jnp.where(linear, jnp.diag(jnp.minimum(signs, 0.0)), state.Z)

    plus, spread = jnp.maximum(values, 0.0), jnp.abs(values)
    plus, spread = plus[rows] + plus[cols], spread[rows] + spread[cols]
    theta = jnp.where(spread > 0, plus / jnp.where(spread > 0, spread, 1.0), 1.0)
    S = _congruence(Q.T)
    # the shift keeps the step finite where the solution is not unique, and vanishes with F
    shift = jnp.where(linear, 0.0, 1e-3 * jnp.minimum(state.error, 1e-3))
    K = (S @ problem.B @ S.T) * theta[None, :] + jnp.diag(1.0 - theta + shift * theta)
    return Z + smat(S.T @ jnp.linalg.solve(K, S @ F), size)


def _congruence(Q: Array) -> Array:
    """Return the m x m matrix S with S svec(M) = svec(Q M Qᵀ)."""
    rows, cols = pair_indices(Q.shape[0])
    weight = np.where(rows == cols, np.sqrt(0.5), 1.0)
    left, right = Q[rows], Q[cols]
    product = left[:, rows] * right[:, cols] + left[:, cols] * right[:, rows]
    return product * jnp.asarray(weight[:, None] * weight[None, :])


def _interior_point(
    problem: _Scaled, best: _Candidate, tol: float, max_iterations: int
) -> tuple[Array, _Candidate]:
    """Primal-dual interior point with Nesterov-Todd scaling and Mehrotra's corrector.

    The scaling G makes G⁻¹ X G⁻ᵀ = Gᵀ Y G = diag(d); there the Newton step solves
    (I + S B Sᵀ) dx = r - S svec(A + B[X] - Y), well conditioned for monotone B, dy = r - ....
    Returns Z = X - Y, to start Newton from, and the better of X and ``best``.
    """
    size = problem.A.shape[0]
    eye = jnp.eye(size)

    def step_length(d: Array, dX: Array, dY: Array) -> Array:
        root = lax.rsqrt(d)
        pair = jnp.stack([dX, dY]) * (root[:, None] * root[None, :])[None]
        pair = jnp.where(jnp.isfinite(pair), pair, 0.0)
        lowest = jnp.min(jnp.linalg.eigvalsh(pair))
        return 1.0 / jnp.maximum(-lowest, _EPS)

    def gap(X: Array, Y: Array) -> tuple[Array, Array]:
        R = problem.A + _apply(problem, X) - Y
        inner = jnp.abs(jnp.sum(X * Y)) / jnp.linalg.norm(X)
        return R, jnp.maximum(jnp.linalg.norm(R), inner) / problem.A_norm

    def step(state: tuple) -> tuple:
        X, Y, R, error, count, _ = state
        L, M = jnp.linalg.cholesky(jnp.stack([X, Y]))
        U, d, Vt = jnp.linalg.svd(M.T @ L)
        G = (L @ Vt.T) * lax.rsqrt(d)[None, :]
        H = (M @ U) * lax.rsqrt(d)[None, :]  # H = G⁻ᵀ
        S = _congruence(G.T)
        inverse = jnp.linalg.inv(S @ problem.B @ S.T + jnp.eye(S.shape[0]))
        r = S @ svec(R)
        mu = jnp.mean(d * d)

        def direction(stage: int, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            # stage 0: predictor (target 0); stage 1: corrector, from what the predictor found
            target, *_ = carry
            rhs = svec(target * 2.0 / (d[:, None] + d[None, :]))
            dx = inverse @ (rhs - r)
            dX, dY = smat(dx, size), smat(rhs - dx, size)
            longest = step_length(d, dX, dY)
            alpha = jnp.minimum(1.0, longest)
            mu_affine = jnp.sum((jnp.diag(d) + alpha * dX) * (jnp.diag(d) + alpha * dY)) / size
            sigma = jnp.clip(mu_affine / mu, 0.0, 1.0) ** 3
            target = sigma * mu * eye - jnp.diag(d * d) - 0.5 * (dX @ dY + dY @ dX)
            return target, dX, dY, longest, carry[3]

        start = (-jnp.diag(d * d), jnp.zeros_like(X), jnp.zeros_like(X), mu, mu)
        _, dX, dY, longest, affine = lax.fori_loop(0, 2, direction, start)
        alpha = jnp.minimum(1.0, (0.9 + 0.09 * jnp.minimum(affine, 1.0)) * longest)
        new_X, new_Y = X + alpha * (G @ dX @ G.T), Y + alpha * (H @ dY @ H.T)
        new_R, new_error = gap(new_X, new_Y)
        good = jnp.isfinite(new_error)
        new = (new_X, new_Y, new_R, new_error)
        kept = [jnp.where(good, b, a) for a, b in zip((X, Y, R, error), new, strict=True)]
        return (*kept, count + 1, good & (alpha > 1e-6))

    def going(state: tuple) -> Array:
        _, _, _, error, count, moving = state
        return (error > 0.01 * tol) & (count < max_iterations) & moving

    X = Y = 2.0 * eye
    zero = jnp.zeros((), dtype=jnp.int32)
    X, Y, _, _, count, _ = lax.while_loop(going, step, (X, Y, *gap(X, Y), zero, jnp.array(True)))
    trial = _judge(problem, X, best.num_iterations + count, METHOD_INTERIOR_POINT)
    return X - Y, _better(best, trial)
