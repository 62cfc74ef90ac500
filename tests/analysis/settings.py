"""Studies of one rule and learning rate in which one setting varies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from synthetic import CENTRAL, STABLE, RunTruth, write_sweep

import analysis
from analysis import Study

OPTIONS = ('{"n": 9, "width": 8}', '{"n": 9, "width": 16}', '{"n": 9, "width": 32}')
SETTINGS: dict[str, tuple[tuple[Any, ...], list[str]]] = {
    "beta2": ((0.9, 0.99, 0.999), [f"rmsprop, beta2 {b}" for b in ("0.9", "0.99", "0.999")]),
    "substeps": ((2, 4, 8), [f"rmsprop, substeps {n}" for n in (2, 4, 8)]),
    "scheme": (
        ("euler", "extrapolated"),
        ["rmsprop, scheme euler", "rmsprop, scheme extrapolated"],
    ),
    "workload_options": (OPTIONS, [f"rmsprop, width {n}" for n in (16, 32, 8)]),
}


def study_of(folder: Path, setting: str, seeds: int = 2) -> Study:
    """Study of one rule and learning rate at each value of a setting, each more wrong."""
    runs = []
    for i, value in enumerate(SETTINGS[setting][0]):
        for seed in range(seeds):
            wrong = (1 + i) * (1 + 0.1 * seed)
            flows = {
                "central": replace(CENTRAL, distance=0.02 * wrong),
                "stable": replace(STABLE, distance=0.2 * wrong),
            }
            run = RunTruth(run_id=f"r{i}{seed}", rule="rmsprop", beta2=0.99, seed=seed, steps=400,
                           flows=flows)  # fmt: skip
            runs.append(replace(run, **{setting: value}))
    return analysis.study(analysis.load(write_sweep(folder, runs)))
