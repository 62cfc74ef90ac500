"""Steps of many runs in one file: which runs, and the rows of one of them.

Runs that have ended may be folded: their rows, those of a run together, lie in a file
`steps/part-<hash>.parquet`, whose metadata list its runs. Small files become a few larger ones and
nothing else changes, so neither does any number. Whoever folds writes the part under a name that
begins with `_`, deletes what it replaces and then gives it its name. A reader who looks at single
files, then at parts on their way and in their place, therefore misses no row; one that it finds
twice it takes from the part, which is whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.read.folders import (
    OvertakenError,
    SweepFolder,
    exists,
    is_part,
    list_parquet,
    list_parts,
)

_RUN_IDS = b"cflows_ray.run_ids"
_THREADS = 8
_FOOTERS = 8  # kept: that of a full part of large runs is some megabytes


def with_folded_runs(sweep: SweepFolder, problems: Mapping[str, str]) -> SweepFolder:
    """Let `step_files` of a sweep name the part of every run that is in one that is not bad.

    Raises `OvertakenError` if a part has vanished since it was listed.
    """
    parts = [part for part in sweep.step_parts if part not in problems]
    files = sweep.step_files | _files_by_run(sweep.filesystem, parts)
    return replace(sweep, step_files=dict(sorted(files.items())))


def find_again(
    filesystem: fs.FileSystem, files: Sequence[str], run_id: str
) -> dict[str, tuple[str, ...]]:
    """Find the steps of a run whose files have vanished, because they were merged or folded.

    Returns the files of all runs that are now in parts of the same sweep, and of this run; it is
    missing if its files are gone.
    """
    folder = steps_folder(files)
    own = files[0].rpartition("/")[0]
    found: dict[str, tuple[str, ...]] = {}
    if own != folder and (merged := list_parquet(filesystem, own, recursive=False)):
        found[run_id] = tuple(merged)
    try:
        return found | _files_by_run(filesystem, list_parts(filesystem, folder))
    except OvertakenError:  # who asked looks again
        return {run_id: tuple(files)} | found


def steps_folder(files: Sequence[str]) -> str:
    """Return the folder `steps` of a sweep in which a run has these files.

    >>> steps_folder(["sweep/steps/aa/part-00000000.parquet"])
    'sweep/steps'
    """
    place = files[0].rpartition("/")[0]
    return place if is_part(files[0]) else place.rpartition("/")[0]


def _files_by_run(filesystem: fs.FileSystem, parts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Map the id of every run in the parts to its part; to the first, if it is in several."""
    with ThreadPoolExecutor(_THREADS) as pool:
        ids = list(pool.map(lambda part: run_ids(filesystem, part), parts))
    files: dict[str, tuple[str, ...]] = {}
    for part, its_runs in zip(parts, ids, strict=True):
        files = dict.fromkeys(its_runs, (part,)) | files
    return files


def run_ids(filesystem: fs.FileSystem, part: str) -> list[str]:
    """Return the ids of a part's runs. Raises `OvertakenError` if it has vanished."""
    try:
        with filesystem.open_input_file(part) as source, pq.ParquetFile(source) as file:
            listed = (file.metadata.metadata or {}).get(_RUN_IDS)
            if listed is not None:
                return [str(run_id) for run_id in json.loads(listed)]
            # rewritten by another tool
            return [str(i) for i in pc.unique(file.read(["run_id"])["run_id"]).to_pylist()]
    except OSError:
        if exists(filesystem, part):
            raise
        raise OvertakenError(part) from None


class Parts:
    """Reads single runs out of parts; keeps the footers of a few of these, and no rows."""

    def __init__(self, filesystem: fs.FileSystem, schema: pa.Schema) -> None:
        self._filesystem, self._schema = filesystem, schema
        self._open: dict[str, ds.ParquetFileFragment] = {}

    def read_run(
        self, part: str, run_id: str, columns: list[str], keep: pc.Expression | None
    ) -> pa.Table:
        """Read the rows of one run that meet `keep`, in their order; null in columns that lack.

        Only row groups that may have some are read, by the statistics of `run_id`.
        """
        mine = pc.field("run_id") == run_id
        return self._fragment(part).to_table(
            schema=self._schema, columns=columns, filter=mine if keep is None else mine & keep
        )

    def _fragment(self, part: str) -> ds.ParquetFileFragment:
        fragment = self._open.pop(part, None)
        if fragment is None:
            fragment = ds.ParquetFileFormat().make_fragment(part, self._filesystem)
            fragment.ensure_complete_metadata()
        self._open[part] = fragment  # the last one used is the last to go
        if len(self._open) > _FOOTERS:
            del self._open[next(iter(self._open))]
        return fragment


def count_rows(filesystem: fs.FileSystem, file: str, run_id: str) -> int:
    """Count the rows of a run's steps in one of its files, or in a part that has them."""
    if is_part(file):
        fragment = ds.ParquetFileFormat().make_fragment(file, filesystem)
        return int(fragment.count_rows(filter=pc.field("run_id") == run_id))
    with filesystem.open_input_file(file) as source:
        return int(pq.read_metadata(source).num_rows)
