"""Layers that several networks share.

All of them compute in the dtype of their inputs and parameters, keep their parameters in float32
when initialised, and have exact derivatives of every order, which the third derivatives of the
central flow need. The norms are written out for that reason: library kernels that compute the
variance as E[x²] - E[x]², clipped at zero, lose digits and have wrong derivatives where they clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cflows_ray.workloads.base import DataSet, Network

Initializer = Callable[..., Array]

gelu = partial(jax.nn.gelu, approximate=False)

ACTIVATION_FUNCTIONS: dict[str, Callable[[Array], Array]] = {"gelu": gelu, "tanh": jnp.tanh}


def zeros(key: Array, shape: tuple[int, ...]) -> Array:
    """Initialise at zero (flax's own would be float64 where 64-bit mode is on)."""
    del key
    return jnp.zeros(shape, jnp.float32)


def ones(key: Array, shape: tuple[int, ...]) -> Array:
    """Initialise at one."""
    del key
    return jnp.ones(shape, jnp.float32)


def uniform(bound: float) -> Initializer:
    """Initialise uniformly on [-bound, bound]."""

    def init(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    return init


def normal(std: float) -> Initializer:
    """Initialise normally with mean 0."""

    def init(key: Array, shape: tuple[int, ...]) -> Array:
        return std * jax.random.normal(key, shape, jnp.float32)

    return init


def xavier_uniform(key: Array, shape: tuple[int, int]) -> Array:
    """Initialise a matrix uniformly on ±sqrt(6 / (rows + columns))."""
    return uniform(math.sqrt(6 / sum(shape)))(key, shape)


class Linear(nn.Module):
    """x W + b on the last axis; W (inputs, features).

    By default both start uniform on ±1/sqrt(inputs), as in the networks of the paper.
    """

    features: int
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*n p"]) -> Float[Array, "*n c"]:
        """Apply the layer."""
        default = uniform(1 / math.sqrt(x.shape[-1]))
        kernel_init = self.kernel_init or default
        x = x @ self.param("kernel", kernel_init, (x.shape[-1], self.features))
        if not self.use_bias:
            return x
        bias = self.param("bias", self.bias_init or default, (self.features,))
        return x + jnp.broadcast_to(bias, x.shape)


def head(num_outputs: int, *, zero: bool) -> Linear:
    """Make a last layer, at zero or with the default initialisation."""
    init = zeros if zero else None
    return Linear(num_outputs, kernel_init=init, bias_init=init, name="head")


class Conv3x3(nn.Module):
    """3x3 convolution without bias, padded by one pixel; kernel (3, 3, inputs, features)."""

    features: int
    stride: int = 1
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w p"]) -> Float[Array, "n h2 w2 c"]:
        """Apply the layer."""
        inputs = x.shape[-1]
        kernel_init = self.kernel_init or uniform(1 / math.sqrt(9 * inputs))
        kernel = self.param("kernel", kernel_init, (3, 3, inputs, self.features))
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def average_pool(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n h2 w2 c"]:
    """Average over squares of `size` pixels; rows and columns left over are dropped."""
    n, h, w, c = x.shape
    rows, columns = h // size, w // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(n, rows, size, columns, size, c).mean(axis=(2, 4))


def standardise(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """Subtract the mean over axes and divide by sqrt(variance + eps).

    The variance is the mean of the squared deviations: exact, positive, smooth to every order.
    """
    deviation = x - x.mean(axis=axes, keepdims=True)
    variance = jnp.mean(deviation**2, axis=axes, keepdims=True)
    return deviation / jnp.sqrt(variance + eps)


class LayerNorm(nn.Module):
    """Standardise the last axis, then scale and shift it."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """Apply the layer."""
        scale = self.param("scale", ones, (x.shape[-1],))
        bias = self.param("bias", zeros, (x.shape[-1],))
        x = standardise(x, (-1,), self.eps)
        return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)


class GroupNorm(nn.Module):
    """Standardise each group of channels over pixels, then scale and shift each channel."""

    groups: int
    eps: float = 1e-6
    scale_init: Initializer = ones

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Apply the layer."""
        n, h, w, c = x.shape
        scale = self.param("scale", self.scale_init, (c,))
        bias = self.param("bias", zeros, (c,))
        x = x.reshape(n, h, w, self.groups, c // self.groups)
        x = standardise(x, (1, 2, 4), self.eps).reshape(n, h, w, c)
        return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)


class RMSNorm(nn.Module):
    """Divide the last axis by its root mean square, then scale it."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """Apply the layer."""
        scale = self.param("scale", ones, (x.shape[-1],))
        x = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + self.eps)
        return x * jnp.broadcast_to(scale, x.shape)


class Embed(nn.Module):
    """Rows of a table (vocabulary, features), looked up by token."""

    vocab_size: int
    features: int
    table_init: Initializer

    @nn.compact
    def __call__(self, tokens: Array) -> Float[Array, "*n c"]:
        """Look up tokens `(*n)`."""
        return self.param("table", self.table_init, (self.vocab_size, self.features))[tokens]


def attention(
    q: Float[Array, "n t h d"],
    k: Float[Array, "n t h d"],
    v: Float[Array, "n t h d"],
    *,
    causal: bool,
) -> Float[Array, "n t hd"]:
    """softmax(q kᵀ / sqrt(d)) v for each head, heads concatenated.

    With `causal`, a position attends to itself and to earlier ones.
    """
    n, t, h, d = q.shape
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(d)
    if causal:
        # a finite number, not -inf, so that no derivative meets inf * 0
        allowed = jnp.broadcast_to(jnp.tri(t, dtype=bool), scores.shape)
        scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min / 2)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("nhqk,nkhd->nqhd", weights, v).reshape(n, t, h * d)


def from_module(module: nn.Module, data: DataSet) -> Network:
    """Turn a flax module into two pure functions; the data fix the input shape."""
    example = jnp.asarray(data.x[:1])

    def apply(params: PyTree, x: Array) -> Array:
        return cast(Array, module.apply({"params": params}, x))

    def init(seed: int) -> PyTree:
        return _init(module, jax.random.key(seed), example)["params"]

    return Network(apply=apply, init=init)


@partial(jax.jit, static_argnums=0)
def _init(module: nn.Module, key: Array, example: Array) -> PyTree:
    """Draw initial variables; one compiled program, not a dispatch for each layer."""
    return module.init(key, example)
