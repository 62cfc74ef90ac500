"""Small convolutional network for images.

Two 3x3 convolutions of w and 2w channels without bias, each followed by the activation and by 2x2
average pooling; a hidden layer of 4w units without bias; a linear layer with bias.

Parameters, for images s x s x p and c outputs, with r = s // 4:
9 p w + 9 w 2w + 2w r² 4w + 4w c + c.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cflows_ray.workloads.base import DataSet, Network, check_images
from cflows_ray.workloads.layers import (
    ACTIVATION_FUNCTIONS,
    Conv3x3,
    Linear,
    average_pool,
    from_module,
    head,
)
from cflows_ray.workloads.options import CNNOptions


class CNN(nn.Module):
    """Two convolutions with pooling, a hidden layer, a linear layer."""

    width: int
    num_outputs: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w p"]) -> Float[Array, "n c"]:
        """Compute outputs for a batch of images."""
        for i in range(2):
            x = self.activation(Conv3x3(self.width * 2**i, name=f"conv_{i}")(x))
            x = average_pool(x, 2)
        x = x.reshape(x.shape[0], -1)
        x = self.activation(Linear(4 * self.width, use_bias=False, name="hidden")(x))
        return head(self.num_outputs, zero=False)(x)


def build(options: CNNOptions, data: DataSet) -> Network:
    """Build the network for a data set of images; raises `ValueError` for other data."""
    options.check_image(check_images("cnn", data))
    activation = ACTIVATION_FUNCTIONS[options.activation]
    return from_module(CNN(options.width, data.num_outputs, activation), data)
