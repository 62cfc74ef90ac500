"""Learning rates relative to the edge of stability: what a study may write instead of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cflows_ray.checks import ConfigError, integer, one_of, positive, sequence
from cflows_ray.rules import RULES
from cflows_ray.sweep.run_config import make_rule


@dataclass(frozen=True, init=False)
class AtSharpness:
    """The learning rates whose edge of stability is at given Hessian eigenvalues S: η = 2/S.

    With momentum or weight decay the edge lies elsewhere (`UpdateRule.rate_at_edge`). Only for
    rules whose preconditioner is known beforehand; for others, `AroundEdge`.

    Raises `ConfigError` for a sharpness that is not positive, or given twice.

    Example:
        >>> AtSharpness(50, 200).rates("gradient_descent", {})
        (0.04, 0.01)
    """

    sharpnesses: tuple[float, ...]

    def __init__(self, *sharpnesses: float) -> None:
        checked = tuple(positive("sharpness", s) for s in sequence("sharpness", sharpnesses))
        object.__setattr__(self, "sharpnesses", checked)

    def rates(self, rule: str, hyper: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the learning rates of a rule with these other hyperparameters.

        Raises `ConfigError` for a rule for which they depend on the run.
        """
        one_of("rule", rule, RULES)
        made = make_rule(rule, {"lr": 1.0, **hyper})
        found = []
        for sharpness in self.sharpnesses:
            rate = made.rate_at_edge(sharpness)
            if rate is None:
                raise ConfigError(
                    f"lrs must be numbers or AroundEdge for {rule}, whose edge depends on the "
                    f"run, got {self}"
                )
            found.append(rate)
        return tuple(found)

    def __str__(self) -> str:
        return f"AtSharpness({', '.join(f'{s:g}' for s in self.sharpnesses)})"


@dataclass(frozen=True)
class AroundEdge:
    """Multiples of the least learning rate that reaches the edge of stability within some steps.

    That rate is found by a pilot: the optimizer alone, from seed 0, with its tracked eigenvalue, at
    a handful of learning rates (`pilot.py`). It is made once for a workload, rule and other
    hyperparameters, and kept beside the results.

    Attributes:
        factors: of the rate found.
        steps: optimizer steps, after the warm-up, within which the edge is to be reached.

    Raises `ConfigError` for values that are not allowed.

    Example:
        >>> AroundEdge(factors=(0.5, 1.0, 2.0)).rates(0.03)
        (0.015, 0.03, 0.06)
    """

    factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    steps: int = 200

    def __post_init__(self) -> None:
        factors: Iterable[Any] = sequence("factors", self.factors)
        object.__setattr__(self, "factors", tuple(positive("factors", f) for f in factors))
        object.__setattr__(self, "steps", integer("steps", self.steps, 1))

    def rates(self, edge: float) -> tuple[float, ...]:
        """Return the learning rates, where the edge is reached at this one."""
        return tuple(float(f"{factor * edge:.8g}") for factor in self.factors)

    def smoke(self) -> AroundEdge:
        """Shrink to a trial: one rate, few steps."""
        return AroundEdge(self.factors[:1], min(self.steps, 20))
