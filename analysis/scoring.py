"""From trajectories to numbers: one row of metrics per run and flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import metrics
from analysis.columns import CONFIGURATION, HORIZONS, METRICS, SMOOTHED, metric
from analysis.smoothing import DEFAULT_BANDWIDTH, half_window, time_average, window_records
from analysis.storage import ResultsError
from analysis.tables import Results, Source, opened
from analysis.trace import REFERENCES, Floats, Trace, common_steps

COLUMNS_READ = (
    "train_loss", "train_loss_predicted", "grad_norm_sq", "grad_norm_sq_predicted",
    "effective_sharpness", "num_critical", "sigma_eigs", "displacement_sq", "distance_to_discrete",
    "distance_to_midpoint", "distance_from_start", "nu_rel_error", "output_distance",
    "train_accuracy", "test_loss", "test_accuracy", "status",
)  # fmt: skip

NEGLIGIBLE = 1e-6  # of the largest variance of a run
_UNCONVERGED = ("eig_unconverged", "sdcp_unconverged")
Columns = Mapping[str, NDArray]


@dataclass(frozen=True)
class Options:
    """How runs are scored: bandwidth (steps), horizon tolerance, and which flows (None: all)."""

    bandwidth: float = DEFAULT_BANDWIDTH
    tolerance: float = metrics.DEFAULT_TOLERANCE
    flows: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        half_window(self.bandwidth)
        metrics.check_tolerance(self.tolerance)


def accuracy(
    results: Source,
    *,
    bandwidth: float = DEFAULT_BANDWIDTH,
    tolerance: float = metrics.DEFAULT_TOLERANCE,
    flows: Sequence[str] | None = None,
) -> pd.DataFrame:
    """How accurately each flow predicted each run: one row per run × flow.

    Runs are streamed, so memory does not grow with the sweep. The columns are the run's
    configuration, `flow`, `run_status`, `flow_status` (`ok`, `stopped`, `diverged`, `no_data`),
    `last_step` (last step that the flow was scored at), the metrics of `columns.METRICS` (units in
    `frame.attrs["units"]`), and after each horizon `horizon_observed`, `horizon_lasting_observed`
    or `horizon_midpoint_observed` (false: censored). Undefined metrics are NaN.

    Args:
        results: from `load`, or the path of a folder. Runs that are still running are left out.
        bandwidth: of the Gaussian time average, in steps.
        tolerance: relative distance at which a prediction counts as lost.
        flows: processes to score; by default all but `discrete` and `midpoint`.

    A run that diverged or a flow that ended is scored up to there, without the last row. A run or a
    flow without readable steps gets its rows with NaN metrics and `flow_status` `no_data`.

    Raises `ResultsError` if the results were loaded without the process `discrete`.

    >>> frame = accuracy(load(example_sweep))
    >>> frame.query("rule == 'rmsprop' and seed == 0")[["flow", "final_distance"]].round(3)
           flow  final_distance
    8   central            0.02
    9    stable            0.25
    """
    options = Options(bandwidth, tolerance, None if flows is None else tuple(flows))
    results = opened(results)
    check_optimizer(results)
    rows = []
    missing = ended_runs(results)
    for trace in results.traces(COLUMNS_READ):
        if trace.run_id in missing:
            run = missing.pop(trace.run_id)
            rows += run_rows(run, score(trace, options), results, options)
    for run in missing.values():
        rows += run_rows(run, [], results, options)
    return accuracy_frame(rows)


def bandwidth_sensitivity(
    results: Source, bandwidths: Sequence[float] = (10.0, 20.0, 40.0)
) -> pd.DataFrame:
    """How much every smoothed metric depends on the bandwidth: mean over finished runs.

    One row per flow × metric, one column per bandwidth (steps), and `spread`: the largest over the
    smallest of them, minus 1.

    >>> table = bandwidth_sensitivity(load(example_sweep), bandwidths=(5, 10))
    >>> bool(table.loc[("central", "log_loss_error"), "spread"] < 0.01)
    True
    """
    results = opened(results)
    check_optimizer(results)
    finished = set(results.runs.loc[results.runs["status"] == "finished", "run_id"])
    rows: list[dict[str, Any]] = []
    for trace in results.traces(COLUMNS_READ):
        if trace.run_id in finished:
            rows += sensitivity_rows(trace, bandwidths)
    return sensitivity_table(rows)


def sensitivity_rows(trace: Trace, bandwidths: Sequence[float]) -> list[dict[str, Any]]:
    """Score one run at several bandwidths: rows of flow, bandwidth and the smoothed metrics."""
    return [
        {"flow": row["flow"], "bandwidth": float(b)} | {name: row[name] for name in SMOOTHED}
        for b in bandwidths
        for row in score(trace, Options(bandwidth=b))
    ]


def sensitivity_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Table of `bandwidth_sensitivity` from the rows of `sensitivity_rows`."""
    frame = pd.DataFrame(rows, columns=["flow", "bandwidth", *SMOOTHED])
    long = frame.melt(["flow", "bandwidth"], var_name="metric").dropna(subset="value")
    table = long.pivot_table(index=["flow", "metric"], columns="bandwidth", values="value")
    if len(table.columns):
        low, high = table.min(axis=1), table.max(axis=1)
        table["spread"] = np.where(low > 0, high / low.where(low > 0) - 1, np.nan)
    table.attrs["units"] = {name: metric(name).unit for name in SMOOTHED}
    return table


def score(trace: Trace, options: Options) -> Iterator[dict[str, Any]]:
    """Metrics of every flow of one run."""
    if "discrete" not in trace.processes:
        return
    optimizer = trace.scored("discrete")
    averages = _averages(optimizer, options.bandwidth)
    stable = trace.scored("stable") if "stable" in trace.processes else None
    for flow in sorted(trace.flows if options.flows is None else options.flows):
        if flow not in trace.processes:
            continue
        columns = trace.scored(flow)
        common, here, there = common_steps(columns["step"], optimizer["step"])
        mine = {name: values[here] for name, values in columns.items()}
        real = {name: values[there] for name, values in (optimizer | averages).items()}
        ending = trace.flow_ending(flow)
        row: dict[str, Any] = {
            "flow": flow,
            "flow_status": ending or ("ok" if len(common) else "no_data"),
            "last_step": float(common[-1]) if len(common) else np.nan,
        }
        row |= _distances(common, mine, real, options, stopped=ending is not None)
        row |= _ratios(columns, stable)
        row |= _predictions(mine, real)
        row |= _variances(mine, options.bandwidth)
        row |= _edge(mine, real["effective_sharpness_average"])
        row["edge_fraction"] = metrics.edge_fraction(averages["effective_sharpness_average"])
        row["near_edge_steps_optimizer"] = metrics.steps_near_edge(
            optimizer["step"], averages["effective_sharpness_average"]
        )
        yield row


def check_optimizer(results: Results) -> None:
    """Raise `ResultsError` if the results were loaded without what flows are measured against."""
    if results.leaves_out("discrete"):
        raise ResultsError(
            "where: leaves out the process 'discrete', which flows are measured against; "
            "choose flows with accuracy(..., flows=[...]) instead"
        )


def ended_runs(results: Results) -> dict[str, Mapping[str, Any]]:
    """Select the runs that have ended, by run id."""
    runs = results.runs[results.runs["status"].astype("str") != "running"]
    rows: list[Any] = runs.to_dict("records")
    return {str(row["run_id"]): row for row in rows}


def accuracy_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Frame of `accuracy` from rows of identity and metrics, sorted, with units and categories."""
    names = [m.name for m in METRICS]
    identity = ["run_id", "sweep", *CONFIGURATION, "seed"]
    order = [*identity, "flow", "run_status", "flow_status", "last_step", *names]
    for name in HORIZONS:
        order.insert(order.index(name) + 1, f"{name}_observed")
    order.insert(order.index("covariance_r2") + 1, "covariance_points")
    frame = pd.DataFrame(rows, columns=order)
    for name in (*names, "lr", "beta2", "eps", "last_step", "covariance_points"):
        frame[name] = frame[name].astype("float64")
    for name in HORIZONS:
        frame[f"{name}_observed"] = frame[f"{name}_observed"].astype("boolean")
    categories = ["sweep", "workload", "criterion", "rule", "schedule", "flow"]
    for name in (*categories, "run_status", "flow_status"):
        frame[name] = frame[name].astype("category")
    keys = ["sweep", "workload", "workload_options", "criterion", "rule", "lr", "seed", "run_id"]
    frame = frame.sort_values([*keys, "flow"], kind="stable", ignore_index=True)
    frame.attrs["units"] = {m.name: m.unit for m in METRICS} | {"last_step": "steps"}
    return frame


def run_rows(
    run: Mapping[str, Any], scored: Iterable[dict[str, Any]], results: Results, options: Options
) -> list[dict[str, Any]]:
    """Rows of `accuracy` of one run: those scored, and `no_data` for its other flows.

    So that a run without readable steps, or a flow without any, is counted all the same.
    """
    rows = list(scored)
    listed = str(run["flows"]).split(",") if pd.notna(run["flows"]) else []
    absent = {f for f in listed if f and f not in REFERENCES} - {str(row["flow"]) for row in rows}
    wanted = absent if options.flows is None else absent.intersection(options.flows)
    lost = [{"flow": f, "flow_status": "no_data"} for f in wanted if not results.leaves_out(f)]
    names = ("run_id", "sweep", *CONFIGURATION, "seed")
    identity = {"run_status": run["status"]} | {name: run[name] for name in names}
    return [identity | row for row in [*rows, *lost]]


def _averages(optimizer: Columns, bandwidth: float) -> dict[str, NDArray]:
    names = (
        "train_loss", "grad_norm_sq", "effective_sharpness", "train_accuracy", "test_loss",
        "test_accuracy",
    )  # fmt: skip
    step = optimizer["step"]
    return {f"{n}_average": time_average(step, optimizer[n], bandwidth) for n in names}


def _distances(
    step: NDArray, mine: Columns, real: Columns, options: Options, *, stopped: bool
) -> dict[str, Any]:
    at_edge = real["effective_sharpness_average"] >= metrics.EDGE_THRESHOLD
    row: dict[str, Any] = {}
    for column, suffix in (("distance_to_discrete", ""), ("distance_to_midpoint", "_midpoint")):
        relative = metrics.relative_distance(mine[column], real["distance_from_start"])
        row[f"final_distance{suffix}"] = metrics.final_value(relative)
        row[f"mean_distance{suffix}"] = metrics.mean_value(relative)
        row[f"edge_distance{suffix}"] = metrics.mean_value(relative, where=at_edge)
        horizons = {f"horizon{suffix}": metrics.prediction_horizon}
        if not suffix:
            horizons["horizon_lasting"] = metrics.lasting_horizon
        for name, of in horizons.items():
            row[name], row[f"{name}_observed"] = of(
                step, relative, tolerance=options.tolerance, stopped=stopped
            )
    return row


def _ratios(columns: Columns, stable: Columns | None) -> dict[str, float]:
    """Distances over the stable flow's at the last step where both are defined."""
    row = {"ratio_to_stable": np.nan, "ratio_to_stable_midpoint": np.nan}
    if stable is None:
        return row
    _, here, there = common_steps(columns["step"], stable["step"])
    for column, name in (
        ("distance_to_discrete", "ratio_to_stable"),
        ("distance_to_midpoint", "ratio_to_stable_midpoint"),
    ):
        row[name] = metrics.final_value(
            metrics.relative_distance(columns[column][here], stable[column][there])
        )
    return row


def predicted(columns: Columns, name: str) -> Floats:
    """Take a flow's prediction of a time average: the `_predicted` column, else its own value."""
    prediction = columns[f"{name}_predicted"]
    return np.where(np.isnan(prediction), columns[name], prediction)


def _predictions(mine: Columns, real: Columns) -> dict[str, float]:
    return {
        "log_loss_error": metrics.log_error(
            predicted(mine, "train_loss"), real["train_loss_average"]
        ),
        "sharpness_error": metrics.absolute_error(
            mine["effective_sharpness"], real["effective_sharpness_average"]
        ),
        "grad_norm_error": metrics.log_error(
            predicted(mine, "grad_norm_sq"), real["grad_norm_sq_average"]
        ),
        "nu_error": metrics.mean_value(mine["nu_rel_error"]),
        "output_error": metrics.mean_value(mine["output_distance"]),
        "train_accuracy_error": metrics.absolute_error(
            mine["train_accuracy"], real["train_accuracy_average"]
        ),
        "test_accuracy_error": metrics.absolute_error(
            mine["test_accuracy"], real["test_accuracy_average"]
        ),
        "test_loss_error": metrics.log_error(mine["test_loss"], real["test_loss_average"]),
    }


def _variances(mine: Columns, bandwidth: float) -> dict[str, float]:
    variances, measured = variance_series(mine, bandwidth)
    every = window_records(mine["step"], bandwidth)
    fit = metrics.log_log_fit(*independent(variances, measured, every))
    return {
        "variance_error": metrics.relative_error(total(variances), total(measured)),
        "covariance_slope": fit.slope,
        "covariance_r2": fit.r2,
        "covariance_points": float(fit.points),
    }


def variance_series(columns: Columns, bandwidth: float) -> tuple[Floats, Floats]:
    """Predicted variances and time-averaged squared displacements along Σ's eigenvectors.

    Both (n, k), in the unit of the loss (P's metric), NaN where there is no such direction or no
    time average.
    """
    variances, displacement = columns["sigma_eigs"], columns["displacement_sq"]
    k = min(variances.shape[1], displacement.shape[1])
    variances, displacement = variances[:, :k], displacement[:, :k]
    measured = time_average(columns["step"], displacement, bandwidth)
    known = np.isfinite(measured) & np.isfinite(variances)
    return np.where(known, variances, np.nan), measured


def independent(variances: Floats, measured: Floats, every: int) -> tuple[Floats, Floats]:
    """Take every so-many-th row with an average; no windows overlap if it is `window_records`.

    Variances below 1e-6 of the run's largest are dropped: they are a solver's way to say zero, and
    their logarithms would decide every fit.
    """
    if variances.size:
        floor = NEGLIGIBLE * np.nanmax(variances, initial=0.0)
        variances = np.where(variances > floor, variances, np.nan)
    rows = np.flatnonzero(np.isfinite(measured).any(axis=1))[::every]
    return variances[rows], measured[rows]


def total(values: Floats) -> Floats:
    """Sum over directions of an (n, k) array; NaN where none is defined."""
    some = np.isfinite(values).any(axis=1)
    return np.where(some, np.nansum(values, axis=1), np.nan)


def _edge(mine: Columns, average: Floats) -> dict[str, float]:
    status = mine["status"]
    # On the optimizer's averaged steps only: else a flow could be near the edge for longer than
    # an optimizer that it follows exactly.
    sharpness = np.where(np.isfinite(average), mine["effective_sharpness"], np.nan)
    return {
        "mean_num_critical": metrics.mean_value(mine["num_critical"]),
        "near_edge_steps": metrics.steps_near_edge(mine["step"], sharpness),
        "unconverged_fraction": (
            float(np.isin(status, _UNCONVERGED).mean()) if len(status) else np.nan
        ),
    }
