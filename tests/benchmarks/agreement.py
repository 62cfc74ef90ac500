"""How closely a paired run agrees with the float64 oracle of tests/oracles."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from tests.oracles import DenseLoss, OraclePath, OracleRule, central_path


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


def compare(rows: pd.DataFrame, last: np.ndarray, oracle: OraclePath) -> Gaps:
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


class DenseHessianLoss:
    """The oracle's `DenseLoss` without the d³ numbers of a dense third derivative; float64."""

    def __init__(self, loss: Callable) -> None:
        grad = jax.grad(loss)

        def contracted(w: Any, u: Any, v: Any) -> Any:
            return jax.jvp(lambda w: jax.jvp(grad, (w,), (u,))[1], (w,), (v,))[1]

        self._all = jax.jit(lambda w: (loss(w), grad(w), jax.hessian(loss)(w)))
        self._grad = jax.jit(grad)
        self._contracted = jax.jit(contracted)

    def at(self, w: np.ndarray) -> tuple:
        """Return value, gradient, Hessian, and how to contract the third derivative."""
        value, grad, hessian = (np.asarray(x) for x in self._all(jnp.asarray(w)))

        def contract(U: np.ndarray) -> np.ndarray:
            c = U.shape[1]
            result = np.zeros((c, c, len(w)))
            for a in range(c):
                for b in range(a + 1):
                    result[a, b] = result[b, a] = self._contracted(w, U[:, a], U[:, b])
            return result

        return value, grad, hessian, contract

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
) -> OraclePath:
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
    with on_cpu():
        return central_path(
            loss,
            np.asarray(params, float),
            OracleRule(*rule),
            steps,
            substeps,
            warmup,
            derivatives=DenseLoss if dense else DenseHessianLoss,
        )
