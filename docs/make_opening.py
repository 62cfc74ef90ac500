"""The figure that README opens with: three optimizers at the edge, and four models of them.

    python docs/make_opening.py        # runs them (some minutes), then docs/figures/opening.png

Handwritten digits, one seed, the gentle rates of `sweeps/rivals.py`: above the effective sharpness,
below how far each model is from the optimizer.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw import flow_styles, style
from analysis.measure import relative_distance
from analysis.read import common_steps, run_trace
from cflows_ray import Adam, GradientDescent, RMSProp, run_paired
from cflows_ray.rules import UpdateRule
from cflows_ray.workloads import build_workload

FILE = Path(__file__).parent / "figures" / "opening.png"
RULES: dict[str, UpdateRule] = {
    "gradient descent, η = 0.2": GradientDescent(0.2),
    "RMSProp, η = 0.0003": RMSProp(3e-4, beta2=0.99),
    "Adam, η = 0.01": Adam(0.01, beta2=0.99),
}
FLOWS = ("stable", "central", "rod", "alternating")
HAS_NO_SPECTRUM = ("rod",)
"""Its sharpness is that along its own oscillation, which is nearly nothing between bursts."""


def run(rule: UpdateRule, steps: int = 400) -> pd.DataFrame:
    """Return the table `steps` of one rule and the models beside it."""
    work = build_workload("digits_mlp", num_examples=300, width=16)
    loss, data = work.problem.loss, work.problem.data
    return run_paired(
        loss, work.init(0), rule, data=data, steps=steps, flows=FLOWS, warmup=15, num_eigs=12
    ).steps


def draw(runs: dict[str, pd.DataFrame]) -> Figure:
    """Draw a column per optimizer, with one legend below."""
    figure = Figure(figsize=(10.5, 5.4), layout="constrained")
    axes = figure.subplots(2, len(runs), sharex=True, sharey="row")
    for j, (title, steps) in enumerate(runs.items()):
        _sharpness(axes[0, j], steps, title)
        _distance(axes[1, j], steps)
        for ax in axes[:, j]:
            if ax.get_legend():
                ax.get_legend().remove()
            if j:
                ax.set_ylabel("")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def _sharpness(ax: Axes, steps: pd.DataFrame, title: str) -> None:
    trace, looks = run_trace(steps), flow_styles(steps)
    optimizer = trace.scored("discrete")
    ax.plot(
        optimizer["step"], optimizer["effective_sharpness"], color=style.GREY, lw=0.7, alpha=0.8,
        label="optimizer",
    )  # fmt: skip
    for flow in trace.flows:
        columns, look = trace.scored(flow), looks[flow]
        values = columns["effective_sharpness"]
        shown = np.full_like(values, np.nan) if flow in HAS_NO_SPECTRUM else values
        ax.plot(columns["step"], shown, color=look.colour, lw=1.6, label=look.label)
    ax.axhline(2.0, color=style.INK, lw=0.9, ls="--", label="edge of stability")
    ax.set_ylim(0.0, 4.0)
    style.finish(ax, xlabel="", ylabel="effective sharpness", title=title)


def _distance(ax: Axes, steps: pd.DataFrame) -> None:
    trace, looks = run_trace(steps), flow_styles(steps)
    optimizer = trace.scored("discrete")
    for flow in trace.flows:
        columns, look = trace.scored(flow), looks[flow]
        step, here, there = common_steps(columns["step"], optimizer["step"])
        share = relative_distance(
            columns["distance_to_discrete"][here], optimizer["distance_from_start"][there]
        )
        ax.plot(step, 100 * share, color=look.colour, lw=1.6)
    ax.set_yscale("log")
    style.finish(ax, xlabel=style.STEPS_LABEL, ylabel="distance from the optimizer\n(% of its way)")


if __name__ == "__main__":
    mpl.use("Agg")
    figure = draw({title: run(rule) for title, rule in RULES.items()})
    figure.savefig(FILE, dpi=110)
    print(FILE)
