"""What an unknown optimizer makes of a gradient that alternates in sign: its edge of stability.

An optimizer is given as a function u, s' = update(g, s, w), w' = w + u. Where it filters gradients
linearly and acts on every parameter by itself, an oscillation δ(-1)ᵗ obeys

    -2δ = -R Hδ + Dδ,     R, D diagonal

R what u makes of a gradient that alternates, once the filter has settled (Q(-1)/P of
docs/momentum-theory.md), and D what it makes of parameters that do (-ηω, weight decay). So
Q̂ = (1 + D/2)/R is the metric in which the edge is at 2.

The states of such optimizers have two kinds of parts: memories of the gradient, which change their
sign with it, and what does not (second moments, counts) and makes the preconditioner. With the
second kind as it is, a step is linear in gradient and memories x; at period two the memory that
enters is -x where x leaves: (1 + M) x = K g, one small system for each parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from cflows_ray.lazy import LazyModule

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, Float, PyTree
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")

Update = Callable[[Any, Any, Any], tuple[Any, Any]]
"""`update(g, s, w) -> (u, s')`, g, w and u of shape (d,)."""

# How far from linear, or from acting on each parameter by itself, an optimizer may be.
TOLERANCE = 1e-3


class Filtering(NamedTuple):
    """How a linear filter is found in an optimizer's state; static.

    Attributes:
        memories: of every leaf of the state, whether it is a memory of the gradient.
        decays: whether parameters enter the step, each for itself.
    """

    memories: tuple[bool, ...]
    decays: bool


class Response(NamedTuple):
    """R and D of the head of this file, shape (d,) each, and the memories x, shape (n, d)."""

    to_gradient: Float[Array, " d"]
    to_params: Float[Array, " d"]
    memory: Float[Array, "n d"]

    @property
    def metric(self) -> Float[Array, " d"]:
        """Q̂ = (1 + D/2)/R."""
        return (1.0 + 0.5 * self.to_params) / self.to_gradient


def respond(
    update: Update,
    filtering: Filtering,
    state: PyTree,
    grad: Float[Array, " d"],
    params: Float[Array, " d"],
) -> Response:
    """Return the settled response to ±g, where the state has not yet absorbed g.

    The size of g is that of the present gradient, so that the preconditioner is the one that the
    present step divides by. A parameter without gradient is shown one of the size of rounding.
    """
    largest = jnp.max(jnp.abs(grad))
    info = jnp.finfo(grad.dtype)
    least = 100 * info.eps * largest + jnp.sqrt(info.tiny)
    grad = jnp.where(jnp.abs(grad) < least, least, grad)
    still = jnp.zeros_like(_memories(filtering, state, grad))

    def made(memory: Array, grad: Array, params: Array) -> tuple[Array, Array]:
        u, following = update(grad, _remembering(filtering, state, memory), params)
        return _memories(filtering, following, grad), u

    def one_memory(which: Array) -> tuple[Array, Array]:
        along = which[:, None] * jnp.ones_like(still)
        return jax.jvp(lambda x: made(x, grad, params), (still,), (along,))[1]

    # derivatives along ones are diagonals: each parameter is by itself
    kept, put_out = jax.vmap(one_memory)(jnp.eye(len(still), dtype=grad.dtype))

    def settled(taken: Array, at_once: Array) -> tuple[Array, Array]:
        """Return the memory that leaves at period two, and the update."""
        memory = _solve(kept, taken)
        return memory, at_once - jnp.sum(put_out * memory, axis=0)

    there, back = made(still, grad, params), made(still, -grad, params)
    memory, u = settled(0.5 * (there[0] - back[0]), 0.5 * (there[1] - back[1]))
    to_params = jnp.zeros_like(u)
    if filtering.decays:
        ones = jnp.ones_like(params)
        moved = jax.jvp(lambda w: made(still, grad, w), (params,), (ones,))[1]
        to_params = settled(*moved)[1]
    return Response(-u / grad, to_params, memory)


def _solve(kept: Float[Array, "n n d"], taken: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Return x of x_b + Σ_a kept_ab x_a = taken_b, for each parameter."""
    if len(taken) <= 1:
        return taken / (1.0 + kept.reshape(taken.shape))
    matrices = jnp.eye(len(taken), dtype=taken.dtype) + kept.transpose(2, 1, 0)
    return jnp.linalg.solve(matrices, taken.T[..., None])[..., 0].T


def _memories(filtering: Filtering, state: PyTree, grad: Float[Array, " d"]) -> Float[Array, "n d"]:
    """Return the memories of a state as rows, of the gradient's dtype; there may be none."""
    leaves = zip(jax.tree.leaves(state), filtering.memories, strict=True)
    rows = [jnp.ravel(leaf).astype(grad.dtype) for leaf, is_memory in leaves if is_memory]
    return jnp.concatenate([jnp.zeros(0, grad.dtype), *rows]).reshape(-1, grad.size)


def _remembering(filtering: Filtering, state: PyTree, memory: Float[Array, "n d"]) -> PyTree:
    """Return a state with other memories."""
    leaves, treedef = jax.tree.flatten(state)
    flat, begin = memory.ravel(), 0
    for i, is_memory in enumerate(filtering.memories):
        if is_memory:
            end = begin + leaves[i].size
            leaves[i] = flat[begin:end].reshape(leaves[i].shape).astype(leaves[i].dtype)
            begin = end
    return jax.tree.unflatten(treedef, leaves)


# Whether there is a filter ----------------------------------------------------------------------


def find_filtering(
    init: Callable[[Array], PyTree], update: Update, num_params: int
) -> Filtering | None:
    """Return how gradients are filtered; None where it is not linear, or not elementwise.

    Tried out on random numbers, in float64 mode: signs of the state, then the settled response,
    which must be a fixed point, the same for a gradient twice as large, and for each parameter the
    same whatever the others see.
    """
    keys = jax.random.split(jax.random.key(0), 5)
    params, *grads = (jax.random.normal(key, (num_params,), jnp.float64) for key in keys)
    memories = _signs(init, update, grads)
    if memories is None:
        return None
    state = init(params)
    for grad in grads[:3]:
        state = update(grad, state, params)[1]
    weak = 1e-4 * grads[3]
    size = sum(leaf.size for leaf, odd in zip(jax.tree.leaves(state), memories, strict=True) if odd)
    if size % num_params:
        return None
    decays = _is_elementwise(lambda w: update(weak, state, w)[0], params)
    filtering = Filtering(memories, decays)

    def response(grad: Array) -> Response:
        return respond(update, filtering, state, grad, params)

    found, twice = response(weak), response(2.0 * weak)
    others = response(weak.at[0].multiply(3.0))
    good = (
        jnp.all(found.to_gradient > 0)
        & _agree(found.to_gradient, twice.to_gradient)
        & _agree(found.to_gradient, others.to_gradient)
        & _is_settled(update, filtering, state, weak, params, found)
    )
    return filtering if bool(good) else None


def _signs(
    init: Callable[[Array], PyTree], update: Update, grads: list[Array]
) -> tuple[bool, ...] | None:
    """Say of every leaf whether it is odd in the gradients; None if one is neither odd nor even."""
    nothing = jnp.zeros_like(grads[0])
    ends = []
    for sign in (1.0, -1.0):
        state = init(nothing)
        for grad in grads[:2]:
            state = update(sign * grad, state, nothing)[1]
        ends.append(jax.tree.leaves(state))
    signs = []
    for there, back in zip(*ends, strict=True):
        is_even = bool(jnp.all(there == back))
        if not is_even and not bool(jnp.allclose(there, -back, rtol=1e-12, atol=0.0)):
            return None
        signs.append(not is_even)
    return tuple(signs)


def _is_elementwise(function: Callable[[Array], Array], at: Float[Array, " d"]) -> bool:
    """Say whether a function depends on its argument, each element on its own alone."""
    first = jnp.zeros_like(at).at[0].set(1.0)
    moved = jax.jvp(function, (at,), (first,))[1]
    return bool((moved[0] != 0) & jnp.all(moved[1:] == 0))


def _is_settled(
    update: Update,
    filtering: Filtering,
    state: PyTree,
    grad: Array,
    params: Array,
    found: Response,
) -> Array:
    """Say whether the response is what the optimizer makes of its own memory at period two."""
    ends = []
    for sign in (1.0, -1.0):
        entering = _remembering(filtering, state, -sign * found.memory)
        u, following = update(sign * grad, entering, params)
        ends.append((_memories(filtering, following, grad), u))
    memory, u = (0.5 * (there - back) for there, back in zip(*ends, strict=True))
    return _agree(memory, found.memory) & _agree(-u, found.to_gradient * grad)


def _agree(one: Array, other: Array) -> Array:
    return jnp.all(jnp.abs(one - other) <= TOLERANCE * jnp.abs(other))
