"""Update rules, one a file: what the optimizer does, and how it moves in the mean.

Hands out `RULES` (the registry), what a rule is (`UpdateRule`, `AveragedRule`, `Moments`,
`Motion`), the rules themselves, `from_optax`, and `traced`. A new rule is one file with a frozen
dataclass that declares its hyperparameters and implements one of the two contracts of `rule.py`,
and one line in `registry.py`; from outside the package, an entry point of the group
`cflows_ray.rules` or `RULES.register`. The contract tests over the registry then apply to it. Loads
no JAX by itself.
"""

from cflows_ray.rules.adam import Adam
from cflows_ray.rules.adamw import AdamW
from cflows_ray.rules.gradient_descent import GradientDescent
from cflows_ray.rules.nadam import NAdam
from cflows_ray.rules.optax_rule import OptaxRule, from_optax
from cflows_ray.rules.preconditioned import Averages, PreconditionedRule
from cflows_ray.rules.registry import (
    RULES,
    all_hyperparameters,
    first_values,
    hyperparameter_columns,
    hyperparameters,
)
from cflows_ray.rules.rmsprop import RMSProp
from cflows_ray.rules.rule import (
    AveragedRule,
    Moments,
    Motion,
    UpdateRule,
    check_range,
    is_traced,
    traced,
)
from cflows_ray.rules.scalar_adam import ScalarAdam
from cflows_ray.rules.scalar_rmsprop import ScalarRMSProp

__all__ = [
    "RULES",
    "Adam",
    "AdamW",
    "AveragedRule",
    "Averages",
    "GradientDescent",
    "Moments",
    "Motion",
    "NAdam",
    "OptaxRule",
    "PreconditionedRule",
    "RMSProp",
    "ScalarAdam",
    "ScalarRMSProp",
    "UpdateRule",
    "all_hyperparameters",
    "check_range",
    "first_values",
    "from_optax",
    "hyperparameter_columns",
    "hyperparameters",
    "is_traced",
    "traced",
]
