"""Layers by themselves: derivatives of the norms to third order, both kinds of convolution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.workloads import layers
from cflows_ray.workloads.layers import Scope, group_norm, layer_norm, rms_norm

STEP, RELATIVE = 2e-4, 1e-7
# slope over 5 points, of fourth order
STENCIL = [(-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)]


def directional(function, x, u, order):
    """Return the derivative of an order along u."""

    def along(t):
        return function(x + t * u)

    for _ in range(order):
        along = jax.jacfwd(along)
    return along(0.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "norm", [layer_norm, rms_norm, partial(group_norm, groups=2)], ids=["layer", "rms", "group"]
)
def test_norms_are_smooth_to_third_order(norm, seed):
    """Each derivative is the slope of the one before, near a constant input too."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        u = jnp.asarray(rng.standard_normal((2, 3, 3, 8)))
        for spread in (1.0, 0.05):
            x = jnp.asarray(1.0 + spread * rng.standard_normal(u.shape))
            declared = {}
            norm(Scope(None, (), declared), x)
            params = {
                name: jnp.asarray(rng.standard_normal(shape))
                for (name,), (_, shape) in declared.items()
            }

            def output(x, params=params):
                return norm(Scope(params), x)

            step = STEP * spread
            for order in (1, 2, 3):
                slope = sum(
                    c / step * directional(output, x + k * step * u, u, order - 1)
                    for k, c in STENCIL
                )
                found = directional(output, x, u, order)
                gap = jnp.linalg.norm(found - slope) / jnp.linalg.norm(slope)
                assert gap < RELATIVE, (order, spread)


@pytest.mark.parametrize(("size", "stride"), [(6, 1), (6, 2), (5, 2)])
def test_both_convolutions_are_the_same_function(size, stride):
    """A CPU computes the one and a GPU the other, and all their derivatives."""
    rng = np.random.default_rng(size)
    with jax.enable_x64(True):
        x, dx = (jnp.asarray(a) for a in rng.standard_normal((2, 2, size, size, 3)))
        kernel, dk = (jnp.asarray(a) for a in rng.standard_normal((2, 3, 3, 3, 4)))
        found = []
        for convolve in (layers._convolve, layers._convolve_by_patches):

            def loss(t, convolve=convolve):
                return jnp.sum(jnp.tanh(convolve(x + t * dx, kernel + t * dk, stride=stride)))

            values = [loss]
            for _ in range(3):
                values.append(jax.grad(values[-1]))
            found.append([float(f(0.1)) for f in values])
            found[-1].append(
                np.asarray(
                    jax.grad(lambda k, c=convolve: jnp.sum(jnp.sin(c(x, k, stride=stride))))(kernel)
                )
            )
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)


def test_a_parameter_that_is_missing_or_of_another_shape_is_named():
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=r"head/kernel. must be of shape \(3, 4\), got none"):
        layers.head(Scope({"hidden": {}}), x, 4, zero=True)
    params = {"head": {"kernel": np.ones((3, 5))}}
    with pytest.raises(ValueError, match=r"of shape \(3, 4\), got \(3, 5\)"):
        layers.head(Scope(params), x, 4, zero=True)


def test_two_parts_of_one_name_are_refused():
    scope = Scope(None, (), {})
    layers.head(scope, jnp.ones((2, 3)), 4, zero=True)
    with pytest.raises(ValueError, match="parameter 'head/kernel' must have a name of its own"):
        layers.head(scope, jnp.ones((2, 3)), 4, zero=True)
