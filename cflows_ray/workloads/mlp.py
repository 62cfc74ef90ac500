"""Multilayer perceptron on flattened inputs.

Parameters, for inputs of p numbers, width w, depth D and c outputs:
(p + 1) w + (D - 1)(w + 1) w + (w + 1) c.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from cflows_ray.workloads.base import Network
from cflows_ray.workloads.layers import ACTIVATIONS, from_module, head_init
from cflows_ray.workloads.options import MLPOptions


class MLP(nn.Module):
    """`depth` hidden layers of `width` units, then a linear layer."""

    width: int
    depth: int
    num_outputs: int
    activation: Callable[[Array], Array]
    zero_head: bool

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n c"]:
        """Compute outputs for a batch of inputs of any shape."""
        x = x.reshape(x.shape[0], -1)
        for i in range(self.depth):
            x = self.activation(nn.Dense(self.width, name=f"hidden_{i}")(x))
        return nn.Dense(self.num_outputs, name="head", kernel_init=head_init(self.zero_head))(x)


def build(options: MLPOptions, example: np.ndarray, num_outputs: int) -> Network:
    """Build the network for inputs like `example` (1, ...).

    Example:
        >>> network = build(MLPOptions(width=8), np.zeros((1, 5), np.float32), 2)
        >>> sum(a.size for a in jax.tree.leaves(network.init(0)))
        138
    """
    module = MLP(
        width=options.width,
        depth=options.depth,
        num_outputs=num_outputs,
        activation=ACTIVATIONS[options.activation],
        zero_head=options.zero_head,
    )
    return from_module(module, example)
