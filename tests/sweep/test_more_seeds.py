"""More seeds for wide cells: which, how many, within what budget; the loop around them."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cflows_ray.checks import ConfigError
from cflows_ray.store import Storage
from cflows_ray.sweep import Grid, SweepConfig, cli
from cflows_ray.sweep.more_seeds import (
    FEWEST,
    cells_of,
    measured,
    next_round,
    share,
    with_added_seeds,
)
from cflows_ray.sweep.options import Options

SWEEP = SweepConfig(
    "s",
    (
        Grid("saddle_2d", "gradient_descent", lrs=(0.1, 0.2)),
        Grid("saddle_2d", "rmsprop", lrs=(0.1,), beta2=0.95, steps=7),
    ),
    seeds=(0, 1),
    steps=5,
)
KINDS = [run for run in SWEEP.runs if run.seed == 0]


def said(seeds: list[int], halfwidths: list[float | None], medians: Any = 0.1) -> list[Any]:
    """Return what the analysis says of the three cells, each with so many seeds."""
    medians = medians if isinstance(medians, list) else [medians] * 3
    return [
        {
            "run_ids": [run.with_seed(s).run_id for s in range(n)],
            "halfwidth": h,
            "median": m,
            "runs": n,
        }
        for run, n, h, m in zip(KINDS, seeds, halfwidths, medians, strict=True)
    ]


def seeds_of(sweep: SweepConfig) -> list[list[int]]:
    """Return the seeds of each cell."""
    found: dict[str, list[int]] = {kind.run_id: [] for kind in KINDS}
    for run in sweep.runs:
        found[run.with_seed(0).run_id].append(run.seed)
    return list(found.values())


def test_a_first_round_is_large_enough_for_an_interval() -> None:
    cells = cells_of(SWEEP, said([2, 2, 2], [None] * 3))
    assert [(c.added, c.next_seed, c.halfwidth) for c in cells] == [((), 2, math.inf)] * 3
    found = next_round(SWEEP, cells, 0.1, 100)
    assert found.sweep is not None
    assert seeds_of(found.sweep) == [list(range(FEWEST))] * 3
    assert found.words == f"0 of 3 cells known to 0.1; {3 * (FEWEST - 2)} more runs"


def test_only_wide_cells_get_more_the_widest_first() -> None:
    cells = cells_of(SWEEP, said([20, 20, 20], [0.09, 0.2, 0.3]))
    found = next_round(SWEEP, cells, 0.1, 1000)
    assert found.sweep is not None
    assert [len(seeds) for seeds in seeds_of(found.sweep)] == [20, 30, 30]
    scarce = next_round(SWEEP, cells, 0.1, 3 * 18 + 12)  # 54 have been added before
    assert scarce.sweep is not None
    assert [len(seeds) for seeds in seeds_of(scarce.sweep)] == [20, 22, 30]
    # everything else of a run is as the study says
    mine = {run.run_id for run in SWEEP.runs}
    assert mine <= {run.run_id for run in scarce.sweep.runs}
    ours = [run for run in scarce.sweep.runs if run.rule == "rmsprop"]
    assert {(run.hyper["beta2"], run.steps) for run in ours} == {(0.95, 7)}


def test_the_end() -> None:
    fewer = next_round(SWEEP, cells_of(SWEEP, said([20] * 3, [0.2, 0.05, 0.01])), 0.1, 10)
    assert fewer.sweep is None  # less than has been added before
    done = next_round(SWEEP, cells_of(SWEEP, said([20] * 3, [0.1, 0.05, 0.01])), 0.1, 1000)
    assert done == (None, "3 of 3 cells known to 0.1")
    spent = next_round(SWEEP, cells_of(SWEEP, said([20] * 3, [0.2, 0.05, 0.01])), 0.1, 54)
    assert spent == (None, "2 of 3 cells known to 0.1; the budget of 54 runs is spent")
    lost = said([20] * 3, [None, 0.05, None], [None, 0.1, 0.0])
    assert next_round(SWEEP, cells_of(SWEEP, lost), 0.1, 1000) == (
        None,
        "1 of 3 cells known to 0.1, 2 without a ratio in half of their runs",
    )


def test_a_further_launch_asks_for_the_seeds_added_before() -> None:
    """Or its plan would say that they are no longer asked for."""
    ended = [KINDS[0].with_seed(s).run_id for s in (0, 1, 2, 3, 7)] + [KINDS[2].run_id, "0" * 16]
    assert seeds_of(with_added_seeds(SWEEP, ended)) == [[0, 1, 2, 3], [0, 1], [0, 1]]
    mine = [run.run_id for run in SWEEP.runs]
    assert with_added_seeds(SWEEP, mine) == with_added_seeds(SWEEP, ()) == SWEEP


def test_cells_of_another_study_do_not_matter() -> None:
    other = {"run_ids": ["0" * 16], "halfwidth": None, "median": 0.1, "runs": 1}
    assert cells_of(SWEEP, [other]) == []


@pytest.mark.parametrize(("text", "value"), [("10%", 0.1), ("0.25", 0.25), (" 5 % ", 0.05)])
def test_shares(text: str, value: float) -> None:
    assert share("x", text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["much", "0%", "-1%", "nan", "inf"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^until_halfwidth must be a share such as 10%, got"):
        share("until_halfwidth", text)


def test_what_the_analysis_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^results must be readable by the analysis, got error"):
        measured(str(tmp_path / "none"))


def test_the_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rounds until all is known; a launch that is stopped ends them."""
    ended: set[str] = set()
    launched: list[int] = []

    def carry_out(sweep: SweepConfig, *_: Any) -> int:
        launched.append(len(sweep.runs))
        ended.update(run.run_id for run in sweep.runs)
        return stopped if len(launched) == 2 else 0

    def precision(_: str) -> list[dict[str, Any]]:
        sizes = [sum(k.with_seed(s).run_id in ended for s in range(99)) for k in KINDS]
        found = said(sizes, [1.0] * 3)
        return [{**cell, "halfwidth": 1 / cell["runs"]} for cell in found]

    monkeypatch.setattr(cli, "_carry_out", carry_out)
    monkeypatch.setattr(cli, "measured", precision)
    for stopped, expected in ((0, [6, 36, 54]), (130, [6, 36])):
        ended.clear()
        launched.clear()
        options = Options(until_halfwidth="6%", budget=100)
        console = Console(file=io.StringIO(), width=200)
        code = cli._until_precise(SWEEP, Storage(str(tmp_path), "s"), options, console)
        assert (code, launched) == (stopped, expected)
    with pytest.raises(ConfigError, match=r"^budget must be given with until_halfwidth"):
        cli.launch(SWEEP, Options(until_halfwidth="6%"), Console(file=io.StringIO()))
    with pytest.raises(ConfigError, match=r"^budget must be left out without until_half"):
        cli.launch(SWEEP, Options(budget=3), Console(file=io.StringIO()))
