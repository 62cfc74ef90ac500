"""Mamba: a stack of selective state-space blocks on token sequences.

Follows Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023, arXiv
2312.00752): the block of its Figure 3 around the S6 layer of its Algorithm 2, computed as a
recurrence in float32 or float64 (no parallel scan, no fused kernel):

    u, z   = split(x W_in)                        (expand · dim each)
    u      = silu(causal depthwise convolution of u)
    δ, B, C = split(u W_x);   Δ = softplus(δ W_Δ + b_Δ)
    h_t    = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t,    A = -exp(A_log), diagonal
    y_t    = C_t h_t + D u_t
    out    = (y silu(z)) W_out

each block added to its input and preceded by an RMS norm, with a last RMS norm and a linear layer
without bias. B is discretised by Euler's rule, as in the authors' code. A starts at -1 .. -state
(S4D-real), b_Δ so that Δ is log-uniform on [0.001, 0.1], D at one, W_Δ and the convolution uniform
on ±1/sqrt(inputs), other matrices normal with standard deviation 0.02, the last one `head_scale`
times smaller.

Parameters, for d = dim, E = expand d, N = state, K = conv, R = ceil(d / 16), vocabulary V:
V d + layers [d + 2 d E + (K + 1) E + E (R + 2N) + (R + 1) E + E N + E + E d] + d + d c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from cflows_ray.lazy import LazyModule
from cflows_ray.workloads.base import DataSet, Network, NetworkKind, check_tokens
from cflows_ray.workloads.layers import (
    embed,
    linear,
    normal,
    ones,
    parameter,
    rms_norm,
    sequence_network,
    uniform,
)
from cflows_ray.workloads.options import check_at_least, check_numbers

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from flax.core import Scope
    from jaxtyping import Array
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")

_STD = 0.02
_STEP_MIN, _STEP_MAX = 0.001, 0.1


@dataclass(frozen=True)
class MambaOptions:
    """Selective state-space stack: layers, width, state size, expansion, convolution length."""

    layers: int = 2
    dim: int = 64
    state: int = 16
    expand: int = 2
    conv: int = 4
    head_scale: float = 0.1

    def __post_init__(self) -> None:
        check_at_least(self, 1, "layers", "dim", "state", "expand", "conv")
        check_numbers(self, "head_scale")


def _step_bias(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw b with softplus(b) log-uniform on [0.001, 0.1]."""
    step = np.exp(rng.uniform(math.log(_STEP_MIN), math.log(_STEP_MAX), shape))
    return step + np.log(-np.expm1(-step))


def _log_a(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return log(1 .. state) for each channel."""
    del rng
    return np.broadcast_to(np.log(np.arange(1, shape[1] + 1)), shape)


def causal_convolution(
    x: Float[Array, "n t e"], kernel: Float[Array, "k e"], bias: Float[Array, " e"]
) -> Float[Array, "n t e"]:
    """Convolve each channel with its own kernel; position t sees t - k + 1 .. t."""
    length, taps = x.shape[1], kernel.shape[0]
    padded = jnp.pad(x, ((0, 0), (taps - 1, 0), (0, 0)))
    y = jnp.broadcast_to(bias, x.shape)
    for i in range(taps):
        y = y + padded[:, i : i + length] * jnp.broadcast_to(kernel[i], x.shape)
    return y


def selective_scan(
    u: Float[Array, "n t e"],
    step: Float[Array, "n t e"],
    a: Float[Array, "e s"],
    b: Float[Array, "n t s"],
    c: Float[Array, "n t s"],
) -> Float[Array, "n t e"]:
    """y_t = C_t h_t with h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t, from h = 0."""

    def advance(h: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        u_t, step_t, b_t, c_t = inputs
        decay = jnp.exp(step_t[:, :, None] * a[None])
        h = decay * h + (step_t * u_t)[:, :, None] * b_t[:, None, :]
        return h, jnp.einsum("nes,ns->ne", h, c_t)

    h0 = jnp.zeros((u.shape[0], *a.shape), u.dtype)
    _, y = jax.lax.scan(advance, h0, tuple(v.swapaxes(0, 1) for v in (u, step, b, c)))
    return y.swapaxes(0, 1)


def block(scope: Scope, x: Float[Array, "n t d"], options: MambaOptions) -> Float[Array, "n t d"]:
    """Apply one selective state-space block (without norm and sum)."""
    dim = x.shape[-1]
    inner, rank = options.expand * dim, math.ceil(dim / 16)
    matrix = partial(linear, use_bias=False, kernel_init=normal(_STD))
    u, z = jnp.split(matrix(scope.push("in"), x, 2 * inner), 2, axis=-1)
    tap = uniform(1 / math.sqrt(options.conv))
    kernel = parameter(scope, "conv_kernel", tap, (options.conv, inner))
    bias = parameter(scope, "conv_bias", tap, (inner,))
    u = jax.nn.silu(causal_convolution(u, kernel, bias))
    parts = matrix(scope.push("select"), u, rank + 2 * options.state)
    delta, b, c = jnp.split(parts, [rank, rank + options.state], axis=-1)
    step_init = uniform(1 / math.sqrt(rank))
    step = linear(scope.push("step"), delta, inner, kernel_init=step_init, bias_init=_step_bias)
    a = -jnp.exp(parameter(scope, "a_log", _log_a, (inner, options.state)))
    skip = parameter(scope, "skip", ones, (inner,))
    y = selective_scan(u, jax.nn.softplus(step), a, b, c)
    y = y + jnp.broadcast_to(skip, u.shape) * u
    return matrix(scope.push("out"), y * jax.nn.silu(z), dim)


def forward(
    scope: Scope,
    tokens: Int[Array, "n t"],
    *,
    options: MambaOptions,
    num_outputs: int,
    vocab_size: int,
    num_predicted: int,
) -> Float[Array, "n s c"]:
    """Compute outputs for a batch of sequences, at the last `num_predicted` positions."""
    x = embed(scope.push("embed"), tokens, vocab_size, options.dim, normal(_STD))
    for i in range(options.layers):
        x = x + block(scope.push(f"layer_{i}"), rms_norm(scope.push(f"norm_{i}"), x), options)
    x = rms_norm(scope.push("norm_out"), x[:, -num_predicted:])
    init = normal(_STD * options.head_scale)
    return linear(scope.push("head"), x, num_outputs, use_bias=False, kernel_init=init)


def build(options: MambaOptions, data: DataSet) -> Network:
    """Build the network for a data set of token sequences; `ValueError` for other data."""
    return sequence_network("mamba", forward, options, data)


def check(options: MambaOptions, data: DataSet) -> None:
    """Take integer tokens (n, t), and targets (n, s) for the last s positions."""
    del options
    check_tokens("mamba", data)


MAMBA = NetworkKind("mamba", MambaOptions, build, check, tokens=True)
