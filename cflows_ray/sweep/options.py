"""The options of a study's command line: what they are, how they are read, what they change."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from cflows_ray.checks import ConfigError, one_of, require
from cflows_ray.declare import Declared, declared
from cflows_ray.flows import Settings
from cflows_ray.rules import RULES, hyperparameters
from cflows_ray.sweep.config import Grid, SweepConfig
from cflows_ray.sweep.run_config import SETTINGS
from cflows_ray.sweep.sampling import Distribution


def _as_study(metavar: str) -> Any:
    """Describe an option that, left out, is as the study says."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


_Numbers = Annotated[tuple[float, ...] | None, _as_study("NUMBER ...")]
_Integers = Annotated[tuple[int, ...] | None, _as_study("INTEGER ...")]
_Names = Annotated[tuple[str, ...] | None, _as_study("NAME ...")]
_Booleans = Annotated[tuple[bool, ...] | None, _as_study("TRUE|FALSE ...")]
_Number = Annotated[float | None, _as_study("NUMBER")]
_Integer = Annotated[int | None, _as_study("INTEGER")]
_Text = Annotated[str | None, _as_study("TEXT")]
_Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
# Options of declared fields: one value of a setting, several of a hyperparameter.
_ONE = {"number": _Number, "integer": _Integer, "text": _Text, "names": _Names}
_SEVERAL = {"number": _Numbers, "integer": _Integers, "text": _Names, "boolean": _Booleans}


@dataclass(frozen=True)
class Options:
    """What the command line can change. Whatever is left out is as the study says.

    `given` holds the hyperparameters and numerical settings that were given, by name.
    """

    given: Mapping[str, Any] = field(default_factory=dict)

    only: _Names = None
    """Keep the grids with these workloads, rules and criteria, so far as they are named."""
    lrs: _Numbers = None
    """Learning rates, instead of every grid's own."""
    samples: _Integer = None
    """Sampled points of every grid that samples; more of them keep those that there were."""
    seeds: _Integers = None
    """Seeds of the initial parameters."""
    steps: _Integer = None
    """Optimizer steps of every run."""
    warmup: _Integer = None
    """Optimizer steps before, until the flows start."""
    name: _Text = None
    """Name of the sweep: its folder in the storage."""

    storage: _Text = None
    """Folder or URI (s3://bucket/folder) for results and checkpoints."""
    workers: _Integer = None
    """Runs at the same time, at most."""
    pack: _Integer = None
    """Most runs of one kind in one batched program; one on CPUs, on GPUs as many as pay."""
    cpus: _Number = None
    """CPU cores for each run."""
    gpus: _Number = None
    """GPUs, or the fraction of one, for each run; one if there are any."""
    memory_gb: _Number = None
    """Memory for each run, in GiB."""
    chunk_steps: _Integer = None
    """Optimizer steps of a compiled chunk; progress is reported after each."""
    checkpoint_every: _Integer = None
    """Chunks between two checkpoints."""
    max_failures: _Integer = None
    """How often a run starts again after a lost process or machine; -1: for ever."""
    address: _Text = None
    """Ray cluster to use: auto, or HOST:PORT; a private one on this machine if there is none."""
    autoscaling: _Flag = False
    """Do not refuse a run that fits on no machine yet: the cluster grows by itself."""

    smoke_test: _Flag = False
    """A short trial of everything: a run per workload, criterion and rule, a few steps."""
    dry_run: _Flag = False
    """Say what would run, what is done and how long it may take; start nothing."""
    until_halfwidth: _Text = None
    """Then give more seeds to each cell until the confidence interval of the median distance of the
    central flow, relative to the stable flow's, is so narrow on either side (10%)."""
    budget: _Integer = None
    """Most runs that --until-halfwidth adds."""
    verbose: _Flag = False
    """With --dry-run: list every run that would be carried out."""
    retry_failed: _Flag = False
    """Try failed runs again, and failed pilots."""
    retry_changed: _Flag = False
    """Make those runs and pilots again whose data have been replaced since they ended."""
    accept_changed: _Flag = False
    """Leave those as they are, and go on with the data that there are now."""


def declared_options(sweep: SweepConfig) -> dict[str, tuple[Any, str]]:
    """Return type and help of the options for what the sweep's rules and the settings declare."""
    rules = {name: info for grid in sweep.grids for name, info in _of_rule(grid.rule).items()}
    several = {name: (_SEVERAL[info.kind], info.meaning) for name, info in rules.items()}
    one = {name: (_ONE[info.kind], info.meaning) for name, info in declared(Settings).items()}
    return {**several, **one}


def _of_rule(rule: str) -> dict[str, Declared]:
    one_of("rule", rule, RULES)
    return {name: info for name, info in hyperparameters(rule).items() if name != "lr"}


def _command_line(sweep: SweepConfig) -> type:
    """Return `Options` with the declared options beside its own, for tyro to read."""
    added = [
        (
            name,
            Annotated[kind, tyro.conf.arg(help=meaning[0].upper() + meaning[1:] + ".")],
            None,
        )
        for name, (kind, meaning) in declared_options(sweep).items()
    ]
    hidden = ("given", Annotated[Any, tyro.conf.Suppress], None)
    return make_dataclass("Options", [*added, hidden], bases=(Options,), frozen=True)


def parse(sweep: SweepConfig, arguments: list[str], about: str = "") -> Options:
    """Parse a command line; raises `ConfigError` in one line for a mistake."""
    if arguments[:1] == ["--"]:  # left over by `ray submit cluster.yaml study.py -- --flag`
        arguments = arguments[1:]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            found: Any = tyro.cli(
                tyro.conf.configure(tyro.conf.AvoidSubcommands)(_command_line(sweep)),
                args=arguments,
                prog=Path(sys.argv[0]).name if sys.argv[0] else sweep.name,
                description=f"{about} {_description(sweep)}".strip(),
            )
    except SystemExit as stop:
        if not stop.code:
            raise  # --help
        raise ConfigError(_one_line(complaint.getvalue(), _kinds(sweep))) from None
    values = {f.name: getattr(found, f.name) for f in fields(Options)}
    given = {name: getattr(found, name) for name in declared_options(sweep)}
    return Options(**{**values, "given": {k: v for k, v in given.items() if v is not None}})


def _one_line(box: str, kinds: Mapping[str, str]) -> str:
    """Return what tyro says in a box of several lines, in one line.

    `kinds` says in words what the values of each option must be.
    """
    text = " ".join(re.sub(r"[\u2500-\u257f]+", " ", box).split())
    value = re.search(r"Error parsing --([\w-]+): .*?(?:arguments:|from) (\[.*?\])", text)
    if value:
        kind = kinds.get(value[1].replace("-", "_"), "another value")
        return f"{value[1]} must be {kind}, got {value[2][1:-1]}"
    text = re.split(r"Argument helptext|For full helptext|─", text)[0].strip()
    missing = re.search(r"Missing value for argument '--([\w-]+)'", text)
    if missing:
        return f"{missing[1]} must be {kinds[missing[1].replace('-', '_')]}, got nothing"
    unknown = re.search(r"Unrecognized options: (.*?)(?: Perhaps you meant: (--[\w-]+).*)?$", text)
    if unknown:
        hint = f" (perhaps {unknown[2]}?)" if unknown[2] else ""
        return f"options must be among those that --help lists, got {unknown[1]}{hint}"
    return text or "the command line could not be understood; see --help"


def _kinds(sweep: SweepConfig) -> dict[str, str]:
    """Return what the values of each option must be, in words."""
    words: dict[Any, str] = {_Numbers: "numbers", _Integers: "integers", _Names: "names"}
    words |= {_Booleans: "True or False"}
    words = {kind: f"{word} with spaces between them" for kind, word in words.items()}
    words |= {_Number: "a number"}
    words |= {_Integer: "an integer", _Text: "a text"}
    kinds = get_type_hints(Options, include_extras=True)
    kinds |= {name: kind for name, (kind, _) in declared_options(sweep).items()}
    return {name: words.get(kind, "given without a value") for name, kind in kinds.items()}


def _description(sweep: SweepConfig) -> str:
    """Return what --help says about a study."""
    kinds = sorted({f"{g.workload} with {g.rule}" for g in sweep.grids})
    return (
        f"Sweep {sweep.name!r}: {len(sweep.runs)} runs ({', '.join(kinds)}; seeds "
        f"{', '.join(map(str, sweep.seeds))}; {sweep.steps} steps), results in "
        f"{sweep.execution.storage}/{sweep.name}. Launch the same command again to go on after any "
        "interruption: runs that have ended are skipped. An option left out is as the study says."
    )


def apply(sweep: SweepConfig, options: Options) -> SweepConfig:
    """Return the sweep with what the command line changes.

    Raises `ConfigError` for a value that is not allowed.
    """
    if options.only is not None:
        sweep = sweep.only(options.only)
    # What is given here holds for every grid, also for those that have a value of their own.
    lengths = {name: getattr(options, name) for name in ("seeds", "steps", "warmup")}
    shared = {name: value for name, value in lengths.items() if value is not None}
    shared |= {name: value for name, value in options.given.items() if name in SETTINGS}
    hyper = {name: value for name, value in options.given.items() if name not in SETTINGS}
    grids = tuple(_changed(grid, options.lrs, hyper, shared) for grid in sweep.grids)
    if options.samples is not None:
        sampled = any(grid.is_sampled for grid in grids)
        require(sampled, "samples", "left out where nothing is sampled", options.samples)
        grids = tuple(replace(g, samples=options.samples) if g.is_sampled else g for g in grids)
    names = {
        "storage": "storage",
        "workers": "workers",
        "pack": "pack",
        "cpus": "cpus_per_run",
        "gpus": "gpus_per_run",
        "memory_gb": "memory_gb_per_run",
        "chunk_steps": "chunk_steps",
        "checkpoint_every": "checkpoint_every",
        "max_failures": "max_failures",
        "address": "address",
    }
    execution: dict[str, Any] = {
        field: value for o, field in names.items() if (value := getattr(options, o)) is not None
    }
    if options.autoscaling:
        execution["autoscaling"] = True
    sweep = replace(
        sweep,
        name=options.name or sweep.name,
        grids=grids,
        execution=replace(sweep.execution, **execution),
        **shared,
    )
    return sweep.smoke() if options.smoke_test else sweep


def _changed(
    grid: Grid,
    lrs: tuple[float, ...] | None,
    hyper: Mapping[str, Any],
    shared: Iterable[str],
) -> Grid:
    """Return a grid with other hyperparameters, those that its rule has, and the sweep's settings.

    One that no grid's rule has does not come here: the options do not list it.
    """
    own = {name: value for name, value in hyper.items() if name in _of_rule(grid.rule)}
    more = {name: value for name, value in grid.more.items() if name not in shared}
    seeds = None if "seeds" in shared else grid.seeds
    more |= own
    rates = grid.lrs if lrs is None else lrs
    left = any(isinstance(value, Distribution) for value in (rates, *more.values()))
    samples = grid.samples if left else None
    return replace(grid, lrs=rates, seeds=seeds, samples=samples, more=more)
