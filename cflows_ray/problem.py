"""What every optimizer and flow here acts on: a loss of parameters and data.

Functions take their data as an argument, so that one compiled program serves every data set of
the same shape, and are compared by identity: keep them (module-level functions, or closures made
once), do not rebuild them for each run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float, PyTree


@dataclass(frozen=True, eq=False)
class Problem:
    """A loss, its data, and what else can be measured at a point.

    Attributes:
        loss: `loss(params, data) -> scalar`, three times differentiable in `params`.
        data: pytree of arrays given to `loss` (the full batch).
        outputs: `outputs(params, probe) -> (n, ...)`, the network's outputs on the probe inputs.
        probe: inputs for `outputs`.
        accuracy: `accuracy(params, data) -> scalar` in [0, 1].
        test_data: like `data`, for `test_loss` and `test_accuracy`.

    Example:
        >>> import jax.numpy as jnp
        >>> problem = Problem(loss=lambda params, data: jnp.sum((params - data) ** 2), data=jnp.ones(3))
        >>> float(problem.loss(jnp.zeros(3), problem.data))
        3.0
    """

    loss: Callable[[Any, Any], Float[Array, ""]]
    data: PyTree = ()
    outputs: Callable[[Any, Any], Array] | None = None
    probe: PyTree = None
    accuracy: Callable[[Any, Any], Float[Array, ""]] | None = None
    test_data: PyTree = None
