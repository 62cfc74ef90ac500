"""How much of an error is due to the network, the learning rate and the seed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.read import without_attrs

_NETWORK = ("workload", "criterion")


def variance_shares(accuracy: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Split the variance of the logarithm of an error by its sources: shares of its sum of squares.

        Σ (y - ȳ)² = Σ (ȳ_network - ȳ)² + Σ (ȳ_rule - ȳ_network)² + Σ (ȳ_cell - ȳ_rule)²
                     + Σ (y - ȳ_cell)²

    with y = log error, networks nested as network (with criterion), rule, and learning rate with
    every other setting (a cell); what is left is the seed's. Nested sums of squares add up whatever
    the numbers of runs are. Columns `flow`, `n`, `sd` (of y), `network`, `rule`, `learning_rate`,
    `seed`; runs in which the flow ended or the error is zero are left out. A source with one level
    has a share of 0; with few seeds, their noise enters the learning rate's share as well.

    >>> found = variance_shares(accuracy(load(example_sweep)), "final_distance")
    >>> found.loc[0, ["network", "seed"]].round(6).tolist()
    [0.0, 1.0]
    """
    frame = without_attrs(accuracy)
    frame = frame[frame["flow_status"].astype("str") == "ok"]
    rows = []
    for flow, mine in frame.groupby(frame["flow"].astype("str"), sort=True):
        values = mine[metric].to_numpy(dtype=np.float64)
        mine = mine[(values > 0) & np.isfinite(values)]
        y = np.log(mine[metric].to_numpy(dtype=np.float64))
        if len(y) < 2:
            continue
        text = mine[_cell_columns(mine)]
        text = text.astype({n: "str" for n in text if text[n].dtype == object})
        levels = {"network": list(_NETWORK), "rule": [*_NETWORK, "rule"],
                  "learning_rate": list(text)}  # fmt: skip
        total, before = float(np.sum((y - y.mean()) ** 2)), np.full(len(y), y.mean())
        row: dict[str, object] = {"flow": flow, "n": len(y), "sd": float(y.std(ddof=1))}
        for name, columns in levels.items():
            place = text.groupby(columns, dropna=False, observed=True).ngroup().to_numpy()
            sums = np.bincount(place, y)
            now = (sums / np.maximum(np.bincount(place), 1))[place]
            row[name] = float(np.sum((now - before) ** 2)) / total if total > 0 else np.nan
            before = now
        row["seed"] = float(np.sum((y - before) ** 2)) / total if total > 0 else np.nan
        rows.append(row)
    names = ["flow", "n", "sd", "network", "rule", "learning_rate", "seed"]
    return pd.DataFrame(rows, columns=names)


def _cell_columns(frame: pd.DataFrame) -> list[str]:
    """All columns of the configuration: those before the seed, but for names of runs."""
    names = [str(name) for name in frame.columns]
    return [n for n in names[: names.index("seed")] if n not in ("run_id", "sweep")]
