"""Slow, obvious float64 oracles, which share nothing with the package but the definitions.

`preconditioned`: rules without momentum and their central flow. `optimizers`: loops of the discrete
optimizers. `momentum`: inertial stable and central flows of the rules with momentum. `analytic`:
solutions in closed form.
"""

from tests.oracles.preconditioned import (
    CRITICAL,
    DenseLoss,
    OraclePath,
    OracleRule,
    central_path,
    discrete_path,
    solve_sdcp_oracle,
)

__all__ = [
    "CRITICAL",
    "DenseLoss",
    "OraclePath",
    "OracleRule",
    "central_path",
    "discrete_path",
    "solve_sdcp_oracle",
]
