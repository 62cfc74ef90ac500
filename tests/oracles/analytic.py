"""Closed forms: quadratics below the edge, and L(x, y) = ½ y x² - c y at the edge.

docs/momentum-theory.md, "Analytic cases", derives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import scipy.linalg
import scipy.optimize

from tests.oracles.momentum import MomentumRule, State


def saddle(c: float) -> Callable[[jax.Array], jax.Array]:
    """Return L(x, y) = ½ y x² - c y as a loss of w = (x, y)."""
    return lambda w: 0.5 * w[1] * w[0] ** 2 - c * w[1]


def quadratic_flow(
    H: np.ndarray, rule: MomentumRule, start: State, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return w(t) and m(t), shape (len(t), d), of the inertial stable flow on ½ wᵀHw.

    For rules whose P and gains are constant (family `sgd`, no schedule): with z = (w, m),

        dz/dt = [[-b P⁻¹H - ηω, -a P⁻¹], [κ H/β₁, -(1 - β₁)/β₁]] z

    Args:
        H: Hessian (d, d).
        rule: family `sgd`, β₁ > 0.
        start: state after it has absorbed the gradient at w.
        t: times.
    """
    d, (a, b), one = len(H), rule.output(1.0), np.eye(len(H))
    lr, beta1 = rule.lr, rule.beta1
    G = np.block(
        [
            [-b * lr * H - lr * rule.decay * one, -a * lr * one],
            [rule.kappa / beta1 * H, -(1 - beta1) / beta1 * one],
        ]
    )
    z = np.concatenate([start.w, start.m])
    path = np.array([scipy.linalg.expm(time * G) @ z for time in t])
    return path[:, :d], path[:, d:]


@dataclass(frozen=True)
class Edge:
    """The central flow of `saddle(c)` at the edge, m_y and ν_y settled: values at given times.

    Attributes:
        y: curvature along x.
        sigma: Σ_xx.
        excess: what the loss exceeds the flow's own by, ½ y Σ_xx = tr X.
    """

    y: np.ndarray
    sigma: np.ndarray

    @property
    def excess(self) -> np.ndarray:
        return self.y * self.sigma / 2


def sgd_edge(c: float, rule: MomentumRule, t: np.ndarray, slope: np.ndarray | float = 0.0) -> Edge:
    """Return y = τ/η and Σ_xx = 2c - 2(y' + ηωy)/(ηQ(1)) of heavy ball or Nesterov.

    Args:
        c: of the loss.
        rule: family `sgd`.
        t: gradients absorbed, at which the values are asked for.
        slope: d(1/η)/dt at t, 0 without schedule. (With decay, τ depends on η as well: then none.)
    """
    eta, tau = np.array([rule.rate(s) for s in t]), np.array([rule.edge(s) for s in t])
    y = tau / eta
    velocity = tau * slope + eta * rule.decay * y
    return Edge(y, 2 * c - 2 * velocity / (eta * rule.gain(1.0, 1.0)))


def adaptive_edge(c: float, rule: MomentumRule, y0: float, t: np.ndarray) -> Edge:
    """Return y(t) and Σ_xx(t) of Adam, NAdam or RMSProp with momentum, y(0) = y0; ε → 0.

    Without decay, with q = η/τ, r = β₂/(1 - β₂), M = ηQ(1) and ν_x = (q y)²:

        Σ = q² (1 + 2 r y'/y),    y' = M (1 - Σ/2c),    hence
        y + A log y = y0 + A log y0 + B t,    A = M q² r/c,    B = M (1 - q²/2c)

    Args:
        c: of the loss; the edge is held if B > 0.
        rule: constant rate, t so late that all bias corrections have faded, no decay.
        y0: y at t = 0.
        t: times since then.
    """
    late = 1e9
    eta, q, r = rule.rate(late), rule.rate(late) / rule.edge(late), rule.beta2 / (1 - rule.beta2)
    M = eta * rule.gain(1.0, late)
    A, B = M * q**2 * r / c, M * (1 - q**2 / (2 * c))
    y = np.array(
        [
            scipy.optimize.brentq(
                lambda y, s=s: y - y0 + A * np.log(y / y0) - B * s, y0, y0 + B * s + 1e-12
            )
            for s in t
        ]
    )
    return Edge(y, q**2 * (1 + 2 * r * B / (y + A)))


def adamw_rest(c: float, rule: MomentumRule, mean_squared: bool) -> tuple[float, float]:
    """Return y and Σ_xx where AdamW's central flow rests on `saddle(c)`; ε → 0.

    Σ = q², q = η/τ. With ν_y = c² y = Q(1)(1 - q²/2c)/ω; with ν_y = (c - Σ/2)², y = Q(1)/ω.
    """
    late = 1e9
    q, y = rule.rate(late) / rule.edge(late), rule.gain(1.0, late) / rule.decay
    return (y if mean_squared else y * (1 - q**2 / (2 * c))), q**2


def growth_gain(rule: MomentumRule, t: float = 1e9) -> float:
    """Return G: a period-two oscillation grows by G (s - 2) a step, s the effective sharpness.

    G = 1/(1 + 2Q'(-1)/Q(-1)), for heavy ball and Adam (1 + β₁)/(1 - β₁).
    """
    a, beta1 = rule.output(t)[0], rule.beta1
    slope = -a * rule.kappa * beta1 / (1 + beta1) ** 2
    return 1 / (1 + 2 * slope / rule.gain(-1.0, t))


def loop_multipliers(rule: MomentumRule, c: float) -> np.ndarray:
    """Return the multipliers per step of disturbances of the optimizer's period-two orbit.

    Exact for `saddle(c)` and family `sgd` with constant rate: the roots E of

        [(E + 1)/Q(-E) - 2/Q(-1)] (E - 1)/Q(E) = -2 c η².

    The pair next to 1 is the self-stabilisation loop; beyond 1 in absolute value it grows.
    """
    P = np.polynomial.polynomial
    (a, b), beta1 = rule.output(1.0), rule.beta1
    # Q(E) = N(E)/D(E); coefficients from the constant up
    N, D = np.array([-b * beta1, b + a * rule.kappa]), np.array([-beta1, 1.0])
    N_minus, D_minus = N * [1, -1], D * [1, -1]
    oscillation = P.polysub(P.polymul([1, 1], D_minus), rule.edge(1.0) * N_minus)
    drift = P.polymul([-1, 1], D)
    coupling = 2 * c * rule.lr**2 * P.polymul(N_minus, N)
    roots = P.polyroots(P.polyadd(P.polymul(oscillation, drift), coupling))
    return roots[np.argsort(np.abs(roots - 1))]
