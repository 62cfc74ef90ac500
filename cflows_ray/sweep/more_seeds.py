"""More seeds where a cell is not known well enough: `--until-halfwidth 10% --budget 500`.

How well a cell (runs that differ in their seed only) is known is the analysis's business: its
command prints the confidence sequence of each (`python -m analysis FOLDER --precision`), and the
loop here reads that, asks for more seeds of the cells that are wide, and launches them. Confidence
sequences stay valid whatever is decided from them (docs/analysis.md, "More seeds until a
cell is known").
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, NamedTuple

from cflows_ray.checks import ConfigError
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.run_config import SHARED, RunConfig

FEWEST = 12  # seeds below which a confidence sequence of a median is mostly unbounded
GROWTH = 0.5  # of a cell's seeds, added in a round: looks cost little, and few are wasted


class Cell(NamedTuple):
    """Runs that differ in their seed only, and how well they are known.

    Attributes:
        run: the first of them that the study asks for.
        added: seeds beyond the study's that have ended.
        next_seed: the least seed that is neither asked for nor added.
        size: number of runs that have ended.
        median: of the score; None where it is not finite.
        halfwidth: relative; infinite where there is no interval.
    """

    run: RunConfig
    added: tuple[int, ...]
    next_seed: int
    size: int
    median: float | None
    halfwidth: float

    @property
    def is_hopeless(self) -> bool:
        """Whether more seeds would not help: in half of the runs there is no ratio."""
        return self.size >= FEWEST and not self.median


class Round(NamedTuple):
    """What to do next: the sweep with more seeds (None: nothing to do), and why, in words."""

    sweep: SweepConfig | None
    words: str


def share(name: str, value: str) -> float:
    """Return a share given as `10%` or `0.1`.

    Raises `ConfigError` for anything but a share above 0.

    Example:
        >>> share("until_halfwidth", "10%")
        0.1
    """
    text = value.strip()
    try:
        found = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        found = math.nan
    if not 0.0 < found < math.inf:
        raise ConfigError(f"{name} must be a share such as 10%, got {value!r}")
    return found


def measured(location: str) -> list[dict[str, Any]]:
    """Return what the analysis says of each cell of a sweep's folder.

    Raises `ConfigError` with its own words if it can't.
    """
    command = [sys.executable, "-m", "analysis", location, "--precision"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"results must be readable by the analysis, got {reason}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def cells_of(sweep: SweepConfig, found: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Return the cells of a study's runs, from what the analysis says of those that ended."""
    runs = {run.run_id: run for run in sweep.runs}
    cells = []
    for entry in found:
        ended = set(entry["run_ids"])
        ours = [runs[run_id] for run_id in entry["run_ids"] if run_id in runs]
        if not ours:
            continue  # of another study in the same folder
        first, added, following = _added(ours, ended)
        halfwidth = math.inf if entry["halfwidth"] is None else entry["halfwidth"]
        cells.append(Cell(first, added, following, len(ended), entry["median"], halfwidth))
    return cells


def _added(ours: Sequence[RunConfig], ended: Set[str]) -> tuple[RunConfig, tuple[int, ...], int]:
    """Return the first run of a cell, the seeds beyond its own that have ended, and the next."""
    first = min(ours, key=lambda run: run.seed)
    seed = start = 1 + max(run.seed for run in ours)
    while first.with_seed(seed).run_id in ended:
        seed += 1
    return first, tuple(range(start, seed)), seed


def with_added_seeds(sweep: SweepConfig, ended: Iterable[str]) -> SweepConfig:
    """Return a study with the seeds that earlier launches have added, as far as these have ended.

    Args:
        sweep: the study itself.
        ended: ids of all runs in its folder that have ended.
    """
    others = set(ended) - {run.run_id for run in sweep.runs}
    if not others:
        return sweep
    kinds: dict[str, list[RunConfig]] = {}
    for run in sweep.runs:
        kinds.setdefault(run.with_seed(0).run_id, []).append(run)
    added = (_added(ours, others) for ours in kinds.values())
    grids = (_grid(first, seeds) for first, seeds, _ in added if seeds)
    return replace(sweep, grids=(*sweep.grids, *grids))


def next_round(sweep: SweepConfig, cells: Sequence[Cell], halfwidth: float, budget: int) -> Round:
    """Say which cells get more seeds.

    Args:
        sweep: the study itself.
        cells: all of its cells.
        halfwidth: relative, at which a cell is known well enough.
        budget: runs beyond the study's, those of earlier launches included.
    """
    left = max(0, budget - sum(len(cell.added) for cell in cells))
    wide = [cell for cell in cells if cell.halfwidth > halfwidth]
    hopeless = [cell for cell in wide if cell.is_hopeless]
    open_cells = [cell for cell in wide if not cell.is_hopeless]
    words = f"{len(cells) - len(wide)} of {len(cells)} cells known to {halfwidth:.3g}"
    if hopeless:
        words += f", {len(hopeless)} without a ratio in half of their runs"
    new: dict[str, int] = {}
    for cell in sorted(open_cells, key=lambda cell: -cell.halfwidth):
        asked = max(FEWEST - cell.size, math.ceil(GROWTH * cell.size))
        new[cell.run.run_id] = min(asked, left)
        left -= new[cell.run.run_id]
    total = sum(new.values())
    if not total:
        words += f"; the budget of {budget} runs is spent" if open_cells else ""
        return Round(None, words)
    grids = []
    for cell in cells:
        end = cell.next_seed + new.get(cell.run.run_id, 0)
        seeds = (*cell.added, *range(cell.next_seed, end))
        if seeds:
            grids.append(_grid(cell.run, seeds))
    more = replace(sweep, grids=(*sweep.grids, *grids))
    return Round(more, f"{words}; {total} more runs")


def _grid(run: RunConfig, seeds: tuple[int, ...]) -> Grid:
    """Return a run with other seeds."""
    shared = {name: getattr(run, name) for name in SHARED}
    return Grid(
        run.workload,
        run.rule,
        (run.lr,),
        run.criterion,
        run.workload_options,
        seeds,
        more={**run.hyper, "schedule": run.schedule, **shared},
    )
