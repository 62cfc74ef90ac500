"""Settings of a paired run that shape its compiled program, checked when they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from cflows_ray.checks import check_scheme, integer, positive
from cflows_ray.flows import FLOWS, FlowOptions

EIG_TOLERANCE = {"float32": 1e-3, "float64": 1e-8}
EIG_TOLERANCES = ("eig_tolerance", "record_eig_tolerance")


@dataclass(frozen=True)
class PairedOptions:
    """Settings of a paired run that shape its compiled program.

    Attributes:
        flows: processes beside the discrete one, from `FLOWS`.
        num_eigs: tracked directions at the start; their number doubles where one is too few.
        max_eigs: up to so many (or `num_eigs`, if larger). Rows of a process that would need more
            have the status "eig_unconverged".
        substeps: substeps of the central flow per optimizer step.
        scheme: "euler", of first order, or "extrapolated", of second order with as many
            derivatives; the latter needs an even number of substeps (docs/theory.md).
        dtype: "float32" or "float64", of parameters and derivatives.
        record_every: optimizer steps between rows; the first and the last step always have one.
        eig_tolerance: relative residual of the central flow's critical eigenpairs; by dtype,
            unless given.
        record_eig_tolerance: the same where eigenvalues are only recorded.
        critical_threshold: effective eigenvalues from here on enter the complementarity problem.
        near_threshold: eigenpairs from here on must converge.
        tracking_threshold: every effective eigenvalue above is tracked.
        sharpness_limit: the stable flow stops above this effective sharpness.
        divergence_factor: a run has diverged where its loss is not finite or passes this multiple
            of max(|L|, gᵀP⁻¹g), the loss before the first step and what that step should gain.

    Raises `ValueError` naming the field, the value and what is allowed.
    """

    flows: tuple[str, ...] = ("stable", "central")
    num_eigs: int = 4
    max_eigs: int = 64
    substeps: int = 4
    scheme: str = "euler"
    dtype: str = "float32"
    record_every: int = 1
    eig_tolerance: float | None = None
    record_eig_tolerance: float = 1e-2
    critical_threshold: float = 1.95
    near_threshold: float = 1.8
    tracking_threshold: float = 1.5
    sharpness_limit: float = 100.0
    divergence_factor: float = 1000.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "flows", check_flows(self.flows))
        for field in ("num_eigs", "max_eigs", "substeps", "record_every"):
            integer(field, getattr(self, field), 1)
        check_scheme(self.scheme, self.substeps)
        if self.dtype not in EIG_TOLERANCE:
            raise ValueError(f"dtype must be one of {sorted(EIG_TOLERANCE)}, got {self.dtype!r}")
        tolerances = ("record_eig_tolerance",) if self.eig_tolerance is None else EIG_TOLERANCES
        for field in (*tolerances, "sharpness_limit", "divergence_factor"):
            positive(field, getattr(self, field))
        if not 0 < self.tracking_threshold < self.near_threshold <= self.critical_threshold < 2:
            raise ValueError(
                "tracking_threshold < near_threshold <= critical_threshold must lie in (0, 2), got "
                f"{self.tracking_threshold}, {self.near_threshold}, {self.critical_threshold}"
            )

    def flow_options(self) -> FlowOptions:
        """Return the numerical settings that processes see."""
        shared: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(FlowOptions)}
        if self.eig_tolerance is None:
            shared["eig_tolerance"] = EIG_TOLERANCE[self.dtype]
        return FlowOptions(**shared | {"max_eigs": self._most_eigs})

    def grown(self, num_eigs: int, num_params: int) -> int:
        """Return how many directions to track where so many were too few."""
        return min(2 * num_eigs, num_params, self._most_eigs)

    @property
    def _most_eigs(self) -> int:
        return max(self.num_eigs, self.max_eigs)


def check_flows(flows: Sequence[str]) -> tuple[str, ...]:
    """Return flows as a tuple, or raise `ValueError` naming the one that does not exist."""
    if isinstance(flows, str):
        flows = (flows,)
    for name in flows:
        if name not in FLOWS:
            raise ValueError(f"flows must be among {sorted(FLOWS)}, got {name!r}")
    if len(set(flows)) != len(flows):
        raise ValueError(f"flows must differ from each other, got {tuple(flows)}")
    return tuple(flows)
