"""A data set and a network, joined under a criterion into the problem that is trained.

A network is an `apply(params, inputs) -> outputs`; a data set is a pair of arrays. The loss is the
mean of the criterion over all examples (for sequences: over all predicted positions of all
examples).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cflows_ray.checks import one_of
from cflows_ray.lazy import LazyModule
from cflows_ray.registry import Registry
from cflows_ray.workloads.base import (
    DataSet,
    DataSource,
    Network,
    NetworkKind,
    Recipe,
    Workload,
    as_mapping,
    defaults_of,
)
from cflows_ray.workloads.compatibility import (
    arrays_of,
    as_taken_by,
    check_meeting,
    is_classification,
)
from cflows_ray.workloads.criteria import CRITERIA, correct
from cflows_ray.workloads.ghost_batch import mean_over_examples
from cflows_ray.workloads.options import CommonOptions, resolve

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from jaxtyping import Array, PyTree
else:
    jax, jnp = LazyModule("jax"), LazyModule("jax.numpy")

SCALES = ("paper", "cpu")

_DATA, _NETWORKS = "cflows_ray.workloads.data", "cflows_ray.workloads.networks"
DATA: Registry[DataSource] = Registry(
    "data set",
    "cflows_ray.data",
    {
        "cifar10": f"{_DATA}.cifar10:CIFAR10",
        "digits": f"{_DATA}.digits:DIGITS",
        "npz": f"{_DATA}.npz:NPZ",
        "sorting": f"{_DATA}.sorting:SORTING",
    },
)
NETWORKS: Registry[NetworkKind] = Registry(
    "network",
    "cflows_ray.networks",
    {
        "mlp": f"{_NETWORKS}.mlp:MLP",
        "cnn": f"{_NETWORKS}.cnn:CNN",
        "resnet": f"{_NETWORKS}.resnet:RESNET",
        "vit": f"{_NETWORKS}.vit:VIT",
        "lstm": f"{_NETWORKS}.lstm:LSTM",
        "transformer": f"{_NETWORKS}.transformer:TRANSFORMER",
        "mamba": f"{_NETWORKS}.mamba:MAMBA",
    },
)


@dataclass(frozen=True)
class NetworkChoice:
    """Which network to train, where the workload leaves it open."""

    network: str = "mlp"

    def __post_init__(self) -> None:
        one_of("network", self.network, NETWORKS)


@dataclass(frozen=True, eq=False)
class Supervised(Recipe):
    """A network on a data set.

    Attributes:
        summary: one line for people.
        data: the data set, or its name in `DATA`.
        network: the network, or its name in `NETWORKS`; None leaves it to the option `network`.
        defaults: options in which the workload differs from the classes' defaults.
        cpu: options of `scale="cpu"`; None where the workload has only one scale.
    """

    summary: str
    data: DataSource | str
    network: NetworkKind | str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    cpu: Mapping[str, Any] | None = None

    @property
    def source(self) -> DataSource:
        """The data set."""
        return DATA[self.data] if isinstance(self.data, str) else self.data

    def kind(self, *options: Any) -> NetworkKind:
        """Return the network: the workload's, or where it leaves that open, the chosen one."""
        chosen = (part.network for part in options if isinstance(part, NetworkChoice))
        network = next(chosen) if self.network is None else self.network
        return NETWORKS[network] if isinstance(network, str) else network

    def resolve(self, name: str, options: Mapping[str, Any]) -> list[Any]:
        """Return options of the data set, the choice of a network, its options, common ones."""
        options, preset = dict(options), {}
        if self.cpu is not None:
            scale = options.pop("scale", "paper")
            one_of("scale", scale, SCALES)
            preset = dict(self.cpu) if scale == "cpu" else {}
        options = {**self.defaults, **preset, **options}
        choices: list[NetworkChoice] = []
        if self.network is None:
            choices = [NetworkChoice(**_only(options, "network"))]
        kind = self.kind(*choices)
        classes = (self.source.options, *map(type, choices), kind.options, CommonOptions)
        resolved = resolve(classes, options, name)
        if self.source.outline is not None:
            kind.check(resolved[-2], self.source.outline(resolved[0]))
        return resolved

    def default_options(self) -> dict[str, Any]:
        """Return the options with their defaults, `scale` first where there is one."""
        scale = {} if self.cpu is None else {"scale": SCALES[0]}
        choice = () if self.network is not None else (NetworkChoice,)
        kind = self.kind(NetworkChoice())
        classes = (self.source.options, *choice, kind.options, CommonOptions)
        return {**scale, **defaults_of(classes), **self.defaults}

    def fetch(self, *options: Any) -> None:
        """See that the data are on this machine, or raise `DataUnavailable`."""
        self.source.fetch(options[0])

    def files(self, *options: Any) -> Iterable[Path]:
        """Return the files of the data set."""
        return self.source.files(options[0])

    def paths(self, *options: Any) -> tuple[str, ...]:
        """Return the names of the data set's options that are paths."""
        del options
        return self.source.paths

    def describe(self, name: str, *options: Any) -> str:
        """Name the files that were given, and the network where it was chosen."""
        values = as_mapping(options)
        given = [Path(values[path]).name for path in self.source.paths if values[path]]
        files = f"({', '.join(given)})" if given else ""
        return f"{name}{files}" + (f"/{values['network']}" if self.network is None else "")

    def check_data(self, name: str, criterion: str, *options: Any) -> None:
        """Load the data and see that they fit network and criterion."""
        self._meet(name, criterion, *options)

    def arrays(self, name: str, *options: Any) -> Mapping[str, np.ndarray]:
        """Return the data as the network takes them."""
        data = self._meet(name, "mse", *options)
        sizes = np.array([data.num_outputs, data.vocab_size or 0], np.int64)
        return {**arrays_of(data), "sizes": sizes}

    def build(self, name: str, criterion: str, *options: Any) -> Workload:
        """Load the data and build the network."""
        data = self._meet(name, criterion, *options)
        network = self.kind(*options).build(options[-2], data)
        return join(name, criterion, data, network, options[-1])

    def _meet(self, name: str, criterion: str, *options: Any) -> DataSet:
        """Return the data as the network takes them; raises `ValueError` where it does not."""
        kind = self.kind(*options)
        data = as_taken_by(kind, load_once(self.source, options[0]))
        kind.check(options[-2], data)
        check_meeting(criterion, name, kind, data)
        return data


def _only(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one option, if it is given."""
    return {name: options[name]} if name in options else {}


def stamp(files: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """Return path, time and size of files that exist, so that a changed one is read anew."""
    stats = [(str(path.absolute()), path.stat()) for path in files if path.is_file()]
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)


def load_once(source: DataSource, options: Any) -> DataSet:
    """Load a data set; the same files and options give the same object."""
    return _load(source, options, stamp(source.files(options)))


@functools.lru_cache(maxsize=4)
def _load(source: DataSource, options: Any, key: tuple[Any, ...]) -> DataSet:
    del key
    return source.load(options)


def float_dtype(params: PyTree) -> jnp.dtype:
    """Return the floating-point type of the parameters; computing happens in it.

    Raises `ValueError` for parameters of several types.
    """
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
    if len(dtypes) != 1:
        raise ValueError(f"params must have one dtype, got {sorted(map(str, dtypes))}")
    return dtypes.pop()


def in_dtype_of(params: PyTree, x: Array) -> Array:
    """Cast inputs to the parameters' dtype; leave integer tokens alone."""
    x = jnp.asarray(x)
    return x.astype(float_dtype(params)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def join(
    name: str, criterion: str, data: DataSet, network: Network, common: CommonOptions
) -> Workload:
    """Join a data set and a network under a criterion.

    With `common.ghost_batch` the loss accumulates over slices.

    Example:
        >>> from cflows_ray.workloads import build_workload
        >>> workload = build_workload("digits_mlp", "cross_entropy")
        >>> float(workload.problem.loss(workload.init(0), workload.problem.data))  # log(10)
        2.3025...
    """
    from cflows_ray.curvature import standard_settings
    from cflows_ray.problem import Problem

    ours = standard_settings()  # networks are not written for strict promotion
    example_loss = CRITERIA[criterion]
    classes = is_classification(data.y)

    @ours
    def outputs(params: PyTree, x: Array) -> Array:
        found = network.apply(params, in_dtype_of(params, x))
        if found.shape[-1] != data.num_outputs:
            raise ValueError(f"network must have {data.num_outputs} outputs, got {found.shape[-1]}")
        return found

    def per_example(params: PyTree, batch: dict[str, Array]) -> Float[Array, " *n"]:
        return example_loss(outputs(params, batch["x"]), batch["y"])

    def per_example_correct(params: PyTree, batch: dict[str, Array]) -> Float[Array, " *n"]:
        found = outputs(params, batch["x"])
        return correct(found, batch["y"]).astype(found.dtype)

    has_test = data.x_test is not None and len(data.x_test) > 0
    probe = data.x_test if has_test else data.x
    assert probe is not None  # one of the two is an array
    problem = Problem(
        loss=ours(mean_over_examples(per_example, common.ghost_batch)),
        data={"x": data.x, "y": data.y},
        outputs=outputs,
        probe=probe[: common.num_probe],
        accuracy=(
            ours(mean_over_examples(per_example_correct, common.ghost_batch)) if classes else None
        ),
        test_data={"x": data.x_test, "y": data.y_test} if has_test else None,
    )
    return Workload(name=name, criterion=criterion, problem=problem, init=ours(network.init))
