"""Why the central flow is poor where it is: runs of the reproduction, one thing changed at a time.

    python docs/make_causes.py --run                   # all of them, an hour on one core
    python docs/make_causes.py --run mlp-gd mlp-rmsprop    # some; the others are kept
    python docs/make_causes.py                         # the page and the figure from what is kept

Each case is a run of `sweeps/reproduction.py` (seed 0). It is made once with other models beside
the central flow, and then with the central flow alone and one setting changed. From the rows, which
`docs/data/causes.csv.gz` keeps, come two tables of docs/reproduction.md, between

    <!-- causes: settings -->    <!-- causes: models -->    <!-- end of table -->

and docs/figures/reproduction-causes.png: a gentle and a violent onset over time.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from page_tables import filled, markdown

from analysis.draw import flow_styles, style
from analysis.measure import relative_distance
from analysis.report.numbers import significant

DOCS = Path(__file__).resolve().parent
DATA = DOCS / "data" / "causes.csv.gz"
PAGE = DOCS / "reproduction.md"
FIGURE = DOCS / "figures" / "reproduction-causes.png"

CASES: dict[str, tuple[str, str, str, float]] = {
    "mlp-gd": ("mlp_cifar10", "mse", "gradient_descent", 0.175),
    "mlp-rmsprop": ("mlp_cifar10", "mse", "rmsprop", 1.4e-4),
    "lstm-gd": ("lstm_sorting", "cross_entropy", "gradient_descent", 0.625),
    "transformer-adam": ("transformer_sorting", "mse", "adam", 0.000852),
    "mlp-scalar": ("mlp_cifar10", "mse", "scalar_rmsprop", 0.0125),
}
"""Workload, criterion, rule and rate."""
CONTROL = "mlp-scalar"
"""Where the central flow does well: made as it is only."""

IN_WORDS = {
    "mlp-gd": "MLP, gradient descent, 0.175",
    "mlp-rmsprop": "MLP, RMSProp, 0.00014",
    "lstm-gd": "LSTM, gradient descent, cross-entropy, 0.625",
    "transformer-adam": "transformer, Adam, 0.000852",
    "mlp-scalar": "MLP, Scalar RMSProp, 0.0125",
}

MODELS = ("stable", "central", "rod", "alternating", "corrected")
AS_IS = "as in the study"
CHANGES: dict[str, dict[str, Any]] = {
    AS_IS: {},
    "float64": {"dtype": "float64"},
    "a tenth of the tolerance": {"tolerance": 1e-3},
    "eigenpairs ten times as exact": {"eig_tolerance": 1e-4},
    "critical from 1.8": {
        "critical_threshold": 1.8, "near_threshold": 1.65, "tracking_threshold": 1.35,
    },
    "warm-up of 60 steps": {"warmup": 60},
}  # fmt: skip
"""What is changed, one at a time: settings, thresholds, or the steps before the flow starts."""

STEPS_SHOWN = (10, 25, 50, 100, 200)
GENTLE_AND_VIOLENT = ("mlp-scalar", "mlp-gd")


def run(case: str, flows: tuple[str, ...], change: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of a run of the study with something changed."""
    from cflows_ray.sweep.session import build_paired
    from sweeps.reproduction import SWEEP

    workload, criterion, rule, lr = CASES[case]
    grid = next(
        g for g in SWEEP.grids if (g.workload, g.criterion, g.rule) == (workload, criterion, rule)
    )
    only = dataclasses.replace(SWEEP, grids=(dataclasses.replace(grid, lrs=(lr,)),), seeds=(0,))
    names = {field.name for field in dataclasses.fields(only.runs[0])}
    configured = {name: value for name, value in change.items() if name in names}
    config = dataclasses.replace(only.runs[0], flows=flows, **configured)
    paired, state = build_paired(
        config, **{name: value for name, value in change.items() if name not in names}
    )
    rows = []
    while not paired.is_done(state):
        state, some = paired.advance(state, 25)
        rows.append(some)
    return scored(pd.concat(rows, ignore_index=True))


def scored(steps: pd.DataFrame) -> pd.DataFrame:
    """Return each process's distance and error over the optimizer's way, and its sharpness."""
    optimizer = steps[steps["process"] == "discrete"]
    start = optimizer.set_index("step")["distance_from_start"]
    way = steps["step"].map(start).to_numpy()
    is_optimizer = (steps["process"] == "discrete").to_numpy()
    distance = relative_distance(steps["distance_to_discrete"].to_numpy(), way)
    error = relative_distance(steps["flow_error"].to_numpy(), way)
    return pd.DataFrame(
        {
            "flow": steps["process"],
            "step": steps["step"],
            "distance": np.where(is_optimizer, np.nan, distance),
            "flow_error": np.where(is_optimizer, np.nan, error),
            "sharpness": steps["effective_sharpness"],
            "status": steps["status"],
        }
    )


def run_case(case: str) -> None:
    """Run a case, all models and then the central flow with each change, and keep the rows."""
    for change, settings in CHANGES.items() if case != CONTROL else ((AS_IS, {}),):
        rows = run(case, MODELS if change == AS_IS else ("central",), settings)
        if change != AS_IS:  # only its end is shown
            rows = rows[(rows["flow"] == "central") & rows["step"].isin(STEPS_SHOWN)]
        last = rows[rows["flow"] == "central"].iloc[-1]
        print(f"{case}, {change}: {100 * last['distance']:.3g}% at step {last['step']}", flush=True)
        rows.insert(0, "case", case)
        rows.insert(1, "change", change)
        keep(rows)


def keep(rows: pd.DataFrame) -> None:
    """Write rows beside those that are kept of other runs; the same rows are the same bytes."""
    if DATA.exists():
        kept = pd.read_csv(DATA)
        made = kept["case"].isin(rows["case"]) & kept["change"].isin(rows["change"])
        rows = pd.concat([kept[~made], rows], ignore_index=True)
    place = {name: i for names in (CASES, CHANGES) for i, name in enumerate(names)}
    rows = rows.sort_values(["case", "change"], key=lambda names: names.map(place), kind="stable")
    rows.to_csv(DATA, index=False, float_format="%.4g", compression={"method": "gzip", "mtime": 1})


def settings(rows: pd.DataFrame) -> str:
    """Return where the central flow ends with each change, a row per case."""
    central = rows[(rows["flow"] == "central") & (rows["case"] != CONTROL)]
    ends = central.groupby(["case", "change"], sort=False)["distance"].last().unstack(sort=False)
    lines = [
        [IN_WORDS[case], *(_percent(ends.loc[case, change]) for change in CHANGES)]
        for case in ends.index
    ]
    return markdown(["final distance of the central flow, %", *CHANGES], lines, 1)


def models(rows: pd.DataFrame) -> str:
    """Return how far every model is from the optimizer at some steps, a row per case and step."""
    as_is = rows[(rows["change"] == AS_IS) & (rows["flow"] != "discrete")]
    wide = as_is.pivot_table(index=["case", "step"], columns="flow", values="distance", sort=False)
    peaks = rows[(rows["change"] == AS_IS) & (rows["flow"] == "discrete")]
    lines = []
    for case in dict.fromkeys(as_is["case"]):
        sharpness = peaks[peaks["case"] == case].set_index("step")["sharpness"]
        for step in STEPS_SHOWN:
            distances = wide.loc[(case, step)].reindex(list(MODELS))
            numbers = [significant(sharpness[step]), *map(_percent, distances)]
            lines.append([IN_WORDS[case] if step == STEPS_SHOWN[0] else "", str(step), *numbers])
    return markdown(["distance, %", "step", "sharpness", *MODELS], lines, 1)


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else significant(100 * share)


TABLES: dict[str, Callable[[pd.DataFrame], str]] = {"settings": settings, "models": models}


def write(page: str, rows: pd.DataFrame) -> str:
    """Return a page's text with its tables made anew."""
    return filled(page, "causes", lambda what, _: TABLES[what](rows))


def draw(rows: pd.DataFrame) -> Figure:
    """Draw a gentle and a violent onset: sharpness above, distance from the optimizer below."""
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    axes = figure.subplots(2, len(GENTLE_AND_VIOLENT), sharex=True, sharey="row")
    for j, case in enumerate(GENTLE_AND_VIOLENT):
        one = rows[(rows["case"] == case) & (rows["change"] == AS_IS)]
        _sharpness(axes[0, j], one, IN_WORDS[case])
        _distance(axes[1, j], one)
        if j:
            for ax in axes[:, j]:
                ax.set_ylabel("")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    for ax in axes.flat:
        if ax.get_legend():
            ax.get_legend().remove()
    return figure


def _sharpness(ax: Axes, rows: pd.DataFrame, title: str) -> None:
    optimizer = rows[rows["flow"] == "discrete"]
    ax.plot(optimizer["step"], optimizer["sharpness"], color=style.GREY, lw=1.0, label="optimizer")
    for flow, look in _looks(rows).items():
        one = rows[rows["flow"] == flow]
        # the rod's is that along its own oscillation: no effective sharpness
        values = one["sharpness"] if flow != "rod" else np.full(len(one), np.nan)
        ax.plot(one["step"], values, color=look.colour, ls=look.line, lw=1.5, label=look.label)
    ax.axhline(2.0, color=style.INK, lw=0.9, ls="--", label="edge of stability")
    ax.set_ylim(0.0, 8.0)
    style.finish(ax, xlabel="", ylabel="effective sharpness", title=title)


def _distance(ax: Axes, rows: pd.DataFrame) -> None:
    for flow, look in _looks(rows).items():
        one = rows[(rows["flow"] == flow) & (rows["step"] > 0)]
        ax.plot(one["step"], 100 * one["distance"], color=look.colour, ls=look.line, lw=1.5)
    ax.set_yscale("log")
    style.finish(ax, xlabel=style.STEPS_LABEL, ylabel="distance from the optimizer\n(% of its way)")


def _looks(rows: pd.DataFrame) -> dict[str, style.FlowStyle]:
    present = rows[rows["flow"].isin(MODELS)]
    looks = flow_styles(present)
    return {flow: looks[flow] for flow in MODELS if flow in set(present["flow"])}


def main() -> None:
    """Run what is asked for, then write the page and the figure."""
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument(
        "--run", nargs="*", choices=sorted(CASES), metavar="CASE", default=None,
        help=f"cases to run anew, of {', '.join(CASES)}; none named: all",
    )  # fmt: skip
    options = parser.parse_args()
    if options.run is not None:
        for case in options.run or CASES:
            run_case(case)
    rows = pd.read_csv(DATA)
    PAGE.write_text(write(PAGE.read_text(), rows))
    mpl.use("Agg")
    draw(rows).savefig(FIGURE, dpi=110)
    print(PAGE, FIGURE, sep="\n")


if __name__ == "__main__":
    main()
