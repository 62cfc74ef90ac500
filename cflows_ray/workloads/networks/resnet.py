"""Residual network for images.

A 3x3 convolution and activation; stages of residual blocks, the first block of every stage but
the first halving the image and doubling the channels; average pooling in 4x4 windows; a linear
layer that starts at zero. A block adds to its input

    norm(conv(act(norm(conv(x))))) / sqrt(number of blocks),

whose last norm starts with scale zero. No convolution has a bias, and nothing follows the sum. The
shortcut of a block that changes the shape is a 3x3 convolution of stride 2 and a norm, as in the
paper's code. Convolutions start normal with variance 2 / (9 output channels).

Parameters: with N(c) = 2c for a norm, a block from a to b channels has 9ab + 9bb + 2 N(b), and
9ab + N(b) more for a shortcut.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from cflows_ray.workloads.base import DataSet, Network, check_images
from cflows_ray.workloads.layers import (
    ACTIVATION_FUNCTIONS,
    Conv3x3,
    GroupNorm,
    average_pool,
    from_module,
    head,
    normal,
    zeros,
)
from cflows_ray.workloads.options import ResNetOptions


def _conv(features: int, stride: int, name: str) -> Conv3x3:
    """Make a 3x3 convolution that starts normal with variance 2 / (9 features)."""
    init = normal(math.sqrt(2 / (9 * features)))
    return Conv3x3(features, stride, kernel_init=init, name=name)


class Block(nn.Module):
    """One residual block with `features` output channels; `scale` multiplies its branch."""

    features: int
    stride: int
    groups: int
    scale: float
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w p"]) -> Float[Array, "n h2 w2 c"]:
        """Apply the block."""
        y = _conv(self.features, self.stride, "conv_0")(x)
        y = self.activation(GroupNorm(self.groups, name="norm_0")(y))
        y = _conv(self.features, 1, "conv_1")(y)
        y = GroupNorm(self.groups, scale_init=zeros, name="norm_1")(y)
        if self.stride != 1:
            x = _conv(self.features, self.stride, "conv_shortcut")(x)
            x = GroupNorm(self.groups, name="norm_shortcut")(x)
        return x + y * self.scale


class ResNet(nn.Module):
    """The whole network."""

    stages: tuple[int, ...]
    width: int
    groups: int
    num_outputs: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w p"]) -> Float[Array, "n c"]:
        """Compute outputs for a batch of images."""
        scale = 1 / math.sqrt(sum(self.stages))
        x = self.activation(_conv(self.width, 1, "stem")(x))
        for i, size in enumerate(self.stages):
            for j in range(size):
                stride = 2 if i > 0 and j == 0 else 1
                x = Block(
                    features=self.width * 2**i,
                    stride=stride,
                    groups=self.groups,
                    scale=scale,
                    activation=self.activation,
                    name=f"stage_{i}_block_{j}",
                )(x)
        x = average_pool(x, min(4, x.shape[1]))
        return head(self.num_outputs, zero=True)(x.reshape(x.shape[0], -1))


def build(options: ResNetOptions, data: DataSet) -> Network:
    """Build the network for a data set of images; raises `ValueError` for other data."""
    options.check_image(check_images("resnet", data))
    return from_module(
        ResNet(
            stages=options.stages,
            width=options.width,
            groups=options.groups,
            num_outputs=data.num_outputs,
            activation=ACTIVATION_FUNCTIONS[options.activation],
        ),
        data,
    )
