"""Training criteria: the loss of each example, and whether it is classified correctly.

A criterion maps outputs `(..., c)` and targets to one number an example `(...)`; the loss of a
batch is the mean. Targets are class indices `(...)` or, as floats, vectors `(..., c)`; nothing
broadcasts, other shapes raise `ValueError`. Outputs of one unit with a float target of ±1 are a
binary task.

| criterion | loss of one example |
| --- | --- |
| mse | ½ ‖f - target‖², one-hot target for a class index |
| cross_entropy | -log softmax(f)[class]; log(1 + exp(-target f)) for a binary task |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float, Shaped

from cflows_ray.lazy import LazyModule

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")

Criterion = Callable[[Any, Any], "Array"]


def _check_shapes(outputs: Array, targets: Array) -> None:
    """Refuse targets that would broadcast: raises `ValueError`, also while being traced."""
    classes = jnp.issubdtype(targets.dtype, jnp.integer)
    expected = outputs.shape[:-1] if classes else outputs.shape
    if targets.shape != expected:
        kind = "class indices" if classes else "vectors"
        raise ValueError(
            f"targets must be {kind} of shape {expected} for outputs {outputs.shape}, "
            f"got {targets.dtype} {targets.shape}"
        )


def _is_binary(outputs: Array, targets: Array) -> bool:
    """Tell a binary task: one output and a float target, which is then ±1."""
    return outputs.shape[-1] == 1 and jnp.issubdtype(targets.dtype, jnp.floating)


def _target_vectors(outputs: Array, targets: Array) -> Array:
    """Targets as vectors of the outputs' shape and dtype."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
    return targets.astype(outputs.dtype)


def mse(outputs: Float[Array, "*n c"], targets: Shaped[Array, "*n"]) -> Float[Array, "*n"]:
    """Half the squared distance of the outputs to the target.

    Example:
        >>> float(mse(jnp.array([[1.0, 3.0]]), jnp.array([0]))[0])
        4.5
    """
    _check_shapes(outputs, targets)
    return 0.5 * jnp.sum((outputs - _target_vectors(outputs, targets)) ** 2, axis=-1)


def cross_entropy(
    outputs: Float[Array, "*n c"], targets: Shaped[Array, "*n"]
) -> Float[Array, "*n"]:
    """Negative log-likelihood of the target under softmax (logistic for a binary task).

    Example:
        >>> round(float(cross_entropy(jnp.zeros((1, 10)), jnp.array([3]))[0]), 4)
        2.3026
    """
    _check_shapes(outputs, targets)
    if _is_binary(outputs, targets):
        return jax.nn.softplus(-outputs[..., 0] * targets[..., 0].astype(outputs.dtype))
    log_probs = jax.nn.log_softmax(outputs, axis=-1)
    return -jnp.sum(log_probs * _target_vectors(outputs, targets), axis=-1)


def correct(outputs: Float[Array, "*n c"], targets: Shaped[Array, "*n"]) -> Bool[Array, "*n"]:
    """Whether each example is classified as its target says."""
    _check_shapes(outputs, targets)
    if _is_binary(outputs, targets):
        return (outputs[..., 0] > 0) == (targets[..., 0] > 0)
    if jnp.issubdtype(targets.dtype, jnp.floating):
        targets = jnp.argmax(targets, axis=-1)
    return jnp.argmax(outputs, axis=-1).astype(targets.dtype) == targets


CRITERIA: dict[str, Criterion] = {"mse": mse, "cross_entropy": cross_entropy}
