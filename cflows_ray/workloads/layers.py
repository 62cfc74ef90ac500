"""Pieces that several networks share.

All of them compute in the dtype of their inputs and parameters and have exact derivatives of
every order, which the third derivatives of the central flow need.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from cflows_ray.workloads.base import Network

gelu = partial(jax.nn.gelu, approximate=False)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"gelu": gelu, "tanh": jnp.tanh}


def head_init(zero: bool) -> Callable[..., Array]:
    """Choose the initializer of a last layer's kernel: zeros, or the usual scaled normal."""
    return nn.initializers.zeros_init() if zero else nn.initializers.lecun_normal()


def from_module(module: nn.Module, example: np.ndarray) -> Network:
    """Turn a flax module into two pure functions; `example` (1, ...) fixes the input shape."""

    def apply(params: PyTree, x: Array) -> Array:
        return cast(Array, module.apply({"params": params}, x))

    def init(seed: int) -> PyTree:
        # jitted: one program instead of one dispatch per initializer
        return _init(module, jax.random.key(seed), jnp.asarray(example))["params"]

    return Network(apply=apply, init=init)


@partial(jax.jit, static_argnums=0)
def _init(module: nn.Module, key: Array, example: Array) -> PyTree:
    """Draw the initial variables of a module."""
    return module.init(key, example)
