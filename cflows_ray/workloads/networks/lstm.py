"""Stacked LSTM on token sequences (Hochreiter and Schmidhuber, 1997, with forget gates).

    i, f, g, o = x W_x + b_x + h W_h + b_h
    c' = σ(f) c + σ(i) tanh(g)
    h' = σ(o) tanh(c')

Two biases a cell, as in the paper's code (it changes how fast the bias learns); everything starts
uniform on ±1/sqrt(hidden), the embedding standard normal.

Parameters, for vocabulary V, embedding e, hidden h, L layers and c outputs:
V e + 4h (e + h + 2) + (L - 1) 4h (2h + 2) + (h + 1) c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float, Int

from cflows_ray.lazy import LazyModule
from cflows_ray.workloads.base import DataSet, Network, NetworkKind, check_tokens
from cflows_ray.workloads.layers import embed, head, normal, parameter, sequence_network, uniform
from cflows_ray.workloads.options import check_at_least

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from flax.core import Scope
    from jaxtyping import Array
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")


@dataclass(frozen=True)
class LSTMOptions:
    """Stacked LSTM: layers, width of the embedding, width of the hidden state."""

    layers: int = 2
    embedding: int = 48
    hidden: int = 48

    def __post_init__(self) -> None:
        check_at_least(self, 1, "layers", "embedding", "hidden")


def cell(scope: Scope, x: Float[Array, "n t e"], hidden: int) -> Float[Array, "n t h"]:
    """Apply one LSTM layer to a sequence, from zero states; the hidden states after each token."""
    init = uniform(1 / math.sqrt(hidden))
    gates = 4 * hidden
    input_kernel = parameter(scope, "input_kernel", init, (x.shape[-1], gates))
    hidden_kernel = parameter(scope, "hidden_kernel", init, (hidden, gates))
    input_bias = parameter(scope, "input_bias", init, (gates,))
    hidden_bias = parameter(scope, "hidden_bias", init, (gates,))
    from_input = x @ input_kernel
    from_input = from_input + jnp.broadcast_to(input_bias + hidden_bias, from_input.shape)

    def step(state: tuple[Array, Array], gates_t: Array) -> tuple[tuple[Array, Array], Array]:
        h, c = state
        i, f, g, o = jnp.split(gates_t + h @ hidden_kernel, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((x.shape[0], hidden), x.dtype)
    _, states = jax.lax.scan(step, (zero, zero), from_input.swapaxes(0, 1))
    return states.swapaxes(0, 1)


def forward(
    scope: Scope,
    tokens: Int[Array, "n t"],
    *,
    options: LSTMOptions,
    num_outputs: int,
    vocab_size: int,
    num_predicted: int,
) -> Float[Array, "n s c"]:
    """Compute outputs for a batch of sequences, at the last `num_predicted` positions."""
    x = embed(scope.push("embed"), tokens, vocab_size, options.embedding, normal(1.0))
    for i in range(options.layers):
        x = cell(scope.push(f"layer_{i}"), x, options.hidden)
    return head(scope, x[:, -num_predicted:], num_outputs, zero=False)


def build(options: LSTMOptions, data: DataSet) -> Network:
    """Build the network for a data set of token sequences; `ValueError` for other data."""
    return sequence_network("lstm", forward, options, data)


def check(options: LSTMOptions, data: DataSet) -> None:
    """Take integer tokens (n, t), and targets (n, s) for the last s positions."""
    del options
    check_tokens("lstm", data)


LSTM = NetworkKind("lstm", LSTMOptions, build, check, tokens=True)
