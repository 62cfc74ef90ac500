"""Small convolutional network for images.

Two 3x3 convolutions of w and 2w channels without bias, each followed by the activation and by 2x2
average pooling; a hidden layer of 4w units without bias; a linear layer with bias.

Parameters, for images s x s x p and c outputs, with r = s // 4:
9 p w + 9 w 2w + 2w r² 4w + 4w c + c.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from jaxtyping import Float

from cflows_ray.checks import one_of, require
from cflows_ray.workloads.base import DataSet, Network, NetworkKind, check_images
from cflows_ray.workloads.layers import (
    activation,
    average_pool,
    conv3x3,
    head,
    linear,
    network,
)
from cflows_ray.workloads.options import ACTIVATIONS, check_at_least

if TYPE_CHECKING:
    from flax.core import Scope
    from jaxtyping import Array


@dataclass(frozen=True)
class CNNOptions:
    """Convolutions of `width` and 2 `width` channels, then a hidden layer of 4 `width` units."""

    width: int = 32
    activation: str = "gelu"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "width")
        one_of("activation", self.activation, ACTIVATIONS)

    def check_image(self, size: int) -> None:
        """Check that images of a side fit."""
        require(size >= 4, "image size", ">= 4 for two poolings", size)


def forward(
    scope: Scope, x: Float[Array, "n h w p"], *, options: CNNOptions, num_outputs: int
) -> Float[Array, "n c"]:
    """Compute outputs for a batch of images."""
    act = activation(options.activation)
    for i in range(2):
        x = act(conv3x3(scope.push(f"conv_{i}"), x, options.width * 2**i))
        x = average_pool(x, 2)
    x = x.reshape(x.shape[0], -1)
    x = act(linear(scope.push("hidden"), x, 4 * options.width, use_bias=False))
    return head(scope, x, num_outputs, zero=False)


def build(options: CNNOptions, data: DataSet) -> Network:
    """Build the network for a data set of images."""
    return network(partial(forward, options=options, num_outputs=data.num_outputs), data)


def check(options: CNNOptions, data: DataSet) -> None:
    """Take square images whose side fits the options."""
    options.check_image(check_images("cnn", data))


CNN = NetworkKind("cnn", CNNOptions, build, check)
