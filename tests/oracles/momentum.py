"""Rules with momentum and their inertial stable and central flows, dense, in float64.

    m_{t+1} = β₁ m_t + κ g_t,   u_t = a m_{t+1} + b g_t,   w_{t+1} = w_t - P⁻¹ u_t - η ω w_t

RMSProp filters the preconditioned gradient instead: P⁻¹g in the place of g, and the step is u.
docs/momentum-theory.md derives what stands here: the gains Q(1) and Q(-1) of the filter, the edge
τ = (2 - ηω)/Q(-1), the metric Q̂ = (τ/2) P, the flows, and the order of the updates in a substep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from tests.oracles.complementarity import solve_complementarity
from tests.oracles.optimizers import Factor, constant
from tests.oracles.preconditioned import CRITICAL, DenseLoss


class State(NamedTuple):
    """w, m and ν with shape (d,) each (ν: (1,) if scalar or without use), t absorbed gradients."""

    w: np.ndarray
    m: np.ndarray
    nu: np.ndarray
    t: float


@dataclass(frozen=True)
class MomentumRule:
    """A rule by its formulas.

    Attributes:
        family: `sgd`, `rmsprop` or `adam`, with optax's conventions (ε outside the root).
        lr: learning rate η, multiplied by `factor(steps made before)`.
        beta1: decay of the filter, 0 for none.
        nesterov: look ahead (NAdam, if family is `adam`).
        scalar: one ν for all parameters, a mean of |g|².
        decay: ω, decoupled.
        bias_correction: of ν, in `rmsprop`; Adam always has it.
    """

    family: str
    lr: float
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    nesterov: bool = False
    scalar: bool = False
    decay: float = 0.0
    bias_correction: bool = False
    factor: Factor = constant

    def init(self, w: np.ndarray) -> State:
        has_vector = self.family != "sgd" and not self.scalar
        return State(w, np.zeros_like(w), np.zeros(len(w) if has_vector else 1), 0.0)

    # -- the filter ------------------------------------------------------------------------------

    @property
    def kappa(self) -> float:
        return 1 - self.beta1 if self.family == "adam" else 1.0

    def output(self, t: float) -> tuple[float, float]:
        """Return a and b of the step that follows the t-th absorbed gradient."""
        if not self.nesterov:
            return 1.0, 0.0
        if self.family != "adam":
            return self.beta1, 1.0
        correction = (1 - self.beta1**t) / (1 - self.beta1 ** (t + 1))
        return self.beta1 * correction, 1 - self.beta1

    def gain(self, z: float, t: float) -> float:
        """Return Q(z) = b + aκ/(1 - β₁/z)."""
        a, b = self.output(t)
        return b + a * self.kappa / (1 - self.beta1 / z)

    # -- the metric ------------------------------------------------------------------------------

    def rate(self, t: float) -> float:
        """Return η of the step that follows the t-th absorbed gradient."""
        return self.lr * self.factor(t - 1)

    def edge(self, t: float) -> float:
        """Return τ, the critical eigenvalue of P⁻¹H."""
        return (2 - self.rate(t) * self.decay) / self.gain(-1.0, t)

    def preconditioner(self, nu: np.ndarray, t: float, d: int) -> np.ndarray:
        return np.broadcast_to(self._unscaled(nu, t) * self._scale(t), d).copy()

    def preconditioner_slope(self, nu: np.ndarray, t: float) -> np.ndarray:
        """Return dP/dν, elementwise; 0 where ν is 0 or not used."""
        if self.family == "sgd":
            return np.zeros(1)
        safe = np.where(nu > 0, nu, 1.0)
        return np.where(nu > 0, np.sqrt(self._correction(t)) / (2 * np.sqrt(safe)), 0) * (
            self._scale(t)
        )

    def metric(self, nu: np.ndarray, t: float, d: int) -> np.ndarray:
        """Return Q̂ = (τ/2) P."""
        return self.edge(t) / 2 * self.preconditioner(nu, t, d)

    def metric_rate(self, nu: np.ndarray, t: float, dnu: np.ndarray, d: int) -> np.ndarray:
        """Return dQ̂/dt for dν/dt = dnu and dt/dt = 1 (the latter by a central difference)."""
        step = 1e-5
        explicit = (self.metric(nu, t + step, d) - self.metric(nu, t - step, d)) / (2 * step)
        return explicit + self.edge(t) / 2 * self.preconditioner_slope(nu, t) * dnu

    def _correction(self, t: float) -> float:
        corrects = self.family == "adam" or self.bias_correction
        return 1 / (1 - self.beta2**t) if corrects else 1.0

    def _unscaled(self, nu: np.ndarray, t: float) -> Any:
        return 1.0 if self.family == "sgd" else np.sqrt(nu * self._correction(t)) + self.eps

    def _scale(self, t: float) -> float:
        first = 1 - self.beta1**t if self.family == "adam" else 1.0
        return first / self.rate(t)

    # -- the discrete optimizer ------------------------------------------------------------------

    def square(self, g: np.ndarray) -> np.ndarray:
        return np.array([g @ g]) if self.scalar else g**2

    def filtered(self, g: np.ndarray, P: np.ndarray) -> np.ndarray:
        """Return what the filter is fed with."""
        return g / P if self.family == "rmsprop" else g

    def absorb(self, state: State, g: np.ndarray) -> State:
        """Return U(s, g): t, ν and m after one more gradient, w where it was."""
        t, nu = state.t + 1, state.nu
        if self.family != "sgd":
            nu = self.beta2 * nu + (1 - self.beta2) * self.square(g)
        P = self.preconditioner(nu, t, len(g))
        m = self.beta1 * state.m + self.kappa * self.filtered(g, P)
        return State(state.w, m, nu, t)

    def step(self, state: State, g: np.ndarray) -> State:
        """Return the state after one step of the optimizer."""
        s = self.absorb(state, g)
        return s._replace(w=s.w + self.velocity(s, s.m, g, np.zeros_like(g)))

    # -- the flow --------------------------------------------------------------------------------

    def velocity(self, s: State, m: np.ndarray, g: np.ndarray, force: np.ndarray) -> np.ndarray:
        """Return dw/dt = -P⁻¹[a m + b g + Q(1) force] - ηω w, with P of s and m given."""
        P, (a, b) = self.preconditioner(s.nu, s.t, len(g)), self.output(s.t)
        held = m if self.family == "rmsprop" else m / P
        pull = b * g + self.gain(1.0, s.t) * force
        return -a * held - pull / P - self.rate(s.t) * self.decay * s.w

    def nu_rate(self, s: State, second: np.ndarray) -> np.ndarray:
        """Return dν/dt = (1-β₂)/β₂ (E g² - ν), elementwise E g² given."""
        if self.family == "sgd":
            return np.zeros_like(s.nu)
        seen = np.array([second.sum()]) if self.scalar else second
        return (1 - self.beta2) / self.beta2 * (seen - s.nu)


@dataclass(frozen=True)
class Scheme:
    """How a flow is integrated, and which flow.

    Attributes:
        substeps: substeps a step, h = 1/substeps.
        kind: `euler`, of first order: m, then X, then w with the new m, with ν and t.
            `staggered`: the same with m half a substep ahead of w and ν (leapfrog).
            `extrapolated`: Richardson's extrapolation of pairs of `euler` substeps.
            `split`: Richardson's extrapolation of pairs of staggered substeps, of second order.
        central: with Σ; without, the stable flow.
        reduced: m settled, dw/dt = -Q(1) P⁻¹[∇L + force] - ηω w, by linearly implicit Euler.
        mean_squared: E g² = (∇L + force)² + diag(HΣH); without, ∇L² + diag(HΣH).
        centred: inertia (1+β₁)/2 in the place of β₁, which is of second order below the edge, and
            m started half a step earlier; not the rule without momentum as β₁ → 0.
        exponential: the filter decays by e^(-h(1-β₁)/β₁); without, by 1 - h(1-β₁)/β₁.
    """

    substeps: int = 4
    kind: str = "euler"
    central: bool = True
    reduced: bool = False
    mean_squared: bool = False
    exponential: bool = True
    centred: bool = False

    def __post_init__(self) -> None:
        assert self.kind in ("euler", "staggered", "extrapolated", "split")


@dataclass
class FlowPath:
    """Rows at integer steps of a flow; `m` is the flow's, `m_predicted` the optimizer's mean."""

    loss: list = field(default_factory=list)
    predicted: list = field(default_factory=list)
    sharpness: list = field(default_factory=list)
    eigvals: list = field(default_factory=list)
    num_critical: list = field(default_factory=list)
    sigma: list = field(default_factory=list)
    sigma_eigs: list = field(default_factory=list)
    sigma_trace: list = field(default_factory=list)
    grad_norm_sq_predicted: list = field(default_factory=list)
    params: list = field(default_factory=list)
    m: list = field(default_factory=list)
    m_predicted: list = field(default_factory=list)
    nu: list = field(default_factory=list)


_STAGGERED = ("staggered", "split")


class _Look:
    """What one substep sees at its beginning: derivatives, metric, critical directions, drifts."""

    def __init__(self, rule: MomentumRule, dense: Any, s: State, scheme: Scheme) -> None:
        self.rule, self.s, self.scheme = rule, s, scheme
        self.loss, self.g, self.H, contract = dense.at(s.w)
        self.eigvals, U = scipy.linalg.eigh(self.H, np.diag(rule.metric(s.nu, s.t, len(s.w))))
        self.critical = self.eigvals >= (CRITICAL if scheme.central else np.inf)
        self.U = U[:, self.critical]
        self.D = contract(self.U)

    def force(self, X: np.ndarray) -> np.ndarray:
        """Return ½ ∇<H, Σ>."""
        return 0.5 * np.einsum("abl,ab->l", self.D, X)

    def variance(self, X: np.ndarray) -> np.ndarray:
        """Return diag(HΣH)."""
        HU = self.H @ self.U
        return np.einsum("ia,ab,ib->i", HU, X, HU)

    def settled(self) -> np.ndarray:
        """Return the m that this gradient, seen for ever, would lead to."""
        rule, s = self.rule, self.s
        fed = rule.filtered(self.g, rule.preconditioner(s.nu, s.t, len(self.g)))
        return rule.kappa / (1 - rule.beta1) * fed

    def kept(self, h: float) -> float:
        """Return the factor by which the filter's memory decays in a time h."""
        if self.scheme.reduced or self.rule.beta1 == 0:
            return 0.0
        beta1 = self.rule.beta1
        decay = h * (1 - beta1) / ((1 + beta1) / 2 if self.scheme.centred else beta1)
        return np.exp(-decay) if self.scheme.exponential else 1 - decay

    def advanced(self, h: float, m: np.ndarray | None = None) -> np.ndarray:
        """Return m (the state's own, if not given) after a time h of this gradient."""
        m, kept = self.s.m if m is None else m, self.kept(h)
        return kept * m + (1 - kept) * self.settled()

    def rates(self, h: float, m: np.ndarray, X: np.ndarray, near: np.ndarray) -> tuple:
        """Return dw/dt, dν/dt and dA/dt, A = Uᵀ(2Q̂ - H)U: affine in X.

        With `mean_squared` (∇L + force)² is linear in X around a covariance `near`.
        """
        rule, s, U = self.rule, self.s, self.U
        dw = rule.velocity(s, m, self.g, self.force(X))
        if self.scheme.reduced:  # stiff, with rates up to Q(1) τ: linearly implicit
            P = rule.preconditioner(s.nu, s.t, len(s.w))
            dw = np.linalg.solve(np.eye(len(P)) + h * rule.gain(1.0, s.t) / P[:, None] * self.H, dw)
        squared = self.g**2
        if self.scheme.mean_squared:
            mean = self.g + self.force(near)
            squared = mean**2 + 2 * mean * self.force(X - near)
        dnu = rule.nu_rate(s, squared + self.variance(X))
        dQ = np.broadcast_to(rule.metric_rate(s.nu, s.t, dnu, len(s.w)), len(s.w))
        return dw, dnu, 2 * np.einsum("ia,i,ib->ab", U, dQ, U) - self.D @ dw

    def covariance(self, h: float, m: np.ndarray) -> np.ndarray:
        """Return X for a substep of length h; with `mean_squared` by Newton's method."""
        X = zero = np.zeros((self.U.shape[1],) * 2)
        gap = np.diag(2 - self.eigvals[self.critical])
        for _ in range(20 if len(zero) else 0):
            near, stable = X, self.rates(h, m, zero, X)[2]

            def response(V: np.ndarray, near: np.ndarray = near, stable: Any = stable) -> Any:
                return h * (self.rates(h, m, V, near)[2] - stable)

            X = solve_complementarity(gap + h * stable, response)
            linear = self.rule.family == "sgd" or not self.scheme.mean_squared
            if linear or np.abs(X - near).max() <= 1e-10 * np.abs(X).max():
                break
        return X

    def euler(self, h: float, kick: float | None = None) -> tuple[State, np.ndarray]:
        """Return the end of a substep, and X: first m, then X, then w with the new m, and ν, t.

        `kick`, h if not given, is how far m advances; t advances at rate 1.
        """
        m, s = self.advanced(h if kick is None else kick), self.s
        X = self.covariance(h, m)
        dw, dnu, _ = self.rates(h, m, X, X)
        return State(s.w + h * dw, m, s.nu + h * dnu, s.t + h), X


def optimizer_path(loss: Callable, w: np.ndarray, rule: MomentumRule, steps: int) -> list[State]:
    """Return the discrete optimizer's states 0..steps, before each absorbs its gradient."""
    dense, path = DenseLoss(loss), [rule.init(w)]
    for _ in range(steps):
        path.append(rule.step(path[-1], dense.grad(path[-1].w)))
    return path


def flow_path(
    loss: Callable,
    start: State,
    rule: MomentumRule,
    steps: int,
    scheme: Scheme = Scheme(),
    derivatives: Callable[[Callable], Any] = DenseLoss,
    absorbed: bool = False,
) -> FlowPath:
    """Return the flow from an optimizer's state before it absorbs the gradient at its w.

    If `absorbed`, it has: a flow goes on from another's state.
    """
    dense, h, path = derivatives(loss), 1 / scheme.substeps, FlowPath()
    s = start if absorbed else rule.absorb(start, dense.grad(start.w))
    if scheme.centred:
        s = s._replace(m=(start.m + s.m) / 2)
    pairs, staggered = scheme.kind in ("extrapolated", "split"), scheme.kind in _STAGGERED
    for i in range(steps * scheme.substeps + 1):
        look = _Look(rule, dense, s, scheme)
        begins = i % 2 == 0 if pairs else i == 0
        following, X = look.euler(h, h / 2 if begins and staggered else h)
        if i % scheme.substeps == 0:
            _record(path, look, X)
        if pairs and begins:
            long = look.euler(2 * h, h if staggered else 2 * h)[0]
        elif pairs:
            if staggered:  # both m wait for their last half kick; this gradient is near enough
                following = following._replace(m=look.advanced(h / 2, following.m))
                long = long._replace(m=look.advanced(h, long.m))
            following = State(*(2 * a - b for a, b in zip(following, long, strict=True)))
        s = following
    return path


def _record(path: FlowPath, look: _Look, X: np.ndarray) -> None:
    rule, s, U = look.rule, look.s, look.U
    force = rule.filtered(look.force(X), rule.preconditioner(s.nu, s.t, len(s.w)))
    path.loss.append(look.loss)
    path.predicted.append(look.loss + np.trace(X))
    path.sharpness.append(look.eigvals[-1])
    path.eigvals.append(look.eigvals)
    path.num_critical.append(int(look.critical.sum()))
    path.sigma.append(U @ X @ U.T)
    path.sigma_eigs.append(np.linalg.eigvalsh(X)[::-1] if len(X) else [])
    path.sigma_trace.append(np.trace(U @ X @ U.T))
    path.grad_norm_sq_predicted.append(look.g @ look.g + look.variance(X).sum())
    path.params.append(s.w)
    path.m.append(s.m)
    path.m_predicted.append(s.m + rule.kappa / (1 - rule.beta1) * force)
    path.nu.append(s.nu)
