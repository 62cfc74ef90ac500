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
    group_norm,
    head,
    network,
    normal,
    zeros,
)
from cflows_ray.workloads.options import ACTIVATIONS, check_at_least

if TYPE_CHECKING:
    from flax.core import Scope
    from jaxtyping import Array


@dataclass(frozen=True)
class ResNetOptions:
    """Residual network: blocks in each stage, channels of the first stage, groups of its norms."""

    stages: tuple[int, ...] = (3, 3, 3)
    width: int = 16
    groups: int = 16
    activation: str = "gelu"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "width", "groups")
        ok = isinstance(self.stages, tuple) and len(self.stages) > 0
        ok = ok and all(isinstance(n, int) and n >= 1 for n in self.stages)
        require(ok, "stages", "a list of integers >= 1", self.stages)
        divides = self.width % self.groups == 0
        require(divides, "groups", f"a divisor of width = {self.width}", self.groups)
        one_of("activation", self.activation, ACTIVATIONS)

    def check_image(self, size: int) -> None:
        """Check that images of a side fit."""
        least = 2 ** (len(self.stages) - 1)
        require(size >= least, "image size", f">= {least} for stages {self.stages}", size)


def _conv(scope: Scope, x: Array, features: int, stride: int) -> Array:
    """Apply a 3x3 convolution that starts normal with variance 2 / (9 features)."""
    return conv3x3(scope, x, features, stride, normal(math.sqrt(2 / (9 * features))))


def block(
    scope: Scope,
    x: Float[Array, "n h w p"],
    features: int,
    stride: int,
    *,
    groups: int,
    scale: float,
    act: Callable[[Array], Array],
) -> Float[Array, "n h2 w2 c"]:
    """Apply one residual block with `features` output channels; `scale` multiplies its branch."""
    y = _conv(scope.push("conv_0"), x, features, stride)
    y = act(group_norm(scope.push("norm_0"), y, groups))
    y = _conv(scope.push("conv_1"), y, features, 1)
    y = group_norm(scope.push("norm_1"), y, groups, scale_init=zeros)
    if stride != 1:
        x = _conv(scope.push("conv_shortcut"), x, features, stride)
        x = group_norm(scope.push("norm_shortcut"), x, groups)
    return x + y * scale


def forward(
    scope: Scope, x: Float[Array, "n h w p"], *, options: ResNetOptions, num_outputs: int
) -> Float[Array, "n c"]:
    """Compute outputs for a batch of images."""
    act = activation(options.activation)
    scale = 1 / math.sqrt(sum(options.stages))
    x = act(_conv(scope.push("stem"), x, options.width, 1))
    for i, size in enumerate(options.stages):
        for j in range(size):
            place, stride = scope.push(f"stage_{i}_block_{j}"), 2 if i > 0 and j == 0 else 1
            features = options.width * 2**i
            x = block(place, x, features, stride, groups=options.groups, scale=scale, act=act)
    x = average_pool(x, min(4, x.shape[1]))
    return head(scope, x.reshape(x.shape[0], -1), num_outputs, zero=True)


def build(options: ResNetOptions, data: DataSet) -> Network:
    """Build the network for a data set of images."""
    return network(partial(forward, options=options, num_outputs=data.num_outputs), data)


def check(options: ResNetOptions, data: DataSet) -> None:
    """Take square images whose side fits the options."""
    options.check_image(check_images("resnet", data))


RESNET = NetworkKind("resnet", ResNetOptions, build, check)
