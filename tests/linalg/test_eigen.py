"""Top eigenpairs on prescribed spectra: defining identities, warm starts, honesty about failure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.linalg.eigen import EIG_CONVERGED, EIG_UNCONVERGED, top_eigenpairs

SPECTRA = {
    "linear": lambda d: np.linspace(-1.0, 3.0, d),
    "repeated": lambda d: np.r_[np.linspace(-1, 1, d - 3), 2.0, 2.0, 2.0],
    "clustered": lambda d: np.r_[np.linspace(-1, 1, d - 3), 1.999, 2.0, 2.001],
    "negative": lambda d: -np.linspace(0.5, 3.0, d),
    "rank_one": lambda d: np.r_[np.zeros(d - 1), 1.0],
    "geometric": lambda d: 2.0 * 0.6 ** np.arange(d),
}


def symmetric(spectrum, seed):
    d = len(spectrum)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    return Q * spectrum @ Q.T


@jax.jit
def solve(A, guess):
    return top_eigenpairs(
        lambda V, _: V @ A, guess, tolerance=1e-8 if A.dtype == jnp.float64 else 1e-4
    )


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(("d", "k"), [(4, 4), (5, 3), (30, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eigenpairs_satisfy_their_definition(spectrum, d, k, dtype):
    values = SPECTRA[spectrum](d)
    A = symmetric(values, seed=d)
    with jax.enable_x64(dtype == "float64"):
        guess = np.random.default_rng(1).standard_normal((k, d)).astype(dtype)
        result = jax.device_get(solve(jnp.asarray(A, dtype), jnp.asarray(guess)))
    tolerance = 1e-8 if dtype == "float64" else 1e-4
    V, theta = result.eigvecs.astype(float), result.eigvals.astype(float)
    assert result.status == EIG_CONVERGED
    assert V.dtype == np.float64
    assert result.eigvecs.dtype == np.dtype(dtype)
    np.testing.assert_allclose(theta, np.sort(values)[::-1][:k], atol=4 * tolerance)
    np.testing.assert_allclose(V @ V.T, np.eye(k), atol=100 * np.finfo(dtype).eps)
    residual = np.linalg.norm(V @ A - theta[:, None] * V, axis=1)
    assert np.all(residual <= 4 * tolerance * np.maximum(1, np.abs(theta)))


def test_reported_residuals_are_the_true_ones():
    A = symmetric(SPECTRA["linear"](60), seed=0)
    with jax.enable_x64(True):
        guess = jnp.asarray(np.random.default_rng(1).standard_normal((3, 60)))
        result = jax.device_get(
            top_eigenpairs(lambda V, _: V @ A, guess, tolerance=1e-12, max_passes=4)
        )
    theta, V = result.eigvals, result.eigvecs
    true = np.linalg.norm(V @ A - theta[:, None] * V, axis=1) / np.maximum(1, np.abs(theta))
    assert result.status == EIG_UNCONVERGED
    assert true.max() > 1e-6
    np.testing.assert_allclose(result.residuals, true, rtol=1e-6)


def test_warm_start_needs_no_pass_and_small_changes_few():
    values = SPECTRA["geometric"](40)
    A = symmetric(values, seed=2)
    change = symmetric(np.linspace(-1, 1, 40), seed=3) * 1e-6
    with jax.enable_x64(True):
        guess = jnp.asarray(np.random.default_rng(1).standard_normal((4, 40)))
        cold = solve(jnp.asarray(A), guess)
        same = solve(jnp.asarray(A), cold.eigvecs)
        near = solve(jnp.asarray(A + change), cold.eigvecs)
    assert int(same.num_products) == 4
    assert int(near.num_products) < int(cold.num_products) // 2
    np.testing.assert_allclose(near.eigvals, np.linalg.eigvalsh(A + change)[::-1][:4], atol=1e-8)


def test_only_required_pairs_are_waited_for():
    A = symmetric(np.r_[np.linspace(-1, 1, 197), 1.7, 2.0, 2.2], seed=4)
    guess = np.random.default_rng(1).standard_normal((6, 200))

    def products(required):
        with jax.enable_x64(True):
            result = top_eigenpairs(
                lambda V, _: V @ A, jnp.asarray(guess), tolerance=1e-6, required=required
            )
        return jax.device_get(result)

    some, every = products(lambda theta: (theta > 1.9).at[0].set(True)), products(None)
    assert int(some.status) == int(every.status) == EIG_CONVERGED
    assert float(some.residuals[:2].max()) <= 1e-6 < float(some.residuals.max())
    assert int(some.num_products) < int(every.num_products)


def test_min_passes_find_an_eigenvector_that_the_guess_misses():
    A = jnp.diag(jnp.array([3.0, 2.0, 1.0, 0.5, 0.1, 0.0]))
    nearly = jnp.eye(6)[1:2] + 1e-3 * jnp.eye(6)[:1]  # almost exactly the second eigenvector
    missed = top_eigenpairs(lambda V, _: V @ A, nearly, tolerance=1e-2)
    found = top_eigenpairs(lambda V, _: V @ A, nearly, tolerance=1e-2, min_passes=4)
    assert abs(float(missed.eigvals[0]) - 2.0) < 1e-3
    assert abs(float(found.eigvals[0]) - 3.0) < 1e-3


@pytest.mark.parametrize("num_active", [0, 1, 2])
def test_rows_that_are_not_active_cost_nothing_and_stay(num_active):
    A = symmetric(np.r_[np.linspace(-1, 1, 37), 1.5, 1.9, 2.2], seed=5)
    vectors = np.linalg.eigh(A)[1][:, ::-1].T
    # the leading rows can only converge towards rows that are not refreshed
    guess = vectors[:3] + 0.1 * vectors[[2, 2, 0]]
    with jax.enable_x64(True):
        result = jax.device_get(
            top_eigenpairs(
                lambda V, _: V @ A, jnp.asarray(guess), tolerance=1e-9, num_active=num_active
            )
        )
    assert int(result.status) == EIG_CONVERGED
    np.testing.assert_allclose(result.eigvals[:num_active], [2.2, 1.9][:num_active], atol=1e-9)
    assert np.all(result.eigvals[num_active:] == -np.inf)
    overlap = np.abs(np.sum(result.eigvecs * vectors[:3], axis=1))
    np.testing.assert_allclose(overlap[:num_active], 1, atol=1e-9)
    given = np.abs(np.linalg.qr(guess.T)[0].T)
    np.testing.assert_allclose(np.abs(result.eigvecs)[num_active:], given[num_active:], atol=1e-12)
    assert (int(result.num_products) > num_active) == (num_active > 0)


def test_a_pair_that_need_not_converge_costs_no_product_of_its_own():
    A = symmetric(np.r_[np.linspace(-1, 1, 36), 1.2, 1.3, 1.4, 2.2], seed=6)
    vectors = np.linalg.eigh(A)[1][:, ::-1].T
    guess = vectors[:4] + 0.03 * np.random.default_rng(2).standard_normal((4, 40))
    with jax.enable_x64(True):
        result = top_eigenpairs(
            lambda V, _: V @ A, jnp.asarray(guess), tolerance=1e-1,
            required=lambda theta: theta > 1.9, min_passes=1,
        )  # fmt: skip
    assert int(result.status) == EIG_CONVERGED
    # a block of four, then at most the leading residual and the sum of the others
    assert int(result.num_products) <= 6


@pytest.mark.parametrize(("d", "k"), [(25, 4), (25, 8), (60, 4)])
def test_passes_after_convergence_make_nothing_up(d, k):
    """Corrections at rounding level once came back as eigenvalues of any size, in float32."""
    spectrum = np.r_[np.linspace(1.8, 0.1, 6), np.zeros(d - 6)]
    passes = jax.jit(
        lambda A, guess: top_eigenpairs(
            lambda V, _: V @ A, guess, tolerance=1e-3, min_passes=12, min_directions=k
        )
    )
    for seed in range(20):
        rng = np.random.default_rng(seed)
        Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
        guess = np.vstack([Q[:, :2].T, rng.standard_normal((k - 2, d))])
        result = passes(jnp.asarray(Q * spectrum @ Q.T, "float32"), jnp.asarray(guess, "float32"))
        np.testing.assert_allclose(result.eigvals, spectrum[:k], atol=1e-3)


def test_nan_is_reported_not_looped_on():
    result = top_eigenpairs(
        lambda V, _: V * jnp.nan, jnp.eye(5)[:2], tolerance=1e-3, max_passes=10**6
    )
    assert int(result.status) == EIG_UNCONVERGED


def test_more_rows_than_dimensions_is_refused():
    with pytest.raises(ValueError, match="at most d=2 rows, got 3"):
        top_eigenpairs(lambda V, _: V, jnp.ones((3, 2)), tolerance=1e-3)
