"""What a process is: a state, how it starts, and one optimizer step of it with a record.

A process is a `Process`: two pure functions on a state (any pytree), what it records beside the
common columns, and for which rules it is defined. The optimizer (`discrete`) is one of them; the
harness (`cflows_ray.paired`) moves it and shows it to the others as a `Reference`. What every
process would else do for itself is the harness's work: time, counts, the last row, stopping,
divergence, distances to the optimizer, growth of the tracked directions.

Time is measured in optimizer steps. All shapes are static; k, the number of tracked directions,
grows between compiled chunks when a step says `needs_more_eigs`.

| symbol | here |
| --- | --- |
| w(t) | `params`, shape (d,) |
| s(t) | the rule's state |
| V, rows v | `Tracked.basis`, (k, d): eigenvectors of Q̂^{-1/2} H Q̂^{-1/2}, orthonormal |
| U = Q̂^{-1/2} V | effective eigenvectors, normalised UᵀQ̂U = I, HU = Q̂UΛ |
| X | covariance in the basis U: Σ = U X Uᵀ |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cflows_ray.curvature import Linearization, Loss
from cflows_ray.flows.settings import Settings
from cflows_ray.rules import AveragedRule, UpdateRule
from cflows_ray.schema import Column, StepStatus

_REQUIRED_RESIDUAL = {"float32": 1e-3, "float64": 1e-8}


@dataclass(frozen=True, kw_only=True)
class FlowOptions(Settings):
    """Settings, and the thresholds that processes go by; static: a change compiles anew.

    Attributes:
        max_eigs: tracked directions at most (or `num_eigs`, if larger). Rows of a process that
            would need more have the status "eig_unconverged".
        critical_threshold: effective eigenvalues from here on enter the complementarity problem.
        near_threshold: eigenpairs from here on must converge (and the top one always).
        tracking_threshold: every effective eigenvalue above is tracked; when the smallest tracked
            one passes it, the number of tracked directions grows.
        eig_tolerance: relative residual that a required eigenpair of the central flow must reach;
            by dtype, unless given.
        record_eig_tolerance: the same where eigenvalues are only recorded (their error is of the
            order of the residual squared).
        sharpness_limit: the stable flow stops when its effective sharpness passes this.
    """

    max_eigs: int = 64
    critical_threshold: float = 1.95
    near_threshold: float = 1.8
    tracking_threshold: float = 1.5
    eig_tolerance: float | None = None
    record_eig_tolerance: float = 1e-2
    sharpness_limit: float = 100.0

    @property
    def most_eigs(self) -> int:
        """Tracked directions at most."""
        return max(self.num_eigs, self.max_eigs)

    @property
    def required_residual(self) -> float:
        """Relative residual that a required eigenpair of the central flow must reach."""
        if self.eig_tolerance is not None:
            return self.eig_tolerance
        return _REQUIRED_RESIDUAL[self.dtype]

    def for_loss_in(self, dtype: str | None) -> Self:
        """Return the settings for a loss that computes in a coarser type than the run's.

        Eigenpairs are then asked for to what such a loss can give.
        """
        if dtype in (None, self.dtype) or self.eig_tolerance is not None:
            return self
        return replace(self, eig_tolerance=_REQUIRED_RESIDUAL[str(dtype)])


class FlowContext(NamedTuple):
    """What every process of a run shares: loss of flat parameters, rule, settings, k."""

    loss: Loss
    rule: Any
    options: FlowOptions
    num_eigs: int


class Start(NamedTuple):
    """The common starting point.

    Attributes:
        t: gradients absorbed once the one at w_0 is, as in the first `Reference`.
        previous: w_{-1}; equal to `params` when there was no warm-up step.
        previous_state: s_{-1}, before it absorbs the gradient at w_{-1}; s_0 where there is none.
        has_previous: whether they exist.
        params: w_0, shape (d,).
        rule_state: s_0, before it absorbs the gradient at w_0.
        absorbed: U(s_0, g_0), where flows start.
        basis: k random rows for the eigensolver, shape (k, d).
    """

    t: Float[Array, ""]
    previous: Float[Array, " d"]
    previous_state: PyTree
    has_previous: Bool[Array, ""]
    params: Float[Array, " d"]
    rule_state: PyTree
    absorbed: PyTree
    basis: Float[Array, "k d"]


class Reference(NamedTuple):
    """The optimizer around step t, which processes may read but never move.

    Attributes:
        t: gradients absorbed once the one at w_t is; of a flow's state at this step as well.
        params: w_t.
        previous, following: w_{t-1} and w_{t+1}.
        has_previous: False at step 0 of a run without warm-up, where w_{-1} does not exist.
        linear: the loss linearized at w_t.
        state: the rule's state that has absorbed the gradient at w_t.
        has_spiked: whether the loss at w_t is above the loss at the start.
    """

    t: Float[Array, ""]
    params: Float[Array, " d"]
    previous: Float[Array, " d"]
    following: Float[Array, " d"]
    has_previous: Bool[Array, ""]
    linear: Linearization
    state: PyTree
    has_spiked: Bool[Array, ""]

    @property
    def midpoint(self) -> Float[Array, " d"]:
        """The second-order midpoint ¼(w_{t-1} + 2w_t + w_{t+1})."""
        return 0.25 * (self.previous + 2.0 * self.params + self.following)


class Ask(NamedTuple):
    """What the harness asks of a step.

    Attributes:
        is_last: this is the run's last row; what the step leads to is not used.
        wanted: the record will be used; a step may save itself that work otherwise.
    """

    is_last: Bool[Array, ""]
    wanted: Bool[Array, ""]


class Counts(NamedTuple):
    """Derivatives computed."""

    gradients: Int[Array, ""]
    hvps: Int[Array, ""]
    third_derivatives: Int[Array, ""]

    @classmethod
    def of(cls, gradients: Any = 0, hvps: Any = 0, third_derivatives: Any = 0) -> Counts:
        """Return counts as int32."""
        return cls(*(jnp.asarray(n, jnp.int32) for n in (gradients, hvps, third_derivatives)))

    def plus(self, other: Counts) -> Counts:
        """Return the sum."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


class Listed(NamedTuple):
    """A value of a list column: so many leading numbers; null where the length is negative."""

    values: Float[Array, " n"]
    length: Int[Array, ""]


Recorded = Mapping[str, "Array | Listed"]


class Oscillation(NamedTuple):
    """Σ = ZᵀZ about a flow's point, by rows z: for predictions of any observable.

    Attributes:
        rows: Z, shape (r, d); zero from `rank` on.
        rank: rows that are not zero.
    """

    rows: Float[Array, "r d"]
    rank: Int[Array, ""]


class Step(NamedTuple):
    """What became of a process in one optimizer step.

    Attributes:
        state: its state at t + 1.
        params: the point at t that the row describes, shape (d,).
        observed: what the rule's state at t holds, by name, as `UpdateRule.observed` says it.
        record: columns of the row, by name; what is absent is null.
        status: of the row, a `StepStatus`; a process that stopped or diverged takes no further one.
        counts: derivatives that the step took.
        needs_more_eigs: whether k was too small for the step: it is then made again with more.
        oscillation: Σ at t, where the process predicts one.
        doubt: what it knows against its own row, a `schema.Doubt`; the harness adds what it knows.
        half: what it predicts of the half-way point ½(w_{t-1} + w_t), shape (d,); unless given, the
            mean of its points at t - 1 and t.
    """

    state: Any
    params: Float[Array, " d"]
    observed: Mapping[str, Array]
    record: Recorded
    status: Int[Array, ""]
    counts: Counts
    needs_more_eigs: Bool[Array, ""] | bool = False
    oscillation: Oscillation | None = None
    doubt: Int[Array, ""] | int = 0
    half: Float[Array, " d"] | None = None


def any_averaged_rule(rule: UpdateRule) -> str | None:
    """Say why a flow of the mean motion is not defined for a rule; None where it is."""
    if isinstance(rule, AveragedRule):
        return None
    return "a rule that says how it moves in the mean"


def any_rule(rule: UpdateRule) -> str | None:
    """Say None: the process is defined for every rule."""
    del rule
    return None


@dataclass(frozen=True)
class Process:
    """A process: its names, its two functions, and what it records.

    Attributes:
        name: as in the column `process`.
        label: as in figures.
        init: `init(context, start) -> state`.
        step: `step(context, state, reference, ask) -> Step`.
        columns: columns of `steps` that only this process has.
        trivial: columns that would compare the process with itself, left null.
        needs: `needs(rule)` says what a rule must be, or None where the process is defined for it.
    """

    name: str
    label: str
    init: Callable[[FlowContext, Start], Any]
    step: Callable[[FlowContext, Any, Reference, Ask], Step]
    columns: tuple[Column, ...] = ()
    trivial: tuple[str, ...] = ()
    needs: Callable[[UpdateRule], str | None] = field(default=any_averaged_rule)


# What grows with k ----------------------------------------------------------------------------


@runtime_checkable
class Growing(Protocol):
    """A part of a state whose shape follows k, the number of tracked directions."""

    def grown(self, k: int, key: Array) -> Any:
        """Return it with k directions, the new ones random (by `key`) or empty."""


class Tracked(NamedTuple):
    """Eigenvectors that a process follows: the warm start of the next eigensolver.

    Attributes:
        basis: rows, shape (k, d).
        eigvals: belong to the rows, descending; -inf where not known yet.
        fresh: whether some rows are random.
    """

    basis: Float[Array, "k d"]
    eigvals: Float[Array, " k"]
    fresh: Bool[Array, ""]

    @classmethod
    def begin(cls, basis: Float[Array, "k d"]) -> Tracked:
        """Return random rows, with nothing known of their eigenvalues."""
        unknown = jnp.full((basis.shape[0],), -jnp.inf, basis.dtype)
        return cls(basis, unknown, jnp.ones((), bool))

    def grown(self, k: int, key: Array) -> Tracked:
        """Return them with random rows below."""
        old, num_params = self.basis.shape
        rows = jax.random.normal(key, (k - old, num_params), self.basis.dtype)
        eigvals = jnp.pad(self.eigvals, (0, k - old), constant_values=-jnp.inf)
        return Tracked(jnp.concatenate([self.basis, rows]), eigvals, jnp.ones((), bool))


class SquareInBasis(NamedTuple):
    """A symmetric matrix in the tracked basis, such as X; new directions have zeros."""

    values: Float[Array, "k k"]

    def grown(self, k: int, key: Array) -> SquareInBasis:
        """Return it with rows and columns of zeros."""
        del key
        missing = k - self.values.shape[0]
        return SquareInBasis(jnp.pad(self.values, ((0, missing), (0, missing))))


def grow(tree: PyTree, k: int, key: Array) -> PyTree:
    """Return a state in which every `Growing` part has k directions."""
    is_part = lambda node: isinstance(node, Growing)  # noqa: E731
    return jax.tree.map(lambda x: x.grown(k, key) if is_part(x) else x, tree, is_leaf=is_part)


def count_critical(eigvals: Float[Array, " k"], threshold: float) -> Int[Array, ""]:
    """Return how many effective eigenvalues reach the threshold; -1 if not all are finite."""
    count = jnp.sum(eigvals >= threshold)
    return jnp.where(jnp.all(jnp.isfinite(eigvals)), count, -1).astype(jnp.int32)


def as_status(status: StepStatus) -> Int[Array, ""]:
    """Return a status as an array."""
    return jnp.full((), status, jnp.int32)


def spectrum_columns(eigvals: Float[Array, " k"], threshold: float) -> dict[str, Array | Listed]:
    """Return the columns that describe effective eigenvalues."""
    return {
        "effective_sharpness": eigvals[0],
        "effective_eigs": Listed(eigvals, jnp.full((), eigvals.shape[0], jnp.int32)),
        "num_critical": count_critical(eigvals, threshold),
    }
