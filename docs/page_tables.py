"""Tables of pages that scripts write: where they stand in a page, and how they look in Markdown.

A page says where a table goes, and everything between two comments is replaced:

    <!-- TAG: WHAT OF -->
    <!-- end of table -->
"""

from __future__ import annotations

import re
from collections.abc import Callable


def _pattern(tag: str) -> re.Pattern[str]:
    return re.compile(rf"(?s)<!-- {tag}: (\w+)(?: (\w+))? -->\n(.*?)<!-- end of table -->")


def places(page: str, tag: str) -> list[tuple[str, str]]:
    """Return what goes where a page has this tag: WHAT and OF, empty where there is none."""
    return [(place[1], place[2] or "") for place in _pattern(tag).finditer(page)]


def filled(page: str, tag: str, made: Callable[[str, str], str]) -> str:
    """Return a page with what `made(what, of)` returns in all places of this tag."""

    def put(place: re.Match[str]) -> str:
        what, of = place[1], place[2] or ""
        opening = f"<!-- {tag}: {what}{f' {of}' if of else ''} -->"
        return f"{opening}\n{made(what, of)}\n<!-- end of table -->"

    return _pattern(tag).sub(put, page)


def markdown(heads: list[str], rows: list[list[str]], num_words: int) -> str:
    """Return a Markdown table, the first columns words and the others numbers."""
    rule = [*["---"] * num_words, *["---:"] * (len(heads) - num_words)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))
