"""The complementarity solver against constructed solutions, CVXPY and its own definition."""

import cvxpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.linalg import sdcp_methods as methods
from cflows_ray.linalg.sdcp import SDCP_CONVERGED, SDCP_UNCONVERGED, _equilibrate
from cflows_ray.linalg.symmetric import num_pairs, pair_indices
from tests.linalg.sdcp_problems import check_solution, constructed, smat, solve, svec

pytestmark = pytest.mark.usefixtures("double_precision")
interior_point = jax.jit(methods.interior_point, static_argnums=(3, 4))


# --- known solutions -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["all", "some", "degenerate"])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_unique_solution_is_found(k, kind, seed):
    A, B, X, _ = constructed(k, num_pairs(k) + 3, kind, seed)
    result = solve(A, B)
    check_solution(A, B, result)
    # the error of X is the residual's magnified by B's condition number (no strict
    # complementarity: by its root)
    np.testing.assert_allclose(result.X, X, atol=1e-4 if kind == "degenerate" else 1e-7)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["all", "some", "degenerate"])
@pytest.mark.parametrize(
    ("k", "rank"), [(2, 1), (2, 2), (3, 1), (3, 3), (5, 1), (5, 2), (5, 7), (5, 14)]
)
def test_rank_deficient(k, rank, kind, seed):
    A, B, _, Y = constructed(k, rank, kind, seed)
    result = solve(A, B)
    check_solution(A, B, result)
    # X need not be unique, but for symmetric B its B[X] is, and so is Y
    np.testing.assert_allclose(result.Y, Y, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_slightly_skew_operator(seed):
    A, B, X, _ = constructed(5, 20, "some", seed, skew=0.02)
    result = solve(A, B)
    check_solution(A, B, result)
    np.testing.assert_allclose(result.X, X, atol=1e-6)


@pytest.mark.parametrize("kind", ["some", "degenerate"])
@pytest.mark.parametrize(("k", "rank"), [(8, 4), (8, 40), (12, 90)])
def test_many_directions(k, rank, kind):
    A, B, _, Y = constructed(k, rank, kind, 0)
    result = solve(A, B)
    check_solution(A, B, result)
    np.testing.assert_allclose(result.Y, Y, atol=1e-4)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_agrees_with_cvxpy(k):
    rng = np.random.default_rng(k)
    m = num_pairs(k)
    factor = np.hstack([rng.standard_normal((m, m)) / np.sqrt(m), 0.5 * np.eye(m)])
    A = rng.standard_normal((k, k))
    A = (A + A.T) / 2 - 0.5 * np.eye(k)
    rows, cols = pair_indices(k)
    X = cvxpy.Variable((k, k), PSD=True)
    x = cvxpy.hstack(
        [X[a, b] * (1 if a == b else np.sqrt(2)) for a, b in zip(rows, cols, strict=True)]
    )
    goal = 0.5 * cvxpy.sum_squares(factor.T @ x) + svec(A) @ x
    tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
    cvxpy.Problem(cvxpy.Minimize(goal)).solve(solver=cvxpy.CLARABEL, **tight)
    result = solve(A, factor @ factor.T)
    check_solution(A, factor @ factor.T, result)
    assert np.linalg.norm(result.X) > 0.1
    np.testing.assert_allclose(result.X, X.value, atol=1e-5)


@pytest.mark.parametrize(
    ("a", "b"), [(-2.0, 0.5), (3.0, 0.5), (0.0, 1.0), (-1e-9, 1e9), (1.0, 0.0)]
)
def test_one_direction_is_the_closed_form(a, b):
    result = solve([[a]], [[b]])
    assert int(result.status) == SDCP_CONVERGED
    np.testing.assert_allclose(result.X, [[max(0.0, -a / b) if b else 0.0]], rtol=1e-15)


# --- which method --------------------------------------------------------------------------------


def test_stable_gives_exactly_zero():
    A, B, *_ = constructed(5, 20, "all", 0)
    A = A @ A
    result = solve(A, B, None, jnp.eye(5))
    assert int(result.status) == SDCP_CONVERGED
    assert int(result.method) == methods.METHOD_ZERO
    assert int(result.num_iterations) == 0
    np.testing.assert_array_equal(result.X, np.zeros((5, 5)))


def test_barely_unstable_is_not_dropped():
    A = np.diag([-1e-11, 1.0])
    result = solve(A, np.eye(3))
    np.testing.assert_allclose(result.X, np.diag([1e-11, 0.0]), rtol=1e-9, atol=1e-25)


def test_all_oscillating_is_one_linear_solve():
    A, B, X, _ = constructed(5, 20, "all", 1)
    result = solve(A, B)
    assert int(result.method) == methods.METHOD_LINEAR
    assert int(result.num_iterations) == 1
    np.testing.assert_allclose(result.X, X, rtol=1e-9)


def test_newton_uses_the_guess():
    A, B, X, _ = constructed(5, 20, "some", 2)
    cold = solve(A, B)
    warm = solve(A, B, None, jnp.asarray(X + 1e-4 * np.eye(5)))
    assert int(cold.method) == int(warm.method) == methods.METHOD_NEWTON
    assert int(warm.num_iterations) < int(cold.num_iterations)
    check_solution(A, B, warm)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("k", [2, 5])
def test_a_bad_guess_does_no_harm(k, scale):
    A, B, X, _ = constructed(k, num_pairs(k) + 3, "some", 3)
    guess = scale * np.random.default_rng(0).standard_normal((k, k))
    result = solve(A, B, None, jnp.asarray(guess))
    check_solution(A, B, result)
    np.testing.assert_allclose(result.X, X, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rank", [2, 20])
@pytest.mark.parametrize("kind", ["all", "some"])
def test_interior_point_alone(rank, kind, seed):
    A, B, *_ = constructed(5, rank, kind, seed)
    problem, T, unit = _equilibrate(jnp.asarray(A), jnp.asarray(B), jnp.ones(5, dtype=bool))
    zero = jnp.zeros((), dtype=jnp.int32)
    none = methods.Candidate(jnp.zeros((5, 5)), jnp.full(3, jnp.inf), zero, zero)
    found = interior_point(problem, none, jnp.array(True), 1e-10, 60)[1]
    assert np.max(found.residuals) < 1e-9
    assert 5 <= int(found.num_iterations) <= 30
    X = np.asarray(found.X * T / unit)
    Y = A + smat(B @ svec(X), 5)
    assert np.linalg.eigvalsh(X)[0] >= -1e-12 * np.linalg.norm(X)
    assert np.linalg.eigvalsh(Y)[0] >= -1e-8 * np.linalg.norm(A)
    assert abs(np.sum(X * Y)) <= 1e-8 * np.linalg.norm(A) * np.linalg.norm(X)
    off = interior_point(problem, none, jnp.array(False), 1e-10, 60)[1]
    assert int(off.num_iterations) == 0


def test_interior_point_rescues_what_newton_cannot_solve():
    used = [
        (int(result.method), int(result.status))
        for seed in range(12)
        for result in [solve(*constructed(5, 2, "some", seed)[:2])]
    ]
    assert (methods.METHOD_INTERIOR_POINT, SDCP_CONVERGED) in used
    assert {status for _, status in used} == {SDCP_CONVERGED}


# --- what has no solution ------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 5])
def test_no_solution_without_operator(k):
    A = np.diag(np.linspace(-1.0, 1.0, k)) if k > 1 else -np.eye(1)
    result = solve(A, np.zeros((num_pairs(k),) * 2))
    assert int(result.status) == SDCP_UNCONVERGED
    assert float(result.dual_residual) > 0.1
    assert np.all(np.isfinite(result.X))


@pytest.mark.parametrize("seed", range(4))
def test_no_solution_in_the_range_of_the_operator(seed):
    # B only reaches the second direction's diagonal and the off-diagonal, so Y_00 stays negative;
    # X may run off to infinity along B's null space, which must not pass for convergence
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((3, 2))
    factor[0] = 0
    result = solve(np.array([[-1.0, 0.3], [0.3, -1.0]]), factor @ factor.T, max_iterations=200)
    assert int(result.status) == SDCP_UNCONVERGED
    assert max(float(result.dual_residual), float(result.complementarity)) > 1e-3
    assert np.all(np.isfinite(result.X))


@pytest.mark.parametrize("where", ["A", "B"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("k", [1, 3])
def test_input_that_is_not_finite(k, bad, where):
    A, B = -np.eye(k), np.eye(num_pairs(k))
    (A if where == "A" else B)[0, -1] = bad
    result = solve(A, B)
    assert int(result.status) == SDCP_UNCONVERGED
    np.testing.assert_array_equal(result.X, np.zeros((k, k)))
    np.testing.assert_array_equal(result.Y, np.zeros((k, k)))
    assert float(result.dual_residual) == np.inf


def test_guess_that_is_not_finite_is_ignored():
    A, B, X, _ = constructed(3, 9, "some", 8)
    result = solve(A, B, None, jnp.full((3, 3), jnp.nan))
    check_solution(A, B, result)
    np.testing.assert_allclose(result.X, X, atol=1e-7)


def test_zero_problem():
    result = solve(np.zeros((3, 3)), np.zeros((6, 6)))
    assert int(result.status) == SDCP_CONVERGED
    np.testing.assert_array_equal(result.X, np.zeros((3, 3)))
    assert list(map(float, result[2:5])) == [0.0, 0.0, 0.0]


def test_single_precision_input_is_solved_in_double():
    A, B, X, _ = constructed(3, 9, "some", 9)
    result = solve(A.astype(np.float32), B.astype(np.float32))
    assert result.X.dtype == jnp.float64
    assert max(map(float, result[2:5])) < 1e-10
    np.testing.assert_allclose(result.X, X, atol=1e-4)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"A must have shape \(k, k\), k >= 1, got \(2, 3\)"):
        solve(np.zeros((2, 3)), np.eye(3))
    with pytest.raises(ValueError, match=r"B must have shape \(3, 3\) for k=2, got \(4, 4\)"):
        solve(np.eye(2), np.eye(4))
    with pytest.raises(ValueError, match=r"X_guess must have shape \(2, 2\), got \(3, 3\)"):
        solve(np.eye(2), np.eye(3), None, jnp.eye(3))
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="enable_x64"):
        solve(np.eye(2), np.eye(3))
