"""Simple vision transformer (Beyer, Zhai and Kolesnikov, 2022, arXiv 2205.01580).

Patches are flattened, normalised, mapped to `dim` and normalised again; fixed sin-cos positions are
added; then `depth` layers of pre-norm attention and pre-norm hidden layers, a norm, the mean over
patches, and a linear layer that starts at zero. Attention has no biases; its heads are `head_dim`
wide whatever `dim` is, as in the implementation the paper uses (64, so 8 heads are 512 wide).

Parameters, with N(c) = 2c for a norm, patches of q = patch² channels, inner width a = heads
head_dim and hidden width m:
N(q) + (q + 1) dim + N(dim) + depth [N(dim) + 4 a dim + N(dim) + (dim + 1) m + (m + 1) dim]
+ N(dim) + (dim + 1) c.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cflows_ray.workloads.base import DataSet, Network, check_images
from cflows_ray.workloads.layers import LayerNorm, Linear, attention, from_module, gelu, head
from cflows_ray.workloads.options import ViTOptions


def sincos_positions(rows: int, columns: int, dim: int) -> np.ndarray:
    """Compute positions (rows columns, dim): sin and cos of x, then y, at dim / 4 frequencies.

    The frequencies are 10000^(-i / (dim/4 - 1)), i = 0 .. dim/4 - 1.
    """
    count = dim // 4
    frequencies = 10000.0 ** -(np.arange(count) / (count - 1))
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1) * frequencies
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)


def to_patches(x: Float[Array, "n h w p"], patch: int) -> Float[Array, "n t q"]:
    """Cut images into squares of `patch` pixels, each flattened to patch² p numbers."""
    n, h, w, p = x.shape
    x = x.reshape(n, h // patch, patch, w // patch, patch, p)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, patch * patch * p)


class Layer(nn.Module):
    """Attention and hidden layer, each on normalised inputs and added to them."""

    heads: int
    head_dim: int
    mlp_dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        """Apply the layer."""
        n, t, dim = x.shape
        inner = self.heads * self.head_dim
        y = LayerNorm(name="norm_attention")(x)
        qkv = Linear(3 * inner, use_bias=False, name="qkv")(y)
        q, k, v = jnp.split(qkv.reshape(n, t, 3 * self.heads, self.head_dim), 3, axis=2)
        y = attention(q, k, v, causal=False)
        x = x + Linear(dim, use_bias=False, name="out")(y)
        y = LayerNorm(name="norm_hidden")(x)
        y = gelu(Linear(self.mlp_dim, name="hidden")(y))
        return x + Linear(dim, name="hidden_out")(y)


class ViT(nn.Module):
    """The whole network."""

    patch: int
    dim: int
    depth: int
    heads: int
    head_dim: int
    mlp_dim: int
    num_outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w p"]) -> Float[Array, "n c"]:
        """Compute outputs for a batch of images."""
        rows, columns = x.shape[1] // self.patch, x.shape[2] // self.patch
        x = LayerNorm(name="norm_patch")(to_patches(x, self.patch))
        x = LayerNorm(name="norm_embedding")(Linear(self.dim, name="embedding")(x))
        positions = sincos_positions(rows, columns, self.dim)
        x = x + jnp.broadcast_to(jnp.asarray(positions, x.dtype), x.shape)
        for i in range(self.depth):
            x = Layer(self.heads, self.head_dim, self.mlp_dim, name=f"layer_{i}")(x)
        x = LayerNorm(name="norm_out")(x).mean(axis=1)
        return head(self.num_outputs, zero=True)(x)


def build(options: ViTOptions, data: DataSet) -> Network:
    """Build the network for a data set of images; raises `ValueError` for other data."""
    options.check_image(check_images("vit", data))
    return from_module(
        ViT(
            patch=options.patch,
            dim=options.dim,
            depth=options.depth,
            heads=options.heads,
            head_dim=options.head_dim,
            mlp_dim=options.mlp_dim,
            num_outputs=data.num_outputs,
        ),
        data,
    )
