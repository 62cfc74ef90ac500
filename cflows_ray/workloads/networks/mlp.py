"""Multilayer perceptron on flattened inputs.

Parameters, for inputs of p numbers, width w, depth D and c outputs:
(p + 1) w + (D - 1)(w + 1) w + (w + 1) c.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from jaxtyping import Float

from cflows_ray.checks import one_of
from cflows_ray.workloads.base import DataSet, Network, NetworkKind
from cflows_ray.workloads.layers import activation, head, linear, network
from cflows_ray.workloads.options import ACTIVATIONS, check_at_least, check_booleans

if TYPE_CHECKING:
    from flax.core import Scope
    from jaxtyping import Array


@dataclass(frozen=True)
class MLPOptions:
    """Multilayer perceptron: `depth` hidden layers of `width`."""

    width: int = 256
    depth: int = 2
    activation: str = "gelu"
    zero_head: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "width", "depth")
        one_of("activation", self.activation, ACTIVATIONS)
        check_booleans(self, "zero_head")


def forward(
    scope: Scope, x: Float[Array, "n ..."], *, options: MLPOptions, num_outputs: int
) -> Float[Array, "n c"]:
    """Compute outputs for a batch of inputs of any shape."""
    act = activation(options.activation)
    x = x.reshape(x.shape[0], -1)
    for i in range(options.depth):
        x = act(linear(scope.push(f"hidden_{i}"), x, options.width))
    return head(scope, x, num_outputs, zero=options.zero_head)


def build(options: MLPOptions, data: DataSet) -> Network:
    """Build the network for a data set.

    Example:
        >>> from cflows_ray.workloads.data import digits
        >>> mlp = build(MLPOptions(width=8, depth=1), digits.load(digits.DigitsOptions()))
        >>> {name: layer["kernel"].shape for name, layer in sorted(mlp.init(0).items())}
        {'head': (8, 10), 'hidden_0': (64, 8)}
    """
    return network(partial(forward, options=options, num_outputs=data.num_outputs), data)


def check(options: MLPOptions, data: DataSet) -> None:
    """Take numbers of any shape (n, ...), as long as an example has one."""
    del options
    if data.x.ndim < 2 or 0 in data.x.shape[1:]:
        raise ValueError(f"network 'mlp' needs x of shape (n, ...), got {data.x.shape}")


MLP = NetworkKind("mlp", MLPOptions, build, check)
