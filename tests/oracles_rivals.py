"""Slow, obvious float64 oracles of the rival flows: optimizers by hand, maps, dense algebra.

Nothing is shared with the package but the definitions of docs/rivals-theory.md. An optimizer is one
map x -> A(x) on x = (w, m, ν, t), ν and m as they are *before* they absorb the gradient at w. Flows
are differential equations in flat vectors, integrated by one-step schemes; time is in steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

Loss = Callable[[Array], Array]
Rate = Callable[[Array], Array]


class Point(NamedTuple):
    """An optimizer between two steps: parameters, filtered gradient, second moment, step count."""

    w: Any
    m: Any
    nu: Any
    t: Any


@dataclass(frozen=True)
class Rule:
    """m' = β₁m + κg, u = am' + bg, w' = w - P(ν')⁻¹u - ηωw; everything by its formulas.

    Kinds: gradient_descent, heavy_ball, nesterov, scalar_rmsprop, rmsprop, rmsprop_momentum (the
    filter follows the preconditioner), adam.
    """

    kind: str
    lr: float
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    bias_correction: bool = False
    decay: float = 0.0
    schedule: Callable[[Array], Array] = jnp.ones_like

    @property
    def has_nu(self) -> bool:
        return self.kind in ("scalar_rmsprop", "rmsprop", "rmsprop_momentum", "adam")

    @property
    def filters(self) -> tuple[float, float, float, float]:
        """β₁, κ, a, b; without momentum 0, 1, 0, 1."""
        return {
            "heavy_ball": (self.beta1, 1.0, 1.0, 0.0),
            "nesterov": (self.beta1, 1.0, self.beta1, 1.0),
            "rmsprop_momentum": (self.beta1, 1.0, 1.0, 0.0),
            "adam": (self.beta1, 1.0 - self.beta1, 1.0, 0.0),
        }.get(self.kind, (0.0, 1.0, 0.0, 1.0))

    @property
    def gain_fast(self) -> float:
        """Q(-1) = b + aκ/(1 + β₁), the gain at period two."""
        beta, kappa, a, b = self.filters
        return b + a * kappa / (1 + beta)

    def start(self, w: Array) -> Point:
        nu = jnp.zeros(()) if self.kind == "scalar_rmsprop" else jnp.zeros_like(w)
        return Point(jnp.asarray(w), jnp.zeros_like(w), nu, jnp.zeros(()))

    def absorb_square(self, nu: Array, g: Array) -> Array:
        if not self.has_nu:
            return nu
        square = jnp.vdot(g, g) if self.kind == "scalar_rmsprop" else g**2
        return self.beta2 * nu + (1 - self.beta2) * square

    def rate_of(self, absorbed: Array) -> Array:
        """η of the step that divides by what `absorbed` gradients made."""
        return self.lr * self.schedule(absorbed - 1.0)

    def preconditioner(self, nu: Array, absorbed: Array) -> Array:
        """P once `absorbed` gradients, a real number along a flow, are in ν."""
        if not self.has_nu:
            return 1.0 / self.rate_of(absorbed)
        first = 1.0
        if self.bias_correction or self.kind == "adam":
            nu = nu / (1 - self.beta2**absorbed)
        if self.kind == "adam":
            first = 1 - self.beta1**absorbed
        root = jnp.where(nu > 0, jnp.sqrt(jnp.where(nu > 0, nu, 1.0)), 0.0)
        return (root + self.eps) * first / self.rate_of(absorbed)

    def increment(self, x: Point, g: Array, nu: Array) -> Point:
        """F = A(x) - x, ν' being given; not as a difference, which would lose digits."""
        beta, kappa, a, b = self.filters
        absorbed = x.t + 1.0
        P = self.preconditioner(nu, absorbed)
        if self.kind == "rmsprop_momentum":
            dm = (beta - 1) * x.m + g / P
            step = x.m + dm
        else:
            dm = (beta - 1) * x.m + kappa * g if beta else jnp.zeros_like(x.m)
            step = (a * (x.m + dm) + b * g) / P
        dw = -step - self.rate_of(absorbed) * self.decay * x.w
        return Point(dw, dm, nu - x.nu, jnp.ones_like(x.t))

    def advance(self, loss: Loss, x: Point) -> Point:
        """Return A(x): one optimizer step."""
        g = jax.grad(loss)(x.w)
        return jax.tree.map(jnp.add, x, self.increment(x, g, self.absorb_square(x.nu, g)))


def optimizer_path(loss: Loss, rule: Rule, x: Point, steps: int) -> Point:
    """x_0 .. x_steps, stacked."""

    def body(x: Point, _: None) -> tuple[Point, Point]:
        return rule.advance(loss, x), x

    last, path = jax.jit(lambda x: jax.lax.scan(body, x, None, steps))(x)
    return jax.tree.map(lambda p, q: np.concatenate([p, q[None]]), path, last)


def warmed(loss: Loss, w: np.ndarray, rule: Rule, warmup: int = 5) -> tuple[Point, Point]:
    """Return the optimizer's states before and at the start of the flows."""
    path = optimizer_path(loss, rule, rule.start(jnp.asarray(w)), warmup)
    before, here = (jax.tree.map(lambda x, k=k: jnp.asarray(x[k]), path) for k in (-2, -1))
    return before, here


# --- schemes -------------------------------------------------------------------------------------


def scheme(name: str) -> Callable[[Rate, Array, float], Array]:
    """One substep z -> z(t + h): euler, heun, midpoint, rk4, or rkcN (N stages, second order)."""
    if name.startswith("rkc"):
        return lambda f, z, h: _rkc(f, z, h, int(name[3:]))

    def step(f: Rate, z: Array, h: float) -> Array:
        k1 = f(z)
        if name == "euler":
            return z + h * k1
        if name == "heun":
            return z + 0.5 * h * (k1 + f(z + h * k1))
        if name == "midpoint":
            return z + h * f(z + 0.5 * h * k1)
        k2 = f(z + 0.5 * h * k1)
        k3 = f(z + 0.5 * h * k2)
        return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(z + h * k3))

    return step


def rkc_coefficients(n: int, damping: float = 2 / 13) -> dict[str, list[float]]:
    """Coefficients of the second-order Runge-Kutta-Chebyshev scheme (Sommeijer et al. 1998)."""
    w0 = 1 + damping / n**2
    T, dT, d2T = [1.0, w0], [0.0, 1.0], [0.0, 0.0]
    for j in range(2, n + 1):
        T.append(2 * w0 * T[-1] - T[-2])
        dT.append(2 * w0 * dT[-1] - dT[-2] + 2 * T[j - 1])
        d2T.append(2 * w0 * d2T[-1] - d2T[-2] + 4 * dT[j - 1])
    w1 = dT[n] / d2T[n]
    b = [0.0, 0.0, *[d2T[j] / dT[j] ** 2 for j in range(2, n + 1)]]
    b[0] = b[1] = b[2]
    out: dict[str, list[float]] = {"mu": [0.0], "nu": [0.0], "mut": [0.0], "gat": [0.0]}
    out["mu"].append(0.0), out["nu"].append(0.0), out["mut"].append(b[1] * w1), out["gat"].append(0)
    for j in range(2, n + 1):
        out["mu"].append(2 * b[j] * w0 / b[j - 1])
        out["nu"].append(-b[j] / b[j - 2])
        out["mut"].append(2 * b[j] * w1 / b[j - 1])
        out["gat"].append(-(1 - b[j - 1] * T[j - 1]) * out["mut"][j])
    return out


def _rkc(f: Rate, z: Array, h: float, n: int) -> Array:
    k = rkc_coefficients(n)
    f0 = f(z)
    before, here = z, z + k["mut"][1] * h * f0
    for j in range(2, n + 1):
        mu, nu = k["mu"][j], k["nu"][j]
        following = (
            (1 - mu - nu) * z + mu * here + nu * before
            + k["mut"][j] * h * f(here) + k["gat"][j] * h * f0
        )  # fmt: skip
        before, here = here, following
    return here


def integrate(
    rate: Rate,
    z: Array,
    steps: int,
    substeps: int = 1,
    name: str = "rk4",
    after: Callable[[Array], Array] = lambda z: z,
) -> np.ndarray:
    """z(0) .. z(steps), shape (steps + 1, n); `after` acts at the end of every step."""
    one, h = scheme(name), 1.0 / substeps

    def body(z: Array, _: None) -> tuple[Array, Array]:
        return after(jax.lax.fori_loop(0, substeps, lambda _, y: one(rate, y, h), z)), z

    last, path = jax.jit(lambda z: jax.lax.scan(body, z, None, steps))(z)
    return np.concatenate([path, last[None]])


def modified(G: Rate, order: int) -> Rate:
    """Return G, or G - ½ DG G, whose time-one map is z + G(z) to the order given."""
    if order == 1:
        return G

    def rate(z: Array) -> Array:
        g, dg = jax.jvp(G, (z,), (G(z),))
        return g - 0.5 * dg

    return rate


# --- the alternating family ----------------------------------------------------------------------


class Alternating(NamedTuple):
    """x_t = mean + (-1)^t swing, both whole optimizer states; the swing of t is 0."""

    mean: Point
    swing: Point


def alternating_increment(
    loss: Loss, rule: Rule, z: Alternating, keep_nu: bool = True, reach: Array | float = 1.0
) -> Alternating:
    """Return G(z): half the sum of F at both parities, and -2 swing - half their difference.

    `keep_nu=False` drops the alternating part of ν: both parities divide by the same P. `reach`
    θ > 1 evaluates at mean ± θ swing and divides the difference by θ: a swing near rounding level
    would be lost in the sum.
    """
    plus = jax.tree.map(lambda x, y: x + reach * y, z.mean, z.swing)
    minus = jax.tree.map(lambda x, y: x - reach * y, z.mean, z.swing)
    g, k = jax.grad(loss)(plus.w), jax.grad(loss)(minus.w)
    if keep_nu:
        nus = rule.absorb_square(plus.nu, g), rule.absorb_square(minus.nu, k)
    else:
        shared = rule.absorb_square(z.mean.nu, g) + rule.absorb_square(z.mean.nu, k)
        nus = 0.5 * shared, 0.5 * shared
    ahead, behind = rule.increment(plus, g, nus[0]), rule.increment(minus, k, nus[1])
    return Alternating(
        jax.tree.map(lambda a, b: 0.5 * (a + b), ahead, behind),
        jax.tree.map(lambda y, a, b: -2 * y - 0.5 * (a - b) / reach, z.swing, ahead, behind),
    )


def alternating_rate(
    loss: Loss,
    rule: Rule,
    z: Alternating,
    order: int,
    keep_nu: bool = True,
    least: float | None = None,
) -> tuple[Rate, Array, Callable[[Array], Alternating]]:
    """Return the flow's right-hand side on flat vectors, z flattened, and the way back.

    With `least`, the differences reach at least so far: θ = max(1, least / |v|).
    """
    flat, back = ravel_pytree(z)

    def rate(y: Array) -> Array:
        norm = jnp.linalg.norm(back(y).swing.w)
        reach = 1.0 if least is None else jnp.maximum(1.0, least / jnp.maximum(norm, 1e-30))

        def G(x: Array) -> Array:
            return ravel_pytree(alternating_increment(loss, rule, back(x), keep_nu, reach))[0]

        return modified(G, order)(y)

    return rate, flat, back


def edge_rate(loss: Loss, P: Array, state: Array) -> Array:
    """Edge flow in polar form, P fixed, on (c, u, ρ) flattened; v = ρu, uᵀPu = 1.

    c' = -P⁻¹ḡ, u' = P⁻¹H̃u - (uᵀH̃u)u, ρ' = ρ(uᵀH̃u - 2), with the secant H̃u = γ/ρ.
    """
    d = (state.size - 1) // 2
    c, u, rho = state[:d], state[d : 2 * d], state[-1]
    g, k = jax.grad(loss)(c + rho * u), jax.grad(loss)(c - rho * u)
    Hu = 0.5 * (g - k) / rho
    s = jnp.vdot(u, Hu)
    return jnp.concatenate([-0.5 * (g + k) / P, Hu / P - s * u, (rho * (s - 2.0))[None]])


def effective_eigh(loss: Loss, w: np.ndarray, P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, rising, of P^{-1/2} H P^{-1/2}, and U with UᵀPU = I in columns."""
    root = np.sqrt(np.broadcast_to(np.asarray(P), np.shape(w)))
    H = np.asarray(jax.jit(jax.hessian(loss))(jnp.asarray(w)))
    values, vectors = np.linalg.eigh(H / root[:, None] / root[None, :])
    return values, vectors / root[:, None]


def start_alternating(
    loss: Loss, rule: Rule, previous: Point, here: Point, threshold: float | None = 1.5
) -> Alternating:
    """Split x_0 by the second difference ¼(2x_0 - x_1 - x_{-1}).

    With a threshold, v is projected in P's metric onto the eigenvectors whose effective eigenvalue
    (times Q(-1), so that the edge is at 2) exceeds it, and μ follows as -κγ/(1 + β₁) of that v.
    """
    following = rule.advance(loss, here)
    swing = jax.tree.map(lambda a, b, c: 0.25 * (2 * b - a - c), previous, here, following)
    swing = swing._replace(t=jnp.zeros_like(here.t))
    if threshold is not None:
        P = jnp.broadcast_to(rule.preconditioner(following.nu, following.t), here.w.shape)
        values, U = effective_eigh(loss, here.w, P)
        U = U[:, values * rule.gain_fast > threshold]
        v = jnp.asarray(U @ (U.T @ (P * swing.w)))
        gamma = 0.5 * (jax.grad(loss)(here.w) - jax.grad(loss)(here.w - 2 * v))
        beta, kappa, _, _ = rule.filters
        filtered = gamma / P if rule.kind == "rmsprop_momentum" else gamma
        mu = -kappa * filtered / (1 + beta) if beta else jnp.zeros_like(v)
        swing = Point(v, mu, jnp.zeros_like(here.nu), swing.t)
    return Alternating(jax.tree.map(jnp.subtract, here, swing), swing)


# --- seeds: what keeps an oscillation alive below the edge ---------------------------------------


def preconditioner_at(loss: Loss, rule: Rule, z: Alternating) -> Array:
    """P of the step from z: absorbed at both parities."""
    new = jax.tree.map(jnp.add, z.mean, alternating_increment(loss, rule, z).mean)
    return jnp.broadcast_to(rule.preconditioner(new.nu, new.t), z.mean.w.shape)


def rounding_size(w: Array, P: Array, v: Array, dtype: Any) -> Array:
    """Return the expected size, in P's metric along v, of one rounding of w in a dtype.

    Each coordinate is off by up to half a unit in the last place, uniformly: variance ulp²/12.
    """
    unit = jnp.finfo(dtype).eps * 2.0 ** jnp.floor(jnp.log2(jnp.maximum(jnp.abs(w), 1e-300)))
    length = jnp.sqrt(jnp.vdot(v, P * v))
    return jnp.sqrt(jnp.sum((P * v / length) ** 2 * unit**2 / 12))


def lift(z: Alternating, P: Array, size: Array, feed: bool) -> Alternating:
    """Scale the whole swing so that |v|_P is at least `size`, or, fed, so that size² is added."""
    squared = jnp.vdot(z.swing.w, P * z.swing.w)
    wanted = squared + size**2 if feed else jnp.maximum(squared, size**2)
    factor = jnp.where(squared > 0, jnp.sqrt(wanted / jnp.where(squared > 0, squared, 1.0)), 1.0)
    return z._replace(swing=jax.tree.map(lambda x: factor * x, z.swing))


# --- predictions ---------------------------------------------------------------------------------


def predict(loss: Loss, c: Array, v: Array) -> dict[str, Array]:
    """Averages over both parities of an oscillation c ± v, and v's own (secant) sharpness."""
    value, g = jax.value_and_grad(loss)(c + v)
    other, k = jax.value_and_grad(loss)(c - v)
    return {
        "loss": 0.5 * (value + other),
        "grad_norm_sq": 0.5 * (jnp.vdot(g, g) + jnp.vdot(k, k)),
        "curvature": 0.5 * jnp.vdot(v, g - k),  # over vᵀPv: effective sharpness along v
        "grad_sq": 0.5 * (g**2 + k**2),
    }
