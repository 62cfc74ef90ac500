"""A figure in the page: for the screen as data, for print as a picture, which is a file too."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from analysis.draw import FigureSet
from analysis.report import page


def drawn(figures: FigureSet, figure: Figure, caption: str, kind: str, rows: pd.DataFrame) -> str:
    """Return the HTML of a figure of these rows, whose file is named after `kind` and them.

    >>> import tempfile, pathlib
    >>> rows = pd.DataFrame({"workload": ["mlp"], "criterion": ["mse"], "rule": ["rmsprop"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     figures = FigureSet(pathlib.Path(folder))
    ...     found = drawn(figures, Figure(), "Nothing yet.", "empty", rows)
    >>> "Nothing yet." in found, [file.name for file in figures.files]
    (True, ['empty-mlp-mse-rmsprop.png'])
    """
    return page.figure(figure, caption, figures.file(kind, rows), figures.chart(figure))
