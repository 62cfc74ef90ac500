"""Layers that several networks share.

All of them compute in the dtype of their inputs and parameters, keep their parameters in float32
when initialised, and have exact derivatives of every order, which the third derivatives of the
central flow need. The norms are written out for that reason: library kernels that compute the
variance as E[x²] - E[x]², clipped at zero, lose digits and have wrong derivatives where they clip.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cflows_ray.workloads.base import DataSet, Network

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

gelu = partial(jax.nn.gelu, approximate=False)

ACTIVATION_FUNCTIONS: dict[str, Callable[[Array], Array]] = {"gelu": gelu, "tanh": jnp.tanh}

# What `parameter` declares while a network is being initialised: path -> (initializer, shape).
_Declared = dict[tuple[str, ...], tuple[Initializer, tuple[int, ...]]]
_declared: ContextVar[_Declared | None] = ContextVar("declared", default=None)


def parameter(module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]) -> Array:
    """Declare a parameter of a module, or return its value where it has one.

    Initial values are drawn by NumPy, each from its own stream: compiling JAX's generator for every
    shape of a network would take longer than many a run.
    """

    def placeholder(key: Array) -> Array:
        del key
        declared = _declared.get()
        if declared is not None:
            declared[(*module.path, name)] = (init, shape)
        return jnp.zeros(shape, jnp.float32)

    return module.param(name, placeholder)


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Initialise at zero."""
    del rng
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Initialise at one."""
    del rng
    return np.ones(shape)


def uniform(bound: float) -> Initializer:
    """Initialise uniformly on [-bound, bound]."""
    return lambda rng, shape: rng.uniform(-bound, bound, shape)


def normal(std: float) -> Initializer:
    """Initialise normally with mean 0."""
    return lambda rng, shape: std * rng.standard_normal(shape)


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Initialise a matrix uniformly on ±sqrt(6 / (rows + columns))."""
    bound = math.sqrt(6 / sum(shape))
    return rng.uniform(-bound, bound, shape)


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
        x = x @ parameter(self, "kernel", kernel_init, (x.shape[-1], self.features))
        if not self.use_bias:
            return x
        bias = parameter(self, "bias", self.bias_init or default, (self.features,))
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
        kernel = parameter(self, "kernel", kernel_init, (3, 3, inputs, self.features))
        # XLA's convolutions are slow inside loops on a CPU, their derivatives above all (ten times)
        return jax.lax.platform_dependent(
            x,
            kernel,
            cpu=partial(_convolve_by_patches, stride=self.stride),
            default=partial(_convolve, stride=self.stride),
        )


def _convolve(x: Array, kernel: Array, *, stride: int) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _convolve_by_patches(x: Array, kernel: Array, *, stride: int) -> Array:
    """Gather the nine neighbours of every pixel, rows then columns; multiply by one matrix."""
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = jnp.concatenate([x[:, i : i + h : stride] for i in range(3)], axis=-1)
    x = jnp.concatenate([x[:, :, j : j + w : stride] for j in range(3)], axis=-1)
    return x @ kernel.transpose(1, 0, 2, 3).reshape(-1, kernel.shape[-1])


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
        scale = parameter(self, "scale", ones, (x.shape[-1],))
        bias = parameter(self, "bias", zeros, (x.shape[-1],))
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
        scale = parameter(self, "scale", self.scale_init, (c,))
        bias = parameter(self, "bias", zeros, (c,))
        x = x.reshape(n, h, w, self.groups, c // self.groups)
        x = standardise(x, (1, 2, 4), self.eps).reshape(n, h, w, c)
        return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)


class RMSNorm(nn.Module):
    """Divide the last axis by its root mean square, then scale it."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """Apply the layer."""
        scale = parameter(self, "scale", ones, (x.shape[-1],))
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
        return parameter(self, "table", self.table_init, (self.vocab_size, self.features))[tokens]


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
    example = jax.ShapeDtypeStruct((1, *data.x.shape[1:]), data.x.dtype)

    def apply(params: PyTree, x: Array) -> Array:
        return cast(Array, module.apply({"params": params}, x))

    def init(seed: int) -> PyTree:
        declared: _Declared = {}
        token = _declared.set(declared)
        try:
            jax.eval_shape(module.init, jax.eval_shape(jax.random.key, 0), example)
        finally:
            _declared.reset(token)
        return _draw(declared, seed)

    return Network(apply=apply, init=init)


def _draw(declared: _Declared, seed: int) -> PyTree:
    """Draw declared parameters as a nested dict of float32 arrays.

    A parameter's stream is named by the seed and its path, so that a layer that is added or taken
    away changes no other.
    """
    params: dict[str, Any] = {}
    for path, (init, shape) in sorted(declared.items()):
        rng = np.random.default_rng([seed, zlib.crc32("/".join(path).encode())])
        *modules, name = path
        inner = params
        for part in modules:
            inner = inner.setdefault(part, {})
        inner[name] = jnp.asarray(init(rng, shape), jnp.float32)
    return params
