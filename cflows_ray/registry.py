"""What every plug-in goes through: names of rules, flows, workloads and metrics, and their code.

A registry is a table of names and of where their code is ("module:attribute"). It imports nothing
before a name is used, so a driver can check names without loading JAX. Three ways lead into it:

- the package's own table, one line a plug-in;
- entry points, for plug-ins that are installed: a package that declares
  `[project.entry-points."cflows_ray.rules"] my_rule = "my_package.my_rule:MyRule"` is found;
- `register`, for a plug-in in a study's file or a notebook. A sweep takes what was registered along
  to its workers (`additions`, `add`; `sweep/plugins.py`).
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from cflows_ray.checks import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named plug-ins of one kind.

    Args:
        kind: what they are, for messages, e.g. "rule".
        group: group of entry points that adds to them.
        entries: each name's object, or where its code is, "module:attribute".

    Example:
        >>> numbers = Registry("number", "cflows_ray.none", {"pi": "math:pi"})
        >>> numbers.register("two", 2)
        >>> list(numbers), round(numbers["pi"], 2), numbers["two"]
        (['pi', 'two'], 3.14, 2)
    """

    def __init__(self, kind: str, group: str, entries: Mapping[str, T | str]) -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, Any] = dict(entries)
        self._added: dict[str, Any] = {}
        self._has_entry_points = False

    def register(self, name: str, target: T | str) -> None:
        """Add a plug-in, or replace one that was added before under this name.

        Args:
            name: a Python identifier.
            target: the object, or "module:attribute" that leads to it.

        Raises `ConfigError` for a name that is not allowed or that the package itself uses.
        """
        if not name.isidentifier():
            raise ConfigError(f"{self.kind} must be named by an identifier, got {name!r}")
        if name in self._all() and name not in self._added:
            raise ConfigError(f"{self.kind} must have a name that is not taken, got {name!r}")
        self._added[name] = target

    def remove(self, name: str) -> None:
        """Take back what was registered; the package's own names and entry points stay."""
        self._added.pop(name, None)

    def additions(self) -> dict[str, Any]:
        """Return what was registered in this process, for another one's `add`."""
        return dict(self._added)

    def add(self, additions: Mapping[str, Any]) -> None:
        """Register all that another process has registered."""
        self._added.update(additions)

    def __getitem__(self, name: str) -> T:
        """Return a plug-in, importing its code; raises `ConfigError` for an unknown name."""
        everything = self._all()
        if name not in everything:
            raise ConfigError(f"{self.kind} must be one of {list(everything)}, got {name!r}")
        target = everything[name]
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, Any]:
        """Return all names and targets, in the order of their coming."""
        if not self._has_entry_points:
            self._has_entry_points = True
            for point in importlib.metadata.entry_points(group=self._group):
                self._entries.setdefault(point.name, point.value)
        return {**self._entries, **self._added}
