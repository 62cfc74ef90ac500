"""The adaptive scheme of the central flow, dense: docs/theory.md, "The adaptive scheme"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg

from tests.oracles.preconditioned import (
    CRITICAL,
    DenseLoss,
    OraclePath,
    OracleRule,
    discrete_path,
    solve_sdcp_oracle,
)


@dataclass
class AdaptivePath(OraclePath):
    """Rows at integer steps, lengths of all substeps, and their estimated local errors."""

    lengths: list = field(default_factory=list)
    errors: list = field(default_factory=list)


def phi(order: int, z: np.ndarray) -> np.ndarray:
    """(1 - e^-z)/z, or (1 - that)/z, by Gauss-Legendre of their integrals."""
    x, weights = np.polynomial.legendre.leggauss(20)
    theta = (x + 1) / 2
    kernel = np.exp(-np.multiply.outer(z, 1 - theta)) * theta ** (order - 1)
    return kernel @ weights / 2


class _Look:
    """All that is known at a point; `tracked` eigenvectors relax exactly."""

    def __init__(self, rule: OracleRule, dense: Any, w: Any, nu: Any, tracked: int) -> None:
        self.rule, self.w, self.nu = rule, w, nu
        self.value, self.g, H, contract = dense.at(w)
        self.P = rule.preconditioner(nu, len(w))
        self.eigvals, vectors = scipy.linalg.eigh(H, np.diag(self.P))
        self.critical = self.eigvals >= CRITICAL
        self.U, self.lam = vectors[:, self.critical], self.eigvals[self.critical]
        self.HU, self.D = H @ self.U, contract(self.U)
        self.V, self.kappa = vectors[:, -tracked:], np.maximum(self.eigvals[-tracked:], 0.0)

    def rates(self, X: np.ndarray) -> tuple:
        variance = np.einsum("ia,ab,ib->i", self.HU, X, self.HU)
        dw = -(self.g + 0.5 * np.einsum("abl,ab->l", self.D, X)) / self.P
        return dw, self.rule.nu_rate(self.nu, self.g, variance)

    def rise(self, dw: np.ndarray, dnu: np.ndarray) -> np.ndarray:
        """How A changes with a displacement of w and ν."""
        dP = np.broadcast_to(self.rule.preconditioner_slope(self.nu) * dnu, len(self.w))
        moved = 2 * np.einsum("ia,i,ib->ab", self.U, dP, self.U)
        return moved - np.einsum("abl,l->ab", self.D, dw)

    def K(self, x: np.ndarray) -> np.ndarray:
        return self.V @ (self.kappa * (self.V.T @ (self.P * x)))

    def phi(self, order: int, h: float, x: np.ndarray) -> np.ndarray:
        less = phi(order, h * self.kappa) - 1 / order
        return x / order + self.V @ (less * (self.V.T @ (self.P * x)))

    def zero(self) -> np.ndarray:
        return np.zeros((len(self.lam), len(self.lam)))


def adaptive_path(
    loss: Callable,
    w: np.ndarray,
    rule: OracleRule,
    steps: int,
    tolerance: float,
    warmup: int = 0,
    tracked: int = 4,
    longest: int = 64,
    first: int = 1,
    derivatives: Callable[[Callable], Any] = DenseLoss,
) -> AdaptivePath:
    """Return the central flow by the adaptive scheme; `longest` in 64ths of a step."""
    ws, nus = discrete_path(loss, w, rule, warmup)
    w, dense = ws[-1], derivatives(loss)
    nu = rule.update(nus[-1], dense.grad(w))
    path, position, size, before = AdaptivePath(), 0, min(first, longest), None
    while True:
        at = _Look(rule, dense, w, nu, tracked)
        guess, slope, course = at.zero(), (0.0 * w, 0.0 * nu), 0.0 * w
        if before is not None:
            old, Z, rate, h, way, last_slope, last_course = before
            turn = at.U.T @ (at.P[:, None] * old.U)
            guess = turn @ Z @ turn.T
            slope = tuple((b - a) / h for b, a in zip(at.rates(guess), rate, strict=True))
            course = way / h
            wrong = slope[0] - last_slope[0] + at.K(course - last_course)
            error = np.linalg.norm(h**2 * at.phi(2, h, wrong))
            path.errors.append(error)
            ratio = error / (tolerance * np.linalg.norm(way))
            ratio = max(ratio, (at.eigvals[-1] - 2) / tolerance)
            finer = int(np.clip(np.ceil(0.5 * np.log2(max(ratio, 1e-9))), -1, 6))
            if finer > 0:
                size >>= finer
            elif 4 * ratio < 0.7 and position % (2 * size) == 0:
                size *= 2
            size = int(np.clip(size, 1, longest))
            memory = np.clip(1.1 * h * max(at.eigvals[-tracked], 0) - 1, 0, 0.6)
            slope = tuple(
                memory * a + (1 - memory) * b for a, b in zip(last_slope, slope, strict=True)
            )
            course = memory * last_course + (1 - memory) * course
        h = size / 64
        later = h**2 * at.phi(2, h, slope[0] + at.K(course)), h**2 / 2 * slope[1]

        def displaced(X: np.ndarray, at: _Look = at, h: float = h, later: tuple = later) -> tuple:
            dw, dnu = at.rates(X)
            return h * at.phi(1, h, dw) + later[0], h * dnu + later[1]

        A = np.diag(2 - at.lam) + at.rise(*displaced(at.zero()))
        X = at.zero()
        plain = at.rise(*displaced(X))

        def response(V: np.ndarray, at: _Look = at, plain: Any = plain, go: Any = displaced) -> Any:
            return at.rise(*go(V)) - plain

        if len(A):
            X = solve_sdcp_oracle(A, response)
        if position % 64 == 0:
            share = 1.0 if before is None else before[3] / (before[3] + h)
            said = guess + share * (X - guess)
            path.loss.append(at.value)
            path.predicted.append(at.value + np.trace(said))
            path.sharpness.append(at.eigvals[-1])
            path.num_critical.append(int(at.critical.sum()))
            path.sigma_trace.append(np.trace(at.U @ said @ at.U.T))
            path.params.append(w)
            path.nu.append(nu)
            if position == 64 * steps:
                return path
        path.lengths.append(h)
        dw, dnu = displaced(X)
        before = at, X, at.rates(X), h, dw, slope, course
        w, nu = w + dw, nu + dnu
        position += size
