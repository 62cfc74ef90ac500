"""Small networks with real curvature, as losses of one flat vector, for tests against oracles."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def _split(w, shapes):
    parts, begin = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        parts.append(w[begin : begin + size].reshape(shape))
        begin += size
    return parts


def _init(shapes, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [(scale * rng.standard_normal(s) / np.sqrt(s[0])).ravel() for s in shapes]
    )


def tanh_regression(seed: int = 0) -> tuple[Callable, np.ndarray]:
    """Two-layer tanh network, squared error: 4-5-1."""
    rng = np.random.default_rng(100 + seed)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 1))
    shapes = [(4, 5), (5, 1)]

    def loss(w):
        a, b = _split(w, shapes)
        return 0.5 * jnp.mean(
            jnp.sum((jnp.tanh(x.astype(w.dtype) @ a) @ b - y.astype(w.dtype)) ** 2, 1)
        )

    return loss, _init(shapes, seed)


def gelu_classifier(seed: int = 0) -> tuple[Callable, np.ndarray]:
    """Two-layer GELU network, cross-entropy on 3 classes: 4-5-3."""
    rng = np.random.default_rng(200 + seed)
    x, labels = rng.standard_normal((24, 4)), rng.integers(0, 3, 24)
    shapes = [(4, 5), (5, 3)]

    def loss(w):
        a, b = _split(w, shapes)
        logits = jax.nn.gelu(x.astype(w.dtype) @ a) @ b
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(24), labels])

    return loss, _init(shapes, seed)


def deep_linear(seed: int = 0) -> tuple[Callable, np.ndarray]:
    """Three-layer linear network, squared error to a matrix with two close singular values."""
    rng = np.random.default_rng(300 + seed)
    left, right = (np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(2))
    target = left @ np.diag([1.0, 0.9, 0.1]) @ right
    shapes = [(3, 3), (3, 3), (3, 3)]

    def loss(w):
        a, b, c = _split(w, shapes)
        return 0.5 * jnp.sum((a @ b @ c - target.astype(w.dtype)) ** 2)

    return loss, _init(shapes, seed, 0.6)


def attention(seed: int = 0) -> tuple[Callable, np.ndarray]:
    """One softmax-attention layer over 4 tokens of width 3, squared error."""
    rng = np.random.default_rng(400 + seed)
    x, y = rng.standard_normal((10, 4, 3)), rng.standard_normal((10, 2))
    shapes = [(3, 3), (3, 3), (3, 2)]

    def loss(w):
        query, value, head = _split(w, shapes)
        tokens = x.astype(w.dtype)
        weights = jax.nn.softmax(tokens @ query @ tokens.swapaxes(1, 2), axis=-1)
        out = jnp.mean(jnp.tanh(weights @ tokens @ value), axis=1) @ head
        return 0.5 * jnp.mean(jnp.sum((out - y.astype(w.dtype)) ** 2, axis=1))

    return loss, _init(shapes, seed)


NETWORKS = {
    "tanh_regression": tanh_regression,
    "gelu_classifier": gelu_classifier,
    "deep_linear": deep_linear,
    "attention": attention,
}
