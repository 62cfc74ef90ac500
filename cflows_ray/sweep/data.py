"""The data that runs are carried out on: looked at beforehand, and told from data replaced since.

A run id hashes options as they are given, a path among them, and so says nothing of what lies
there. A fingerprint of the data goes with the run instead: into its checkpoints, and into its row
of the `runs` table (column `data`). Nothing here loads JAX.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cflows_ray.checks import ConfigError
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.workloads import (
    DataUnavailable,
    check_data,
    data_fingerprint,
    describe,
    resolve_paths,
)


def key(workload: str, options: Mapping[str, Any]) -> str:
    """Return what runs on the same data have in common."""
    return json.dumps([workload, dict(options)], sort_keys=True)


def check_all_data(runs: Iterable[RunConfig]) -> None:
    """See that the data of all runs are on this machine and fit what is asked of them, each once.

    Raises `ConfigError` in one line.
    """
    seen = set()
    for run in runs:
        asked = (run.criterion, key(run.workload, run.workload_options))
        if asked in seen:
            continue
        seen.add(asked)
        try:
            check_data(run.workload, run.criterion, run.workload_options)
        except DataUnavailable as error:
            raise ConfigError(str(error)) from None


def absolute_options(runs: Iterable[RunConfig]) -> str:
    """Return options with absolute paths where those given are relative to this folder.

    As text (JSON, by `key`): Tune takes mappings apart.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        given = dict(run.workload_options)
        here = key(run.workload, given)
        if here not in found:
            found[here] = resolve_paths(run.workload, given)
    return json.dumps({k: options for k, options in found.items() if json.loads(k)[1] != options})


def with_absolute_paths(run: RunConfig, absolute: str) -> RunConfig:
    """Return a run as a process in another folder can open it: of `absolute_options`."""
    options = json.loads(absolute).get(key(run.workload, run.workload_options))
    return run if options is None else replace(run, workload_options=options)


def fingerprint(run: RunConfig) -> str | None:
    """Return the fingerprint of a run's data; None where there are none."""
    return data_fingerprint(run.workload, run.workload_options)


def replaced(
    rows: Mapping[str, Mapping[str, Any]], runs: Iterable[RunConfig]
) -> dict[str, tuple[str, str]]:
    """Return the ended runs whose data have been replaced: recorded and present fingerprint.

    Args:
        rows: `runs` rows by run id, with the columns `workload`, `workload_options` and `data`;
            those that recorded nothing (made before there were fingerprints) can't be told.
        runs: whose data are looked at; a row on other ones is left out, and so is one whose data
            are not on this machine.
    """
    recorded: dict[str, list[tuple[str, str]]] = {}
    for run_id, row in rows.items():
        if row.get("data"):
            options = json.loads(row["workload_options"])
            recorded.setdefault(key(row["workload"], options), []).append((run_id, row["data"]))
    now: dict[str, str | None] = {}
    for run in runs if recorded else ():
        here = key(run.workload, run.workload_options)
        if here in recorded and here not in now:
            try:
                now[here] = fingerprint(run)
            except DataUnavailable:
                now[here] = None  # runs that need them will say so
            except ValueError:
                now[here] = "none: they do not fit the workload any more"
    found = {}
    for here, present in now.items():
        for run_id, then in recorded[here]:
            if present is not None and present != then:
                found[run_id] = (then, present)
    return found


def in_words(rows: Mapping[str, Mapping[str, Any]], run_ids: Iterable[str]) -> str:
    """Name the data of some rows, each once."""
    kinds = {(rows[i]["workload"], rows[i]["workload_options"]) for i in run_ids}
    return ", ".join(sorted({describe(name, json.loads(text)) for name, text in kinds}))


def replaced_in_words(what: str, changed: Mapping[str, tuple[str, str]], named: str) -> str:
    """Say how many of something were of data `replaced` since, which data, and how these differ."""
    n = len(changed)
    told = f"{n} {what}{'s were' if n > 1 else ' was'} of data replaced since"
    pairs = sorted(set(changed.values()))[:3]
    prints = ", ".join(f"fingerprint {then}, now {now}" for then, now in pairs)
    return f"{told} ({'; '.join(filter(None, [named, prints]))})"
