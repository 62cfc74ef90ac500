"""Pages of studies: their tables are those of the scores beside them."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))


@pytest.fixture(scope="module")
def make_study() -> types.ModuleType:
    """Return the script that writes the tables, as a module."""
    return importlib.import_module("make_study")


def test_why_is_what_its_runs_say() -> None:
    make_causes = importlib.import_module("make_causes")
    page = (ROOT / "docs" / "reproduction.md").read_text()
    assert page.count("<!-- causes: ") == 2
    rows = pd.read_csv(make_causes.DATA)
    assert set(rows["case"]) == set(make_causes.CASES)
    assert make_causes.write(page, rows) == page


STUDIES = sorted(
    data.name.removesuffix(".csv.gz")
    for data in (ROOT / "docs" / "data").glob("*.csv.gz")
    if not data.name.endswith(("-skill.csv.gz", "causes.csv.gz"))
)


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_says_what_its_scores_say(make_study: types.ModuleType, name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text()
    assert "<!-- study: " in page
    assert make_study.write(page, *make_study.read(name), name) == page


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


def test_runs_are_added_to_those_that_are_kept(
    make_study: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_study, "DATA", tmp_path)

    def scores(**final: float) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "run_id": list(final), "rule": "adam", "lr": 0.1, "seed": range(len(final)),
                "flow": "central", "run_status": "finished", "flow_status": "ok",
                "last_step": 9.0, "final_distance": final.values(),
            }
        )  # fmt: skip

    first = scores(a=0.1, b=0.2)
    pd.testing.assert_frame_equal(make_study.together(first, "some"), first)
    make_study.keep(first, "some")
    both = make_study.together(scores(b=0.5, c=0.3), "some")
    assert dict(zip(both["run_id"], both["final_distance"], strict=True)) == {
        "a": 0.1, "b": 0.5, "c": 0.3,
    }  # fmt: skip
    other = scores(d=0.1)
    other.insert(3, "beta2", 0.99)  # would be pooled with runs that do not say theirs
    with pytest.raises(ValueError, match=r"must vary in \['rule', 'lr'\].* 'beta2'\]"):
        make_study.together(other, "some")


def test_one_run_has_no_interval_and_a_figure_is_named_after_its_study(
    make_study: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_study, "FIGURES", tmp_path)
    scores, _ = make_study.read("rivals")
    one = scores[(scores["workload"] == "transformer_sorting") & (scores["flow"] != "persistence")]
    page = "".join(
        f"<!-- study: {what} -->\n<!-- end of table -->\n"
        for what in ("final_distance", "figure final_distance")
    )
    text = make_study.write(page, one, name="some")
    assert "[" not in text.partition("<!-- study: figure")[0]
    assert "| 7.8 |" in text
    assert "![Final distance of every run, by cell](figures/some-final_distance.png)" in text
    file = make_study.figure(one, "some", "final_distance")
    assert file == tmp_path / "some-final_distance.png"
    assert file.read_bytes().startswith(b"\x89PNG")


def test_errors_of_forecasts_are_shown_to_the_target_at_the_lead_that_is_asked(
    make_study: types.ModuleType,
) -> None:
    def rows(every: int, lead: int, target: str, central: float, stable: float) -> list[tuple]:
        same = ("gradient_descent", every)
        return [
            (*same, flow, target, "onset", lead, error)
            for flow, error in (("central", central), ("stable", stable))
        ]

    found = [
        *rows(0, 5, "midpoint", 0.9, 0.9),
        *rows(0, 400, "midpoint", 0.012, 0.2),
        *rows(0, 400, "discrete", 0.04, 0.03),
        *rows(50, 5, "midpoint", 0.0011, 0.0022),
        *rows(50, 7, "midpoint", 0.9, 0.9),
        *rows(50, 5, "discrete", 0.9, 0.9),
    ]
    names = ["rule", "restart_every", "flow", "target", "phase", "lead", "error"]
    forecasts = pd.DataFrame(found, columns=names)
    assert make_study.targets(forecasts).splitlines() == [
        "| target | cells | central | stable |",
        "| --- | ---: | ---: | ---: |",
        "| discrete | 1 | 1.3 | **1.0** |",
        "| midpoint | 1 | **0.060** | 1.0 |",
    ]
    other = forecasts[forecasts["restart_every"] == 0].assign(rule="adam").replace(0.012, 0.1)
    only_here = other[:1].assign(flow="covariance", lead=400, error=0.0, target="midpoint")
    lines = make_study.targets(pd.concat([forecasts, other])).splitlines()
    assert lines[-1] == "| midpoint | 2 | **0.28** | 1.0 |"
    lines = make_study.targets(pd.concat([forecasts, other, only_here])).splitlines()
    assert lines[-1] == "| midpoint | 1 | 0.50 | 1.0 | **0** |"
    assert make_study.skill(forecasts, "midpoint").splitlines()[2:] == [
        "| onset | 5 | **0.11** | 0.22 |"
    ]
    with pytest.raises(ValueError, match=r"target must be one of .*, got 'none'"):
        make_study.skill(forecasts, "none")
    with pytest.raises(ValueError, match="targets needs forecasts"):
        make_study.write("<!-- study: targets -->\n<!-- end of table -->", pd.DataFrame())


def test_ranks_name_the_nearest_flow(
    make_study: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "analysis"))
    from synthetic import study_runs, write_sweep

    write_sweep(tmp_path / "some", study_runs(), name="some")
    scores = make_study.score(str(tmp_path / "some"))
    page = "<!-- study: rank final_distance -->\n<!-- end of table -->"
    lines = make_study.write(page, scores).splitlines()
    assert lines[3] == "| central | 1.0 [1.0, 1.0] | 9 of 9 |"
    assert "central is nearest in all 9 cells." in lines


def runs_of(metric: str, values: list[float], **columns: object) -> pd.DataFrame:
    """Return scores of the central flow in one cell, a run per value."""
    context = {"flow": "central", "run_status": "finished", "flow_status": "ok", "last_step": 90.0}
    first = {"run_id": [f"r{i}" for i in range(len(values))], "rule": "gradient_descent", "lr": 0.1}
    return pd.DataFrame({**first, "seed": range(len(values)), **context, metric: values, **columns})


def test_steps_that_may_outlast_the_run_have_a_range_instead_of_limits(
    make_study: types.ModuleType,
) -> None:
    def text(*observed: bool) -> str:
        frame = runs_of(
            "horizon_lasting", [20.0, 35.0, 90.0], horizon_lasting_observed=list(observed)
        )
        cells = pd.concat([frame, frame.assign(lr=0.2, run_id=frame["run_id"] + "b")])
        return make_study.table(cells, "horizon_lasting").splitlines()[2].split(" | ")[-1]

    assert text(True, True, True) == "35 (20 to 90) |"
    assert text(True, True, False) == "35 (20 to never) |"
    assert text(True, False, False) == "never (20 to never) |"
    some = runs_of("delay", [20.0, 35.0, np.nan, 30.0], delay_observed=[True, True, False, True])
    rows = make_study.table(pd.concat([some, some.assign(lr=0.2)]), "delay").splitlines()
    assert rows[2].endswith("| 30 (20 to 35) |")


def test_peaks_sort_the_runs_of_gradient_descent(make_study: types.ModuleType) -> None:
    frame = runs_of("final_distance", [0.02, 0.04, 0.06, 0.5], peak_sharpness=[2.5, 2.9, 3.0, 9.0])
    others = runs_of("final_distance", [0.3, 0.1, 0.2], peak_sharpness=[2.0, 2.2, 2.1])
    others = others.assign(rule="adam")
    page = "<!-- study: peaks final_distance -->\n<!-- end of table -->"
    lines = make_study.write(page, pd.concat([frame, others])).splitlines()
    assert lines[3] == "| below 3 | 2 | 3.0 (2.0 to 4.0) |"
    assert lines[4] == "| 3 to 4 | 1 | 6.0 (6.0 to 6.0) |"
    assert lines[7] == "| above 8 | 1 | 50 (50 to 50) |"
    assert lines[-2] == (
        "Rank correlation of the two: 1.00 over 4 runs; of the rules that adapt, -1.00 over 3 runs."
    )
