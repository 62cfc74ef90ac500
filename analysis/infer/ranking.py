"""Which of many flows is nearest: `rank`, with ranks, pairs, profiles and sources of variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.infer.cells import cell_keys, cells, check_accuracy, check_by
from analysis.infer.intervals import LEVEL, RESAMPLES, holm
from analysis.infer.order import Scores, order, scores_of, signed_rank_p
from analysis.infer.variance_shares import variance_shares
from analysis.measure import Frames, accuracy, find_metric
from analysis.read import Source, without_attrs

PROFILE_POINTS = 200
RANKED_BY = ("final_distance", "log_loss_error")
"""Errors that a report ranks by."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """What `rank` returns.

    Attributes:
        metric: the error that was ranked by.
        cells: mean rank of each flow in each cell, 1 the nearest: the keys of the cell, `flow`,
            `n_runs`, `mean_rank`, `rank_low`, `rank_high` and `nearest` (whether no other flow of
            the cell has a smaller one).
        overall: the same over the `cells_ranked` of `n_cells` in which a flow has a rank, each of
            the same weight; and `cells_nearest`. Mean ranks of flows that are not ranked in the
            same cells are of different fields: compare them by `pairs`.
        pairs: of every two flows: `first`, `second`, `n`, `wins`, `ties`, `improvement`, the
            probability that the first is nearer in a run of a cell, ties a half, with its limits;
            `p_value`, `p_holm`; `cells_for`, `cells_against`: cells in which it is above, below ½.
        profiles: `flow`, `error`, `share`: of runs whose error is at most so large.
        shares: sources of variance of the log error, as from `variance_shares`.
        agree: whether one flow is nearest in every cell. Where not, `verdict` says so, and no
            single number should be quoted.
    """

    metric: str
    cells: pd.DataFrame
    overall: pd.DataFrame
    pairs: pd.DataFrame
    profiles: pd.DataFrame
    shares: pd.DataFrame
    agree: bool

    @property
    def verdict(self) -> str:
        """One sentence: which flow is nearest, or that cells disagree."""
        if self.cells.empty:
            return "No run in which two flows can be compared."
        total = int(self.overall["n_cells"].iloc[0])
        if self.agree:
            where = "the only cell" if total == 1 else f"all {total} cells"
            best = self.overall.loc[self.overall["cells_nearest"] == total, "flow"].tolist()
            if len(best) > 1:
                return f"{', '.join(best[:-1])} and {best[-1]} are equally near in {where}."
            return f"{best[0]} is nearest in {where}."
        won = self.overall[self.overall["cells_nearest"] > 0]
        counts = ", ".join(
            f"{flow} in {n}" for flow, n in zip(won["flow"], won["cells_nearest"], strict=True)
        )
        ties = " (where flows tie, for each)" if won["cells_nearest"].sum() > total else ""
        return (
            f"Cells disagree, so that no single number says it: of {total}, nearest {counts}{ties}."
        )


def rank(
    frame: pd.DataFrame | Source | Frames,
    metric: str = "final_distance",
    by: str | Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Ranking:
    """Rank all flows by an error, run by run, with intervals over runs.

    In each run flows get ranks 1, 2, ... from the nearest on, ties the mean of theirs; a flow that
    ended is behind all that lasted. Intervals (95%) are percentiles of a bootstrap of runs, drawn
    anew within each cell, so that every cell keeps its number; with fewer than three runs in a cell
    they are too narrow, and of one run there are none.

    Args:
        frame: from `analysis.accuracy`; or what it takes: results from `load`, the path of a
            folder, frames of `run_paired`, one or several, with or without labels.
        metric: an error of it.
        by: columns that make a cell; by default those of `cell_keys`.
        seed: of the bootstrap.

    Only finished runs count in which every ranked flow has a place (an error, or an early end); a
    flow without one in all runs of a cell is not ranked there. Raises `ValueError` for a column or
    metric that does not exist, or a metric that is no error.

    >>> found = rank(accuracy(load(example_sweep)))
    >>> found.verdict
    'central is nearest in all 3 cells.'
    >>> found.pairs[["first", "second", "improvement"]].to_numpy().tolist()
    [['central', 'stable', 1.0]]
    """
    if not find_metric(metric).is_error:
        raise ValueError(f"metric must be an error, got {metric!r}")
    scored = _scored(frame)
    keys = cell_keys(scored) if by is None else check_by(scored, by)
    finished = without_attrs(scored[scored["run_status"].astype("str") == "finished"])
    tables = [_Cell(cell, rows, metric) for cell, rows in cells(finished, keys)]
    tables = [table for table in tables if len(table.flows) > 1 and table.runs]
    draws = _draws(tables, seed)
    in_cells = _in_cells(tables, draws, keys)
    overall = _overall(in_cells, tables, draws)
    shared = overall.iloc[0]["cells_nearest"] if len(overall) else 0
    return Ranking(
        metric=metric,
        cells=in_cells,
        overall=overall,
        pairs=_pairs(tables, draws),
        profiles=_profiles(tables),
        shares=variance_shares(finished, metric),
        agree=bool(len(tables)) and int(shared) == len(tables),
    )


def _scored(given: pd.DataFrame | Source | Frames) -> pd.DataFrame:
    """Return a frame of accuracy as it is, and score anything else."""
    if isinstance(given, pd.DataFrame) and "process" not in given:
        check_accuracy(given)
        return given
    return accuracy(given)


class _Cell:
    """Ranks and orders in the runs of one cell."""

    def __init__(self, cell: dict[str, object], rows: pd.DataFrame, metric: str) -> None:
        self.cell = cell
        by_flow = {str(f): r for f, r in rows.groupby(rows["flow"].astype("str"), sort=True)}
        runs = sorted(rows["run_id"].astype("str").unique())
        scores = {}
        for flow, mine in by_flow.items():
            mine = mine.set_index(mine["run_id"].astype("str")).reindex(runs)
            mine["flow_status"] = mine["flow_status"].astype("str")
            scores[flow] = scores_of(mine, metric)
        scores = {flow: s for flow, s in scores.items() if s.defined.any()}
        self.flows = list(scores)
        whole = (
            np.all([s.defined for s in scores.values()], axis=0) if scores else np.zeros(0, bool)
        )
        self.scores = {flow: s.taken(whole) for flow, s in scores.items()}
        self.runs = int(whole.sum())
        self.signs = {  # -1 where the first is nearer
            (a, b): order(self.scores[a], self.scores[b]) for a in self.flows for b in self.flows
        }

    def ranks(self, flow: str) -> NDArray[np.float64]:
        """Rank of a flow in each run."""
        behind = [(1 + self.signs[flow, other]) / 2 for other in self.flows if other != flow]
        return 1 + np.sum(behind, axis=0)

    def better(self, first: str, second: str) -> NDArray[np.float64]:
        """For each run 1 if the first is nearer, 0 if the second, ½ for a tie."""
        return (1 - self.signs[first, second]) / 2


def _draws(tables: Sequence[_Cell], seed: int) -> list[NDArray[np.int64]]:
    """Draw the runs of each bootstrap sample, cell by cell: (resamples, runs of the cell)."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, t.runs, (RESAMPLES, t.runs)) for t in tables]


def _limits(samples: NDArray[np.float64], several: bool) -> tuple[float, float]:
    """Percentile limits; none where no cell has two runs."""
    if not several:
        return np.nan, np.nan
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _in_cells(
    tables: Sequence[_Cell], draws: Sequence[NDArray[np.int64]], keys: Sequence[str]
) -> pd.DataFrame:
    rows = []
    for table, drawn in zip(tables, draws, strict=True):
        ranks = {flow: table.ranks(flow) for flow in table.flows}
        best = min(r.mean() for r in ranks.values())
        for flow, mine in ranks.items():
            low, high = _limits(mine[drawn].mean(axis=1), table.runs > 1)
            rows.append(table.cell | {
                "flow": flow, "n_runs": table.runs, "mean_rank": float(mine.mean()),
                "rank_low": low, "rank_high": high, "nearest": bool(mine.mean() <= best + 1e-9),
            })  # fmt: skip
    names = ["flow", "n_runs", "mean_rank", "rank_low", "rank_high", "nearest"]
    return pd.DataFrame(rows, columns=[*keys, *names])


def _overall(
    in_cells: pd.DataFrame, tables: Sequence[_Cell], draws: Sequence[NDArray[np.int64]]
) -> pd.DataFrame:
    rows = []
    several = any(t.runs > 1 for t in tables)
    for flow in sorted({flow for t in tables for flow in t.flows}):
        mine = [(t.ranks(flow), d) for t, d in zip(tables, draws, strict=True) if flow in t.flows]
        samples = np.mean([ranks[d].mean(axis=1) for ranks, d in mine], axis=0)
        low, high = _limits(samples, several)
        nearest = in_cells.loc[in_cells["flow"] == flow, "nearest"]
        rows.append({
            "flow": flow, "n_runs": sum(len(ranks) for ranks, _ in mine),
            "mean_rank": float(np.mean([ranks.mean() for ranks, _ in mine])),
            "rank_low": low, "rank_high": high, "cells_nearest": int(nearest.sum()),
            "cells_ranked": len(mine), "n_cells": len(tables),
        })  # fmt: skip
    names = [
        "flow", "n_runs", "mean_rank", "rank_low", "rank_high", "cells_nearest", "cells_ranked",
        "n_cells",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=names)
    order_by = ["cells_nearest", "mean_rank"]
    return frame.sort_values(order_by, ascending=[False, True], ignore_index=True)


def _pairs(tables: Sequence[_Cell], draws: Sequence[NDArray[np.int64]]) -> pd.DataFrame:
    rows = []
    flows = sorted({flow for t in tables for flow in t.flows})
    for first, second in combinations(flows, 2):
        mine = [
            (t, d)
            for t, d in zip(tables, draws, strict=True)
            if first in t.flows and second in t.flows
        ]
        if not mine:
            continue
        better = [t.better(first, second) for t, _ in mine]
        means = np.array([b.mean() for b in better])
        samples = np.mean(
            [b[d].mean(axis=1) for b, (_, d) in zip(better, mine, strict=True)], axis=0
        )
        low, high = _limits(samples, any(t.runs > 1 for t, _ in mine))
        both = np.concatenate(better)
        a, b = (_joined([t.scores[flow] for t, _ in mine]) for flow in (first, second))
        rows.append({
            "first": first, "second": second, "n": len(both),
            "wins": int((both == 1).sum()), "ties": int((both == 0.5).sum()),
            "improvement": float(means.mean()), "improvement_low": low, "improvement_high": high,
            "p_value": signed_rank_p(a, b, order(a, b)),
            "cells_for": int((means > 0.5).sum()), "cells_against": int((means < 0.5).sum()),
        })  # fmt: skip
    names = [
        "first", "second", "n", "wins", "ties", "improvement", "improvement_low",
        "improvement_high", "p_value", "cells_for", "cells_against",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=names)
    frame.insert(9, "p_holm", holm(frame["p_value"].to_numpy(dtype=np.float64)))
    return frame


def _joined(parts: Sequence[Scores]) -> Scores:
    return Scores(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _profiles(tables: Sequence[_Cell]) -> pd.DataFrame:
    """Share of runs with an error of at most so much; a flow that ended never comes to 1."""
    errors: dict[str, list[NDArray[np.float64]]] = {}
    for table in tables:
        for flow, s in table.scores.items():
            errors.setdefault(flow, []).append(np.where(s.ended, np.inf, s.error))
    every = np.concatenate([e for parts in errors.values() for e in parts] or [np.zeros(0)])
    shown = every[np.isfinite(every) & (every > 0)]
    if not len(shown):
        return pd.DataFrame(columns=["flow", "error", "share"])
    grid = np.geomspace(shown.min(), shown.max() * (1 + 1e-9), PROFILE_POINTS)
    return pd.concat([
        pd.DataFrame({
            "flow": flow, "error": grid,
            "share": (np.concatenate(parts)[:, None] <= grid).mean(axis=0),
        })
        for flow, parts in sorted(errors.items())
    ], ignore_index=True)  # fmt: skip
