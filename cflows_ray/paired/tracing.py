"""A problem's functions as they are traced now: what they compute, and the arrays they captured.

Programs are kept by what was traced, not by the function object. So a function whose captured data
changed gets its own numbers, and one made anew (a lambda, a bound method, a partial) that computes
the same compiles nothing. Captured arrays become arguments of the compiled program, but for those
that a jitted function inside captured, which are constants of it.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import PyTree

from cflows_ray.curvature import float_mode, standard_settings
from cflows_ray.paired.precision import computing_dtype
from cflows_ray.problem import ParamStructure

_ADDRESS = re.compile(r"0x[0-9a-f]+")
_UNIQUE = itertools.count()


@dataclass(frozen=True)
class Traced:
    """A function of (params, data), traced for one shape of data; equal if it computes the same.

    Attributes:
        key: what the trace computes, but for the values of the captured arrays.
        jaxpr: the trace; its constants are arguments.
        out_tree: structure of what it returns.
        out: shape and dtype of every array that it returns.
        computes_in: the coarsest floating-point type on the way from parameters to what it returns.
        captured_bytes: size of what it captured, constants of jitted functions inside included.
    """

    key: tuple
    jaxpr: Any = field(compare=False, repr=False)
    out_tree: Any
    out: tuple
    computes_in: str | None = None
    captured_bytes: int = field(default=0, compare=False)

    def __call__(self, captured: list, params: PyTree, data: PyTree) -> Any:
        """Evaluate the function with the arrays it captured."""
        closed = core.ClosedJaxpr(self.jaxpr, captured)
        found = core.jaxpr_as_fun(closed)(*jax.tree.leaves((params, data)))
        # a constant comes back as a number of JAX's own, without an array's methods
        return jax.tree.unflatten(self.out_tree, [jnp.asarray(x) for x in found])


def trace(
    function: Callable[[Any, Any], Any], name: str, structure: ParamStructure, data: PyTree
) -> tuple[Traced, list]:
    """Trace a function twice; return it, and the arrays that it captured.

    Raises `ValueError` if the two traces differ: the function is not a pure one.
    """
    (closed, out), (again, _) = (_jaxpr(function, structure, data) for _ in range(2))
    anew = not _kept(closed.jaxpr).isdisjoint(_kept(again.jaxpr))
    if anew:
        (closed, out), (again, _) = (_jaxpr(function, structure, data, anew) for _ in range(2))
    key = _key(closed.jaxpr)
    if key != _key(again.jaxpr) or _digest(closed.consts) != _digest(again.consts):
        raise ValueError(
            f"{name} must be a pure function, got another one when traced again: draw random "
            "numbers once, before the call, and change nothing inside"
        )
    leaves, out_tree = jax.tree.flatten(out)
    text, shapes = str(closed.jaxpr), tuple((x.shape, str(x.dtype)) for x in leaves)
    if "callback" in text:
        key += (next(_UNIQUE),)  # Python code that a trace does not show
    elif "custom_" in text or _ADDRESS.search(text):
        key += _rules_key(function, structure, data, anew)
    with float_mode(structure.dtype), standard_settings():
        # on a CPU a device array may share the memory of a NumPy array, which may change later
        captured = [
            jax.device_put(x if isinstance(x, jax.Array) else np.array(x)) for x in closed.consts
        ]
    computes_in = computing_dtype(closed.jaxpr, structure.treedef.num_leaves)
    size = sum(getattr(x, "nbytes", 0) for x in (*closed.consts, *_values(closed.jaxpr)))
    return Traced(key, closed.jaxpr, out_tree, shapes, computes_in, size), captured


def _jaxpr(
    function: Callable, structure: ParamStructure, data: PyTree, anew: bool = False
) -> tuple[Any, Any]:
    """Trace a function; `anew` if functions that it calls are to be traced anew as well.

    JAX keeps traces of functions inside by the function and by what surrounds it, names of mapped
    axes included: one that nobody else has does nothing else.
    """
    surroundings = [(f"trace {next(_UNIQUE)}", 1)] if anew else None
    # a new function each time, and without the user's own jit: JAX keeps traces by function
    is_jitted = type(function).__name__ == "PjitFunction"
    inner = getattr(function, "__wrapped__", function) if is_jitted else function
    flat = jax.ShapeDtypeStruct((structure.size,), structure.dtype)
    with float_mode(structure.dtype), jax.disable_jit(False):
        tree = jax.eval_shape(structure.unflatten, flat)
        return jax.make_jaxpr(lambda p, d: inner(p, d), axis_env=surroundings, return_shape=True)(
            tree, data
        )


def _kept(jaxpr: Any) -> set[int]:
    """Return the ids of equations inside that JAX may have kept from an earlier trace.

    Of functions of a user's own, jitted or the body of a loop or branch: JAX calls them once, so
    that they compute with what they captured then. Two traces have such an equation in common only
    if it was kept. JAX's own functions, kept as well, capture nothing.
    """
    found = set()
    for equation in jaxpr.eqns:
        for inner in core.jaxprs_in_params(equation.params):
            source = str(getattr(inner.debug_info, "func_src_info", ""))
            if equation.primitive.name not in ("jit", "pjit") or "/jax/" not in source:
                found |= {id(x) for x in inner.eqns}
            found |= _kept(inner)
    return found


def _rules_key(function: Callable, structure: ParamStructure, data: PyTree, anew: bool) -> tuple:
    """Identify the functions' own derivative rules, which a trace does not show."""

    def third(params: PyTree, data: PyTree) -> Any:
        def tangent(inner: Callable) -> Callable:
            return lambda p: jax.jvp(inner, (p,), (p,))[1]

        def value(p: PyTree) -> Any:
            return function(p, data)

        shape = jax.eval_shape(value, params)
        if getattr(shape, "shape", None) != ():
            return value(params)  # never differentiated here
        return tangent(tangent(jax.grad(value)))(params)

    closed, _ = _jaxpr(third, structure, data, anew)
    return (*_key(closed.jaxpr), _digest(closed.consts))


def _key(jaxpr: Any) -> tuple:
    """Return what a jaxpr computes: its text without addresses, shapes, and values in full."""
    shapes = tuple((v.aval.shape, str(v.aval.dtype)) for v in (*jaxpr.constvars, *jaxpr.invars))
    text = _ADDRESS.sub("", str(jaxpr))
    return hashlib.sha256(text.encode()).hexdigest(), shapes, _digest(_values(jaxpr))


def _values(jaxpr: Any) -> Iterator[Any]:
    """Yield the numbers that stand inside a jaxpr; its text rounds and shortens them."""
    for equation in jaxpr.eqns:
        for x in equation.invars:
            if isinstance(x, core.Literal):
                yield x.val
        for param in equation.params.values():
            for x in param if isinstance(param, tuple | list) else (param,):
                if isinstance(x, core.ClosedJaxpr):
                    yield from x.consts
                    yield from _values(x.jaxpr)
                elif isinstance(x, core.Jaxpr):
                    yield from _values(x)
                elif isinstance(x, np.ndarray | jax.Array):
                    yield x


def _digest(arrays: Any) -> str:
    """Return a fingerprint of arrays' contents, in order."""
    found = hashlib.sha256()
    for x in arrays:
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        array = np.ascontiguousarray(x)
        found.update(f"{array.shape}{array.dtype}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def fingerprint(tree: PyTree) -> str:
    """Return a fingerprint of a pytree's structure and contents."""
    leaves, treedef = jax.tree.flatten(tree)
    return f"{treedef} {_digest(leaves)}"
