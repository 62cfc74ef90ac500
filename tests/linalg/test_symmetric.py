"""Symmetric matrices as vectors: the order, the inner product, the inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.linalg.symmetric import num_pairs, pair_indices, pair_positions, smat, svec

pytestmark = pytest.mark.usefixtures("double_precision")


def symmetric(k, seed, *batch):
    A = np.random.default_rng(seed).standard_normal((*batch, k, k))
    return A + np.swapaxes(A, -1, -2)


def test_order_is_by_column_then_row():
    rows, cols = pair_indices(3)
    assert list(zip(rows.tolist(), cols.tolist(), strict=True)) == [
        *((0, 0), (0, 1), (1, 1)),
        *((0, 2), (1, 2), (2, 2)),
    ]


@pytest.mark.parametrize("k", [0, 1, 2, 5, 12])
def test_pair_tables_agree(k):
    rows, cols = pair_indices(k)
    assert rows.size == num_pairs(k)
    np.testing.assert_array_equal(pair_positions(k)[rows, cols], np.arange(num_pairs(k)))
    np.testing.assert_array_equal(pair_positions(k), pair_positions(k).T)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_svec_keeps_inner_products(k):
    A, B = symmetric(k, 0), symmetric(k, 1)
    np.testing.assert_allclose(svec(jnp.asarray(A)) @ svec(jnp.asarray(B)), np.trace(A @ B))


@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_smat_inverts_svec(k):
    A = symmetric(k, 2)
    back = np.asarray(smat(svec(jnp.asarray(A)), k))
    np.testing.assert_allclose(back, A, rtol=1e-15)
    np.testing.assert_array_equal(back, back.T)


@pytest.mark.parametrize(("k", "c"), [(5, 1), (5, 3), (12, 4)])
def test_leading_entries_are_the_leading_block(k, c):
    A = jnp.asarray(symmetric(k, 3))
    np.testing.assert_array_equal(svec(A)[: num_pairs(c)], svec(A[:c, :c]))


def test_batch_axes_and_vmap_agree():
    A = jnp.asarray(symmetric(4, 4, 2, 3))
    x = svec(A)
    assert x.shape == (2, 3, 10)
    np.testing.assert_array_equal(x, jax.vmap(jax.vmap(svec))(A))
    np.testing.assert_array_equal(smat(x, 4), jax.vmap(jax.vmap(lambda x: smat(x, 4)))(x))


def test_dtype_is_kept():
    A = jnp.asarray(symmetric(3, 5), dtype=jnp.float32)
    assert svec(A).dtype == jnp.float32
    assert smat(svec(A), 3).dtype == jnp.float32


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"A must have shape .* got \(2, 3\)"):
        svec(jnp.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"x must have shape \(..., 6\) for k=3, got \(5,\)"):
        smat(jnp.zeros(5), 3)
    with pytest.raises(ValueError, match="k must be >= 0, got -1"):
        num_pairs(-1)
