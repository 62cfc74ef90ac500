"""Skill of forecasts against lead time, with intervals over runs: `skill`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.infer.cells import as_names, cell_keys, cells, check_by
from analysis.infer.intervals import mean_interval
from analysis.measure import Frames, forecast_errors
from analysis.read import Source, declare_like

_SCORES = {
    "error": (0.0, np.inf), "skill_stable": (-np.inf, 1.0), "skill_persistence": (-np.inf, 1.0)
}  # fmt: skip
"""Scores, with the least and the largest value that each can have."""


def skill(
    results: Source | Frames,
    by: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = ("discrete",),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Error and skill of every flow against lead time, by phase of training.

        error = Σ e / Σ ‖w_t - w_start‖,   skill = 1 - Σ e / Σ e_reference

    with e the distance of the flow to the target, sums over the forecasts of a run, and means and
    95% intervals over runs. Skill is 1 for a perfect forecast, 0 for one that is as good as the
    reference: the stable flow, and persistence, which says that nothing changes. A run without
    `restart_every` is one forecast. In a forecast in which a flow ended, its last error counts.

    Args:
        results: from `load`, the path of a folder, or frames of `run_paired`.
        by: columns that make a cell, by default those of `cell_keys`.
        targets: what errors are to: `discrete`, `midpoint`, `half`, `mean_20`, ...; None for all
            that the tables have.
        seed: of the bootstrap.

    Returns columns `by`, `flow`, `target`, `phase`, `lead` (steps), `n_runs`, `n_forecasts`,
    `n_ended`, and for `error`, `skill_stable` and `skill_persistence` the mean with `..._low` and
    `..._high`. Raises `ValueError` for a column or target that does not exist.

    >>> table = skill(load(example_sweep), by=["rule"])
    >>> last = table[table["lead"] == 600].set_index(["rule", "flow"])
    >>> last.loc[("rmsprop", "central"), ["error", "skill_stable"]].round(3).tolist()
    [0.03, 0.92]
    """
    frame = forecast_errors(results, None if targets is None else as_names(targets))
    keys = cell_keys(frame) if by is None else check_by(frame, by)
    frame["skill_persistence"] = 1 - frame["error"] / frame["persistence"]
    stable = frame["stable"].where(frame["stable"] > 0)
    frame["skill_stable"] = 1 - frame["error"] / stable
    frame["error"] = frame["error"] / frame["persistence"]
    rows = []
    for cell, group in cells(frame, [*keys, "flow", "target", "phase", "lead"]):
        row: dict[str, Any] = cell | {"n_runs": group["run_id"].nunique()}
        row |= {name: int(group[name].sum()) for name in ("n_forecasts", "n_ended")}
        for name, (least, most) in _SCORES.items():
            values = group[name].to_numpy(dtype=np.float64)
            found = mean_interval(values, seed=seed)
            known = values[np.isfinite(values)]
            row[name] = float(known.mean()) if len(known) else np.nan
            low, high = np.clip(found[:2], least, most)
            row |= {f"{name}_low": float(low), f"{name}_high": float(high)}
        rows.append(row)
    numbers = [f"{name}{end}" for name in _SCORES for end in ("", "_low", "_high")]
    names = [*keys, "flow", "target", "phase", "lead", "n_runs", "n_forecasts", "n_ended", *numbers]
    return declare_like(pd.DataFrame(rows, columns=names), frame)
