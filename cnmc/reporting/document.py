"""What a report is made of, whatever it is written as: sections of text, tables and figures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

NOT_DEFINED = "not defined"

Row = Mapping[str, Any]


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def text(value: Any) -> str:
    """Format whatever is shown as it is; nothing for a missing value."""
    return "" if _is_missing(value) else str(value)


def number(value: Any, digits: int = 2) -> str:
    """Format a number with so many digits after the point; a missing one is not defined."""
    return NOT_DEFINED if _is_missing(value) else f"{float(value):.{digits}f}"


def signed(value: Any, digits: int = 2) -> str:
    """Format a difference, its sign always shown."""
    return NOT_DEFINED if _is_missing(value) else f"{float(value):+.{digits}f}"


def count(value: Any) -> str:
    """Format a whole number."""
    return NOT_DEFINED if _is_missing(value) else f"{int(value):,}"


def spread(mean: Any, std: Any) -> str:
    """Format a mean and its standard deviation."""
    return NOT_DEFINED if _is_missing(mean) else f"{number(mean)} ± {number(std)}"


def p_value(value: Any) -> str:
    """Format a p-value; below 0.001 it is only said to be so."""
    if _is_missing(value):
        return NOT_DEFINED
    return "< 0.001" if value < 0.001 else f"{float(value):.3f}"


def interval(low: Any, high: Any, digits: int = 2) -> str:
    """Format the two ends of an interval."""
    if _is_missing(low) or _is_missing(high):
        return NOT_DEFINED
    return f"{float(low):.{digits}f} to {float(high):.{digits}f}"


def duration(seconds: Any) -> str:
    """Format seconds as ``h:mm:ss``."""
    if _is_missing(seconds):
        return NOT_DEFINED
    whole = round(float(seconds))
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


@dataclass(frozen=True)
class Column:
    """A column as it is read, which may join several of those that are stored.

    Attributes:
        head: What stands above it.
        cell: From a row of the frame to what is shown.
        align: ``right`` for numbers.
    """

    head: str
    cell: Callable[[Row], str]
    align: Literal["left", "right"] = "right"


def column(
    head: str,
    key: str,
    form: Callable[[Any], str] = text,
    align: Literal["left", "right"] | None = None,
) -> Column:
    """Return the column that shows one stored column; text stands left, numbers right."""
    return Column(head, lambda row: form(row[key]), align or ("left" if form is text else "right"))


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Name of its files, without suffix.
        title: One line.
        frame: What is stored: every number, in the units that its note tells.
        columns: What is shown, as Markdown, LaTeX and on the page.
        note: What a reader must know to read it: units, definitions, cells, protocol.
        limit: Rows that are shown; all are stored.
        folded: Whether the page shows it on demand alone, as it says what a figure shows.
    """

    name: str
    title: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    note: str = ""
    limit: int | None = None
    folded: bool = False

    def shown(self) -> list[list[str]]:
        """Return the rows as they are shown."""
        rows = self.frame.head(self.limit or len(self.frame)).to_dict(orient="records")
        return [
            [item.cell({str(k): v for k, v in row.items()}) for item in self.columns]
            for row in rows
        ]


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: Name of its files, without suffix.
        title: One line.
        svg: The drawing, a whole SVG document.
        png: The same, rendered.
        alt: What it shows, in words, for those who cannot see it.
        note: What stands below it.
    """

    name: str
    title: str
    svg: str
    png: bytes
    alt: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report under one heading."""

    title: str
    items: Sequence[Table | Figure | str]
    """Tables, figures and paragraphs, in the order in which they are read."""

    @property
    def anchor(self) -> str:
        """Name of its place on the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: Heading of the page.
        facts: What was reported, as name and value: folder, data, protocol, ...
        warnings: What a reader must know before any number: few seeds, runs that are missing, ...
        sections: In the order in which they are read.
        runs: The runs that can be sorted and filtered, one a row: experiment, setting, seed, run,
            protocol, f1, f1_norot, sensitivity, specificity (all fractions of 1, NaN where not
            defined), best_epoch, seconds, checkpoint.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    sections: Sequence[Section]
    runs: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def tables(self) -> list[Table]:
        """Every table, in the order in which they are read."""
        return [item for part in self.sections for item in part.items if isinstance(item, Table)]

    @property
    def figures(self) -> list[Figure]:
        """Every figure, in the order in which they are read."""
        return [item for part in self.sections for item in part.items if isinstance(item, Figure)]
