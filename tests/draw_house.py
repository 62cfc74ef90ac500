"""The drawing of the house in docs/figures/house.svg, made from the imports of every file.

    python -m tests.draw_house           # write it anew after rooms or imports have changed

A room stands on the floor below the lowest room that it imports from, as in the table of
docs/architecture.md; an arrow points to what is imported. An arrow that longer ways imply is left
out. Arrows that pass a floor get a place of their own on it, between the rooms.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from tests.test_architecture import INSIDE, ROOT, TOPS, documented_order, module_of, others, room

DRAWING = ROOT / "docs" / "figures" / "house.svg"

Imports = Mapping[str, set[str]]
Place = tuple[float, float]

FLOOR_HEIGHT = 84
BOX_HEIGHT = 34
LETTER = 8.2  # width of a letter
GAP = 26

STYLE = """
  rect { fill: #f4f6f8; stroke: #4a5560; stroke-width: 1.2 }
  rect.file { fill: #ffffff; stroke-dasharray: 4 3 }
  text { font: 14px ui-monospace, monospace; text-anchor: middle; fill: #1c2329 }
  path.arrow { fill: none; stroke: #7d8b97; stroke-width: 1.3; marker-end: url(#head) }
  #head path { fill: #7d8b97 }
"""


def imports_of_rooms() -> dict[str, set[str]]:
    """Return, for each room, the rooms from which its files import."""
    found: dict[str, set[str]] = {name: set() for name in documented_order()}
    for file in INSIDE:
        found.setdefault(room(module_of(file)), set()).update(room(m) for m in others(file))
    return {name: rooms - {"cflows_ray"} for name, rooms in found.items()}


def needed(imports: Imports) -> dict[str, set[str]]:
    """Leave out what longer ways imply: the transitive reduction.

    Example:
        >>> {k: sorted(v) for k, v in needed({"a": set(), "b": {"a"}, "c": {"a", "b"}}).items()}
        {'a': [], 'b': ['a'], 'c': ['b']}
    """

    def reach(start: str) -> set[str]:
        return imports[start].union(*(reach(step) for step in imports[start]))

    return {
        name: targets - set().union(*(reach(target) for target in targets))
        for name, targets in imports.items()
    }


def floors(imports: Imports) -> dict[str, int]:
    """Return the floor of each room, 0 on top: one below the lowest room it imports from."""

    def floor(name: str) -> int:
        return 1 + max((floor(target) for target in imports[name]), default=-1)

    return {name: floor(name) for name in imports}


def ways(imports: Imports, floor: Mapping[str, int]) -> list[list[str]]:
    """Return each arrow as the stops on its way: a room, a stop on each floor between, a room."""
    return [
        [name, *(f"{name}>{target}@{f}" for f in range(floor[name] - 1, floor[target], -1)), target]
        for name in imports
        for target in sorted(imports[name])
    ]


def arrange(floor: Mapping[str, int], arrows: list[list[str]]) -> list[list[str]]:
    """Return the stops of each floor from left to right, each near what it is joined to.

    Floors are sorted by the mean position of the neighbours, down and up again, a few times: the
    barycentre method of Sugiyama, Tagawa and Toda (1981), which is a heuristic.
    """
    height = dict(floor)
    for stops in arrows:
        height.update((stop, int(stop.rpartition("@")[2])) for stop in stops[1:-1])
    rows = [[s for s in height if height[s] == f] for f in range(max(height.values()) + 1)]
    joined: dict[str, list[str]] = {stop: [] for stop in height}
    for stops in arrows:
        for lower, upper in itertools.pairwise(stops):
            joined[lower].append(upper)
            joined[upper].append(lower)
    for _ in range(12):
        for f in [*range(len(rows)), *reversed(range(len(rows)))]:
            place = {s: (i + 0.5) / len(row) for row in rows for i, s in enumerate(row)}
            mean = {
                s: sum(place[n] for n in joined[s]) / len(joined[s]) if joined[s] else place[s]
                for s in rows[f]
            }
            rows[f].sort(key=lambda s: (mean[s], s))
    return rows


def width(stop: str) -> float:
    """Return the width of a room's box, or of an arrow's place between the rooms."""
    return 10.0 if "@" in stop else LETTER * len(label(stop)) + 24


def label(name: str) -> str:
    """Return how a room is written: folders with a slash, as in the table."""
    return f"{name}/" if is_folder(name) else name


def is_folder(name: str) -> bool:
    """Say whether a room is a folder, or a file beside the folders."""
    return name in TOPS or (ROOT / "cflows_ray" / name).is_dir()


def place(rows: Iterable[list[str]]) -> dict[str, Place]:
    """Return the centre of each stop; floors are centred above one another."""
    rows = list(rows)
    spans = [sum(width(s) for s in row) + GAP * (len(row) - 1) for row in rows]
    centre = {}
    for f, (row, span) in enumerate(zip(rows, spans, strict=True)):
        left = 20 + (max(spans) - span) / 2
        for stop in row:
            centre[stop] = (left + width(stop) / 2, 20 + BOX_HEIGHT / 2 + f * FLOOR_HEIGHT)
            left += width(stop) + GAP
    return centre


def curve(points: list[Place]) -> str:
    """Return the path of an arrow from the first room's upper edge to the last one's lower edge."""
    (x, y), *rest = points
    steps = [f"M{x:.0f} {y - BOX_HEIGHT / 2:.0f}"]
    y -= BOX_HEIGHT / 2
    for i, (to_x, to_y) in enumerate(rest):
        to_y += BOX_HEIGHT / 2 + 5 if i == len(rest) - 1 else 0
        middle = (y + to_y) / 2
        steps.append(f"C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}")
        x, y = to_x, to_y
    return " ".join(steps)


def draw(imports: Imports) -> str:
    """Return the drawing as SVG; the same imports give the same text."""
    reduced = needed(imports)
    floor = floors(imports)
    arrows = ways(reduced, floor)
    centre = place(arrange(floor, arrows))
    size_x = max(x + width(stop) / 2 for stop, (x, _) in centre.items()) + 20
    size_y = max(y for _, y in centre.values()) + BOX_HEIGHT / 2 + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size_x:.0f} {size_y:.0f}">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7"'
        ' markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
        f'<rect width="{size_x:.0f}" height="{size_y:.0f}" style="fill:white;stroke:none"/>',
        *(f'<path class="arrow" d="{curve([centre[s] for s in stops])}"/>' for stops in arrows),
    ]
    for name in sorted(floor):
        x, y = centre[name]
        w, kind = width(name), "folder" if is_folder(name) else "file"
        lines += [
            f'<rect class="{kind}" x="{x - w / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}"'
            f' width="{w:.0f}" height="{BOX_HEIGHT}" rx="5"/>',
            f'<text x="{x:.0f}" y="{y + 5:.0f}">{escape(label(name))}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def main(file: Path = DRAWING) -> None:
    """Write the drawing."""
    file.write_text(draw(imports_of_rooms()))


if __name__ == "__main__":
    main()
