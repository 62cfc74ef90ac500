"""The command that says how a sweep stands: `python -m cflows_ray.status results/quickstart`.

Works while the sweep runs and after, from any machine that can read its folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from cflows_ray.checks import ConfigError
from cflows_ray.store import OtherSchema, Storage, StorageError
from cflows_ray.sweep import print_status, sweep_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cflows_ray.status", description="Say how a sweep stands."
    )
    parser.add_argument("results", help="a sweep's folder or URI, for example results/quickstart")
    parser.add_argument("--verbose", action="store_true", help="print a line for every run, too")
    options = parser.parse_args(arguments)
    try:
        status = sweep_status(Storage(options.results))
        print_status(status, Console(), verbose=options.verbose)
    except (ConfigError, OtherSchema, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
