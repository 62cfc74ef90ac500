"""sweep.json: a sweep as it was last launched, in a form that stays small for many runs.

The runs of a sweep have most of their values in common. These are written once, under "same", and
of every run, a line each, only what differs from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cflows_ray.schema import SCHEMA_VERSION


class Runs(Mapping[str, dict[str, Any]]):
    """Configurations of runs by run id, put together when they are asked for.

    Example:
        >>> runs = Runs({"rule": "rmsprop"}, {"a5": {"lr": 0.1}})
        >>> runs["a5"]
        {'rule': 'rmsprop', 'lr': 0.1}
    """

    def __init__(self, same: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> None:
        self._same = same
        self._own = own

    def __getitem__(self, run_id: str) -> dict[str, Any]:
        return {**self._same, **self._own[run_id]}

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


def dump_sweep(record: Mapping[str, Any]) -> str:
    """Return the text of sweep.json.

    Args:
        record: plain JSON values; `runs` holds configurations by run id.
    """
    head = {"schema": SCHEMA_VERSION, **record}
    runs = head.pop("runs", {})
    same = _in_common(runs)
    head["same"] = same
    text = json.dumps(head, indent=1, sort_keys=True).removesuffix("\n}")
    lines = []
    for run_id, values in runs.items():
        own = {k: v for k, v in values.items() if k not in same}
        lines.append(f"  {json.dumps(run_id)}: {json.dumps(own, sort_keys=True)}")
    inside = ",\n".join(lines)
    return f'{text},\n "runs": {{\n{inside}\n }}\n}}\n'


def load_sweep(text: str | bytes) -> dict[str, Any]:
    """Return what `dump_sweep` has written, or a version that knew no "same"."""
    record: dict[str, Any] = json.loads(text)
    record["runs"] = Runs(record.pop("same", {}), record.get("runs", {}))
    return record


def _in_common(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values that all runs have."""
    rest = iter(runs.values())
    same = dict(next(rest, {}))
    for values in rest:
        different = [k for k, v in same.items() if k not in values or values[k] != v]
        for name in different:
            del same[name]
    return same
