"""What every optimizer and flow here acts on: a loss of parameters and data.

Functions take their data as an argument, so that one compiled program serves every data set of
the same shape. They are traced at each start of a run: what they capture counts as it is then, and
functions that compute the same share a program, whether or not they are one object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

# What JAX makes of integers of 64 bits where its 64-bit mode is off.
_NARROWED: dict[np.dtype, str] = {np.dtype("int64"): "int32", np.dtype("uint64"): "uint32"}


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
        >>> problem = Problem(lambda params, data: jnp.sum((params - data) ** 2), jnp.ones(3))
        >>> float(problem.loss(jnp.zeros(3), problem.data))
        3.0
    """

    loss: Callable[[Any, Any], Float[Array, ""]]
    data: PyTree = field(default=(), repr=False)
    outputs: Callable[[Any, Any], Array] | None = None
    probe: PyTree = field(default=None, repr=False)
    accuracy: Callable[[Any, Any], Float[Array, ""]] | None = None
    test_data: PyTree = field(default=None, repr=False)


@dataclass(frozen=True)
class ParamStructure:
    """How a pytree of parameters lies in one flat vector; hashable, to key compiled programs.

    Attributes:
        treedef: structure of the pytree.
        shapes: shape of each leaf.
        dtype: floating-point type of the run, "float32" or "float64".
    """

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtype: str

    @classmethod
    def of(cls, params: PyTree, dtype: str) -> ParamStructure:
        """Read the structure of a pytree.

        Raises `ValueError` if a leaf is not a floating-point array, or if there is none.
        """
        leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        for path, leaf in leaves:
            found = getattr(leaf, "dtype", None)
            found = np.asarray(leaf).dtype if found is None else found
            if not jnp.issubdtype(found, jnp.floating):
                where = jax.tree_util.keystr(path) or "the root"
                raise ValueError(f"params must hold floating-point arrays, got {found} at {where}")
        structure = cls(treedef, tuple(tuple(np.shape(leaf)) for _, leaf in leaves), dtype)
        if structure.size == 0:
            raise ValueError("params must hold at least one number, got none")
        return structure

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def flatten(self, params: PyTree) -> np.ndarray:
        """Return the parameters as one vector of the run's dtype, shape (d,).

        Raises `ValueError` naming the leaf that is not finite in this dtype.
        """
        with np.errstate(over="ignore"):
            leaves = [
                np.ravel(np.asarray(leaf)).astype(self.dtype)
                for leaf in self.treedef.flatten_up_to(params)
            ]
        flat = np.concatenate(leaves)
        if not np.all(np.isfinite(flat)):
            names = self.leaves_where(~np.isfinite(flat))
            where = f" at {', '.join(names)}" if names else ""
            found = flat[~np.isfinite(flat)][0]
            raise ValueError(f"params must be finite in {self.dtype}, got {found}{where}")
        return flat

    def leaves_where(self, marked: np.ndarray) -> list[str]:
        """Name the leaves in which a number of a flat vector is marked; the root has no name."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(self.unflatten(marked))
        names = [jax.tree_util.keystr(path) for path, leaf in leaves if np.any(leaf)]
        return [name for name in names if name]

    def unflatten(self, flat: Any) -> PyTree:
        """Return the pytree of a flat vector; works on NumPy arrays and inside JAX."""
        leaves, begin = [], 0
        for shape in self.shapes:
            end = begin + int(np.prod(shape))
            leaves.append(flat[begin:end].reshape(shape))
            begin = end
        return jax.tree_util.tree_unflatten(self.treedef, leaves)


def cast_floats(tree: PyTree, dtype: str) -> PyTree:
    """Cast floating-point leaves to the run's dtype; leave integers alone.

    Raises `ValueError` for integers that a float32 run, in which JAX's integers have 32 bits, would
    wrap around.

    Example:
        >>> cast_floats({"label": np.array([2**32 + 1])}, "float32")
        Traceback (most recent call last):
        ValueError: data must hold integers of 32 bits in a float32 run, got 4294967297 at ['label']
    """

    def cast(path: Any, leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        if dtype == "float32" and array.size and array.dtype in _NARROWED:
            limits = np.iinfo(_NARROWED[array.dtype])
            for extreme in (int(array.min()), int(array.max())):
                if not limits.min <= extreme <= limits.max:
                    where = jax.tree_util.keystr(path)
                    raise ValueError(
                        f"data must hold integers of 32 bits in a float32 run, got {extreme}"
                        + (f" at {where}" if where else "")
                    )
        return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

    return jax.tree_util.tree_map_with_path(cast, tree)
