"""What a workload is, and how a network and a data set become one.

A network is an `apply(params, inputs) -> outputs`; a data set is a pair of arrays. `supervised`
joins them under a criterion into the `Problem` that the optimizer and the flows act on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cflows_ray.problem import Problem
from cflows_ray.workloads.criteria import CRITERIA, correct
from cflows_ray.workloads.ghost import mean_over_examples
from cflows_ray.workloads.options import CommonOptions

Apply = Callable[[Any, Any], Array]


@dataclass(frozen=True, eq=False)
class Workload:
    """A problem with its name, criterion and initial parameters.

    Attributes:
        name: name in the registry.
        criterion: "mse" or "cross_entropy".
        problem: the loss, its full batch of data, and what else can be measured.
        init: `init(seed) -> params`, float32, the same for the same seed.
    """

    name: str
    criterion: str
    problem: Problem
    init: Callable[[int], PyTree]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Arrays of a supervised task; n examples, n_test of them held out.

    Attributes:
        x: inputs (n, ...), float32 or integer tokens.
        y: targets: integer classes (n, ...) or float32 vectors (n, ..., c).
        x_test: inputs of the test set, or None.
        y_test: targets of the test set, or None.
        num_outputs: outputs c of a network for this task.
        vocab_size: number of different tokens, for token sequences.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray | None
    y_test: np.ndarray | None
    num_outputs: int
    vocab_size: int | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A network as two pure functions.

    Attributes:
        apply: `apply(params, x) -> outputs (n, ..., c)`, computed in the dtype of `params`.
        init: `init(seed) -> params` in float32.
    """

    apply: Apply
    init: Callable[[int], PyTree]


def float_dtype(params: PyTree) -> jnp.dtype:
    """Return the floating-point type of the parameters; computing happens in it.

    Raises `ValueError` for parameters of several types.
    """
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
    if len(dtypes) != 1:
        raise ValueError(f"params must have one dtype, got {sorted(map(str, dtypes))}")
    return dtypes.pop()


def in_dtype_of(params: PyTree, x: Array) -> Array:
    """Cast inputs to the parameters' dtype; leave integer tokens alone."""
    x = jnp.asarray(x)
    return x.astype(float_dtype(params)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def check_images(network: str, data: DataSet) -> int:
    """Return the side of square images (n, side, side, channels); `ValueError` for other data."""
    shape = data.x.shape
    if data.vocab_size is not None or len(shape) != 4 or shape[1] != shape[2]:
        raise ValueError(
            f"network {network!r} needs x of shape (n, side, side, channels), got {shape}"
        )
    return int(shape[1])


def check_tokens(network: str, data: DataSet) -> tuple[int, int]:
    """Return vocabulary size and predicted positions; `ValueError` for data other than tokens."""
    x, y = data.x, data.y
    ok = data.vocab_size is not None and x.ndim == 2 and np.issubdtype(y.dtype, np.integer)
    if not ok or y.ndim != 2 or y.shape[1] > x.shape[1]:
        raise ValueError(
            f"network {network!r} needs integer x (n, tokens) and integer y (n, predicted) with "
            f"predicted <= tokens, got x {x.dtype} {x.shape} and y {y.dtype} {y.shape}"
        )
    assert data.vocab_size is not None
    return data.vocab_size, int(y.shape[1])


def is_classification(y: np.ndarray) -> bool:
    """Tell targets that name classes (indices, ±1 or one-hot vectors) from other targets."""
    if np.issubdtype(y.dtype, np.integer):
        return True
    if y.shape[-1] == 1:
        return bool(np.all(np.abs(y) == 1))
    return bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=-1) == 1))


def supervised(
    name: str, criterion: str, data: DataSet, network: Network, common: CommonOptions
) -> Workload:
    """Join a data set and a network under a criterion.

    The loss is the mean of the criterion over all examples (for sequences: over all predicted
    positions of all examples). With `common.ghost_batch` it accumulates over slices.

    Example:
        >>> from cflows_ray.workloads import build_workload
        >>> workload = build_workload("digits_mlp", "cross_entropy")
        >>> float(workload.problem.loss(workload.init(0), workload.problem.data))  # log(10)
        2.3025...
    """
    example_loss = CRITERIA[criterion]
    classes = is_classification(data.y)
    if criterion == "cross_entropy" and not classes:
        raise ValueError(
            f"criterion 'cross_entropy' of workload {name!r} needs targets that are class indices, "
            "one-hot vectors, or ±1 for a single output"
        )

    def per_example(params: PyTree, batch: dict[str, Array]) -> Float[Array, " *n"]:
        return example_loss(network.apply(params, in_dtype_of(params, batch["x"])), batch["y"])

    def per_example_correct(params: PyTree, batch: dict[str, Array]) -> Float[Array, " *n"]:
        outputs = network.apply(params, in_dtype_of(params, batch["x"]))
        return correct(outputs, batch["y"]).astype(outputs.dtype)

    def outputs(params: PyTree, probe: Array) -> Array:
        return network.apply(params, in_dtype_of(params, probe))

    has_test = data.x_test is not None and len(data.x_test) > 0
    probe = data.x_test if has_test else data.x
    assert probe is not None  # one of the two is an array
    problem = Problem(
        loss=mean_over_examples(per_example, common.ghost_batch),
        data={"x": data.x, "y": data.y},
        outputs=outputs,
        probe=probe[: common.num_probe],
        accuracy=mean_over_examples(per_example_correct, common.ghost_batch) if classes else None,
        test_data={"x": data.x_test, "y": data.y_test} if has_test else None,
    )
    return Workload(name=name, criterion=criterion, problem=problem, init=network.init)
