"""The command line, the report page and exported tables, on good and bad results."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import CENTRAL, STABLE, FlowTruth, RunTruth, write_sweep

import analysis
from analysis.__main__ import main
from analysis.report.export import table_text
from analysis.report.numbers import significant


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report on one rule: two learning rates, two seeds; a diverged run, two flows that ended."""
    endings = [{"stop": 150}, {"stop": 120, "ending": "diverged"}, {}, {}]
    runs = [
        RunTruth(
            run_id=f"r{i}", lr=lr, seed=seed, steps=200,
            flows={"central": CENTRAL, "stable": replace(STABLE, **endings[i])},
        )
        for i, (lr, seed) in enumerate([(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)])
    ]  # fmt: skip
    runs[3] = replace(runs[3], status="diverged", status_detail="loss <huge> & rising")
    for i in range(2):
        runs[i] = replace(
            runs[i], status_detail="stable flow stopped; the loss is not smooth (max)"
        )
    folder = write_sweep(tmp_path_factory.mktemp("r"), runs, name="demo")
    assert main([str(folder), "--format", "csv", "--format", "parquet", "--bandwidth", "8"]) == 0
    return folder


@pytest.fixture(scope="module")
def html(made: Path) -> str:
    """Text of the page."""
    return (made / "report" / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(html: str) -> None:
    itself = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", itself)
    assert "url(" not in itself
    assert len(html) < 3_000_000


def test_the_page_has_every_section_in_order(html: str) -> None:
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", html)
    assert headings == [
        "Which flow is nearest", "Summary", "Two flows compared", "Accuracy against learning rate",
        "Distance over time",
        "Single runs", "Predicted and measured variance", "Prediction horizons",
        "Dependence on the bandwidth", "What failed and why", "Runs", "How this was made",
    ]  # fmt: skip


def test_the_page_says_what_failed_and_how_it_was_made(html: str) -> None:
    assert "4 runs (3 finished, 1 diverged)" in html
    assert "loss &lt;huge&gt; &amp; rising" in html
    assert "the loss is not smooth (max)" in html
    assert "stable flow stopped; the" not in html
    assert "stopped after step 149" in html
    assert "diverged after step 119" in html
    assert "(1 flow stopped), (1 flow diverged)" in html
    assert "1 stable flow diverged before the run" in html
    for fact in ("jax 0.10.2", "abc1234", "bandwidth 8 steps", "--bandwidth 8", "pandas"):
        assert fact in html, fact


def test_figures_are_also_files(made: Path) -> None:
    names = {f.name.split("-")[0] for f in (made / "report" / "figures").glob("*.png")}
    expected = {"profiles", "learning_rate", "distance", "runs", "run", "variance", "horizon"}
    assert names == expected


def test_figures_for_print_are_vectors(example_sweep: Path, tmp_path: Path) -> None:
    assert main([str(example_sweep), "--out", str(tmp_path), "--figures", "pdf"]) == 0
    files = list((tmp_path / "figures").iterdir())
    assert {f.name.split("-")[0] for f in files} >= {"learning_rate", "variance", "horizon"}
    assert all(f.suffix == ".pdf" and f.read_bytes().startswith(b"%PDF") for f in files)


def test_tables_are_those_of_the_library(made: Path) -> None:
    folder = made / "report" / "tables"
    frame = analysis.accuracy(analysis.load(made), bandwidth=8.0)
    written = pd.read_csv(folder / "accuracy.csv")
    assert written["final_distance"].tolist() == pytest.approx(frame["final_distance"].tolist())
    back = pq.read_table(folder / "summary.parquet")
    assert set(back["metric"].to_pylist()) == {m.name for m in analysis.METRICS}
    schema = pq.read_schema(folder / "accuracy.parquet")
    assert schema.field("horizon").metadata[b"unit"] == b"steps"


def test_the_terminal_table(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from analysis.report import accuracy_text

    results = analysis.load(made)
    text = accuracy_text(analysis.accuracy(results), results, bandwidth=10, tolerance=0.05)
    assert "4 runs (3 finished, 1 diverged)" in text
    assert "1 stable flow stopped" in text
    assert "1 stable flow diverged" in text
    assert re.search(r"0\.2 +1\+1x +100% +central +2\.0 ", text)
    rows = [line for line in text.splitlines() if re.search(r" (central|stable)  .*\d$", line)]
    assert len({len(line) for line in rows}) == 1
    assert max(map(len, text.splitlines())) <= 120
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such/folder"], "error: results folder does not exist: /no/such/folder"),
        (["{made}", "--bandwidth", "-3"], "error: bandwidth must be a positive number"),
        (["{made}", "--tolerance", "0"], "error: tolerance must be > 0 and < 1, got 0.0"),
        (["{made}", "--tolerance", "5"], "error: tolerance must be > 0 and < 1, got 5.0"),
        (["{made}", "--sweep", "other"], "error: sweep: no sweep 'other' here"),
    ],
)
def test_bad_arguments_are_one_line(
    made: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([a.replace("{made}", str(made)) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(message)
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_partial_results_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flows = {"central": FlowTruth()}
    runs = [RunTruth(run_id=f"r{i}", seed=i, steps=60, flows=flows) for i in range(2)]
    folder = write_sweep(tmp_path, runs)
    bad = next((folder / "steps" / "r1").iterdir())
    bad.write_bytes(bad.read_bytes()[:100])
    (folder / "runs" / "r0.parquet").touch()
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "PARTIAL RESULT: 1 bad file was left out" in out
    assert f"{bad}: is truncated or half-written" in out
    assert "shorter than the averaging window of 160 steps" in out
    page = (tmp_path / "out" / "report.html").read_text()
    assert str(bad) in page
    assert "no steps on storage" in page
    assert "one flow only: nothing to compare" in page


def test_all_diverged_and_nothing_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunTruth(run_id="a", steps=40, status="diverged", status_detail="loss not finite")
    folder = write_sweep(tmp_path, [run])
    assert main([str(folder)]) == 0
    assert "No run finished, so there is nothing to average" in capsys.readouterr().out
    assert "loss not finite" in (folder / "report" / "report.html").read_text()

    (folder / "runs" / "a.parquet").unlink()
    shutil.rmtree(folder / "report")
    assert main([str(folder)]) == 0
    assert "No run has ended yet" in capsys.readouterr().out
    html = (folder / "report" / "report.html").read_text()
    assert "1 runs had not ended" in html
    assert "<dt>runs made with</dt><dd>not recorded</dd>" in html


def test_tables_are_made_once_for_all_formats(
    example_sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, made = sys.modules["analysis.__main__"], []

    def tables(found: analysis.Study) -> dict[str, pd.DataFrame]:
        made.append(found)
        return {"one": found.accuracy}

    monkeypatch.setattr(command, "study_tables", tables)
    monkeypatch.setattr(command, "write_report", lambda *_, **__: tmp_path)
    formats = ["--format", "csv", "--format", "markdown"]
    assert main([str(example_sweep), "--out", str(tmp_path), *formats]) == 0
    assert len(made) == 1
    assert {f.name for f in (tmp_path / "tables").iterdir()} == {"one.csv", "one.md"}
    assert main([str(example_sweep), "--out", str(tmp_path)]) == 0
    assert len(made) == 1


def test_printed_tables_keep_every_result(example_sweep: Path) -> None:
    """Counts and p-values stay, even where they are the same in every row."""
    frame = analysis.accuracy(analysis.load(example_sweep))
    table = analysis.compare(frame, "central", "stable")
    head = table_text(table, "markdown").splitlines()[0]
    for name in ("wins", "win_rate", "p_value", "p_holm", "n_runs", "n_diverged", "n_stopped",
                 "n_flow_diverged"):  # fmt: skip
        assert f"| {name} |" in head, name
    summary = table_text(analysis.summarize(frame), "latex")
    for name in ("n_runs", "n_diverged", "n_failed", "n_stopped", "n_censored"):
        assert name.replace("_", r"\_") in summary, name
    assert "beta2" not in table_text(frame.query("rule == 'rmsprop'"), "markdown").splitlines()[0]


def test_every_format_is_written(example_sweep: Path, tmp_path: Path) -> None:
    endings = {"csv": "csv", "parquet": "parquet", "latex": "tex", "markdown": "md"}
    formats = [text for kind in endings for text in ("--format", kind)]
    assert main([str(example_sweep), "--out", str(tmp_path), *formats]) == 0
    names = (
        "accuracy", "comparison", "lr_trend", "problems", "sensitivity", "summary", "variance",
        "rank", "rank_cells", "rank_pairs", "rank_profiles", "rank_shares",
    )  # fmt: skip
    files = {f.name for f in (tmp_path / "tables").iterdir()}
    assert files == {f"{name}.{ending}" for name in names for ending in endings.values()}


def test_latex_and_markdown() -> None:
    frame = pd.DataFrame({"flow": ["a_b", "c"], "n": [1, 2], "mean": [0.123456, float("nan")]})
    latex = table_text(frame, "latex")
    assert r"a\_b & 1 & 0.1235 \\" in latex
    assert latex.startswith(r"\begin{tabular}{lll}")
    assert "| c | 2 |  |" in table_text(frame, "markdown")
    with pytest.raises(ValueError, match="format must be one of"):
        table_text(frame, "word")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0999, "0.10"), (9.96, "10"), (123456.0, "123456"), (1e-9, "1.0e-09"), (-0.5, "-0.50")],
)
def test_significant(value: float, text: str) -> None:
    assert significant(value) == text


def test_a_reader_who_has_seen_enough_is_no_error(
    example_sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("analysis.__main__.write_report", gone)
    with pytest.raises(BrokenPipeError):  # handled where the program ends
        main([str(example_sweep), "--out", str(tmp_path)])


def test_the_first_section_ranks_every_flow(tmp_path: Path) -> None:
    """As many flows as there are; cells that disagree are told; skill where flows began anew."""
    good, bad = replace(CENTRAL, distance=0.01), replace(CENTRAL, distance=0.05)
    runs = [
        RunTruth(
            run_id=f"r{lr:g}{seed}", lr=lr, seed=seed, steps=200,
            flows={"central": good if lr < 0.02 else bad, "rod": bad if lr < 0.02 else good,
                   "stable": STABLE, "persistence": FlowTruth(distance=1.0)},
        )
        for lr in (0.01, 0.02)
        for seed in range(3)
    ]  # fmt: skip
    folder = write_sweep(tmp_path, runs)
    assert main([str(folder)]) == 0
    html = (folder / "report" / "report.html").read_text()
    first = html.partition("<h2")[2].partition("</section>")[0]
    assert "Which flow is nearest" in first
    assert "Cells disagree, so that no single number says it: of 2, nearest" in first
    for words in (
        "rod flow",
        "persistence",
        "half-way points of two iterates",
        "what any forecast",
    ):
        assert words in first, words
    assert "How far ahead" not in first  # no flow began anew
    names = [file.name for file in (folder / "report" / "figures").iterdir()]
    assert any(name.startswith("profiles-final_distance") for name in names)


def test_forecasts_are_of_a_sample_on_the_page_and_of_all_runs_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_sweep(tmp_path, [RunTruth(run_id=f"r{i}", seed=i, steps=60) for i in range(3)])
    for file in (folder / "runs").glob("*.parquet"):
        runs = pq.read_table(file)
        place = runs.schema.get_field_index("restart_every")
        anew = pa.array([30], runs.schema.field(place).type)
        pq.write_table(runs.set_column(place, runs.schema.field(place), anew), file)
    monkeypatch.setattr(sys.modules["analysis.report.sections.nearest"], "FORECAST_RUNS", 1)
    assert main([str(folder), "--format", "csv"]) == 0
    html = (folder / "report" / "report.html").read_text()
    assert "How far ahead" in html
    for words in ("over lead times and phases", "and over persistence"):
        assert f"{words}, all runs (1 at random" in html, words
    table = pd.read_csv(folder / "report" / "tables" / "skill.csv")
    assert set(table["n_runs"]) == {3}
