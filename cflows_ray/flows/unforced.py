"""The central flow without its curvature force: Σ acts on the second moment alone.

    dw/dt = -P⁻¹∇L,     dν/dt as in the central flow, seeing g² + diag(HΣH)

and X solves the complementarity problem of *this* motion, in which only the growing preconditioner
holds the edge: an ablation of Cohen et al. (2025), read as in docs/rivals-theory.md (with X of the
full flow the edge would not hold). For a rule without a second moment nothing is left for Σ to do:
X = 0, and the flow is the stable flow, integrated with the central flow's substeps.
"""

from __future__ import annotations

from cflows_ray.flows import central
from cflows_ray.flows.process import Ask, FlowContext, Process, Reference, Step


def step(context: FlowContext, state: central.CentralState, reference: Reference, ask: Ask) -> Step:
    """Advance by one optimizer step, as the central flow does, with no force on w."""
    return central.step(context, state, reference, ask, has_force=False)


UNFORCED = Process(
    name="central_unforced",
    label="central flow without force",
    init=central.init,
    step=step,
)
