"""Multilayer perceptron on flattened inputs.

Parameters, for inputs of p numbers, width w, depth D and c outputs:
(p + 1) w + (D - 1)(w + 1) w + (w + 1) c.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cflows_ray.workloads.base import DataSet, Network
from cflows_ray.workloads.layers import ACTIVATION_FUNCTIONS, Linear, from_module, head
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
            x = self.activation(Linear(self.width, name=f"hidden_{i}")(x))
        return head(self.num_outputs, zero=self.zero_head)(x)


def build(options: MLPOptions, data: DataSet) -> Network:
    """Build the network for a data set.

    Example:
        >>> from cflows_ray.workloads.data import digits
        >>> network = build(MLPOptions(width=8, depth=1), digits.load(digits.DigitsOptions()))
        >>> {name: layer["kernel"].shape for name, layer in network.init(0).items()}
        {'hidden_0': (64, 8), 'head': (8, 10)}
    """
    return from_module(
        MLP(
            width=options.width,
            depth=options.depth,
            num_outputs=data.num_outputs,
            activation=ACTIVATION_FUNCTIONS[options.activation],
            zero_head=options.zero_head,
        ),
        data,
    )
