"""Command line: `python -m analysis results/quickstart`."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from analysis.infer import grouped
from analysis.measure import DEFAULT_BANDWIDTH, DEFAULT_TOLERANCE, accuracy, study, without_doubtful
from analysis.read import load
from analysis.report import (
    FORMATS,
    accuracy_text,
    precision_lines,
    study_tables,
    write_report,
    write_tables,
)


def main(arguments: list[str] | None = None) -> int:
    """Print the accuracy table, write report, figures and tables; exit status 2 on bad input."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    try:
        results = load(options.results, sweep=options.sweep, on_bad_file="skip")
        if options.precision:
            frame = accuracy(results, flows=("central", "stable"))
            for line in precision_lines(without_doubtful(frame) if options.trusted else frame):
                print(line)
            return 0
        found = study(
            results, bandwidth=options.bandwidth, tolerance=options.tolerance,
            workers=options.workers, cache=options.cache,
        )  # fmt: skip
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.trusted:
        found = replace(found, accuracy=without_doubtful(found.accuracy))
    print(
        accuracy_text(
            found.accuracy, results, bandwidth=options.bandwidth, tolerance=options.tolerance
        )
    )
    folder = _out(options)
    try:
        tables = study_tables(found) if options.format else {}
        for kind in options.format:
            for file in write_tables(tables, folder / "tables", kind):
                print(f"wrote {file}")
        if grouped(found.accuracy).words and "parquet" not in options.format:
            # The tables that are shown pool what only this one tells apart.
            every_run = {"accuracy": found.accuracy}
            for file in write_tables(every_run, folder / "tables", "parquet"):
                print(f"wrote {file} (every run and flow)")
        command = "python -m analysis " + shlex.join(given)
        report = write_report(found, folder, command=command, kind=options.figures)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"error: cannot write to {folder}: {error}", file=sys.stderr)
        return 2
    print(f"\nReport:  {report}\nFigures: {folder / 'figures'}")
    return 0


def _out(options: argparse.Namespace) -> Path:
    if options.out is not None:
        return Path(options.out)
    if "://" in options.results:
        return Path("report") / Path(urlsplit(options.results).path).name
    return Path(options.results) / "report"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="How accurately did the flows predict the optimizer?"
    )
    parser.add_argument("results", help="folder or URI of a sweep, e.g. results/quickstart")
    parser.add_argument("--sweep", help="only this sweep of a folder of sweeps")
    parser.add_argument("--out", help="folder for what is written (default: RESULTS/report)")
    parser.add_argument(
        "--format", action="append", choices=FORMATS, default=[],
        help="also write the tables in this format; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--trusted", action="store_true",
        help="leave out each flow of a run of which more than 5%% of the rows are doubtful",
    )  # fmt: skip
    parser.add_argument(
        "--precision", action="store_true",
        help="only print how well the median ratio of central and stable is known, a cell a line",
    )  # fmt: skip
    parser.add_argument(
        "--figures", choices=("png", "pdf", "svg"), default="png",
        help="format of the figure files; pdf and svg are vectors, for print (default: png)",
    )  # fmt: skip
    parser.add_argument(
        "--bandwidth", type=float, default=DEFAULT_BANDWIDTH,
        help="of the Gaussian time average, in steps (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, default=DEFAULT_TOLERANCE,
        help="relative distance at which a prediction counts as lost (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=None, metavar="N",
        help="processes to score runs in (default: one a processor core)",
    )  # fmt: skip
    parser.add_argument(
        "--no-cache", dest="cache", action="store_false",
        help="score every run again, and keep no scores in the folder `analysis` of a sweep",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(1)
