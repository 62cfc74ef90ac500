"""Modules that are imported when they are first used.

What a driver reads (hyperparameters, options, names) stands in the same files as the numerics that
only workers run; so that reading it does not load JAX, those files take JAX from here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


class LazyModule:
    """Stands for a module until an attribute of it is asked for.

    Example:
        >>> LazyModule("math").floor(2.5)
        2
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)

    def __reduce__(self) -> Any:
        return LazyModule, (self._name,)  # so that plug-ins that hold one can go to workers


def lazy_names(package: str, homes: dict[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that takes names from where they live when first used.

    Args:
        package: name of the module, for its error message.
        homes: by public name, the module that defines it.

    Example:
        >>> lazy_names("toy", {"floor": "math"})("floor")(2.5)
        2
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return load
