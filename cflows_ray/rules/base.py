"""What an update rule is: preconditioned gradient descent with a stateful diagonal preconditioner.

    s_{t+1} = U(s_t, g_t),     w_{t+1} = w_t - P(s_{t+1})^{-1} g_t,     g_t = ∇L(w_t)

The convention, everywhere in this package: **P approximates the Hessian; the step is -P⁻¹g;
gradient descent in that metric is unstable when an eigenvalue of P^{-1/2} H P^{-1/2} exceeds 2.**
Effective quantities at step t use P(s_{t+1}), the preconditioner that the step divides by.

| symbol | here |
| --- | --- |
| s | `RuleState(t, nu)` |
| U(s, g) | `rule.update(state, grad)` |
| P(s) | `rule.preconditioner(state)` |
| E f(s, g + ξ), ξ with elementwise variance v | `rule.drift(state, grad, grad_variance)` |

For a moving average with decay β₂ the flow's drift is f = (U(s, g) - s) / β₂: with the factor 1/β₂
a flow's ν agrees with the discrete ν *after* it has absorbed the current gradient. The step count
t is no average and advances at rate 1. See docs/theory.md, "Update rules".

Rules are frozen dataclasses and JAX pytrees: the hyperparameters are leaves, so a compiled program
serves every value of them; what changes the program (schedule, bias correction) is static.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cflows_ray.schedules import Schedule, parse_schedule


class RuleState(NamedTuple):
    """State of a rule: gradients absorbed so far (real along a flow), and ν or None."""

    t: Float[Array, ""]
    nu: Any


class UpdateRule(abc.ABC):
    """Preconditioned gradient descent with state; the rules of `RULES` have a file each."""

    lr: float
    schedule: str

    @abc.abstractmethod
    def init(self, params: Float[Array, " d"]) -> RuleState:
        """Return the state before the first gradient."""

    @abc.abstractmethod
    def update(self, state: RuleState, grad: Float[Array, " d"]) -> RuleState:
        """Return U(s, g), the state after absorbing a gradient."""

    @abc.abstractmethod
    def preconditioner(self, state: RuleState) -> Array:
        """Return the diagonal of P(s), scalar or (d,); s must have absorbed a gradient."""

    @abc.abstractmethod
    def drift(
        self, state: RuleState, grad: Float[Array, " d"], grad_variance: Float[Array, " d"]
    ) -> RuleState:
        """Return ds/dt for gradients of mean `grad` and elementwise variance `grad_variance`."""

    def learning_rate(self, state: RuleState) -> Float[Array, ""]:
        """Return η(t) of the step that follows the last absorbed gradient."""
        # the learning rate may be float64 where the parameters are float32
        lr = jnp.asarray(self.lr).astype(state.t.dtype)
        return lr * self._parsed_schedule().factor(state.t - 1.0)

    def _parsed_schedule(self) -> Schedule:
        return parse_schedule(self.schedule)


def traced_rule(*leaves: str) -> Any:
    """Class decorator: register a frozen dataclass as a pytree with the named fields as leaves.

    Unflattening bypasses `__init__`: tracers must not meet the validation of numbers.
    """

    def register(cls: Any) -> Any:
        static = tuple(name for name in cls.__dataclass_fields__ if name not in leaves)

        def flatten(rule: Any) -> tuple[tuple, tuple]:
            children = tuple(getattr(rule, name) for name in leaves)
            return children, tuple(getattr(rule, name) for name in static)

        def unflatten(meta: tuple, children: tuple) -> Any:
            rule: Any = object.__new__(cls)
            for name, value in (
                *zip(leaves, children, strict=True),
                *zip(static, meta, strict=True),
            ):
                object.__setattr__(rule, name, value)
            return rule

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)
        return cls

    return register
