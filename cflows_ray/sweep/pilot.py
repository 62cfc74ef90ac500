"""Pilots: at which learning rate an optimizer reaches the edge of stability in a number of steps.

A pilot is the optimizer alone, from seed 0, at a handful of learning rates: brackets by factors of
`BRACKET`, then bisection of the logarithm. Its record, `pilots/ID.json` in the sweep's folder, says
what was tried and found. A launch makes the pilots it lacks before it plans the runs that depend on
them; the same study launched again finds their records, and so the same runs.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cflows_ray.checks import ConfigError
from cflows_ray.declare import declared
from cflows_ray.rules import RULES, AveragedRule
from cflows_ray.store import Storage
from cflows_ray.sweep.data import fingerprint, in_words, replaced, replaced_in_words
from cflows_ray.sweep.provenance import device, versions
from cflows_ray.sweep.run_config import RunConfig
from cflows_ray.sweep.session import in_one_line

FIRST_RATE = 0.01
BRACKET = 4.0
MOST_BRACKETS = 14  # rates from 4e-11 to 3e6
BISECTIONS = 5  # to 4^(1/32): 4.4%
EDGE = 2.0
CHUNK = 20  # optimizer steps between two looks
SEED = 0


@dataclass(frozen=True)
class Pilot:
    """A search for the edge.

    Attributes:
        run: the optimizer; its learning rate does not count.

    Raises `ConfigError` for a rule whose edge is not known.
    """

    run: RunConfig

    def __post_init__(self) -> None:
        if not issubclass(RULES[self.run.rule], AveragedRule):
            raise ConfigError(
                f"lrs must be numbers for {self.run.rule}, which says nothing of its edge, "
                "got AroundEdge"
            )

    def to_json(self) -> dict[str, Any]:
        """Return what decides the outcome, as plain JSON values.

        Like a run's id, without hyperparameters at the value that they had before they existed.
        """
        names = ("workload", "criterion", "rule", "schedule", "warmup", "steps", "dtype")
        values = {name: getattr(self.run, name) for name in names}
        options = dict(self.run.workload_options)
        known = declared(RULES[self.run.rule])
        hyper = {n: v for n, v in self.run.hyper.items() if v != known[n].absent}
        return {**values, **hyper, "workload_options": options}

    @property
    def pilot_id(self) -> str:
        """Hash of what decides the outcome: 16 hexadecimal digits."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        words = str(self.run).split()
        return " ".join(w for w in words if not w.startswith(("lr=", "seed=")))


class Found(NamedTuple):
    """What a search found: the least rate that reached the edge, if any, and all that was tried.

    `trials` has rates in the order of trying, each with the step at which the edge was reached.
    """

    lr: float | None
    trials: list[tuple[float, int | None]]


def find_edge(reached: Callable[[float], int | None]) -> Found:
    """Search the least learning rate that reaches the edge.

    Args:
        reached: returns the step at which a rate first reaches the edge, None if it does not.

    Example:
        >>> find_edge(lambda lr: 7 if lr > 0.3 else None).lr
        0.3064
    """
    trials: list[tuple[float, int | None]] = []

    def reaches(lr: float) -> bool:
        trials.append((lr, reached(lr)))
        return trials[-1][1] is not None

    lr, before = FIRST_RATE, reaches(FIRST_RATE)
    for _ in range(MOST_BRACKETS):
        following = _rounded(lr / BRACKET if before else lr * BRACKET)
        if reaches(following) != before:
            low, high = sorted((lr, following))
            break
        lr = following
    else:
        return Found(None, trials)
    for _ in range(BISECTIONS):
        middle = _rounded(math.sqrt(low * high))
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return Found(high, trials)


def _rounded(lr: float) -> float:
    """Return a rate to four digits: more mean nothing here, and are awkward to read."""
    return float(f"{lr:.4g}")


def edge_step(pilot: Pilot) -> Callable[[float], int | None]:
    """Return what runs the optimizer at a learning rate until it is at the edge, or for all steps.

    Loads JAX. A run that diverges has passed the edge.
    """
    from dataclasses import replace

    from cflows_ray.paired import PairedOptions, PairedRun
    from cflows_ray.workloads import build_workload

    config = pilot.run
    workload = build_workload(config.workload, config.criterion, **config.workload_options)
    params = workload.init(SEED)
    options = PairedOptions(flows=(), dtype=config.dtype)

    def reached(lr: float) -> int | None:
        paired = PairedRun(workload.problem, replace(config, lr=lr).update_rule, options)
        state = paired.start(params, steps=config.steps, warmup=config.warmup, seed=SEED)
        while not paired.is_done(state):
            state, frame = paired.advance(state, CHUNK)
            beyond = frame.loc[frame["effective_sharpness"] >= EDGE, "step"]
            if len(beyond):
                return int(beyond.iloc[0])
        return paired.step(state) if paired.outcome(state)[0] == "diverged" else None

    return reached


def carry_out(
    pilot: Pilot,
    storage: Storage,
    *,
    commit: str | None = None,
    absolute: Pilot | None = None,
    search: Callable[[Pilot], Callable[[float], int | None]] = edge_step,
) -> None:
    """Make a pilot and write its record; loads JAX.

    What goes wrong in the computation is a status in the record; errors of storage are raised.

    Args:
        pilot: as the study says.
        storage: the sweep's folder.
        commit: commit of the code, for the record.
        absolute: the pilot with absolute paths, which are opened; `pilot` is recorded.
        search: makes what a learning rate is tried with.
    """
    begin = time.perf_counter()
    found, status, detail = Found(None, []), "failed", None
    try:
        found = find_edge(search(absolute or pilot))
        status = "found" if found.lr is not None else "no edge"
    except MemoryError:
        raise
    except Exception as error:
        detail = in_one_line(error)
    record = {
        "pilot": pilot.to_json(),
        "status": status,
        "detail": detail,
        "lr": found.lr,
        "trials": found.trials,
        "data": fingerprint((absolute or pilot).run) if status != "failed" else None,
        "wall_s": time.perf_counter() - begin,
        "device": device(),
        "versions": versions(),
        "commit": commit,
    }
    storage.write(_file(pilot), json.dumps(record, indent=1).encode())


def _file(pilot: Pilot) -> str:
    return f"pilots/{pilot.pilot_id}.json"


def recorded(pilots: Iterable[Pilot], storage: Storage) -> dict[str, dict[str, Any]]:
    """Return the records of those pilots that have been made, by pilot id."""
    there = set(storage.names("pilots"))
    return {
        pilot.pilot_id: json.loads(storage.read(_file(pilot)))
        for pilot in pilots
        if _file(pilot).removeprefix("pilots/") in there
    }


def edges(records: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the learning rates at the edge, by pilot id; None where there is none.

    A pilot that failed has not found out whether there is one: it is left out.
    """
    return {i: record["lr"] for i, record in records.items() if record["status"] != "failed"}


def of_replaced_data(
    pilots: Iterable[Pilot], records: Mapping[str, Mapping[str, Any]]
) -> tuple[frozenset[str], str]:
    """Return the ids of pilots whose data have been replaced since, and this in words."""
    rows = {
        pilot_id: {
            "workload": record["pilot"]["workload"],
            "workload_options": json.dumps(record["pilot"]["workload_options"]),
            "data": record["data"],
        }
        for pilot_id, record in records.items()
    }
    changed = replaced(rows, (pilot.run for pilot in pilots))
    return frozenset(changed), replaced_in_words("pilot", changed, in_words(rows, changed))
