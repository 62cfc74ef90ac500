"""Pieces of a self-contained HTML page: the shell, tables, figures. No network, no scripts."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 160
MOST_BYTES = 2_800_000  # of a page: what is sent by mail, and opens at once
_DATA = "data:image/png;base64,"


class Html(str):
    """Text that is HTML already, and is not escaped again."""


def with_small(text: str, small: str) -> Html:
    """Set a text with another in small print below it; both are escaped.

    >>> with_small("<1", "n = 2")
    '&lt;1<small>n = 2</small>'
    """
    return Html(f"{html.escape(text)}<small>{html.escape(small)}</small>")


_STYLE = """
:root { --ink: #222; --soft: #6b6b6b; --line: #dcdcdc; --accent: #0072B2; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
  max-width: 1240px; margin: 0 auto; padding: 2rem 1.2rem 4rem; background: #fff; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; border-bottom: 1px solid var(--line);
  padding-bottom: .25rem; }
h3 { font-size: 1.02rem; margin: 1.5rem 0 .4rem; }
p { max-width: 52rem; margin: .5rem 0; }
.soft, caption { color: var(--soft); font-size: .88rem; }
.warn { border-left: 4px solid #D55E00; background: #fdf3ec; padding: .5rem .9rem;
  margin: .8rem 0; }
nav { font-size: .9rem; margin: .8rem 0 1.4rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums;
  margin: .4rem 0; }
caption { text-align: left; padding-bottom: .4rem; caption-side: top; }
th { text-align: right; font-weight: 600; vertical-align: bottom;
  border-bottom: 2px solid var(--ink);  padding: .25rem .45rem; }
td { text-align: right; vertical-align: top; padding: .2rem .45rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th.text, td.text { text-align: left; }
td.wrap { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
td small { color: var(--soft); font-size: .8em; display: block; line-height: 1.15; }
tr.cell > td { border-top: 1px solid #999; }
figure { margin: .8rem 0 1.4rem; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .88rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
code { font-size: .9em; background: #f4f4f4; padding: .05em .3em; border-radius: 3px; }
@media print { nav { display: none; } h2 { break-after: avoid; }
  figure, table { break-inside: avoid; } }
"""


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str]]) -> str:
    """Whole page from sections of heading and HTML body."""
    anchors = [f"s{i}" for i in range(len(sections))]
    links = " ".join(
        f'<a href="#{a}">{html.escape(heading)}</a>'
        for a, (heading, _) in zip(anchors, sections, strict=True)
    )
    body = "".join(
        f'<section><h2 id="{a}">{html.escape(heading)}</h2>{content}</section>'
        for a, (heading, content) in zip(anchors, sections, strict=True)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p class='soft'>{html.escape(subtitle)}</p>"
        f"<nav>{links}</nav>{body}</body></html>\n"
    )


def table(
    frame: pd.DataFrame,
    *,
    caption: str = "",
    text: Sequence[str] = (),
    wrap: Sequence[str] = (),
    new_cell: Sequence[bool] | None = None,
) -> str:
    """HTML of a frame of ready-made strings; the columns named in `text` are set left.

    Cells are escaped unless they are `Html`. `new_cell` marks rows that get a line above.
    """
    left = {*text, *wrap}
    head = "".join(
        f'<th class="text">{html.escape(str(c))}</th>'
        if c in left
        else f"<th>{html.escape(str(c))}</th>"
        for c in frame.columns
    )
    rows = []
    for number, row in enumerate(frame.itertuples(index=False)):
        cells = "".join(
            f"<td{_class(name, text, wrap)}>{_escape(value)}</td>"
            for name, value in zip(frame.columns, row, strict=True)
        )
        above = ' class="cell"' if new_cell is not None and new_cell[number] else ""
        rows.append(f"<tr{above}>{cells}</tr>")
    label = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{label}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def figure(drawing: Figure, caption: str, file: Path | None = None) -> str:
    """HTML of a figure, inline; also written to `file` if given: PNG, or vectors (pdf, svg)."""
    data = png(drawing)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".png":
            file.write_bytes(data)
        else:
            drawing.savefig(file)
    code = base64.b64encode(data).decode()
    label = html.escape(caption)
    # In print size on the screen too, so that text is as large in narrow figures as in wide ones.
    width = round(96 * drawing.get_size_inches()[0])
    return (
        f'<figure><img width="{width}" alt="{label}" '
        f'src="{_DATA}{code}"{_named(file)}>'
        f"<figcaption>{label}</figcaption></figure>"
    )


def lightened(text: str, folder: Path, most: int = MOST_BYTES) -> str:
    """Take figures out of a page that is too heavy, the last ones first, and refer to their files.

    Args:
        text: the page.
        folder: where it will lie, with the figures in `figures/`; they are written as PNG.
        most: bytes that the page may have.
    """
    size = len(text.encode())
    found = list(re.finditer(rf'src="{re.escape(_DATA)}([^"]*)" data-file="([^"]*)"', text))
    for match in reversed(found):
        if size <= most:
            break
        name = f"figures/{html.unescape(match[2])}.png"
        (folder / name).write_bytes(base64.b64decode(match[1]))
        reference = f'src="{html.escape(name)}"'
        text = text[: match.start()] + reference + text[match.end() :]
        size -= len(match[0]) - len(reference)
    return text


def _named(file: Path | None) -> str:
    return "" if file is None else f' data-file="{html.escape(file.stem)}"'


def png(drawing: Figure, dpi: int = DPI) -> bytes:
    """PNG of a figure at print resolution, with at most 256 colours to keep it light."""
    drawing.set_dpi(dpi)
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    light = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    light.save(out, format="png", dpi=(dpi, dpi))
    return out.getvalue()


def paragraph(text: str, kind: str = "") -> str:
    """Make a paragraph; `kind` is a class such as `warn` or `soft`."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{html.escape(text)}</p>"


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """List of terms and what they mean."""
    inner = "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in pairs)
    return f"<dl>{inner}</dl>"


def _class(name: str, text: Sequence[str], wrap: Sequence[str]) -> str:
    if name in wrap:
        return ' class="text wrap"'
    return ' class="text"' if name in text else ""


def _escape(value: object) -> str:
    return value if isinstance(value, Html) else html.escape(str(value))
