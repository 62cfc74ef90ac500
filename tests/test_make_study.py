"""Pages of studies: their tables are those of the scores beside them."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def make_study() -> types.ModuleType:
    """Return the script that writes the tables, as a module."""
    spec = importlib.util.spec_from_file_location("make_study", ROOT / "docs" / "make_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("data", sorted((ROOT / "docs" / "data").glob("*.csv.gz")), ids=str)
def test_a_page_says_what_its_scores_say(make_study: types.ModuleType, data: Path) -> None:
    page = (ROOT / "docs" / f"{data.name.removesuffix('.csv.gz')}.md").read_text()
    assert "<!-- study: " in page
    assert make_study.write(page, pd.read_csv(data)) == page


def test_scores_are_kept_and_written(
    make_study: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "analysis"))
    monkeypatch.setattr(make_study, "DATA", tmp_path / "data")
    from synthetic import study_runs, write_sweep

    write_sweep(tmp_path / "results", study_runs(), name="some")
    scores = make_study.score(str(tmp_path / "results" / "some"))
    file = make_study.keep(scores, "some")
    first = file.read_bytes()
    assert make_study.keep(scores.sample(frac=1, random_state=0), "some").read_bytes() == first
    page = "# some\n<!-- study: final_distance -->\nold\n<!-- end of table -->\nafter\n"
    written = make_study.write(page, pd.read_csv(file))
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert rows[0] == "| rule | lr | runs | central | stable |"
    assert len(rows) == 2 + 9
    assert "old" not in written
    assert written.endswith("<!-- end of table -->\nafter\n")
    mean = scores.query("rule == 'rmsprop' and lr == 0.02 and flow == 'central'")["final_distance"]
    cell = next(row for row in rows if row.startswith("| rmsprop | 0.02 |")).split("|")[4]
    assert float(cell.split()[0]) == pytest.approx(100 * mean.mean(), rel=0.05)
    with pytest.raises(ValueError, match="metric must be a column of the scores, got 'none'"):
        make_study.write(page.replace("final_distance", "none"), pd.read_csv(file))
