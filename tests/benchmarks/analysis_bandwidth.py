"""What the bandwidth of the time average does to the central flow's errors, on the same steps.

    python tests/benchmarks/analysis_bandwidth.py results/quickstart

The report's table of bandwidths scores each over the steps that its own window sees. Here all are
scored over the steps that the widest sees, so that columns can be compared. `own bias` is the
error that averaging alone makes: of the flow's smooth prediction of the loss against its average.
Medians over finished runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import analysis
from analysis.measure import (
    absolute_error,
    half_window,
    log_error,
    predicted,
    relative_error,
    time_average,
    total,
)
from analysis.read import Trace, common_steps

BANDWIDTHS = (5.0, 10.0, 15.0, 20.0, 25.0, 40.0)


def errors(trace: Trace, bandwidth: float, widest: float) -> dict[str, float]:
    """Score the central flow of one run."""
    optimizer, flow = trace.scored("discrete"), trace.scored("central")
    step, here, there = common_steps(flow["step"], optimizer["step"])
    half = half_window(widest, float(step[1] - step[0]))
    inside = slice(half, len(step) - half)

    def average(values: np.ndarray) -> np.ndarray:
        return time_average(step, values, bandwidth)[inside]

    mine = {name: values[here] for name, values in flow.items()}
    real = {name: values[there] for name, values in optimizer.items()}
    loss, grad = predicted(mine, "train_loss"), predicted(mine, "grad_norm_sq")
    return {
        "loss": log_error(loss[inside], average(real["train_loss"])),
        "own bias": log_error(loss[inside], average(loss)),
        "|g|²": log_error(grad[inside], average(real["grad_norm_sq"])),
        "sharpness": absolute_error(
            mine["effective_sharpness"][inside], average(real["effective_sharpness"])
        ),
        "variance": relative_error(
            total(mine["sigma_eigs"])[inside], total(average(mine["displacement_sq"]))
        ),
    }


def main() -> None:
    """Print medians by rule and bandwidth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results")
    results = analysis.load(parser.parse_args().results)
    runs = results.runs.set_index("run_id")
    finished = set(runs.index[runs["status"] == "finished"])
    rows = [
        {"rule": runs.loc[trace.run_id, "rule"], "bandwidth": bandwidth}
        | errors(trace, bandwidth, max(BANDWIDTHS))
        for trace in results.traces()
        if trace.run_id in finished and "central" in trace.processes
        for bandwidth in BANDWIDTHS
    ]
    frame = pd.DataFrame(rows)
    print(frame.groupby(["rule", "bandwidth"]).median().round(4).to_string())
    print(frame.drop(columns="rule").groupby("bandwidth").median().round(4).to_string())


if __name__ == "__main__":
    main()
