"""A small interior-point method for the complementarity problem, where CVXPY would be too slow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def solve_complementarity(A: np.ndarray, B: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return X ⪰ 0 with Y = A + B[X] ⪰ 0 and <X, Y> = 0; B linear and monotone, k × k.

    Newton's method on XY + YX = 2μI, Y = A + B[X] (Alizadeh, Haeberly, Overton) while μ falls.
    """
    k = len(A)
    if k == 0 or np.linalg.eigvalsh(A)[0] >= 0:
        return np.zeros((k, k))
    basis = []
    for b in range(k):
        for a in range(b + 1):
            E = np.zeros((k, k))
            E[a, b] = E[b, a] = 1 if a == b else np.sqrt(0.5)
            basis.append(E)
    images = [B(E) for E in basis]
    images = [(V + V.T) / 2 for V in images]
    if k == 1:
        return -A / images[0]

    def coordinates(V: np.ndarray) -> np.ndarray:
        return np.array([np.sum(E * V) for E in basis])

    def combined(x: np.ndarray, of: list) -> np.ndarray:
        return sum(c * V for c, V in zip(x, of, strict=True))

    def longest(V: np.ndarray, dV: np.ndarray) -> float:
        """Return the step at which V + step·dV is at the boundary, 1 if that is beyond 1.05."""
        root = np.linalg.inv(np.linalg.cholesky(V))
        least = np.linalg.eigvalsh(root @ dV @ root.T)[0]
        return 1.0 if least > -0.95 else -0.95 / least

    scale = np.abs(A).max()
    X = (
        np.eye(k)
        * scale
        / np.abs([np.sum(E * V) for E, V in zip(basis, images, strict=True)]).max()
    )
    Y = np.eye(k) * scale
    for _ in range(100):
        gap = A + combined(coordinates(X), images) - Y
        mu = np.sum(X * Y) / k
        if np.abs(gap).max() <= 1e-11 * scale and mu <= 1e-11 * scale * np.abs(X).max():
            break
        rows = [E @ Y + Y @ E + X @ V + V @ X for E, V in zip(basis, images, strict=True)]
        target = 0.2 * mu * np.eye(k) - (X @ (Y + gap) + (Y + gap) @ X)
        x = np.linalg.solve(np.array([coordinates(R) for R in rows]).T, coordinates(target))
        dX = combined(x, basis)
        dY = combined(x, images) + gap
        step = min(longest(X, dX), longest(Y, dY))
        X, Y = X + step * dX, Y + step * dY
    else:
        raise RuntimeError("the complementarity problem was not solved in 100 iterations")
    return X
