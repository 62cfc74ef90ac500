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

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cflows_ray.workloads.base import DataSet, Network, check_tokens
from cflows_ray.workloads.layers import Embed, from_module, head, normal, parameter, uniform
from cflows_ray.workloads.options import LSTMOptions


class Cell(nn.Module):
    """One LSTM layer over a sequence, from zero states."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "n t e"]) -> Float[Array, "n t h"]:
        """Return the hidden states after each token."""
        init = uniform(1 / math.sqrt(self.hidden))
        gates = 4 * self.hidden
        input_kernel = parameter(self, "input_kernel", init, (x.shape[-1], gates))
        hidden_kernel = parameter(self, "hidden_kernel", init, (self.hidden, gates))
        input_bias = parameter(self, "input_bias", init, (gates,))
        hidden_bias = parameter(self, "hidden_bias", init, (gates,))
        from_input = x @ input_kernel
        from_input = from_input + jnp.broadcast_to(input_bias + hidden_bias, from_input.shape)

        def step(state: tuple[Array, Array], gates_t: Array) -> tuple[tuple[Array, Array], Array]:
            h, c = state
            i, f, g, o = jnp.split(gates_t + h @ hidden_kernel, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((x.shape[0], self.hidden), x.dtype)
        _, states = jax.lax.scan(step, (zero, zero), from_input.swapaxes(0, 1))
        return states.swapaxes(0, 1)


class LSTM(nn.Module):
    """Embedding, LSTM layers, linear layer at the last `num_predicted` positions."""

    layers: int
    embedding: int
    hidden: int
    vocab_size: int
    num_predicted: int
    num_outputs: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "n t"]) -> Float[Array, "n s c"]:
        """Compute outputs for a batch of sequences."""
        x = Embed(self.vocab_size, self.embedding, normal(1.0), name="embed")(tokens)
        for i in range(self.layers):
            x = Cell(self.hidden, name=f"layer_{i}")(x)
        return head(self.num_outputs, zero=False)(x[:, -self.num_predicted :])


def build(options: LSTMOptions, data: DataSet) -> Network:
    """Build the network for a data set of token sequences; `ValueError` for other data."""
    vocab_size, num_predicted = check_tokens("lstm", data)
    return from_module(
        LSTM(
            layers=options.layers,
            embedding=options.embedding,
            hidden=options.hidden,
            vocab_size=vocab_size,
            num_predicted=num_predicted,
            num_outputs=data.num_outputs,
        ),
        data,
    )
