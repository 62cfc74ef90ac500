"""Layers by themselves: derivatives of the norms to third order, both kinds of convolution."""

import zlib
from functools import partial

import flax.core
import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cflows_ray.workloads import layers
from cflows_ray.workloads.layers import group_norm, layer_norm, rms_norm

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
            start = layers.initialise(norm, 0, x)
            params = {k: jnp.asarray(rng.standard_normal(a.shape)) for k, a in start.items()}

            def output(x, params=params):
                return flax.core.apply(norm)({"params": params}, x)

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


def four_outputs(scope, x):
    return layers.head(scope, x, 4, zero=True)


def test_a_parameter_that_is_missing_or_of_another_shape_is_named():
    apply, x = flax.core.apply(four_outputs), jnp.ones((2, 3))
    with pytest.raises(flax.errors.ScopeParamNotFoundError, match=r'"kernel" in scope "/head"'):
        apply({"params": {"hidden": {}}}, x)
    params = {"head": {"kernel": np.ones((3, 5))}}
    with pytest.raises(flax.errors.ScopeParamShapeError, match=r'"kernel" in "/head".*\(3, 4\)'):
        apply({"params": params}, x)


def test_two_parts_of_one_name_are_refused():
    def forward(scope, x):
        return four_outputs(scope, x) + four_outputs(scope, x)

    with pytest.raises(ValueError, match='Duplicate use of scope name: "head"'):
        layers.initialise(forward, 0, jnp.ones((2, 3)))


def test_parameters_are_drawn_by_their_own_path():
    """From the seed and the path alone, whatever else there is."""

    def forward(scope, x, extra):
        if extra:
            x = layers.linear(scope.push("before"), x, 3)
        return layers.linear(scope.push("last"), x, 4)

    x = jax.ShapeDtypeStruct((1, 3), jnp.float32)
    alone, among = (layers.initialise(partial(forward, extra=e), 5, x) for e in (False, True))
    rng = np.random.default_rng([5, zlib.crc32(b"last/kernel")])
    expected = np.float32(rng.uniform(-1 / 3**0.5, 1 / 3**0.5, (3, 4)))
    np.testing.assert_array_equal(alone["last"]["kernel"], expected)
    np.testing.assert_array_equal(among["last"]["kernel"], expected)
    assert among["before"]["kernel"].shape == (3, 3)


def test_a_parameter_that_jax_would_draw_is_refused():
    def forward(scope, x):
        return x @ scope.push("last").param("kernel", jax.nn.initializers.normal(), (3, 4))

    with pytest.raises(TypeError, match=r"'last/kernel' must be drawn by `layers.parameter`"):
        layers.initialise(forward, 0, jnp.ones((2, 3)))
