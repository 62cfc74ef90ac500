"""The columns of the two result tables: names, Arrow types, units and meanings.

The columns that every sweep has. Rules add a column for each hyperparameter that they declare,
and processes those that only they record; every field of a file carries its unit, meaning and role
in its metadata, so that readers need not know who added it. It imports neither JAX nor Ray.

Tables are tidy: `runs` has one row per run, `steps` one row per run, step and process. What a
process does not define is null, never 0 or NaN.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = "1"

RUN_STATUSES = ("finished", "diverged", "undefined", "failed")
NOT_FINISHED = tuple(status for status in reversed(RUN_STATUSES) if status != "finished")
"""How runs end that are not finished: failures first."""


class StepStatus(enum.IntEnum):
    """What may be said of a row, by severity: of two that hold, the greater is said."""

    OK = 0
    EIG_UNCONVERGED = 1
    SDCP_UNCONVERGED = 2
    STOPPED = 3
    DIVERGED = 4

    @property
    def word(self) -> str:
        """As in the column `status`."""
        return self.name.lower()


STEP_STATUSES = tuple(status.word for status in StepStatus)


class Doubt(enum.IntFlag):
    """Why the numbers of a row may mean nothing; several may hold.

    What each goes by is in docs/theory.md, "Whether to believe a flow".
    """

    OFF_THE_EDGE = 1
    STIFF = 2
    UNCONVERGED = 4
    CONTRADICTED = 8
    NOT_FINITE = 16
    LEAPING = 32

    @property
    def words(self) -> str | None:
        """As in the column `doubt`: comma-separated; None for no doubt.

        Example:
            >>> Doubt(3).words
            'off_the_edge,stiff'
        """
        return ",".join(one.word for one in Doubt if one & self) or None

    @property
    def word(self) -> str:
        """As in the column `doubt`, of one reason."""
        return str(self.name).lower()


DOUBTS = tuple(doubt.word for doubt in Doubt)


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type, unit (empty for none) and meaning.

    `role` says what it is in a study: "hyperparameter" (of the rule), "configuration" (of the run
    otherwise) or "result". `symbol` is how figures write it, if not by its name. `absent` is what
    holds for a file from before the column was added; None for null. `first` is the same by rule,
    for a hyperparameter that was added to rules which had runs before.
    """

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    absent: Any = None
    role: str = "result"
    symbol: str = ""
    first: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, str]:
        """What a file says of the column."""
        said = {
            "unit": self.unit,
            "meaning": self.meaning,
            "role": self.role,
            "symbol": self.symbol,
        }
        return said | ({"absent": json.dumps(dict(self.first))} if self.first else {})


_S, _I, _F, _B = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_L = pa.list_(pa.float64())


_AT_LEAST = "substeps of the {} flow per optimizer step, at least"


def _setting(name: str, kind: pa.DataType, unit: str, meaning: str, **more: Any) -> Column:
    return Column(name, kind, unit, meaning, role="configuration", **more)


RUNS: tuple[Column, ...] = (
    Column("run_id", _S, "", "hash of the whole configuration of the run"),
    Column("sweep", _S, "", "name of the sweep that made the run"),
    _setting("workload", _S, "", "registered name of the network and data set"),
    _setting("workload_options", _S, "", "options of the workload, as JSON with sorted keys"),
    _setting("criterion", _S, "", "training loss: mse or cross_entropy"),
    _setting("rule", _S, "", "registered name of the update rule"),
    Column("lr", _F, "", "learning rate (peak, if scheduled)", role="hyperparameter", symbol="η"),
    Column(
        "schedule",
        _S,
        "",
        "learning-rate schedule, e.g. constant, linear_warmup:100",
        role="hyperparameter",
    ),
    _setting("seed", _I, "", "seed of the initial parameters"),
    _setting("flows", _S, "", "processes beside the discrete one, comma-separated"),
    _setting("warmup", _I, "steps", "optimizer steps before the common starting point"),
    _setting("steps", _I, "steps", "optimizer steps after the common starting point"),
    _setting("substeps", _I, "1/step", "fixed substeps of the central flow per optimizer step"),
    _setting(
        "scheme",
        _S,
        "",
        "how the central flow makes its substeps: adaptive, euler or extrapolated",
        absent="euler",
    ),
    _setting(
        "stable_scheme",
        _S,
        "",
        "how the stable flow is integrated: chebyshev (leapfrog with momentum) or euler",
        absent="euler",
    ),
    _setting(
        "tolerance",
        _F,
        "",
        "local error of the adaptive scheme, over the way of each substep",
        absent=1e-2,
    ),
    _setting("num_eigs", _I, "", "tracked directions at the start"),
    _setting("record_every", _I, "steps", "distance between recorded steps"),
    _setting("dtype", _S, "", "floating-point type of parameters and derivatives"),
    _setting(
        "target_windows",
        _S,
        "",
        "windows over which flows are compared in the mean, of 5, 20, 50, loop; empty for none",
        absent="",
    ),
    _setting(
        "restart_every",
        _I,
        "steps",
        "steps after which flows begin anew at the optimizer; 0 for never",
        absent=0,
    ),
    *(
        _setting(name, kind, unit, meaning, absent=absent)
        for name, kind, unit, meaning, absent in (
            (
                "seed_floor",
                _S,
                "",
                "what keeps a flow's swing alive below the edge: rounding, fraction or none",
                "rounding",
            ),
            ("seed_roundings", _F, "", "roundings of w that a seed is as large as", 2.0),
            ("seed_fraction", _F, "", "length of a seed over that of a step, for fraction", 1e-3),
            ("rod_rank", _I, "", "directions of the rod flow's covariance", 2),
            ("covariance_rank", _I, "", "directions of the covariance flow's covariance", 4),
            ("alternating_substeps", _I, "1/step", _AT_LEAST.format("alternating"), 4),
            ("edge_substeps", _I, "1/step", _AT_LEAST.format("edge"), 2),
            ("rod_substeps", _I, "1/step", _AT_LEAST.format("rod"), 4),
            ("covariance_substeps", _I, "1/step", _AT_LEAST.format("covariance"), 4),
            ("corrected_substeps", _I, "1/step", _AT_LEAST.format("corrected"), 4),
            (
                "corrected_sharpness_limit",
                _F,
                "",
                "effective sharpness at which the corrected flow stops",
                20.0,
            ),
        )
    ),
    _setting("data", _S, "", "fingerprint of the data that were trained on; null for none"),
    Column("num_params", _I, "", "number of parameters d"),
    Column("status", _S, "", f"how the run ended: {', '.join(RUN_STATUSES)}"),
    Column("status_detail", _S, "", "why, in words; null if there is nothing to say"),
    Column("doubts", _S, "", "rows with a doubt, by process and reason, in words; null for none"),
    Column("wall_s", _F, "s", "time spent computing, compilation included"),
    Column("compile_s", _F, "s", "part of wall_s spent compiling"),
    Column("device", _S, "", "device that computed the run"),
    Column("versions", _S, "", "versions of the packages used, as JSON"),
    Column("commit", _S, "", "commit of cflows_ray, -changed if its files were; null without git"),
)

TARGET_WINDOWS = {
    "5": "last 5 steps",
    "20": "last 20 steps",
    "50": "last 50 steps",
    "loop": "steps of one loop period",
}
"""Windows of the columns `distance_to_mean_...`, in words."""

STEPS: tuple[Column, ...] = (
    Column("run_id", _S, "", "the run that this row belongs to"),
    Column("step", _I, "steps", "optimizer step; 0 is the common starting point"),
    Column("process", _S, "", "discrete, midpoint, stable, central, ..."),
    Column("start_step", _I, "steps", "step at which the flows of this row started", absent=0),
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
    Column(
        "distance_to_half",
        _F,
        "param",
        "L2 distance of the half-way points ½(w_{t-1} + w_t), the process's and the optimizer's",
    ),
    *(
        Column(
            f"distance_to_mean_{window}",
            _F,
            "param",
            f"L2 norm of the mean of w(t) - w_t over the {words}; at their end, if asked for",
        )
        for window, words in TARGET_WINDOWS.items()
    ),
    Column("distance_from_start", _F, "param", "L2 distance to where this row's flows started"),
    Column("nu_rel_error", _F, "", "|ν - ν_discrete| / |ν_discrete|; null without ν"),
    Column("momentum_rel_error", _F, "", "|m - m_discrete| / |m_discrete|; null without momentum"),
    Column(
        "output_distance",
        _F,
        "output",
        "root mean square over the probe batch of the L2 distance between network outputs",
    ),
    Column("train_accuracy", _F, "", "fraction of training examples classified correctly"),
    Column("test_loss", _F, "loss", "loss on the test set"),
    Column("test_accuracy", _F, "", "fraction of test examples classified correctly"),
    Column(
        "test_loss_predicted",
        _F,
        "loss",
        "flow's prediction of the optimizer's time-averaged test loss: f + ½<f'', Σ>; if asked for",
    ),
    Column(
        "output_distance_predicted",
        _F,
        "output",
        "as output_distance, between the flow's f + ½<f'', Σ> and the optimizer's outputs "
        "averaged over t-1, t, t, t+1; if asked for",
    ),
    Column("num_gradients", _I, "", "gradients computed after the process's start"),
    Column("num_hvps", _I, "", "Hessian-vector products computed since then"),
    Column("num_third_derivatives", _I, "", "third-derivative contractions computed since then"),
    Column(
        "eig_residual",
        _F,
        "",
        "largest |Mv - λv| / max(1, λ) over the eigenpairs that must converge",
    ),
    Column(
        "sdcp_residual", _F, "", "largest of the three residuals of the complementarity problem"
    ),
    Column(
        "growth_rate",
        _F,
        "1/step",
        "r: how fast the effective sharpness would rise without oscillation; null below the edge",
    ),
    Column(
        "loop_period",
        _F,
        "steps",
        "T = 2π/√(2gr), period of self-stabilisation loops; g = 1 without momentum",
    ),
    Column("status", _S, "", f"of this row: {', '.join(STEP_STATUSES)}"),
    Column(
        "flow_error",
        _F,
        "param",
        "estimated local errors of the flow's integration since it began, added up (L2): compare "
        "with distance_to_discrete; null where a flow has no estimate",
    ),
    Column(
        "doubt",
        _S,
        "",
        f"why the row may mean nothing, comma-separated, of {', '.join(DOUBTS)}; null for no doubt",
    ),
)

TABLES = {"runs": RUNS, "steps": STEPS}


def columns(table: str, added: Iterable[Column] = ()) -> tuple[Column, ...]:
    """Return a table's columns: the common ones, and after `lr` or at the end those added.

    Raises `ValueError` for a table that does not exist.
    """
    if table not in TABLES:
        raise ValueError(f"table must be one of {sorted(TABLES)}, got {table!r}")
    common = TABLES[table]
    known = {column.name for column in common}
    place = 1 + [c.name for c in common].index("lr") if table == "runs" else len(common)
    new = tuple(column for column in added if column.name not in known)
    return (*common[:place], *new, *common[place:])


def arrow_schema(table: str, added: Iterable[Column] = ()) -> pa.Schema:
    """Arrow schema of a table, with units, meanings and roles as field metadata.

    Args:
        table: "runs" or "steps".
        added: columns beside the common ones.

    Raises `ValueError` for a table that does not exist.
    """
    return pa.schema(
        [pa.field(c.name, c.type, metadata=c.metadata) for c in columns(table, added)],
        metadata={"cflows_ray.table": table, "cflows_ray.schema": SCHEMA_VERSION},
    )


def absent_values(table: str) -> dict[str, Any]:
    """Return what holds for a file that lacks a column added later, by column.

    Example:
        >>> absent_values("runs")["scheme"]
        'euler'
    """
    return {c.name: c.absent for c in TABLES[table] if c.absent is not None}


def column_names(table: str) -> list[str]:
    """Names of a table's columns, in order."""
    return [c.name for c in TABLES[table]]
