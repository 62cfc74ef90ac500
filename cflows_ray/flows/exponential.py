"""What relaxes at a known rate is integrated exactly, however stiff: the functions φ₁ and φ₂.

    y' = F - r y:     y(t + h) = y + h φ₁(hr) (F - r y) + h² φ₂(hr) F',
    φ₁(z) = (1 - e⁻ᶻ)/z,     φ₂(z) = (1 - φ₁(z))/z

for an F that changes linearly in time: Euler's step and its correction where r = 0. So relax the
averages of a rule's state (`AveragedRule.memory_rates`); docs/theory.md, "The adaptive scheme".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cflows_ray.rules import AveragedRule

Number = Float[Array, ""]


def phi(order: int, z: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Return φ₁(z) = (1 - e⁻ᶻ)/z or φ₂(z) = (1 - φ₁(z))/z, float64.

    Example:
        >>> with jax.enable_x64(True):
        ...     found = [phi(n, jnp.array([1.0])) for n in (1, 2)]
        >>> [round(float(x[0]), 6) for x in found]
        [0.632121, 0.367879]
    """
    z = z.astype(jnp.float64)
    small = jnp.abs(z) < 1e-2
    safe = jnp.where(small, 1.0, z)
    first = -jnp.expm1(-safe) / safe
    if order == 1:
        return jnp.where(small, 1.0 - z / 2 + z**2 / 6 - z**3 / 24, first)
    return jnp.where(small, 0.5 - z / 6 + z**2 / 24 - z**3 / 120, (1.0 - first) / safe)


def forcing(rule: AveragedRule, state: PyTree, rate: PyTree) -> PyTree:
    """Return F of ds/dt = F - r s, r being `rule.memory_rates`, from s and ds/dt."""
    rates = rule.memory_rates(state)
    return jax.tree.map(lambda ds, r, s: ds + _like(r, s) * s, rate, rates, state)


def relaxed(rule: AveragedRule, state: PyTree, force: PyTree, h: Number) -> PyTree:
    """Return s after a time h with a constant F: s + h φ₁(hr) (F - r s)."""

    def moved(s: Array, F: Array, r: Any) -> Array:
        return s + _like(h * phi(1, h * jnp.asarray(r)), s) * (F - _like(r, s) * s)

    return jax.tree.map(moved, state, force, rule.memory_rates(state))


def bent(rule: AveragedRule, state: PyTree, slope: PyTree, h: Number) -> PyTree:
    """Return what a slope F' of F adds to s in a time h: h² φ₂(hr) F'."""
    return jax.tree.map(
        lambda slope, r: _like(h**2 * phi(2, h * jnp.asarray(r)), slope) * slope,
        slope,
        rule.memory_rates(state),
    )


class Heun(NamedTuple):
    """Where Euler's step of the rule's state leads, and Heun's."""

    euler: PyTree
    whole: PyTree


def heun(
    rule: AveragedRule,
    state: PyTree,
    rate: PyTree,
    later: Callable[[PyTree], PyTree],
    h: Number,
    safe: PyTree,
) -> Heun:
    """Return s after a time h of ds/dt = F(s) - r s, by Heun's scheme for F.

    Args:
        rule: the averaged rule.
        state: s where the step begins.
        rate: ds/dt there.
        later: ds/dt where it ends, of s there.
        h: length of the step; 0 leaves s as it is.
        safe: what is admissible; see `AveragedRule.admissible`.
    """
    force = forcing(rule, state, rate)
    straight = relaxed(rule, state, force, h)
    euler = rule.admissible(straight, safe)
    over = jnp.where(h > 0, h, 1.0)
    slope = jax.tree.map(lambda b, a: (b - a) / over, forcing(rule, euler, later(euler)), force)
    whole = jax.tree.map(jnp.add, straight, bent(rule, state, slope, h))
    return Heun(euler, rule.admissible(whole, safe))


def settled(rule: AveragedRule, straight: PyTree, whole: PyTree, h: Number) -> PyTree:
    """Return the whole step of an average as far as it settles within it, else its Euler step.

    s_E + (1 - φ₁(hr)) (s - s_E): Heun's scheme looks at s_E, which is near where r is small only.
    """
    return jax.tree.map(
        lambda e, s, r: e + _like(1.0 - phi(1, h * jnp.asarray(r)), e) * (s - e),
        straight,
        whole,
        rule.memory_rates(whole),
    )


def _like(x: Any, array: Array) -> Array:
    return jnp.asarray(x).astype(array.dtype)
