"""The parts of a report, independent of the format in which they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cnmc.analysis.metrics import METRICS
from cnmc.data.composition import PART_TITLES
from cnmc.data.names import CLASS_NAMES

NOT_DEFINED = "not defined"
FOLDER = Path(__file__).parent
_WORDS = yaml.safe_load((FOLDER / "report.yaml").read_text("utf-8"))

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


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else shown(value, ".3f")


def _duration(value: float) -> str:
    if np.isnan(value):
        return NOT_DEFINED
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


_FORMATS: dict[str, Callable[[Any], str]] = {
    "metric": lambda name: METRICS[name].title,
    "label": CLASS_NAMES.__getitem__,
    "part": PART_TITLES.__getitem__,
    "seconds": _duration,
    **dict.fromkeys(("p_one_sided", "p_two_sided", "p_holm"), _p_value),
}
"""Formats of the columns that are not :func:`shown` as they are stored."""


def _cell(form: Cell, row: Row) -> str:
    if callable(form):
        return form(row)
    if "{" not in form:
        return _FORMATS.get(form, shown)(row[form])
    text = form.format_map(row)
    return NOT_DEFINED if re.search(r"\bnan\b", text) else text


@dataclass(frozen=True)
class Table:
    """A table."""

    name: str
    """File name without suffix."""
    title: str
    frame: pd.DataFrame
    """The stored numbers."""
    columns: Mapping[str, Cell]
    """The columns of Markdown, LaTeX and the page: by title, how to format the cells."""
    note: str = ""
    """Units, definitions, cells and protocol."""
    limit: int | None = None
    """Number of rows to show; the CSV file has all rows."""
    folded: bool = False
    """Whether the page shows the table only on demand, because it repeats a figure."""

    def formatted(self) -> pd.DataFrame:
        """Return the table as text, without the columns that the frame does not have."""
        rows = self.frame.head(self.limit or len(self.frame)).to_dict(orient="records")
        cells = {
            head: [_cell(form, {str(key): row[key] for key in row}) for row in rows]
            for head, form in self.columns.items()
            if callable(form) or "{" in form or form in self.frame
        }
        return pd.DataFrame(cells, dtype=str)


def table(
    name: str,
    frame: pd.DataFrame,
    columns: Mapping[str, Cell] = MappingProxyType({}),
    **values: Any,
) -> Table:
    """Return a table with its words from ``report.yaml``, and more columns at its end."""
    words = {"note": "", **_WORDS["tables"][name]}
    words["columns"] = {**words["columns"], **columns}
    words["note"] = words["note"].format(**values)
    return Table(name, frame=frame, **words)


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


def figure(name: str, svg: str, png: bytes, **values: Any) -> Figure:
    """Return a figure with its words from ``report.yaml``."""
    words = {key: text.format(**values) for key, text in _WORDS["figures"][name].items()}
    return Figure(name, svg=svg, png=png, **words)


def say(name: str, /, **values: Any) -> str:
    """Return a text of ``report.yaml``."""
    return str(_WORDS["texts"][name]).format(**values)


def templates(*, autoescape: bool = False) -> Environment:
    """Return the Jinja templates of the report."""
    loader = FileSystemLoader(FOLDER)
    environment = Environment(loader=loader, autoescape=autoescape, undefined=StrictUndefined)  # noqa: S701 - the page is escaped
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment


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
    """A whole report."""

    title: str
    facts: Mapping[str, str]
    """Names and values: folder, cells, experiments, reference, code."""
    warnings: Sequence[str]
    """What a reader must know before reading any number."""
    sections: Sequence[Section]
    runs: Table
    """The sortable table of runs; only the page shows it."""

    @property
    def tables(self) -> list[Table]:
        """All tables in reading order."""
        return [item for part in self.sections for item in part.items if isinstance(item, Table)]

    @property
    def figures(self) -> list[Figure]:
        """All figures in reading order."""
        return [item for part in self.sections for item in part.items if isinstance(item, Figure)]
