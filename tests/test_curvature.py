"""Hessian products and third derivatives against dense ones; dtypes and global settings."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.curvature import (
    averaged,
    float_mode,
    linearize_gradient,
    map_rows,
    third_derivative,
    value_and_grad,
)
from tests.networks import NETWORKS
from tests.oracles import DenseLoss


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_products_match_dense_derivatives(network, seed):
    with jax.enable_x64(True):
        loss, w = NETWORKS[network](seed)
        rng = np.random.default_rng(seed)
        U = rng.standard_normal((3, len(w)))
        w = jnp.asarray(w)
        value, grad, H, T = DenseLoss(loss).all(w)

        @jax.jit
        def ours(w, U):
            at = linearize_gradient(loss, w)
            third = third_derivative(loss, w, U[0], U[1])
            return at.value, at.grad, at.hessian_vectors(U), third, value_and_grad(loss, w)[1]

        our_value, our_grad, products, third, again = ours(w, jnp.asarray(U))
        np.testing.assert_allclose(our_value, value, rtol=1e-13)
        np.testing.assert_allclose(our_grad, grad, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(again, grad, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(products, U @ H, rtol=1e-10, atol=1e-12)
        expected = np.einsum("ijl,i,j->l", T, U[0], U[1])
        np.testing.assert_allclose(third, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_rows_are_mapped_in_batches_up_to_count(batch, count):
    rng = np.random.default_rng(0)
    A, rows = rng.standard_normal((3, 3)), rng.standard_normal((5, 3))
    with jax.enable_x64(True):
        mapped = np.asarray(map_rows(lambda v: v @ A, batch, jnp.asarray(rows), jnp.array(count)))
    assert mapped.shape == rows.shape
    np.testing.assert_allclose(mapped[:count], rows[:count] @ A, rtol=1e-14)
    computed = min(5, -(-count // batch) * batch)
    assert np.all(mapped[computed:] == 0)


@pytest.mark.parametrize("network", NETWORKS)
def test_third_derivative_matches_finite_differences(network):
    with jax.enable_x64(True):
        loss, w = NETWORKS[network]()
        rng = np.random.default_rng(0)
        w, u, v = jnp.asarray(w), *jnp.asarray(rng.standard_normal((2, len(w))))
        h = 1e-4

        @jax.jit
        def hessian_u(point):
            return linearize_gradient(loss, point).hessian_vectors(u[None])[0]

        central = (hessian_u(w + h * v) - hessian_u(w - h * v)) / (2 * h)
        exact = jax.jit(lambda w: third_derivative(loss, w, u, v))(w)
        assert np.linalg.norm(exact - central) <= 1e-6 * np.linalg.norm(exact)


def makes_its_own_arrays(w):
    grid = jnp.linspace(0.0, 1.0, w.size)  # default dtype: float32 or float64 by JAX's mode
    assert grid.dtype == w.dtype
    return jnp.sum(jnp.tanh(w * grid + jnp.zeros(w.size)) ** 2)


@pytest.mark.parametrize("mode", [True, False])
def test_a_float32_loss_stays_float32_in_64_bit_mode(mode):
    with jax.enable_x64(mode):
        w = jnp.ones(5, jnp.float32)
        at = linearize_gradient(makes_its_own_arrays, w)
        third = third_derivative(makes_its_own_arrays, w, w, w)
        products = at.hessian_vectors(w[None])
    assert {at.value.dtype, at.grad.dtype, third.dtype, products.dtype} == {np.dtype("float32")}


def test_matrix_products_use_full_precision():
    with float_mode("float32"):
        text = str(jax.make_jaxpr(lambda a: a @ a)(jnp.ones((2, 2))))
    assert "HIGHEST" in text


def test_importing_the_package_changes_no_setting_of_jax():
    code = (
        "import jax; before = dict(jax.config.values);"
        "import cflows_ray.paired.run, cflows_ray.workloads;"
        "assert dict(jax.config.values) == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_the_mean_over_an_oscillation(dtype, rank):
    """Exact for quadratics: the mean of f over w ± √3 z, each row in turn, and Σ = ZᵀZ."""
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(rank)
        w, Z = rng.standard_normal(5), 0.3 * rng.standard_normal((4, 5))
        M = rng.standard_normal((2, 5, 5))

        def f(x):
            return jnp.einsum("i,oij,j->o", x, jnp.asarray(M, dtype), x)

        found = averaged(f, jnp.asarray(w, dtype), jnp.asarray(Z, dtype), jnp.asarray(rank))
        expected = np.einsum("i,oij,j->o", w, M, w)
        for z in Z[:rank]:
            expected = expected + np.einsum("i,oij,j->o", z, M, z)
        np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_the_mean_over_an_oscillation_is_of_second_order():
    """For any f the error falls with the fourth power of the swing."""
    with jax.enable_x64(True):
        w, z = jnp.array([0.3, -0.7]), jnp.array([0.5, 0.2])
        f = lambda x: jnp.exp(x[0]) * jnp.cos(x[1])  # noqa: E731

        def error(scale):
            swing = scale * z
            mean = 0.5 * (f(w + swing) + f(w - swing))
            return abs(float(averaged(f, w, swing[None], jnp.array(1)) - mean))

        assert np.log2(error(0.2) / error(0.1)) == pytest.approx(4.0, abs=0.1)
