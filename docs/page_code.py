"""The Python of a Markdown page: found between its fences, and run.

Whatever runs the code of a page does it here: the tests, and `docs/make_gallery.py`.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterable
from typing import NamedTuple


class Block(NamedTuple):
    """Code between ```python and ```: its first line's number, and why it is not run, if so."""

    line: int
    code: str
    not_run: str | None


def blocks(text: str) -> list[Block]:
    """Return the Python blocks of a Markdown text.

    A block that cannot run says why in a comment directly above: `<!-- not run: needs a GPU -->`.
    """
    found = []
    fence = re.compile(r"(?m)^(?:<!-- not run: *(.*?) *-->\n)?```python\n((?s:.*?))^```$")
    for match in fence.finditer(text):
        line = text[: match.start(2)].count("\n") + 1
        found.append(Block(line, match[2], match[1]))
    return found


def run_blocks(some: Iterable[Block], name: str) -> int:
    """Run blocks of the page of that name in order, as one program; return how many there were.

    Errors name the page and its line. The program is not `__main__`: a study on the page defines
    its sweep and starts nothing.
    """
    page = sys.modules["__docs__"] = types.ModuleType("__docs__")  # where dataclasses look it up
    can_run = [block for block in some if block.not_run is None]
    for block in can_run:
        padded = "\n" * (block.line - 1) + block.code
        exec(compile(padded, name, "exec"), vars(page))
    return len(can_run)
