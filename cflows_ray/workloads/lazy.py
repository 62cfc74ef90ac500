"""Modules that are imported when something in them is first used.

A driver reads the options of data sets and networks, which stand beside code that computes with
JAX; it must not load JAX for that.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    """A stand-in for a module that is imported at the first access to an attribute."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy_module(name: str) -> Any:
    """Return a stand-in for a module, to be called where `TYPE_CHECKING` is false.

    Example:
        >>> import sys
        >>> calendar = lazy_module("calendar")
        >>> calendar.isleap(2028)
        True
    """
    return _Lazy(name)
