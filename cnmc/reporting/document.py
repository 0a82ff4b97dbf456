"""The parts of a report, independent of the format in which they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

NOT_DEFINED = "not defined"

Row = Mapping[str, Any]
Cell = str | Callable[[Row], str]
"""How to format a cell of a row: the name of a column, a template such as ``{low} to {high}``, or a
function."""


def shown(value: Any, form: str = ".2f") -> str:
    """Format a value: text unchanged, whole numbers with commas, others with two decimals."""
    if isinstance(value, str):
        return " ".join(value.split())
    if pd.isna(value):
        return NOT_DEFINED
    return f"{value:,}" if isinstance(value, int) else f"{value:{form}}"


def _cell(form: Cell, row: Row) -> str:
    if callable(form):
        return form(row)
    if "{" not in form:
        return shown(row[form])
    text = form.format_map(row)
    return NOT_DEFINED if re.search(r"\bnan\b", text) else text


def spread(prefix: str = "") -> str:
    """Return the template of ``<prefix>mean`` ± ``<prefix>std``."""
    return f"{{{prefix}mean:.2f}} ± {{{prefix}std:.2f}}"


def interval(prefix: str) -> str:
    """Return the template of the interval from ``<prefix>low`` to ``<prefix>high``."""
    return f"{{{prefix}low:.2f}} to {{{prefix}high:.2f}}"


def p_value(key: str) -> Cell:
    """Return the format of a p-value, with three decimals."""
    return lambda row: "< 0.001" if row[key] < 0.001 else shown(row[key], ".3f")


def named(key: str, names: Mapping[Any, str] | Sequence[str]) -> Cell:
    """Return the format of a value that has a name."""
    return lambda row: names[row[key]]


def duration(key: str) -> Cell:
    """Return the format of seconds as ``h:mm:ss``."""

    def cell(row: Row) -> str:
        value: float = row[key]
        if np.isnan(value):
            return NOT_DEFINED
        seconds = round(value)
        return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"

    return cell


GROUP: dict[str, Cell] = {"experiment": "experiment", "protocol": "protocol"}
"""The columns that name the group of runs of a row."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: File name without suffix.
        title: One line.
        frame: The stored numbers, in the units that the note gives.
        columns: What Markdown, LaTeX and the page show: by title, how to format the cells.
        note: Units, definitions, cells and protocol.
        limit: Number of rows to show; the CSV file has all rows.
        folded: Show the table on the page only on demand, because it repeats a figure.
    """

    name: str
    title: str
    frame: pd.DataFrame
    columns: Mapping[str, Cell]
    note: str = ""
    limit: int | None = None
    folded: bool = False

    def formatted(self) -> pd.DataFrame:
        """Return the table as text."""
        rows = self.frame.head(self.limit or len(self.frame)).to_dict(orient="records")
        cells = {
            head: [_cell(form, {str(key): row[key] for key in row}) for row in rows]
            for head, form in self.columns.items()
        }
        return pd.DataFrame(cells, dtype=str)


def alignments(formatted: pd.DataFrame) -> list[str]:
    """Return ``right`` for columns of numbers and ``left`` for text."""
    numeric = re.compile(rf"[-+<\d?][^a-zA-Z]*( to .*)?|{NOT_DEFINED}|")
    return [
        "right" if all(numeric.fullmatch(cell) for cell in formatted[name]) else "left"
        for name in formatted
    ]


@dataclass(frozen=True)
class Figure:
    """A figure, with file name (without suffix), title, one sentence as alt text, and a note."""

    name: str
    title: str
    svg: str
    png: bytes
    alt: str
    note: str = ""


Item = Table | Figure | str


@dataclass(frozen=True)
class Section:
    """A part of the report under one heading."""

    title: str
    items: Sequence[Item]

    @property
    def anchor(self) -> str:
        """The ``id`` of the heading on the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: Heading of the page.
        facts: Names and values: folder, cells, experiments, reference, code.
        warnings: What a reader must know before reading any number.
        sections: In reading order.
        runs: The sortable table of runs; only the page shows it.
    """

    title: str
    facts: Mapping[str, str]
    warnings: Sequence[str]
    sections: Sequence[Section]
    runs: Table

    @property
    def tables(self) -> list[Table]:
        """All tables in reading order."""
        return [item for part in self.sections for item in part.items if isinstance(item, Table)]

    @property
    def figures(self) -> list[Figure]:
        """All figures in reading order."""
        return [item for part in self.sections for item in part.items if isinstance(item, Figure)]
