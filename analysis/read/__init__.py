"""Tables in: a results folder opened, filtered and streamed, with what its columns declare.

Hands out `load` and `Results`, its `StepReader`, a run's `Trace`, and names: `CONFIGURATION`
(columns of old files that configure a run), `MAIN_FLOW` and `REFERENCE_FLOW` (whose accuracy is
asked for, and against what) and `ENDED` (statuses of a process that ended early); as types,
`Source` (what can be opened), `Floats` and `Rows` (what `common_steps` finds).
"""

from analysis.read.declared import (
    CONFIGURATION,
    MAIN_FLOW,
    REFERENCE_FLOW,
    configuration_of,
    declare_like,
    declared_processes,
    hyperparameters_of,
    processes_of,
    references,
    without_attrs,
)
from analysis.read.folders import BadFileError, ResultsError, is_part
from analysis.read.loading import Source, load, opened
from analysis.read.results import Results
from analysis.read.steps import StepReader, check_columns
from analysis.read.trace import (
    ENDED,
    Floats,
    Rows,
    Trace,
    common_steps,
    run_trace,
    traces_from_table,
)

__all__ = [
    "CONFIGURATION",
    "ENDED",
    "MAIN_FLOW",
    "REFERENCE_FLOW",
    "BadFileError",
    "Floats",
    "Results",
    "ResultsError",
    "Rows",
    "Source",
    "StepReader",
    "Trace",
    "check_columns",
    "common_steps",
    "configuration_of",
    "declare_like",
    "declared_processes",
    "hyperparameters_of",
    "is_part",
    "load",
    "opened",
    "processes_of",
    "references",
    "run_trace",
    "traces_from_table",
    "without_attrs",
]
