"""Pieces of a self-contained HTML page: the shell, tables, figures. No network.

Scripts and style are files of `assets/` and stand in the page itself. Charts are drawn by
Observable Plot on D3 (490 kB), tables sorted by sortable-tablesort (3 kB); `assets/README.md` says
why these. Without scripts the page shows its tables and pictures all the same.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 160
MOST_BYTES = 2_800_000  # of a page: what is sent by mail, and opens at once
_DATA = "data:image/png;base64,"
_CHART = '<script type="application/json" class="chart">'
# A licence asks to stand in every copy.
_CHARTS = (("d3.licence.js", "d3.min.js"), ("plot.licence.js", "plot.umd.min.js"))
_ALWAYS = (("sortable.min.js",), ("sortable.a11y.min.js",), ("report.js",))
# The browser itself sees to it that nothing is loaded but pictures that lie beside the page.
_ALLOWED = (
    "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)
_TAG = re.compile(r"<[^>]*>")
_NUMBER = re.compile(r"!?\s*[≥>≤<]?\s*([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf\b))", re.IGNORECASE)


class Html(str):
    """Text that is HTML already, and is not escaped again."""


class Again(str):
    """Text that the row above says too: it is shown once rows are sorted."""


def with_small(text: str, small: str) -> Html:
    """Set a text with another in small print below it; both are escaped.

    >>> with_small("<1", "n = 2")
    '&lt;1<small>n = 2</small>'
    """
    return Html(f"{html.escape(text)}<small>{html.escape(small)}</small>")


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str]]) -> str:
    """Whole page from sections of heading and HTML body, with the scripts that it uses."""
    anchors = [f"s{i}" for i in range(len(sections))]
    links = " ".join(
        f'<a href="#{a}">{html.escape(heading)}</a>'
        for a, (heading, _) in zip(anchors, sections, strict=True)
    )
    body = "".join(
        f'<section><h2 id="{a}">{html.escape(heading)}</h2>{content}</section>'
        for a, (heading, content) in zip(anchors, sections, strict=True)
    )
    scripts = [*(_CHARTS if _CHART in body else ()), *_ALWAYS]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_ALLOWED}">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title><style>{_asset('report.css')}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1></header>"
        f"<p class='soft'>{html.escape(subtitle)}</p>"
        f"<nav>{links}</nav><main>{body}</main>"
        + "".join(f"<script>{''.join(map(_asset, names))}</script>" for names in scripts)
        + "</body></html>\n"
    )


def table(
    frame: pd.DataFrame,
    *,
    caption: str = "",
    text: Sequence[str] = (),
    wrap: Sequence[str] = (),
    new_cell: Sequence[bool] | None = None,
    anchors: Sequence[str] | None = None,
) -> str:
    """HTML of a frame of ready-made strings; the columns named in `text` are set left.

    Cells are escaped unless they are `Html`. `new_cell` marks rows that get a line above;
    `anchors` are the rows' ids. Headings sort: columns of numbers by what `sort_key` reads in them.
    """
    left = {*text, *wrap}
    head = "".join(
        f'<th class="text">{html.escape(str(c))}</th>'
        if c in left
        else f"<th>{html.escape(str(c))}</th>"
        for c in frame.columns
    )
    keys = [_column_keys(frame.iloc[:, i]) for i in range(frame.shape[1])]
    rows = []
    for number, row in enumerate(frame.itertuples(index=False)):
        cells = "".join(
            f"<td{_class(name, value, text, wrap)}{key[number]}>{_escape(value)}</td>"
            for name, value, key in zip(frame.columns, row, keys, strict=True)
        )
        above = ' class="cell"' if new_cell is not None and new_cell[number] else ""
        anchor = f' id="{html.escape(anchors[number])}"' if anchors is not None else ""
        rows.append(f"<tr{above}{anchor}>{cells}</tr>")
    label = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    name = html.escape(caption or "table")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f'<table class="sortable n-last asc">{label}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def sort_key(text: str) -> float | None:
    """Read the number that a cell's text begins with; NaN of a dash, None of other text.

    >>> [sort_key(t) for t in ("≥0.12<small>[0.1, 0.2]</small>", ">400", "12%", "-", "rmsprop")]
    [0.12, 400.0, 12.0, nan, None]
    """
    plain = html.unescape(_TAG.sub("", text.partition("<small>")[0])).strip()
    if plain in ("", "-"):
        return float("nan")
    found = _NUMBER.match(plain)
    return float(found[1]) if found else None


def figure(drawing: Figure, caption: str, file: Path | None = None, chart: str = "") -> str:
    """HTML of a figure, inline; also written to `file` if given: PNG, or vectors (pdf, svg).

    `chart`: the figure as data (`FigureSet.chart`); a browser that runs scripts shows it, and the
    picture in print.
    """
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
        f"<figure>{_CHART + chart + '</script>' if chart else ''}"
        f'<img width="{width}" alt="{label}" '
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


def png(drawing: Figure) -> bytes:
    """PNG of a figure at print resolution, with at most 256 colours to keep it light."""
    drawing.set_dpi(DPI)
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    light = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    light.save(out, format="png", dpi=(DPI, DPI))
    return out.getvalue()


def paragraph(text: str, kind: str = "") -> str:
    """Make a paragraph; `kind` is a class such as `warn` or `soft`."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{html.escape(text)}</p>"


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """List of terms and what they mean."""
    inner = "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in pairs)
    return f"<dl>{inner}</dl>"


def _column_keys(column: pd.Series) -> list[str]:
    """Attributes that sort a column by its numbers; none where it has other text."""
    texts = [str(value) for value in column]
    keys = [sort_key(text) for text in texts]
    if any(key is None for key in keys):
        return [""] * len(texts)
    # Text that is a number as it stands needs no key beside it.
    return [
        "" if _is_number(text) else f' data-sort="{"" if key != key else _script_number(key)}"'
        for key, text in zip(keys, texts, strict=True)
    ]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?(e[-+]?\d+)?", text) is not None


def _script_number(value: float | None) -> str:
    return str(value).replace("inf", "Infinity")


def _class(name: str, value: object, text: Sequence[str], wrap: Sequence[str]) -> str:
    kinds = ["text"] if name in text or name in wrap else []
    kinds += ["wrap"] if name in wrap else []
    kinds += ["again"] if isinstance(value, Again) else []
    return f' class="{" ".join(kinds)}"' if kinds else ""


@cache
def _asset(name: str) -> str:
    return resources.files("analysis.report").joinpath("assets", name).read_text(encoding="utf-8")


def _escape(value: object) -> str:
    return value if isinstance(value, Html) else html.escape(str(value))
