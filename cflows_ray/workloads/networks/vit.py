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

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cflows_ray.checks import require
from cflows_ray.lazy import LazyModule
from cflows_ray.workloads.base import DataSet, Network, NetworkKind, check_images
from cflows_ray.workloads.layers import attention, gelu, head, layer_norm, linear, network
from cflows_ray.workloads.options import check_at_least

if TYPE_CHECKING:
    import jax.numpy as jnp
    from flax.core import Scope
    from jaxtyping import Array
else:
    jnp = LazyModule("jax.numpy")


@dataclass(frozen=True)
class ViTOptions:
    """Vision transformer: side of a patch, width, layers, heads and their width, hidden width."""

    patch: int = 4
    dim: int = 64
    depth: int = 4
    heads: int = 8
    head_dim: int = 64
    mlp_dim: int = 256

    def __post_init__(self) -> None:
        check_at_least(self, 1, "patch", "depth", "heads", "head_dim", "mlp_dim")
        check_at_least(self, 8, "dim")
        require(self.dim % 4 == 0, "dim", "a multiple of 4 for sin-cos positions", self.dim)

    def check_image(self, size: int) -> None:
        """Check that images of a side fit."""
        require(size % self.patch == 0, "patch", f"a divisor of the image size {size}", self.patch)


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


def layer(scope: Scope, x: Float[Array, "n t d"], options: ViTOptions) -> Float[Array, "n t d"]:
    """Apply attention and hidden layer, each on normalised inputs and added to them."""
    n, t, dim = x.shape
    heads, head_dim = options.heads, options.head_dim
    inner = heads * head_dim
    y = layer_norm(scope.push("norm_attention"), x)
    qkv = linear(scope.push("qkv"), y, 3 * inner, use_bias=False)
    q, k, v = jnp.split(qkv.reshape(n, t, 3 * heads, head_dim), 3, axis=2)
    y = attention(q, k, v, causal=False)
    x = x + linear(scope.push("out"), y, dim, use_bias=False)
    y = layer_norm(scope.push("norm_hidden"), x)
    y = gelu(linear(scope.push("hidden"), y, options.mlp_dim))
    return x + linear(scope.push("hidden_out"), y, dim)


def forward(
    scope: Scope, x: Float[Array, "n h w p"], *, options: ViTOptions, num_outputs: int
) -> Float[Array, "n c"]:
    """Compute outputs for a batch of images."""
    rows, columns = x.shape[1] // options.patch, x.shape[2] // options.patch
    x = layer_norm(scope.push("norm_patch"), to_patches(x, options.patch))
    x = layer_norm(scope.push("norm_embedding"), linear(scope.push("embedding"), x, options.dim))
    positions = sincos_positions(rows, columns, options.dim)
    x = x + jnp.broadcast_to(jnp.asarray(positions, x.dtype), x.shape)
    for i in range(options.depth):
        x = layer(scope.push(f"layer_{i}"), x, options)
    x = layer_norm(scope.push("norm_out"), x).mean(axis=1)
    return head(scope, x, num_outputs, zero=True)


def build(options: ViTOptions, data: DataSet) -> Network:
    """Build the network for a data set of images."""
    return network(partial(forward, options=options, num_outputs=data.num_outputs), data)


def check(options: ViTOptions, data: DataSet) -> None:
    """Take square images whose side fits the options."""
    options.check_image(check_images("vit", data))


VIT = NetworkKind("vit", ViTOptions, build, check)
