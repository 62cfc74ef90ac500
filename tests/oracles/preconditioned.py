"""Slow, obvious float64 oracles: dense derivatives, NumPy loops, CVXPY.

Nothing here is shared with the package but the definitions: rules are written out by hand, the
Hessian and the third derivative are dense arrays, eigenvectors come from SciPy's generalised
eigenproblem, and the complementarity problem is solved in closed form where it has one, else as a
quadratic programme over the semidefinite cone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

CRITICAL = 1.95


@dataclass
class OracleRule:
    """An update rule by its formulas; kind is gradient_descent, scalar_rmsprop or rmsprop."""

    kind: str
    lr: float
    beta2: float = 0.99
    eps: float = 1e-8

    def init(self, d: int) -> np.ndarray:
        return np.zeros(d if self.kind == "rmsprop" else 1)

    def square(self, g: np.ndarray) -> np.ndarray:
        return g**2 if self.kind == "rmsprop" else np.array([g @ g])

    def update(self, nu: np.ndarray, g: np.ndarray) -> np.ndarray:
        return self.beta2 * nu + (1 - self.beta2) * self.square(g)

    def preconditioner(self, nu: np.ndarray, d: int) -> np.ndarray:
        if self.kind == "gradient_descent":
            return np.full(d, 1 / self.lr)
        return np.broadcast_to((np.sqrt(nu) + self.eps) / self.lr, d).copy()

    def preconditioner_slope(self, nu: np.ndarray) -> np.ndarray:
        """dP/dν, elementwise, or 0 without ν."""
        if self.kind == "gradient_descent":
            return np.zeros(1)
        return np.where(nu > 0, 1 / (2 * np.sqrt(np.where(nu > 0, nu, 1)) * self.lr), 0.0)

    def nu_rate(self, nu: np.ndarray, g: np.ndarray, variance: np.ndarray) -> np.ndarray:
        if self.kind == "gradient_descent":
            return np.zeros_like(nu)
        second = self.square(g) + (variance if self.kind == "rmsprop" else variance.sum())
        return (1 - self.beta2) / self.beta2 * (second - nu)


@dataclass
class OraclePath:
    """Rows at integer steps of a path."""

    loss: list = field(default_factory=list)
    predicted: list = field(default_factory=list)
    sharpness: list = field(default_factory=list)
    num_critical: list = field(default_factory=list)
    sigma_eigs: list = field(default_factory=list)
    sigma_trace: list = field(default_factory=list)
    grad_norm_sq_predicted: list = field(default_factory=list)
    params: list = field(default_factory=list)
    nu: list = field(default_factory=list)


class DenseLoss:
    """Value, gradient, Hessian and third derivative of a loss, as float64 NumPy arrays."""

    def __init__(self, loss: Callable) -> None:
        self._all = jax.jit(
            lambda w: (
                loss(w),
                jax.grad(loss)(w),
                jax.hessian(loss)(w),
                jax.jacfwd(jax.hessian(loss))(w),
            )
        )
        self._grad = jax.jit(jax.grad(loss))

    def all(self, w: np.ndarray) -> tuple:
        return tuple(np.asarray(x) for x in self._all(jnp.asarray(w)))

    def at(self, w: np.ndarray) -> tuple:
        """Value, gradient, Hessian, and U -> the third derivative contracted along its columns."""
        value, grad, hessian, third = self.all(w)
        return value, grad, hessian, lambda U: np.einsum("ijl,ia,jb->abl", third, U, U)

    def grad(self, w: np.ndarray) -> np.ndarray:
        return np.asarray(self._grad(jnp.asarray(w)))


def solve_sdcp_oracle(A: np.ndarray, B: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return X ⪰ 0 with Y = A + B[X] ⪰ 0, <X, Y> = 0, for monotone, nearly symmetric B."""
    k = len(A)
    if np.linalg.eigvalsh(A)[0] >= 0:
        return np.zeros((k, k))
    basis = []
    for b in range(k):
        for a in range(b + 1):
            E = np.zeros((k, k))
            E[a, b] = E[b, a] = 1 if a == b else np.sqrt(0.5)
            basis.append(E)
    M = np.array([[np.sum(E * B(F)) for F in basis] for E in basis])
    a = np.array([np.sum(E * A) for E in basis])
    x = np.linalg.solve(M, -a)
    X = sum(c * E for c, E in zip(x, basis, strict=True))
    if np.linalg.eigvalsh(X)[0] >= 0:
        return X
    symmetric, skew = (M + M.T) / 2, (M - M.T) / 2
    import cvxpy  # here, because the benchmarks' cases mostly do without it

    root = scipy.linalg.cholesky(symmetric + 1e-14 * np.trace(symmetric) * np.eye(len(a)))
    X = np.zeros((k, k))
    for _ in range(30 if np.abs(skew).max() > 1e-13 * np.abs(M).max() else 1):
        shift = a + skew @ np.array([np.sum(E * X) for E in basis])
        V = cvxpy.Variable((k, k), PSD=True)
        v = cvxpy.hstack([cvxpy.sum(cvxpy.multiply(E, V)) for E in basis])
        cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(root @ v) / 2 + shift @ v)).solve(
            solver=cvxpy.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
        )
        step = np.abs(V.value - X).max()
        X = V.value
        if step <= 1e-9 * np.abs(X).max():
            break
    return X


def discrete_path(loss: Callable, w: np.ndarray, rule: OracleRule, steps: int) -> tuple:
    """Return iterates w_0..w_steps and ν_0..ν_steps (before each absorbs its gradient)."""
    dense, nu = DenseLoss(loss), rule.init(len(w))
    ws, nus = [w], [nu]
    for _ in range(steps):
        g = dense.grad(w)
        nu = rule.update(nu, g)
        w = w - g / rule.preconditioner(nu, len(w))
        ws.append(w)
        nus.append(nu)
    return np.array(ws), np.array(nus)


def central_path(
    loss: Callable,
    w: np.ndarray,
    rule: OracleRule,
    steps: int,
    substeps: int,
    warmup: int = 0,
    scheme: str = "euler",
    derivatives: Callable[[Callable], Any] = DenseLoss,
) -> OraclePath:
    """Return the central flow by the schemes of docs/theory.md, dense."""
    ws, nus = discrete_path(loss, w, rule, warmup)
    w, dense, h, d = ws[-1], derivatives(loss), 1 / substeps, len(w)
    nu = rule.update(nus[-1], dense.grad(w))
    path = OraclePath()
    for i in range(steps * substeps + 1):
        value, g, H, contract = dense.at(w)
        P = rule.preconditioner(nu, d)
        eigvals, U = scipy.linalg.eigh(H, np.diag(P))
        critical = eigvals >= CRITICAL
        U, lam = U[:, critical], eigvals[critical]
        D = contract(U)
        slope = rule.preconditioner_slope(nu)

        def variance(X: np.ndarray, HU: np.ndarray = H @ U) -> np.ndarray:
            return np.einsum("ia,ab,ib->i", HU, X, HU)

        def rates(X, U=U, D=D, g=g, P=P, nu=nu, slope=slope, variance=variance) -> tuple:
            dw = -(g + 0.5 * np.einsum("abl,ab->l", D, X)) / P
            dnu = rule.nu_rate(nu, g, variance(X))
            dP = np.broadcast_to(slope * dnu, len(g))
            dA = 2 * np.einsum("ia,i,ib->ab", U, dP, U) - np.einsum("abl,l->ab", D, dw)
            return dw, dnu, dA

        def covariance(h: float, rates: Callable = rates, lam: np.ndarray = lam) -> np.ndarray:
            zero = np.zeros((len(lam), len(lam)))
            if not len(lam):
                return zero
            stable = rates(zero)[2]
            A = np.diag(2 - lam) + h * stable
            return solve_sdcp_oracle(A, lambda V: h * (rates(V)[2] - stable))

        X = covariance(h)
        if i % substeps == 0:
            path.loss.append(value)
            path.predicted.append(value + np.trace(X))
            path.sharpness.append(eigvals[-1])
            path.num_critical.append(int(critical.sum()))
            path.sigma_eigs.append(np.sort(np.linalg.eigvalsh(X))[::-1] if critical.any() else [])
            path.sigma_trace.append(np.trace(U @ X @ U.T))
            path.grad_norm_sq_predicted.append(g @ g + variance(X).sum())
            path.params.append(w)
            path.nu.append(nu)
        dw, dnu, _ = rates(X)
        if scheme == "extrapolated" and i % 2 == 0:
            long_dw, long_dnu, _ = rates(covariance(2 * h))
            long = w + 2 * h * long_dw, nu + 2 * h * long_dnu
        w, nu = w + h * dw, nu + h * dnu
        if scheme == "extrapolated" and i % 2 == 1:
            w, nu = 2 * w - long[0], 2 * nu - long[1]
    return path
