"""Folds the small files of ended runs into larger ones, which any Parquet reader opens as they are.

    <sweep>/runs/part-<hash>.parquet       rows of many runs
    <sweep>/steps/part-<hash>.parquet      rows of many runs, those of a run together
    <sweep>/<table>/_part-<hash>.folding   the same before it has its name: no reader looks at it

The hash is that of the file's bytes, so a name never stands for two contents. A part lists its
runs, in order, in its own metadata (`cflows_ray.run_ids`), and it takes its place in three moves:

    write it under the ignored name -> delete what it supersedes -> give it its name

A process killed between two of them leaves all that is needed to go on (`finish_interrupted`);
doing a move again does no harm. A reader in the middle sees every row once or, for an instant, not
at all: what is superseded is gone before the part appears. The steps of a run are folded before
its row, so a run whose row is in a part has its steps in one.

Only the driver that holds the sweep's lock may call what changes anything here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from cflows_ray.store.parquet import DAMAGE, conform, facts_of, from_bytes, is_table, to_bytes
from cflows_ray.store.storage import Storage, StorageError

Table = Literal["runs", "steps"]
TABLES: tuple[Table, ...] = ("steps", "runs")  # in the order in which they are folded

FIRST_PART = "part-00000000.parquet"
PART = re.compile(r"part-([0-9a-f]{16})\.parquet")
PENDING = re.compile(r"_part-([0-9a-f]{16})\.folding")
RUN_IDS, REPLACES = "cflows_ray.run_ids", "cflows_ray.replaces"

# A part is as large as one of these allows: 100,000 small runs are 200 files for each table, and
# a reader or the driver can hold any part in memory.
RUNS_A_PART = 500
BYTES_A_PART = 2**26
# So few single files are left as they are at the end of a launch: small studies stay one file a
# run, and a folder never holds more than about so many besides its parts.
FEW = 50


def fold(
    storage: Storage, *, at_end: bool = False, go_on: Callable[[], bool] = lambda: True
) -> int:
    """Fold the files of ended runs; return how many runs' rows have found their part.

    Args:
        storage: the sweep's folder.
        at_end: fold all there is, with parts that are less than half full, unless it is no more
            than `FEW` runs; else only as many runs as make full parts.
        go_on: asked before every part.

    May be cut short at any moment and called again. A file that can't be read stays as it is.
    """
    finish_interrupted(storage)
    ended = sorted(_singles(storage, "runs"))
    if not at_end:
        ended = ended[: len(ended) - len(ended) % RUNS_A_PART]
    if len(ended) <= (FEW if at_end else 0):
        return 0
    whole = _readable(storage, ended)
    for table in TABLES:
        sizes = {i: size for i, size in _singles(storage, table).items() if i in whole}
        loose = _loose_parts(storage, table) if at_end else {}
        for singles, replaced in _shares(sizes, loose):
            if not go_on():
                return 0
            whole -= _fold_share(storage, table, singles, replaced)
    return len(whole)


def finish_interrupted(storage: Storage) -> None:
    """Finish what a fold that was cut short has begun."""
    for table in TABLES:
        for name in storage.names(table):
            if name.startswith("__part-"):  # half written, under the name that comes before
                storage.delete(f"{table}/{name}")
            if match := PENDING.fullmatch(name):
                facts = _facts(storage, table, name)
                replaced = json.loads(facts.get(REPLACES, "[]"))
                _settle(storage, table, match[1], json.loads(facts[RUN_IDS]), replaced)


def forget(storage: Storage, gone: Collection[str], tables: Sequence[Table] = TABLES) -> None:
    """Delete the rows of runs from all parts that have some; single files are left alone.

    The steps go first: a run whose row is still there is forgotten again by whoever asked for it.
    """
    for table in tables:
        for part in _parts(storage, table):
            ids = run_ids(storage, table, part)
            kept = [i for i in ids if i not in gone]
            if len(kept) == len(ids):
                continue
            if not kept:
                storage.delete(f"{table}/{part}")
                continue
            rows = read_part(storage, table, part)
            mask = pc.is_in(rows["run_id"], pa.array(sorted(gone), pa.string()))
            _put(storage, table, [rows.filter(pc.invert(mask))], kept, [part])


def sweep_up(storage: Storage) -> None:
    """Delete what no table should have beside its parts.

    That is what a process cut off from its driver has written, late, to runs that are folded, and
    folded steps of runs that have no row (it could not be read and was deleted by hand, say).
    """
    finish_interrupted(storage)
    folded = {table: folded_runs(storage, table) for table in TABLES}
    for table in TABLES:
        _delete_singles(storage, table, folded[table] & set(_singles(storage, table)))
    forget(storage, folded["steps"] - folded["runs"] - set(_singles(storage, "runs")), ["steps"])


# Looking ----------------------------------------------------------------------------------------


def folded_runs(storage: Storage, table: Table) -> set[str]:
    """Return the ids of all runs that parts hold."""
    parts = _parts(storage, table)
    return {i for part in parts for i in run_ids(storage, table, part)}


def find(storage: Storage, table: Table, run_id: str) -> str | None:
    """Return the name of the part that holds a run, if there is one, also in the middle of a fold.

    Looks in the order in which a part moves, and twice for its last name: a list that is made
    while a file is renamed may have neither of its names.
    """
    seen: set[str] = set()
    for _ in range(2):
        names = [n for n in storage.names(table) if n not in seen]
        names = [*filter(PART.fullmatch, names), *filter(PENDING.fullmatch, names)]
        seen.update(names)

        def has_it(name: str) -> bool:
            try:
                return run_id in run_ids(storage, table, name)
            except FileNotFoundError:  # it has its last name by now, or was folded again
                return False

        for name, answer in zip(names, _each(storage, has_it, names), strict=True):
            if answer:
                return name
    return None


def run_ids(storage: Storage, table: Table, name: str) -> tuple[str, ...]:
    """Return the ids of a part's runs, in the order of its rows; read once a process.

    Raises `FileNotFoundError` if there is no such part, `StorageError` if it can't be read.
    """
    key = (storage.location, table, _hash(name))
    if key not in _KNOWN:
        facts = _facts(storage, table, name)
        if RUN_IDS in facts:
            _KNOWN[key] = tuple(json.loads(facts[RUN_IDS]))
        else:  # rewritten by another tool
            rows = read_part(storage, table, name, ["run_id"])
            _KNOWN[key] = tuple(pc.unique(rows["run_id"]).to_pylist())
    return _KNOWN[key]


def _hash(name: str) -> str:
    """Return the hash in the name of a part, whether it has its last name or not."""
    match = PART.fullmatch(name) or PENDING.fullmatch(name)
    if match is None:
        raise ValueError(f"name must be that of a part, got {name!r}")
    return match[1]


# Runs of every part that this process has met; a part never changes.
_KNOWN: dict[tuple[str, str, str], tuple[str, ...]] = {}


def read_part(
    storage: Storage, table: Table, name: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """Return a part's rows.

    Raises `FileNotFoundError` if there is no such part, `StorageError` if it can't be read.
    """
    data = storage.read(f"{table}/{name}")
    try:
        return from_bytes(data, columns)
    except DAMAGE as error:
        raise _unreadable(storage, table, name, error) from error


def _unreadable(storage: Storage, table: Table, name: str, error: Exception) -> StorageError:
    reason = " ".join(str(error).split())
    return StorageError(
        f"cannot read {storage.location}/{table}/{name}: {reason}; put a copy in its place, or "
        "delete it to compute its runs again",
        lasting=True,
    )


def _facts(storage: Storage, table: Table, name: str) -> dict[str, str]:
    try:
        with storage.opened(f"{table}/{name}") as file:
            return facts_of(file)
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        cause = error.__cause__ if isinstance(error, StorageError) else error
        if isinstance(cause, ValueError):
            raise _unreadable(storage, table, name, cause) from error
        raise


def _parts(storage: Storage, table: Table) -> list[str]:
    return [name for name in storage.names(table) if PART.fullmatch(name)]


def _singles(storage: Storage, table: Table) -> dict[str, int]:
    """Return size in bytes of every run's own rows in a table."""
    if table == "runs":
        files = {n: s for n, s in storage.sizes("runs").items() if is_table(n)}
        return {n.removesuffix(".parquet"): s for n, s in files.items() if not PART.fullmatch(n)}
    sizes: dict[str, int] = {}
    for path, size in storage.sizes("steps", recursive=True).items():
        run_id, slash, _ = path.partition("/")
        if slash and is_table(path):
            sizes[run_id] = sizes.get(run_id, 0) + size
    return sizes


def _single(table: Table, run_id: str) -> str:
    return f"runs/{run_id}.parquet" if table == "runs" else f"steps/{run_id}/{FIRST_PART}"


# Folding ----------------------------------------------------------------------------------------


def _readable(storage: Storage, ended: Sequence[str]) -> set[str]:
    """Return those of the ended runs whose files can be read, so far as they are there.

    Footers only: pages are checked when they are read.
    """
    steps = _singles(storage, "steps")

    def is_readable(run_id: str) -> bool:
        try:
            for table in TABLES:
                if table == "runs" or run_id in steps:
                    with storage.opened(_single(table, run_id)) as file:
                        facts_of(file)
        except OSError:  # damaged, gone, or not to be reached just now: another time
            return False
        return True

    answers = _each(storage, is_readable, ended)
    return {run_id for run_id, answer in zip(ended, answers, strict=True) if answer}


def _loose_parts(storage: Storage, table: Table) -> dict[str, tuple[int, int]]:
    """Return size in bytes and number of runs of parts that have room for more."""
    sizes = {n: s for n, s in storage.sizes(table).items() if PART.fullmatch(n)}
    small = [n for n, size in sizes.items() if size < BYTES_A_PART // 2]
    counts = {n: len(run_ids(storage, table, n)) for n in small}
    return {n: (sizes[n], count) for n, count in counts.items() if count < RUNS_A_PART}


def _shares(
    singles: Mapping[str, int], loose: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[list[str], list[str]]]:
    """Share files out to parts: run ids with files of their own, and parts to be folded again.

    Leaves alone a part that would only be copied.
    """
    ids: list[str] = []
    replaced: list[str] = []
    size = runs = 0
    for name in (*sorted(loose), *sorted(singles)):
        more_bytes, more_runs = loose[name] if name in loose else (singles[name], 1)
        if runs and (size + more_bytes > BYTES_A_PART or runs + more_runs > RUNS_A_PART):
            if ids or len(replaced) > 1:
                yield ids, replaced
            ids, replaced, size, runs = [], [], 0, 0
        (replaced if name in loose else ids).append(name)
        size, runs = size + more_bytes, runs + more_runs
    if ids or len(replaced) > 1:
        yield ids, replaced


def _fold_share(
    storage: Storage, table: Table, singles: Sequence[str], replaced: Sequence[str]
) -> set[str]:
    """Fold some runs' own files and some parts into one part; return ids of damaged runs.

    These stay as they are, row and steps, where a person looks for them.
    """

    def read(run_id: str) -> pa.Table | None:
        data = storage.read(_single(table, run_id))
        try:
            return from_bytes(data)
        except DAMAGE:
            return None

    found = dict(zip(singles, _each(storage, read, singles), strict=True))
    ids = [i for part in replaced for i in run_ids(storage, table, part)]
    ids += [run_id for run_id, rows in found.items() if rows is not None]
    tables = [read_part(storage, table, part) for part in replaced]
    tables += [rows for rows in found.values() if rows is not None]
    if tables:
        _put(storage, table, tables, ids, replaced)
    return {run_id for run_id, rows in found.items() if rows is None}


def _put(
    storage: Storage,
    table: Table,
    tables: Sequence[pa.Table],
    ids: Sequence[str],
    replaced: Sequence[str],
) -> None:
    """Write a part of these rows, in the place of the files that hold them now."""
    conformed, schema = conform(tables, table)
    facts = {RUN_IDS: json.dumps(ids), REPLACES: json.dumps(replaced)}
    data = to_bytes(conformed, schema, facts)
    name = hashlib.sha256(data).hexdigest()[:16]
    storage.write(f"{table}/_part-{name}.folding", data)
    _settle(storage, table, name, ids, replaced)


def _settle(
    storage: Storage, table: Table, name: str, ids: Iterable[str], replaced: Iterable[str]
) -> None:
    """Delete what a written part supersedes, then give it its name."""
    _delete_singles(storage, table, set(ids) & set(_singles(storage, table)))
    for part in replaced:
        storage.delete(f"{table}/{part}")
    storage.move(f"{table}/_part-{name}.folding", f"{table}/part-{name}.parquet")


def _delete_singles(storage: Storage, table: Table, ids: Iterable[str]) -> None:
    def delete(run_id: str) -> None:
        if table == "runs":
            storage.delete(f"runs/{run_id}.parquet")
        else:
            storage.delete_folder(f"steps/{run_id}")

    _each(storage, delete, sorted(ids))


def _each(storage: Storage, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Call a function on every item, on an object store many at a time."""
    if storage.is_local:
        return [function(item) for item in items]
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(function, items))
