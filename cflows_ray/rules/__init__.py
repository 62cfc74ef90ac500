"""Update rules, one a file, and their registry.

A new rule is a frozen dataclass that implements `UpdateRule` (see `base.py`), one line in `RULES`;
the contract tests over the registry then apply to it.
"""

from cflows_ray.rules.base import RuleState, UpdateRule
from cflows_ray.rules.gradient_descent import GradientDescent
from cflows_ray.rules.rmsprop import RMSProp
from cflows_ray.rules.scalar_rmsprop import ScalarRMSProp
from cflows_ray.schedules import Schedule, parse_schedule

RULES: dict[str, type[UpdateRule]] = {
    "gradient_descent": GradientDescent,
    "scalar_rmsprop": ScalarRMSProp,
    "rmsprop": RMSProp,
}

__all__ = [
    "RULES",
    "GradientDescent",
    "RMSProp",
    "RuleState",
    "ScalarRMSProp",
    "Schedule",
    "UpdateRule",
    "parse_schedule",
]
