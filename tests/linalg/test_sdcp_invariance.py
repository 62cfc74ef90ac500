"""The complementarity solver in other units, on leading blocks, batched and warm-started."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.linalg.sdcp import SDCP_CONVERGED, solve_sdcp
from cflows_ray.linalg.symmetric import num_pairs
from tests.linalg.sdcp_problems import check_solution, congruence, constructed, solve

pytestmark = pytest.mark.usefixtures("double_precision")

# --- scaling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("B_scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("A_scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("kind", ["all", "some"])
def test_units_of_A_and_B_do_not_matter(kind, A_scale, B_scale):
    A, B, X, _ = constructed(3, 9, kind, 4)
    plain, scaled = solve(A, B), solve(A * A_scale, B * B_scale)
    assert int(scaled.status) == SDCP_CONVERGED
    assert max(map(float, scaled[2:5])) < 1e-10
    np.testing.assert_allclose(scaled.X * (B_scale / A_scale), X, atol=1e-7)
    assert int(scaled.method) == int(plain.method)


@pytest.mark.parametrize("decades", [4, 8])
@pytest.mark.parametrize("rank", [3, 20])
@pytest.mark.parametrize("kind", ["all", "some", "degenerate"])
def test_units_of_directions_do_not_matter(kind, rank, decades):
    A, B, _, Y = constructed(5, rank, kind, 5)
    t = 10.0 ** np.linspace(-decades, decades, 5)[[2, 0, 4, 1, 3]]
    outer, pairs = congruence(t)
    result = solve(A / outer, B / pairs[:, None] / pairs[None, :])
    assert int(result.status) == SDCP_CONVERGED
    undone = result._replace(X=result.X / outer, Y=result.Y * outer)
    check_solution(A, B, undone)
    np.testing.assert_allclose(undone.Y, Y, atol=1e-4)


def test_operator_with_only_off_diagonal_entries():
    B = np.diag([0.0, 1e-6, 0.0])  # Y = A + 1e-6 X_01 on the off-diagonal only
    A = np.array([[1.0, -4.0], [-4.0, 2.0]])
    check_solution(A, B, solve(A, B))


def test_direction_that_B_does_not_touch():
    A, B = np.diag([-1.0, 1e13]), np.diag([3.0, 0.0, 0.0])
    result = solve(A, B)
    check_solution(A, B, result)
    np.testing.assert_allclose(result.X, np.diag([1 / 3, 0.0]), atol=1e-12)


# --- a traced number of active directions --------------------------------------------------------


@pytest.mark.parametrize("k", [5, 6])
def test_num_active_solves_the_leading_block_without_recompiling(k):
    A, B, *_ = constructed(k, num_pairs(k) + 3, "some", 6)
    traces = []

    @jax.jit
    def traced(A, B, count):
        traces.append(None)
        return solve_sdcp(A, B, count)

    for count in range(k + 1):
        m = num_pairs(count)
        junk_A, junk_B = np.full((k, k), np.nan), np.full(B.shape, np.nan)
        junk_A[:count, :count], junk_B[:m, :m] = A[:count, :count], B[:m, :m]
        result = traced(jnp.asarray(junk_A), jnp.asarray(junk_B), count)
        X, Y = np.array(result.X), np.array(result.Y)
        assert int(result.status) == SDCP_CONVERGED
        if count:
            inner = result._replace(X=X[:count, :count], Y=Y[:count, :count])
            check_solution(A[:count, :count], B[:m, :m], inner)
        X[:count, :count] = Y[:count, :count] = 0
        np.testing.assert_array_equal(X, np.zeros((k, k)))
        np.testing.assert_array_equal(Y, np.zeros((k, k)))
    assert len(traces) == 1


def test_vmap_agrees_with_one_at_a_time():
    problems = [constructed(3, 9, kind, seed)[:2] for kind in ("all", "some") for seed in range(3)]
    problems.append(constructed(3, 2, "some", 2)[:2])
    problems.append((np.full((3, 3), np.nan), np.eye(6)))
    A, B = (jnp.asarray(np.stack(part)) for part in zip(*problems, strict=True))
    counts = jnp.array([3, 2, 3, 1, 3, 0, 3, 3], dtype=jnp.int32)
    together = jax.jit(jax.vmap(solve_sdcp))(A, B, counts)
    for i, (a, b) in enumerate(problems):
        alone = solve(a, b, counts[i])
        assert int(alone.status) == int(together.status[i])
        np.testing.assert_allclose(together.Y[i], alone.Y, atol=1e-9)


def test_warm_started_scan():
    A, B, *_ = constructed(3, 9, "some", 7)
    drift = 0.02 * np.sin(np.arange(20))[:, None, None] * np.diag([1.0, -1.0, 0.5])

    @jax.jit
    def run(series):
        def step(X, A):
            result = solve_sdcp(A, jnp.asarray(B), None, X)
            return result.X, result

        return jax.lax.scan(step, jnp.zeros((3, 3)), series)[1]

    results = run(jnp.asarray(A + drift))
    for i in range(20):
        check_solution(A + drift[i], B, jax.tree.map(lambda leaf, i=i: leaf[i], results))
    assert np.mean(results.num_iterations[1:]) <= 5
