"""The precision that a loss really computes in, whatever the run's: read off its trace.

A network that casts to bfloat16 inside has derivatives of two digits, also where parameters are
float32; one that casts to float32 has eigenpairs to 1e-3 at best, also in a float64 run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.extend import core


def computing_dtype(jaxpr: Any, num_params: int) -> str | None:
    """Return the coarsest floating-point type between parameters and result; None without any.

    Only equations count that depend on the parameters and that the result depends on: a mask or
    labels in a coarse type do no harm.

    Args:
        jaxpr: of a function of parameters and data, flattened.
        num_params: how many leading arguments are parameters.

    Example:
        >>> import jax
        >>> def loss(w, x):
        ...     return jnp.sum(w.astype(jnp.bfloat16) * x.astype(jnp.bfloat16)).astype(jnp.float32)
        >>> traced = jax.make_jaxpr(loss)(jnp.ones(2), jnp.ones(2))
        >>> computing_dtype(traced.jaxpr, 1), computing_dtype(traced.jaxpr, 0)
        ('bfloat16', None)
    """
    found = {str(x.aval.dtype): x for x in _on_the_way(jaxpr, set(jaxpr.invars[:num_params]))}
    return max(found, key=lambda name: float(jnp.finfo(name).eps), default=None)


def _on_the_way(jaxpr: Any, varying: set) -> Iterator[Any]:
    """Yield the floating-point results of equations between some variables and the outputs."""
    reached, wanted = [], {x for x in jaxpr.outvars if isinstance(x, core.Var)}
    for equation in jaxpr.eqns:
        if any(isinstance(x, core.Var) and x in varying for x in equation.invars):
            varying |= set(equation.outvars)
            reached.append(equation)
    for equation in reversed(reached):
        if wanted.isdisjoint(equation.outvars):
            continue
        wanted |= {x for x in equation.invars if isinstance(x, core.Var)}
        yield from (x for x in equation.outvars if jnp.issubdtype(x.aval.dtype, jnp.floating))
        for inner in core.jaxprs_in_params(equation.params):
            # from everything it is given: which argument is which differs between primitives
            yield from _on_the_way(inner, {*inner.invars, *inner.constvars})
