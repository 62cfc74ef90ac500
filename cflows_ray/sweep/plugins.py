"""What a study's own process has registered, on its way to the processes that carry out its runs.

Entry points need none of this: they are found wherever their package is installed. What a study's
file, a notebook or a module beside them has given to `register` is unknown to a worker, and so may
be the module that it is from; such code travels as it is (`is_elsewhere` says which).
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from cflows_ray.checks import ConfigError
from cflows_ray.flows import FLOWS
from cflows_ray.registry import Registry
from cflows_ray.rules import RULES
from cflows_ray.workloads import DATA, NETWORKS, WORKLOADS

REGISTRIES: dict[str, Registry[Any]] = {
    "rules": RULES,
    "flows": FLOWS,
    "workloads": WORKLOADS,
    "data": DATA,
    "networks": NETWORKS,
}

# Installed with this package, though perhaps from a checkout.
_OURS = ("cflows_ray", "analysis")


def pickled(cloudpickle: Any) -> bytes:
    """Return what was registered in this process, code that workers can't import included.

    Empty if nothing was. Raises `ConfigError` for what can't be pickled.

    Args:
        cloudpickle: the module that workers unpickle with.
    """
    found = registered()
    if not found:
        return b""
    known = cloudpickle.list_registry_pickle_by_value()
    own = [module for module in modules_of_ones_own() if module.__name__ not in known]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(found))
    except Exception as error:
        names = [name for additions in found.values() for name in additions]
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"plug-ins must be what can be pickled, got {names}: {why}") from error
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def add_pickled(data: bytes, cloudpickle: Any) -> None:
    """Register what `pickled` returned in another process."""
    for kind, additions in (cloudpickle.loads(data) if data else {}).items():
        REGISTRIES[kind].add(additions)


def registered() -> dict[str, dict[str, Any]]:
    """Return what was registered in this process, by kind and name; empty for nothing.

    A target "module:attribute" is replaced by what it leads to where workers can't be expected to
    have the module.
    """
    found: dict[str, dict[str, Any]] = {}
    for kind, registry in REGISTRIES.items():
        for name, target in registry.additions().items():
            if isinstance(target, str) and _must_travel(target):
                target = registry[name]
            found.setdefault(kind, {})[name] = target
    return found


def modules_of_ones_own() -> Iterator[ModuleType]:
    """Yield the loaded modules that are not installed, so that workers can't import them."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name != "__main__" and isinstance(file, str) and is_elsewhere(name, file):
            yield module


def is_elsewhere(name: str, file: str) -> bool:
    """Say whether a module is from a place that only this machine may have.

    Args:
        name: of the module.
        file: that it was loaded from.

    Example:
        >>> import json
        >>> is_elsewhere("json", json.__file__), is_elsewhere("my_rule", "/home/me/my_rule.py")
        (False, True)
    """
    if name.partition(".")[0] in _OURS:
        return False
    here = os.path.realpath(file)
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(here.startswith(os.path.realpath(place) + os.sep) for place in places if place)


def _must_travel(target: str) -> bool:
    name = target.partition(":")[0]
    if name == "__main__":
        return True
    spec = importlib.util.find_spec(name)
    return spec is not None and bool(spec.origin) and is_elsewhere(name, str(spec.origin))
