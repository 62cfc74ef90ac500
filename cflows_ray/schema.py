"""The columns of the two result tables: names, Arrow types, units and meanings.

This is the only place that knows them. Writers build Arrow schemas from it and readers check
files against it. It imports neither JAX nor Ray.

Tables are tidy: `runs` has one row per run, `steps` one row per run, step and process. What a
process does not define is null, never 0 or NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = "1"

RUN_STATUSES = ("finished", "diverged", "failed")
STEP_STATUSES = ("ok", "eig_unconverged", "sdcp_unconverged", "stopped", "diverged")


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type, unit (empty for none) and meaning.

    `absent` is what holds for a file from before the column was added; None for a column that
    every file must have.
    """

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    absent: str | None = None


_S, _I, _F, _B = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_L = pa.list_(pa.float64())

RUNS: tuple[Column, ...] = (
    Column("run_id", _S, "", "hash of the whole configuration of the run"),
    Column("sweep", _S, "", "name of the sweep that made the run"),
    Column("workload", _S, "", "registered name of the network and data set"),
    Column("workload_options", _S, "", "options of the workload, as JSON with sorted keys"),
    Column("criterion", _S, "", "training loss: mse or cross_entropy"),
    Column("rule", _S, "", "registered name of the update rule"),
    Column("lr", _F, "", "learning rate (peak, if scheduled)"),
    Column("beta2", _F, "", "decay of the second moment; null for gradient descent"),
    Column("eps", _F, "", "added to the root of the second moment; null for gradient descent"),
    Column("bias_correction", _B, "", "second moment divided by 1 - beta2^t; null for GD"),
    Column("schedule", _S, "", "learning-rate schedule, e.g. constant, linear_warmup:100"),
    Column("seed", _I, "", "seed of the initial parameters"),
    Column("flows", _S, "", "processes beside the discrete one, comma-separated"),
    Column("warmup", _I, "steps", "optimizer steps before the common starting point"),
    Column("steps", _I, "steps", "optimizer steps after the common starting point"),
    Column("substeps", _I, "1/step", "substeps of the central flow per optimizer step"),
    Column(
        "scheme",
        _S,
        "",
        "how the central flow makes its substeps: euler or extrapolated",
        absent="euler",
    ),
    Column("num_eigs", _I, "", "tracked directions at the start"),
    Column("record_every", _I, "steps", "distance between recorded steps"),
    Column("dtype", _S, "", "floating-point type of parameters and derivatives"),
    Column("num_params", _I, "", "number of parameters d"),
    Column("status", _S, "", f"how the run ended: {', '.join(RUN_STATUSES)}"),
    Column("status_detail", _S, "", "why, in words; null if there is nothing to say"),
    Column("wall_s", _F, "s", "time spent computing, compilation included"),
    Column("compile_s", _F, "s", "part of wall_s spent compiling"),
    Column("device", _S, "", "device that computed the run"),
    Column("versions", _S, "", "versions of the packages used, as JSON"),
    Column("commit", _S, "", "commit of cflows_ray; null outside a git checkout"),
)

STEPS: tuple[Column, ...] = (
    Column("run_id", _S, "", "the run that this row belongs to"),
    Column("step", _I, "steps", "optimizer step; 0 is the common starting point"),
    Column("process", _S, "", "discrete, midpoint, stable, central, ..."),
    Column("train_loss", _F, "loss", "loss at the process's own parameters"),
    Column(
        "train_loss_predicted",
        _F,
        "loss",
        "flow's prediction of the optimizer's time-averaged loss: L + tr X",
    ),
    Column("grad_norm_sq", _F, "loss²/param²", "squared norm of the gradient there"),
    Column(
        "grad_norm_sq_predicted",
        _F,
        "loss²/param²",
        "prediction of the time-averaged squared gradient norm: |g|² + tr(HΣH)",
    ),
    Column("effective_sharpness", _F, "", "top eigenvalue of P^-1/2 H P^-1/2; the edge is at 2"),
    Column("effective_eigs", _L, "", "tracked effective eigenvalues, descending"),
    Column("num_critical", _I, "", "effective eigenvalues above the critical threshold"),
    Column(
        "sigma_eigs",
        _L,
        "loss",
        "eigenvalues of X (Σ = U X Uᵀ, UᵀPU = I): variances along Σ's eigenvectors in P's metric",
    ),
    Column(
        "displacement_sq",
        _L,
        "loss",
        "squared displacement of the optimizer along each eigenvector of Σ, in P's metric",
    ),
    Column("sigma_trace", _F, "param²", "trace of Σ: predicted E|w_t - w(t)|² (L2)"),
    Column("distance_to_discrete", _F, "param", "L2 distance to the optimizer's iterate"),
    Column(
        "distance_to_midpoint",
        _F,
        "param",
        "L2 distance to the optimizer's second-order midpoint ¼(w_{t-1} + 2w_t + w_{t+1})",
    ),
    Column("distance_from_start", _F, "param", "L2 distance to the common starting point"),
    Column("nu_rel_error", _F, "", "|ν - ν_discrete| / |ν_discrete|; null without ν"),
    Column(
        "output_distance",
        _F,
        "output",
        "root mean square over the probe batch of the L2 distance between network outputs",
    ),
    Column("train_accuracy", _F, "", "fraction of training examples classified correctly"),
    Column("test_loss", _F, "loss", "loss on the test set"),
    Column("test_accuracy", _F, "", "fraction of test examples classified correctly"),
    Column("num_gradients", _I, "", "gradients computed so far, since step 0"),
    Column("num_hvps", _I, "", "Hessian-vector products computed so far, since step 0"),
    Column("num_third_derivatives", _I, "", "third-derivative contractions so far, since step 0"),
    Column(
        "eig_residual",
        _F,
        "",
        "largest |Mv - λv| / max(1, λ) over the eigenpairs that must converge",
    ),
    Column(
        "sdcp_residual", _F, "", "largest of the three residuals of the complementarity problem"
    ),
    Column("status", _S, "", f"of this row: {', '.join(STEP_STATUSES)}"),
)

TABLES = {"runs": RUNS, "steps": STEPS}


def arrow_schema(table: str) -> pa.Schema:
    """Arrow schema of a table, with units and meanings as field metadata.

    Raises `ValueError` for a table that does not exist.
    """
    if table not in TABLES:
        raise ValueError(f"table must be one of {sorted(TABLES)}, got {table!r}")
    fields = [
        pa.field(c.name, c.type, metadata={"unit": c.unit, "meaning": c.meaning})
        for c in TABLES[table]
    ]
    return pa.schema(
        fields, metadata={"cflows_ray.table": table, "cflows_ray.schema": SCHEMA_VERSION}
    )


def absent_values(table: str) -> dict[str, str]:
    """Return what holds for a file that lacks a column added later, by column.

    Example:
        >>> absent_values("runs")
        {'scheme': 'euler'}
    """
    return {c.name: c.absent for c in TABLES[table] if c.absent is not None}


def column_names(table: str) -> list[str]:
    """Names of a table's columns, in order."""
    return [c.name for c in TABLES[table]]
