"""Settings of a paired run that shape its compiled program, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from cflows_ray.checks import boolean, integer, positive, require
from cflows_ray.declare import declare
from cflows_ray.flows import FlowOptions, check_flows


def _listed(name: str, value: object) -> tuple[str, ...]:
    """Return the flows as a tuple; here a single name will do, or none."""
    if value == () or value == []:
        return ()
    return check_flows(name, (value,) if isinstance(value, str) else value)


@dataclass(frozen=True, kw_only=True)
class PairedOptions(FlowOptions):
    """Settings of a paired run that shape its compiled program.

    Attributes beside those of `Settings` and `FlowOptions` (`cflows_ray.flows`):
        flows: processes beside the discrete one, from `FLOWS`.
        predict_observables: whether flows' predictions of test loss and network outputs are
            recorded (`test_loss_predicted`, `output_distance_predicted`): two directional
            derivatives for each critical direction and row, and longer compiling.
        divergence_factor: a run has diverged where its loss is not finite or passes this multiple
            of max(|L|, gᵀP⁻¹g), the loss before the first step and what that step should gain.

    Raises `ConfigError` naming the field, the value and what is allowed.

    Example:
        >>> PairedOptions(flows="central", substeps=2).flows
        ('central',)
    """

    flows: tuple[str, ...] = declare(
        ("stable", "central"), check=_listed, kind="names", meaning="processes beside the optimizer"
    )
    predict_observables: bool = False
    divergence_factor: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eig_tolerance is not None:
            positive("eig_tolerance", self.eig_tolerance)
        integer("max_eigs", self.max_eigs, 1)
        boolean("predict_observables", self.predict_observables)
        for field in ("record_eig_tolerance", "sharpness_limit", "divergence_factor"):
            positive(field, getattr(self, field))
        thresholds = (self.tracking_threshold, self.near_threshold, self.critical_threshold)
        require(
            0 < thresholds[0] < thresholds[1] <= thresholds[2] < 2,
            "tracking_threshold < near_threshold <= critical_threshold",
            "in (0, 2)",
            thresholds,
        )

    def grown(self, num_eigs: int, num_params: int) -> int:
        """Return how many directions to track where so many were too few."""
        return min(2 * num_eigs, num_params, self.most_eigs)
