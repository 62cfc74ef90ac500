"""The discrete optimizers as NumPy loops, one function each, in optax's and PyTorch's conventions.

Written line by line from what `optax` does (read in its source, 0.2.8; a test compares), and from
what PyTorch's documentation says (`torch_*`; from knowledge, not run: PyTorch is no dependency).
Every loop returns its iterates w_0..w_n, shape (n + 1, d). `factor(k)` multiplies the learning rate
of the step that k steps precede; `decay` is decoupled: the step also subtracts lr·factor·decay·w.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Gradient = Callable[[np.ndarray], np.ndarray]
Factor = Callable[[float], float]


def constant(k: float) -> float:
    """Return 1 whatever the step: no schedule."""
    del k
    return 1.0


def sgd(
    grad: Gradient,
    w: np.ndarray,
    steps: int,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    decay: float = 0.0,
    factor: Factor = constant,
) -> np.ndarray:
    """`optax.sgd`: the learning rate multiplies after the trace."""
    path, m = [w], np.zeros_like(w)
    for k in range(steps):
        g = grad(w)
        m = momentum * m + g
        u = momentum * m + g if nesterov else m
        w = w - lr * factor(k) * (u + decay * w)
        path.append(w)
    return np.array(path)


def rmsprop(
    grad: Gradient,
    w: np.ndarray,
    steps: int,
    lr: float,
    beta2: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    eps: float = 1e-8,
    bias_correction: bool = False,
    decay: float = 0.0,
    factor: Factor = constant,
) -> np.ndarray:
    """`optax.rmsprop(eps_in_sqrt=False)`: preconditioner, learning rate, *then* the trace."""
    path, m, nu = [w], np.zeros_like(w), np.zeros_like(w)
    for k in range(steps):
        g = grad(w)
        nu = beta2 * nu + (1 - beta2) * g**2
        root = np.sqrt(nu / (1 - beta2 ** (k + 1)) if bias_correction else nu)
        step = lr * factor(k) * g / (root + eps)
        m = momentum * m + step
        u = momentum * m + step if nesterov else m
        w = w - u - lr * factor(k) * decay * w
        path.append(w)
    return np.array(path)


def adam(
    grad: Gradient,
    w: np.ndarray,
    steps: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float = 1e-8,
    nesterov: bool = False,
    scalar: bool = False,
    decay: float = 0.0,
    factor: Factor = constant,
) -> np.ndarray:
    """`optax.adam`, `adamw` (decay), `nadam` (nesterov); scalar: one ν, a mean of |g|².

    `optax.nadam` corrects the average by 1 - β₁^(t+1), the gradient by 1 - β₁^t, t = k + 1.
    """
    path, m, nu = [w], np.zeros_like(w), np.zeros(1 if scalar else len(w))
    for k in range(steps):
        g, t = grad(w), k + 1
        m = beta1 * m + (1 - beta1) * g
        nu = beta2 * nu + (1 - beta2) * (np.array([g @ g]) if scalar else g**2)
        m_hat = m / (1 - beta1**t)
        if nesterov:
            m_hat = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        u = m_hat / (np.sqrt(nu / (1 - beta2**t)) + eps)
        w = w - lr * factor(k) * (u + decay * w)
        path.append(w)
    return np.array(path)


def torch_sgd(
    grad: Gradient,
    w: np.ndarray,
    steps: int,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    factor: Factor = constant,
) -> np.ndarray:
    """`torch.optim.SGD`: decay is coupled (part of g); the first buffer is g, whatever damps."""
    path, m = [w], np.zeros_like(w)
    for k in range(steps):
        g = grad(w) + weight_decay * w
        m = g if k == 0 else momentum * m + (1 - dampening) * g
        u = g + momentum * m if nesterov else m
        w = w - lr * factor(k) * u
        path.append(w)
    return np.array(path)


def torch_rmsprop(
    grad: Gradient,
    w: np.ndarray,
    steps: int,
    lr: float,
    alpha: float = 0.99,
    momentum: float = 0.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    factor: Factor = constant,
) -> np.ndarray:
    """`torch.optim.RMSprop`: ε outside the root, the learning rate *after* the buffer."""
    path, m, nu = [w], np.zeros_like(w), np.zeros_like(w)
    for k in range(steps):
        g = grad(w) + weight_decay * w
        nu = alpha * nu + (1 - alpha) * g**2
        m = momentum * m + g / (np.sqrt(nu) + eps)
        w = w - lr * factor(k) * m
        path.append(w)
    return np.array(path)


def torch_adam(
    grad: Gradient,
    w: np.ndarray,
    steps: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    factor: Factor = constant,
) -> np.ndarray:
    """`torch.optim.Adam`, and `AdamW` (decoupled: w shrinks by 1 - lr·decay before the step)."""
    path, m, nu = [w], np.zeros_like(w), np.zeros_like(w)
    for k in range(steps):
        g, t, rate = grad(w), k + 1, lr * factor(k)
        if decoupled:
            w = w * (1 - rate * weight_decay)
        else:
            g = g + weight_decay * w
        m = betas[0] * m + (1 - betas[0]) * g
        nu = betas[1] * nu + (1 - betas[1]) * g**2
        denominator = np.sqrt(nu) / np.sqrt(1 - betas[1] ** t) + eps
        w = w - rate / (1 - betas[0] ** t) * m / denominator
        path.append(w)
    return np.array(path)


def torch_nadam(
    grad: Gradient,
    w: np.ndarray,
    steps: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum_decay: float = 4e-3,
    factor: Factor = constant,
) -> np.ndarray:
    """`torch.optim.NAdam`: β₁ itself warms up, μ_t = β₁ (1 - ½·0.96^(t·momentum_decay))."""
    path, m, nu, product = [w], np.zeros_like(w), np.zeros_like(w), 1.0
    for k in range(steps):
        g, t = grad(w), k + 1
        mu, following = (betas[0] * (1 - 0.5 * 0.96 ** (s * momentum_decay)) for s in (t, t + 1))
        product *= mu
        m = betas[0] * m + (1 - betas[0]) * g
        nu = betas[1] * nu + (1 - betas[1]) * g**2
        denominator = np.sqrt(nu / (1 - betas[1] ** t)) + eps
        u = (1 - mu) / (1 - product) * g + following / (1 - product * following) * m
        w = w - lr * factor(k) * u / denominator
        path.append(w)
    return np.array(path)
