"""Command line: `python -m analysis results/quickstart`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import analysis
from analysis.console import accuracy_text
from analysis.figures import write_run_figures
from analysis.metrics import DEFAULT_TOLERANCE
from analysis.smoothing import DEFAULT_BANDWIDTH


def main(arguments: list[str] | None = None) -> int:
    """Print the accuracy table and write the figures; exit status 2 for a usage error."""
    options = _parser().parse_args(arguments)
    try:
        results = analysis.load(options.results, sweep=options.sweep, on_bad_file="skip")
        accuracy = analysis.accuracy(
            results, bandwidth=options.bandwidth, tolerance=options.tolerance
        )
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        accuracy_text(accuracy, results, bandwidth=options.bandwidth, tolerance=options.tolerance)
    )
    written = write_run_figures(results, accuracy, _out(options), bandwidth=options.bandwidth)
    print(f"\n{len(written)} figures in {_out(options)}:")
    for file in written:
        print(f"  {file.name}")
    return 0


def _out(options: argparse.Namespace) -> Path:
    if options.out is not None:
        return Path(options.out)
    if "://" in options.results:
        return Path("report") / options.results.rstrip("/").rsplit("/", 1)[-1]
    return Path(options.results) / "report"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="How accurately did the flows predict the optimizer?"
    )
    parser.add_argument("results", help="folder or URI of a sweep, e.g. results/quickstart")
    parser.add_argument("--sweep", help="only this sweep of a folder of sweeps")
    parser.add_argument("--out", help="folder for what is written (default: RESULTS/report)")
    parser.add_argument(
        "--bandwidth", type=float, default=DEFAULT_BANDWIDTH,
        help="of the Gaussian time average, in steps (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, default=DEFAULT_TOLERANCE,
        help="relative distance at which a prediction counts as lost (default: %(default)g)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(1)
