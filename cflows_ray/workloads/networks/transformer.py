"""Causal transformer on token sequences (Vaswani et al., 2017, arXiv 1706.03762).

Embeddings times sqrt(dim) plus fixed sinusoidal positions; layers of causal attention and a hidden
layer with GELU, each added to its input and then normalised (post-norm, as in that paper); a linear
layer that starts at zero. Matrices start uniform by Xavier's rule, biases at zero.

The code of the central flows paper stacks *decoder* layers, whose second attention looks at all
tokens, later ones included. Here that attention is left out, so that the network is causal.

Parameters, for vocabulary V, d = dim, hidden width m and c outputs:
V d + layers [4 d d + 4 d + (d + 1) m + (m + 1) d + 2 · 2d] + (d + 1) c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from cflows_ray.checks import require
from cflows_ray.lazy import LazyModule
from cflows_ray.workloads.base import DataSet, Network, NetworkKind, check_tokens
from cflows_ray.workloads.layers import (
    attention,
    embed,
    gelu,
    head,
    layer_norm,
    linear,
    sequence_network,
    xavier_uniform,
    zeros,
)
from cflows_ray.workloads.options import check_at_least

if TYPE_CHECKING:
    import jax.numpy as jnp
    from flax.core import Scope
    from jaxtyping import Array
else:
    jnp = LazyModule("jax.numpy")


@dataclass(frozen=True)
class TransformerOptions:
    """Causal transformer: layers, width, heads; the hidden layers are `mlp_ratio` as wide."""

    layers: int = 4
    dim: int = 32
    heads: int = 4
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        check_at_least(self, 1, "layers", "heads", "mlp_ratio")
        check_at_least(self, 2, "dim")
        require(self.dim % 2 == 0, "dim", "even for sinusoidal positions", self.dim)
        require(self.dim % self.heads == 0, "heads", f"a divisor of dim = {self.dim}", self.heads)


def sinusoidal_positions(length: int, dim: int) -> np.ndarray:
    """Compute fixed positions (length, dim): sin and cos of t 10000^(-2i/dim), interleaved."""
    angles = np.arange(length)[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, dim)


def _linear(scope: Scope, x: Array, features: int) -> Array:
    """Apply a linear layer that starts by Xavier's rule, its bias at zero."""
    return linear(scope, x, features, kernel_init=xavier_uniform, bias_init=zeros)


def layer(
    scope: Scope, x: Float[Array, "n t d"], options: TransformerOptions
) -> Float[Array, "n t d"]:
    """Apply causal attention and a hidden layer, each followed by a norm of the sum."""
    n, t, dim = x.shape
    heads = options.heads
    qkv = _linear(scope.push("qkv"), x, 3 * dim).reshape(n, t, 3 * heads, dim // heads)
    q, k, v = jnp.split(qkv, 3, axis=2)
    y = _linear(scope.push("out"), attention(q, k, v, causal=True), dim)
    x = layer_norm(scope.push("norm_attention"), x + y)
    y = gelu(_linear(scope.push("hidden"), x, options.mlp_ratio * dim))
    return layer_norm(scope.push("norm_hidden"), x + _linear(scope.push("hidden_out"), y, dim))


def forward(
    scope: Scope,
    tokens: Int[Array, "n t"],
    *,
    options: TransformerOptions,
    num_outputs: int,
    vocab_size: int,
    num_predicted: int,
) -> Float[Array, "n s c"]:
    """Compute outputs for a batch of sequences, at the last `num_predicted` positions."""
    x = embed(scope.push("embed"), tokens, vocab_size, options.dim, xavier_uniform)
    positions = sinusoidal_positions(tokens.shape[1], options.dim)
    x = x * math.sqrt(options.dim) + jnp.broadcast_to(jnp.asarray(positions, x.dtype), x.shape)
    for i in range(options.layers):
        x = layer(scope.push(f"layer_{i}"), x, options)
    return head(scope, x[:, -num_predicted:], num_outputs, zero=True)


def build(options: TransformerOptions, data: DataSet) -> Network:
    """Build the network for a data set of token sequences; `ValueError` for other data."""
    return sequence_network("transformer", forward, options, data)


def check(options: TransformerOptions, data: DataSet) -> None:
    """Take integer tokens (n, t), and targets (n, s) for the last s positions."""
    del options
    check_tokens("transformer", data)


TRANSFORMER = NetworkKind("transformer", TransformerOptions, build, check, tokens=True)
