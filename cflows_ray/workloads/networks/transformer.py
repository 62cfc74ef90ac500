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

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cflows_ray.workloads.base import DataSet, Network, check_tokens
from cflows_ray.workloads.layers import (
    Embed,
    LayerNorm,
    Linear,
    attention,
    from_module,
    gelu,
    head,
    xavier_uniform,
    zeros,
)
from cflows_ray.workloads.options import TransformerOptions


def sinusoidal_positions(length: int, dim: int) -> np.ndarray:
    """Compute fixed positions (length, dim): sin and cos of t 10000^(-2i/dim), interleaved."""
    angles = np.arange(length)[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, dim)


def _linear(features: int, name: str) -> Linear:
    """Make a linear layer that starts by Xavier's rule, its bias at zero."""
    return Linear(features, kernel_init=xavier_uniform, bias_init=zeros, name=name)


class Layer(nn.Module):
    """Causal attention and a hidden layer, each followed by a norm of the sum."""

    heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        """Apply the layer."""
        n, t, dim = x.shape
        qkv = _linear(3 * dim, "qkv")(x).reshape(n, t, 3 * self.heads, dim // self.heads)
        q, k, v = jnp.split(qkv, 3, axis=2)
        x = LayerNorm(name="norm_attention")(
            x + _linear(dim, "out")(attention(q, k, v, causal=True))
        )
        y = gelu(_linear(self.mlp_dim, "hidden")(x))
        return LayerNorm(name="norm_hidden")(x + _linear(dim, "hidden_out")(y))


class Transformer(nn.Module):
    """The whole network; outputs at the last `num_predicted` positions."""

    layers: int
    dim: int
    heads: int
    mlp_dim: int
    vocab_size: int
    num_predicted: int
    num_outputs: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "n t"]) -> Float[Array, "n s c"]:
        """Compute outputs for a batch of sequences."""
        x = Embed(self.vocab_size, self.dim, xavier_uniform, name="embed")(tokens)
        positions = sinusoidal_positions(tokens.shape[1], self.dim)
        x = x * math.sqrt(self.dim) + jnp.broadcast_to(jnp.asarray(positions, x.dtype), x.shape)
        for i in range(self.layers):
            x = Layer(self.heads, self.mlp_dim, name=f"layer_{i}")(x)
        return head(self.num_outputs, zero=True)(x[:, -self.num_predicted :])


def build(options: TransformerOptions, data: DataSet) -> Network:
    """Build the network for a data set of token sequences; `ValueError` for other data."""
    vocab_size, num_predicted = check_tokens("transformer", data)
    return from_module(
        Transformer(
            layers=options.layers,
            dim=options.dim,
            heads=options.heads,
            mlp_dim=options.mlp_ratio * options.dim,
            vocab_size=vocab_size,
            num_predicted=num_predicted,
            num_outputs=data.num_outputs,
        ),
        data,
    )
