"""Does a run fit on the cluster? Compares what is asked with what is there; knows no Ray.

Ray waits for ever for resources that no machine has, so a request that can't be met is refused
before anything is scheduled.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cflows_ray.checks import ConfigError
from cflows_ray.sweep.execution_settings import Execution

GIB = 1024**3
MAX_PACK = 64
NODE_NAMES = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}  # Ray's, by what a run asks for


# Ray's cluster launcher leaves its configuration on the head node, in a file that exists nowhere
# else.
BOOTSTRAP = "~/ray_bootstrap_config.yaml"


def cluster_address(execution: Execution) -> str | None:
    """Return the address of the cluster to use; None for a private one on this machine."""
    address = execution.address or os.environ.get("RAY_ADDRESS")
    if address is None and Path(BOOTSTRAP).expanduser().exists():
        return "auto"
    return address


def check_reachable(address: str) -> None:
    """Raise `ConfigError` if nothing answers at "host:port"; Ray itself would wait for minutes.

    Example:
        >>> check_reachable("auto")  # nothing to look up: Ray knows where
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"address must be that of a running Ray cluster, got {address!r}: {error}"
        ) from None


def autoscaling_nodes(bootstrap: Path | None = None) -> list[dict[str, float]]:
    """Return resources of all workers that a cluster may start; empty without autoscaling.

    One of each type first, then one more of each; where types share a limit, so far as it goes.
    """
    path = bootstrap or Path(BOOTSTRAP).expanduser()
    if not path.exists():
        return []
    import yaml

    cluster = yaml.safe_load(path.read_text())
    limit = int(cluster.get("max_workers", 2))  # Ray's own default
    types = cluster.get("available_node_types", {}).values()
    numbered = [
        (i, dict(node_type.get("resources", {})))
        for node_type in types
        for i in range(int(node_type.get("max_workers", limit)))
    ]
    numbered.sort(key=lambda pair: pair[0])
    num_types = sum(i == 0 for i, _ in numbered)
    return [resources for _, resources in numbered[: max(limit, num_types)]]


def resources_per_run(
    execution: Execution, nodes: Iterable[Mapping[str, float]]
) -> dict[str, float]:
    """Return what one run holds: a GPU if any node has one and nothing else was asked.

    Example:
        >>> resources_per_run(Execution(), [{"CPU": 8.0, "GPU": 1.0}])
        {'cpu': 1.0, 'gpu': 1.0}
    """
    gpus = execution.gpus_per_run
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) > 0 for node in nodes) else 0.0
    resources = {"cpu": float(execution.cpus_per_run)}
    if gpus:
        resources["gpu"] = float(gpus)
    if execution.memory_gb_per_run:
        resources["memory"] = execution.memory_gb_per_run * GIB
    return resources


def check_fits(resources: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> None:
    """Raise `ConfigError` if no node could ever hold one run.

    Example:
        >>> check_fits({"cpu": 1.0, "gpu": 1.0}, [{"CPU": 8.0, "GPU": 1.0}])
    """
    nodes = list(nodes)
    need = {NODE_NAMES[k]: v for k, v in resources.items() if v > 0}
    if any(all(node.get(k, 0) >= v for k, v in need.items()) for node in nodes):
        return
    there = sorted({_words(node) for node in nodes}) or ["no machine"]
    raise ConfigError(
        f"resources of a run must fit on one machine, got {_words(need)}; "
        f"there is: {'; '.join(there)}"
    )


def most_at_once(
    resources: Mapping[str, float],
    nodes: Iterable[Mapping[str, float]],
    to_come: Iterable[Mapping[str, float]] = (),
) -> int:
    """Return how many runs the nodes hold at the same time, or those that a cluster may grow to.

    Args:
        resources: of one run.
        nodes: resources of the nodes that are there.
        to_come: resources of all workers that the cluster may start, if it grows by itself.

    Example:
        >>> most_at_once({"cpu": 1.0, "gpu": 1.0}, [{"CPU": 0}], [{"CPU": 4, "GPU": 1}] * 8)
        8
    """

    def held(machines: Iterable[Mapping[str, float]]) -> int:
        total = 0
        for node in machines:
            fits = [node.get(NODE_NAMES[k], 0) / v for k, v in resources.items() if v > 0]
            total += int(min(fits) + 1e-9) if fits else 0
        return total

    return max(held(nodes), held(to_come))


def largest_pack(resources: Mapping[str, float], num_runs: int, at_once: int) -> int:
    """Return the most runs to give one process at a time, where nobody said.

    One without a GPU: a batched program gains nothing on a CPU. With one so many that every process
    gets a share; how many of them go into one program is then measured where the GPU is.

    Example:
        >>> largest_pack({"cpu": 1.0}, 100, 2), largest_pack({"cpu": 1.0, "gpu": 1.0}, 100, 4)
        (1, 25)
    """
    if not resources.get("gpu"):
        return 1
    return max(1, min(MAX_PACK, math.ceil(num_runs / at_once)))


def _words(node: Mapping[str, Any]) -> str:
    """Return a node's resources in words."""
    parts = [f"{node.get(name, 0):g} {name}" for name in ("CPU", "GPU")]
    if node.get("memory"):
        parts.append(f"{node['memory'] / GIB:.1f} GiB memory")
    return ", ".join(parts)


def in_words(resources: Mapping[str, float]) -> str:
    """Return what a run holds, in words.

    Example:
        >>> in_words({"cpu": 1.0, "gpu": 0.5})
        '1 CPU core, 0.5 GPU'
    """
    units = {"cpu": "CPU core", "gpu": "GPU", "memory": "GiB memory"}
    values = {k: v / GIB if k == "memory" else v for k, v in resources.items()}
    return ", ".join(f"{v:g} {units[k]}" for k, v in values.items())
