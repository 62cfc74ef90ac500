"""How closely a paired run agrees with the float64 oracle of tests/oracles.py."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Gaps:
    """Largest relative differences between a run and the oracle over all rows.

    Attributes:
        predicted_loss: |L_ours - L_oracle| / L_oracle of the predicted loss, largest of the rows.
        sharpness: the same of the effective sharpness.
        sigma_trace: largest difference over the largest value.
        params: distance of the last points over the norm of the oracle's.
        num_critical: share of rows with another number of critical directions.
        most_critical: most critical directions that the oracle met.
    """

    predicted_loss: float
    sharpness: float
    sigma_trace: float
    params: float
    num_critical: float
    most_critical: int


def compare(rows: pd.DataFrame, last: np.ndarray, oracle: Any) -> Gaps:
    """Compare the rows of the central flow and its last point with the oracle's path."""

    def relative(column: str, expected: list) -> float:
        theirs = np.asarray(expected, float)
        return float(np.max(np.abs(rows[column].to_numpy(float) - theirs) / np.abs(theirs)))

    trace = np.asarray(oracle.sigma_trace, float)
    gap = np.abs(rows.sigma_trace.to_numpy(float) - trace).max()
    counts = np.asarray(oracle.num_critical)
    return Gaps(
        predicted_loss=relative("train_loss_predicted", oracle.predicted),
        sharpness=relative("effective_sharpness", oracle.sharpness),
        sigma_trace=float(gap / max(trace.max(), 1e-30)),
        params=float(np.linalg.norm(last - oracle.params[-1]) / np.linalg.norm(oracle.params[-1])),
        num_critical=float(np.mean(rows.num_critical.to_numpy() != counts)),
        most_critical=int(counts.max()),
    )


class ContractedThird:
    """∇³L(w), contracted along directions when asked instead of stored: d³ numbers are too many.

    Stands where the oracle has its dense array, in ``einsum("ijl,ia,jb->abl", T, U, U)``.
    """

    def __init__(self, contract: Callable[[np.ndarray], np.ndarray]) -> None:
        self._contract = contract

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> np.ndarray:
        """Answer the one einsum that the oracle makes."""
        del types, kwargs
        if function is not np.einsum or args[0] != "ijl,ia,jb->abl" or args[2] is not args[3]:
            return NotImplemented
        return self._contract(args[2])


class DenseHessianLoss:
    """The oracle's `DenseLoss`, dense but for the third derivative; float64."""

    def __init__(self, loss: Callable) -> None:
        grad = jax.grad(loss)

        def contracted(w: Any, u: Any, v: Any) -> Any:
            return jax.jvp(lambda w: jax.jvp(grad, (w,), (u,))[1], (w,), (v,))[1]

        self._all = jax.jit(lambda w: (loss(w), grad(w), jax.hessian(loss)(w)))
        self._grad = jax.jit(grad)
        self._contracted = jax.jit(contracted)

    def all(self, w: np.ndarray) -> tuple:
        """Return value, gradient, Hessian, third derivative."""
        value, grad, hessian = (np.asarray(x) for x in self._all(jnp.asarray(w)))

        def contract(U: np.ndarray) -> np.ndarray:
            c = U.shape[1]
            result = np.zeros((c, c, len(w)))
            for a in range(c):
                for b in range(a + 1):
                    result[a, b] = result[b, a] = self._contracted(w, U[:, a], U[:, b])
            return result

        return value, grad, hessian, ContractedThird(contract)

    def grad(self, w: np.ndarray) -> np.ndarray:
        """Return the gradient."""
        return np.asarray(self._grad(jnp.asarray(w)))


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Compute in float64 on the CPU, whatever the default device is."""
    with jax.default_device(jax.devices("cpu")[0]), jax.enable_x64(True):
        yield


def oracle_path(
    loss: Callable,
    params: np.ndarray,
    rule: tuple[str, float, float],
    steps: int,
    *,
    substeps: int = 4,
    warmup: int = 0,
    dense: bool = True,
) -> Any:
    """Return the oracle's central path.

    Args:
        loss: loss of flat parameters.
        params: float64.
        rule: kind, learning rate, β₂ of `OracleRule`.
        steps: optimizer steps.
        substeps: Euler substeps.
        warmup: optimizer steps before.
        dense: store the third derivative; else contract it on demand, for more than about 50
            parameters.
    """
    oracles = _oracles()
    replaced = oracles.DenseLoss if dense else DenseHessianLoss
    with on_cpu(), mock.patch.object(oracles, "DenseLoss", replaced):
        return oracles.central_path(
            loss, np.asarray(params, float), oracles.OracleRule(*rule), steps, substeps, warmup
        )


def _oracles() -> Any:
    """Import the oracles; without CVXPY they work where the SDCP has a closed form."""
    if importlib.util.find_spec("cvxpy") is None:
        sys.modules.setdefault("cvxpy", _NoCVXPY("cvxpy"))
    from tests import oracles

    return oracles


class _NoCVXPY(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError("this case needs CVXPY: pip install cvxpy")
