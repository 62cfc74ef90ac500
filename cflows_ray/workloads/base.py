"""What a workload is, and what a data set and a network must say to become one.

Nothing here loads JAX: a driver checks options, looks at data with NumPy, and leaves building to
the workers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cflows_ray.workloads.options import resolve

if TYPE_CHECKING:
    from jaxtyping import Array, PyTree

    from cflows_ray.problem import Problem

Apply = Callable[[Any, Any], "Array"]


class DataUnavailable(FileNotFoundError, RuntimeError):
    """Data are not on this machine and could not be fetched: not the fault of a run."""


@dataclass(frozen=True, eq=False)
class Workload:
    """A problem with its name, criterion and initial parameters.

    Attributes:
        name: name in the registry.
        criterion: "mse" or "cross_entropy".
        problem: the loss, its full batch of data, and what else can be measured.
        init: `init(seed) -> params`, float32, the same for the same seed.
    """

    name: str
    criterion: str
    problem: Problem
    init: Callable[[int], PyTree]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Arrays of a supervised task; n examples, n_test of them held out.

    Attributes:
        x: inputs (n, ...), float32 or integer tokens.
        y: targets: integer classes (n, ...) or float32 vectors (n, ..., c).
        x_test: inputs of the test set, or None.
        y_test: targets of the test set, or None.
        num_outputs: outputs c of a network for this task.
        vocab_size: number of different tokens, for token sequences.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray | None
    y_test: np.ndarray | None
    num_outputs: int
    vocab_size: int | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A network as two pure functions.

    Attributes:
        apply: `apply(params, x) -> outputs (n, ..., c)`, computed in the dtype of `params`.
        init: `init(seed) -> params` in float32.
    """

    apply: Apply
    init: Callable[[int], PyTree]


def nothing(options: Any) -> None:
    """Need nothing that is not already there."""
    del options


def no_files(options: Any) -> Iterable[Path]:
    """Read no files."""
    del options
    return ()


@dataclass(frozen=True, eq=False)
class DataSource:
    """A data set of the registry. Its functions take an instance of `options`.

    Attributes:
        name: its name, for messages.
        options: frozen dataclass of its options, which checks itself.
        load: `load(options) -> DataSet`, with NumPy only.
        fetch: see that the data are on this machine, or raise `DataUnavailable`.
        files: the files that `load` reads, so that a changed one is read anew.
        paths: names of options that are paths.
        outline: a data set without examples, of the right shapes, where these are known before
            loading: a network that does not fit is then refused without the files.
    """

    name: str
    options: type
    load: Callable[[Any], DataSet]
    fetch: Callable[[Any], None] = nothing
    files: Callable[[Any], Iterable[Path]] = no_files
    paths: tuple[str, ...] = ()
    outline: Callable[[Any], DataSet] | None = None


@dataclass(frozen=True, eq=False)
class NetworkKind:
    """A network of the registry. Its functions take an instance of `options` and a data set.

    Attributes:
        name: its name, for messages.
        options: frozen dataclass of its options, which checks itself.
        build: `build(options, data) -> Network`; the first that may load JAX.
        check: raise `ValueError` where the data do not fit, with NumPy only.
        tokens: whether inputs are integer tokens (n, t) and targets tokens (n, s) at the last s
            positions; otherwise inputs are numbers (n, ...) and outputs (n, c).
    """

    name: str
    options: type
    build: Callable[[Any, DataSet], Network]
    check: Callable[[Any, DataSet], None]
    tokens: bool = False


class Recipe(ABC):
    """What stands in the registry: how a workload is checked, found and built.

    A data set and a network are joined by `Supervised`. A workload of another kind derives from
    this class, in one file that imports JAX inside `build`, or when something there is used
    (`cflows_ray.lazy.LazyModule`):

        class Bowl(Recipe):
            summary = "a quadratic in two parameters"
            option_classes = (BowlOptions,)

            def build(self, name, criterion, options): ...

        WORKLOADS.register("bowl", Bowl())

    Attributes:
        summary: one line for people.
        option_classes: frozen dataclasses of its options, no field name used twice.
    """

    summary: str
    option_classes: ClassVar[Sequence[type]] = ()

    def resolve(self, name: str, options: Mapping[str, Any]) -> list[Any]:
        """Return checked instances of the option classes.

        Raises `ConfigError` for an unknown option or a value that is not allowed.
        """
        return resolve(self.option_classes, options, name)

    def default_options(self) -> dict[str, Any]:
        """Return the options with their defaults, for people; a default need not be allowed."""
        return defaults_of(self.option_classes)

    @abstractmethod
    def build(self, name: str, criterion: str, *options: Any) -> Workload:
        """Build the workload under its name, from what `resolve` returned."""

    def fetch(self, *options: Any) -> None:
        """See that data are on this machine, or raise `DataUnavailable`; no JAX."""
        del options

    def check_data(self, name: str, criterion: str, *options: Any) -> None:
        """Look at the data, with NumPy only; raise `ValueError` where they do not fit."""
        del name, criterion, options

    def arrays(self, name: str, *options: Any) -> Mapping[str, np.ndarray]:
        """Return the arrays that the loss will see, by name, with NumPy only; empty for none."""
        del name, options
        return {}

    def files(self, *options: Any) -> Iterable[Path]:
        """Return the files that building reads, so that a changed one is read anew."""
        del options
        return ()

    def paths(self, *options: Any) -> tuple[str, ...]:
        """Return the names of options that are paths."""
        del options
        return ()

    def describe(self, name: str, *options: Any) -> str:
        """Return a few words that tell this workload from others of the same name."""
        del options
        return name


def defaults_of(classes: Iterable[type]) -> dict[str, Any]:
    """Return the fields of several option classes with their defaults."""
    return {field.name: field.default for cls in classes for field in fields(cls)}


def as_mapping(resolved: Iterable[Any]) -> dict[str, Any]:
    """Return the fields of several instances of options as one mapping."""
    return {key: value for part in resolved for key, value in asdict(part).items()}


def check_images(network: str, data: DataSet) -> int:
    """Return the side of square images (n, side, side, channels); `ValueError` for other data."""
    shape = data.x.shape
    if data.vocab_size is not None or len(shape) != 4 or shape[1] != shape[2]:
        raise ValueError(
            f"network {network!r} needs x of shape (n, side, side, channels), got {shape}"
        )
    return int(shape[1])


def check_tokens(network: str, data: DataSet) -> tuple[int, int]:
    """Return vocabulary size and predicted positions; `ValueError` for data other than tokens."""
    x, y = data.x, data.y
    ok = data.vocab_size is not None and x.ndim == 2 and np.issubdtype(y.dtype, np.integer)
    if not ok or y.ndim != 2 or y.shape[1] > x.shape[1]:
        raise ValueError(
            f"network {network!r} needs integer x (n, tokens) and integer y (n, predicted) with "
            f"predicted <= tokens, got x {x.dtype} {x.shape} and y {y.dtype} {y.shape}"
        )
    assert data.vocab_size is not None
    return data.vocab_size, int(y.shape[1])
