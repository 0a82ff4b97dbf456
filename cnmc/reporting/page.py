"""The report as one page that opens anywhere, without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from cnmc.reporting.document import (
    NOT_DEFINED,
    Figure,
    Report,
    Section,
    Table,
    duration,
    number,
)
from cnmc.reporting.prose import pieces
from cnmc.reporting.svg import inline, slug

_HERE = Path(__file__).parent

_RUNS = "Runs"
"""Heading of the last section."""


def _percent(fraction: float) -> str:
    return number(100 * fraction)


def _whole(value: float) -> str:
    return str(int(value))


@dataclass(frozen=True)
class _RunColumn:
    """A column of the table of runs: what stands above it, and how one of its numbers is shown."""

    key: str
    head: str
    form: Callable[[float], str] | None = None
    """None for text."""


_COLUMNS = (
    _RunColumn("experiment", "Experiment"),
    _RunColumn("seed", "Seed", _whole),
    _RunColumn("protocol", "Protocol"),
    _RunColumn("f1", "F1 with rotations", _percent),
    _RunColumn("f1_norot", "F1 without", _percent),
    _RunColumn("sensitivity", "Sensitivity", _percent),
    _RunColumn("specificity", "Specificity", _percent),
    _RunColumn("best_epoch", "Best epoch", _whole),
    _RunColumn("seconds", "Time", duration),
    _RunColumn("checkpoint", "Checkpoint"),
)


@dataclass(frozen=True)
class _Cell:
    """A cell of the table of runs: what is shown, and what it is sorted by (None: last)."""

    key: str
    text: str
    order: str | None
    numeric: bool = False


@dataclass(frozen=True)
class _Run:
    """A row of the table of runs."""

    experiment: str
    setting: str
    name: str
    search: str
    cells: Sequence[_Cell]


def _string(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _cell(column: _RunColumn, row: Mapping[str, Any]) -> _Cell:
    value = row[column.key]
    if column.form is None:
        text = _string(value)
        return _Cell(column.key, text or NOT_DEFINED, text or None)
    value = pd.to_numeric(value, errors="coerce")
    if pd.isna(value):
        return _Cell(column.key, NOT_DEFINED, None, numeric=True)
    return _Cell(column.key, column.form(float(value)), repr(float(value)), numeric=True)


def _runs(frame: pd.DataFrame) -> list[_Run]:
    """Return the rows of the table of runs; a column that is missing is not defined."""
    keys = ["setting", "run", *(column.key for column in _COLUMNS)]
    found = []
    for record in frame.reindex(columns=keys).to_dict(orient="records"):
        row = {str(key): value for key, value in record.items()}
        cells = [_cell(column, row) for column in _COLUMNS]
        experiment, setting, name = (_string(row[k]) for k in ("experiment", "setting", "run"))
        search = f"{experiment} {setting} {name} seed {cells[1].text}".lower()
        found.append(_Run(experiment, setting, name, search, cells))
    return found


def _prose(text: str) -> Markup:
    """Return plain text as HTML; only what stands in backticks becomes code."""
    element = Markup("<code>{}</code>")
    return Markup("").join(
        element.format(piece) if code else escape(piece) for piece, code in pieces(text)
    )


def _breakable(path: str) -> Markup:
    """Return a path that may go on in the next line after each of its folders."""
    return Markup("/<wbr>").join(path.split("/"))


def _link(folder: str, name: str, suffix: str) -> str:
    """Return the relative address of a file of the report."""
    return f"{folder}/{quote(name)}.{suffix}"


def _kind(item: Table | Figure | str) -> Literal["table", "figure", "text"]:
    if isinstance(item, Table):
        return "table"
    return "figure" if isinstance(item, Figure) else "text"


def _anchors(sections: Sequence[Section]) -> list[str]:
    """Return a place for each section and, last, for the runs; no two are the same."""
    anchors: list[str] = []
    for anchor in [*(section.anchor or "section" for section in sections), _RUNS.lower()]:
        free, count = anchor, 1
        while free in anchors:
            count += 1
            free = f"{anchor}-{count}"
        anchors.append(free)
    return anchors


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "breakable": _breakable, "slug": slug}
    environment.globals |= {
        "kind": _kind,
        "drawing": lambda figure: Markup(inline(figure)),  # noqa: S704 - built as elements
        "table_file": partial(_link, "tables"),
        "figure_file": partial(_link, "figures"),
        "not_defined": NOT_DEFINED,
    }
    return environment


def render(report: Report) -> str:
    """Return the report as one HTML page: nothing in it is fetched from anywhere.

    Its links to the files of the tables and figures are relative, as
    :func:`cnmc.reporting.files.write` lays them beside it.

    Raises:
        ValueError: A drawing is not an SVG document.
    """
    anchors = _anchors(report.sections)
    runs = _runs(report.runs)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            sections=list(zip(anchors, report.sections, strict=False)),
            runs_anchor=anchors[-1],
            runs_title=_RUNS,
            runs=runs,
            columns=_COLUMNS,
            experiments=sorted({run.experiment for run in runs}),
            css=Markup((_HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704
            js=Markup((_HERE / "report.js").read_text(encoding="utf-8")),  # noqa: S704
        )
    )
