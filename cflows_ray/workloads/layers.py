"""Layers that several networks share, as functions of a scope and an input.

A scope is flax's (`flax.core.Scope`), a place in the nested dict of a network's parameters:
`scope.push("name")` is the place of a part, `parameter` a parameter there. All layers compute in
the dtype of their inputs and parameters, keep their parameters in float32 when initialised, and
have exact derivatives of every order, which the third derivatives of the central flow need. The
norms are written out for that reason: library kernels that compute the variance as E[x²] - E[x]²,
clipped at zero, lose digits and have wrong derivatives where they clip.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cflows_ray.lazy import LazyModule
from cflows_ray.workloads.base import DataSet, Network, check_tokens

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from flax import core
    from flax.core import Scope
    from jaxtyping import Array, PyTree
else:
    jax, jnp, core = LazyModule("jax"), LazyModule("jax.numpy"), LazyModule("flax.core")

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

# Added under the roots of variances and of mean squares.
EPS, RMS_EPS = 1e-6, 1e-5


def parameter(scope: Scope, name: str, init: Initializer, shape: tuple[int, ...]) -> Array:
    """Return a parameter of a scope; while a network is initialised, draw it.

    NumPy draws it, in float32, from a stream of its own that the seed and the parameter's path
    name: a layer that is added or taken away changes no other. JAX's generator would have to be
    compiled for every shape, which takes longer than many a run.

    Raises flax's errors for a parameter that is missing, has another shape, or is asked for twice.
    """

    def draw(key: Array) -> Array | np.ndarray:
        del key
        if not scope.has_flag("initializing"):
            return jnp.zeros(shape, jnp.float32)  # flax compares its shape with what is there
        path = "/".join((*scope.path, name))
        rng = np.random.default_rng([scope.get_flag("seed"), zlib.crc32(path.encode())])
        return np.asarray(init(rng, shape), np.float32)

    return jnp.asarray(scope.param(name, draw))


def gelu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """X Φ(x), Φ the normal distribution function itself and not the approximation by tanh."""
    return jax.nn.gelu(x, approximate=False)


def activation(name: str) -> Callable[[Array], Array]:
    """Return the activation function of a name in `options.ACTIVATIONS`."""
    return {"gelu": gelu, "tanh": jnp.tanh}[name]


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


def linear(
    scope: Scope,
    x: Float[Array, "*n p"],
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer | None = None,
    bias_init: Initializer | None = None,
) -> Float[Array, "*n c"]:
    """X W + b on the last axis; W (inputs, features).

    By default both start uniform on ±1/sqrt(inputs), as in the networks of the paper.
    """
    default = uniform(1 / math.sqrt(x.shape[-1]))
    x = x @ parameter(scope, "kernel", kernel_init or default, (x.shape[-1], features))
    if not use_bias:
        return x
    bias = parameter(scope, "bias", bias_init or default, (features,))
    return x + jnp.broadcast_to(bias, x.shape)


def head(
    scope: Scope, x: Float[Array, "*n p"], num_outputs: int, *, zero: bool
) -> Float[Array, "*n c"]:
    """Apply a last layer, which starts at zero or by the default of `linear`."""
    init = zeros if zero else None
    return linear(scope.push("head"), x, num_outputs, kernel_init=init, bias_init=init)


def conv3x3(
    scope: Scope,
    x: Float[Array, "n h w p"],
    features: int,
    stride: int = 1,
    kernel_init: Initializer | None = None,
) -> Float[Array, "n h2 w2 c"]:
    """3x3 convolution without bias, padded by one pixel; kernel (3, 3, inputs, features)."""
    inputs = x.shape[-1]
    kernel_init = kernel_init or uniform(1 / math.sqrt(9 * inputs))
    kernel = parameter(scope, "kernel", kernel_init, (3, 3, inputs, features))
    # XLA's convolutions are slow inside loops on a CPU, their derivatives above all (ten times)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_convolve_by_patches, stride=stride),
        default=partial(_convolve, stride=stride),
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


def standardise(x: Array, axes: tuple[int, ...]) -> Array:
    """Subtract the mean over axes and divide by sqrt(variance + EPS).

    The variance is the mean of the squared deviations: exact, positive, smooth to every order.
    """
    deviation = x - x.mean(axis=axes, keepdims=True)
    variance = jnp.mean(deviation**2, axis=axes, keepdims=True)
    return deviation / jnp.sqrt(variance + EPS)


def layer_norm(scope: Scope, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Standardise the last axis, then scale and shift it."""
    scale = parameter(scope, "scale", ones, (x.shape[-1],))
    bias = parameter(scope, "bias", zeros, (x.shape[-1],))
    x = standardise(x, (-1,))
    return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)


def group_norm(
    scope: Scope,
    x: Float[Array, "n h w c"],
    groups: int,
    *,
    scale_init: Initializer = ones,
) -> Float[Array, "n h w c"]:
    """Standardise each group of channels over pixels, then scale and shift each channel."""
    n, h, w, c = x.shape
    scale = parameter(scope, "scale", scale_init, (c,))
    bias = parameter(scope, "bias", zeros, (c,))
    x = x.reshape(n, h, w, groups, c // groups)
    x = standardise(x, (1, 2, 4)).reshape(n, h, w, c)
    return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)


def rms_norm(scope: Scope, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Divide the last axis by its root mean square, then scale it."""
    scale = parameter(scope, "scale", ones, (x.shape[-1],))
    x = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + RMS_EPS)
    return x * jnp.broadcast_to(scale, x.shape)


def embed(
    scope: Scope, tokens: Array, vocab_size: int, features: int, table_init: Initializer
) -> Float[Array, "*n c"]:
    """Look up tokens `(*n)` among the rows of a table (vocabulary, features)."""
    return parameter(scope, "table", table_init, (vocab_size, features))[tokens]


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


def initialise(forward: Callable[[Scope, Any], Array], seed: int, x: Any) -> PyTree:
    """Return initial parameters of `forward(scope, x)`, float32; only shape and dtype of x count.

    Raises `TypeError` for a parameter that `parameter` did not draw.

    Example:
        >>> params = initialise(lambda scope, x: head(scope, x, 2, zero=True), 0, np.ones((1, 3)))
        >>> params["head"]["bias"].tolist()
        [0.0, 0.0]
    """
    drawn: dict[str, Any] = {}

    def run(x: Array) -> None:
        # flax asks for a key, from which nothing is drawn
        drawn.update(core.init(forward, flags={"seed": seed})(jax.random.key(0), x)[1])

    # not `core.lazy_init`: it would compile, shape by shape, what layers compute from parameters
    # alone, and take ten times as long
    jax.eval_shape(run, x)
    params = drawn.get("params", {})
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        if not isinstance(value, np.ndarray):
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            raise TypeError(f"parameter {where!r} must be drawn by `layers.parameter`")
    return jax.tree.map(jnp.asarray, params)


def network(forward: Callable[[Scope, Any], Array], data: DataSet) -> Network:
    """Turn `forward(scope, x) -> outputs` into two pure functions; the data fix the input shape."""

    def apply(params: PyTree, x: Array) -> Array:
        return core.apply(forward)({"params": params}, x)

    def init(seed: int) -> PyTree:
        return initialise(forward, seed, jax.ShapeDtypeStruct((1, *data.x.shape[1:]), data.x.dtype))

    return Network(apply=apply, init=init)


def sequence_network(
    name: str, forward: Callable[..., Array], options: Any, data: DataSet
) -> Network:
    """Turn the `forward` of a network of token sequences into two pure functions.

    Args:
        name: of the network, for messages.
        forward: `forward(scope, x, *, options, num_outputs, vocab_size, num_predicted)`, outputs of
            the last `num_predicted` positions.
        options: of the network.
        data: integer tokens (n, t) and targets (n, s); `ValueError` for other data.
    """
    vocab_size, num_predicted = check_tokens(name, data)
    return network(
        partial(
            forward,
            options=options,
            num_outputs=data.num_outputs,
            vocab_size=vocab_size,
            num_predicted=num_predicted,
        ),
        data,
    )
