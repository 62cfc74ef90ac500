"""Pages: the accuracy table on a terminal, the HTML report, and tables for other programs.

`FORMATS` are those in which tables are written.
"""

from analysis.report.export import FORMATS, study_tables, write_tables
from analysis.report.precision import precision_lines
from analysis.report.terminal import accuracy_text
from analysis.report.write import write_report

__all__ = [
    "FORMATS",
    "accuracy_text",
    "precision_lines",
    "study_tables",
    "write_report",
    "write_tables",
]
