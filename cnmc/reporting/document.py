"""The parts of a report, and the files in which they are written."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from cnmc.analysis.metrics import METRICS
from cnmc.data.audit import PART_TITLES
from cnmc.data.names import CLASS_NAMES
from cnmc.files import replacing

NOT_DEFINED = "not defined"
_FOLDER = Path(__file__).parent
_WORDS = yaml.safe_load((_FOLDER / "report.yaml").read_text("utf-8"))
_CODE = re.compile(r"`([^`]+)`")
_MOST_COLUMNS = 8
"""Wider LaTeX tables are scaled to the width of the text."""
_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"}
    # After a line end, a bracket would start an option.
    | {"[": "{[}", "*": "{*}"}
    | {character: f"\\{character}" for character in "&%$#_{}"}
)

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
    **dict.fromkeys(
        ("p_one_sided", "p_two_sided", "p_holm"),
        lambda value: "< 0.001" if value < 0.001 else shown(value, ".3f"),
    ),
}
"""Formats of columns for which :func:`shown` is not enough."""


def _cell(form: Cell, row: Row) -> str:
    if callable(form):
        return form(row)
    if "{" not in form:
        return _FORMATS.get(form, shown)(row[form])
    text = form.format_map(row)
    if not re.search(r"\d", text):
        return NOT_DEFINED
    return re.sub(r"[+-]?\bnan\b", NOT_DEFINED, text)


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
    name: str, frame: pd.DataFrame, columns: Mapping[str, Cell] | None = None, **values: Any
) -> Table:
    """Return a table with its words from ``report.yaml``, and more columns at its end."""
    words = {"note": "", **_WORDS["tables"][name]}
    words["columns"] = words["columns"] | (columns or {})
    words["note"] = words["note"].format(**values)
    return Table(name, frame=frame, **words)


def _alignments(formatted: pd.DataFrame) -> list[str]:
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
    loader = FileSystemLoader(_FOLDER)
    environment = Environment(loader=loader, autoescape=autoescape, undefined=StrictUndefined)  # noqa: S701 - the page is escaped
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment


Item = Table | Figure | str


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    facts: Mapping[str, str]
    """Names and values: folder, cells, experiments, reference, code."""
    warnings: Sequence[str]
    """What a reader must know before reading any number."""
    sections: Mapping[str, Sequence[Item]]
    """By the heading."""
    runs: Table
    """The sortable table of runs; only the page shows it."""

    @property
    def tables(self) -> list[Table]:
        """All tables in reading order."""
        return [item for part in self.sections.values() for item in part if isinstance(item, Table)]

    @property
    def figures(self) -> list[Figure]:
        """All figures in reading order."""
        parts = self.sections.values()
        return [item for part in parts for item in part if isinstance(item, Figure)]


def markdown(table: Table) -> str:
    """Return a table as Markdown: title, pipe table and note."""
    frame = table.formatted()
    pipes = frame.map(lambda cell: re.sub(r"([\\|<])", r"\\\1", cell)).to_markdown(
        index=False, tablefmt="pipe", disable_numparse=True, colalign=_alignments(frame)
    )
    return "\n\n".join(filter(None, (f"# {table.title}", pipes, table.note))) + "\n"


def latex(table: Table) -> str:
    r"""Return a table as a LaTeX ``table`` with ``\label{tab:<name>}``, for booktabs."""
    frame = table.formatted()
    align = "".join(side[0] for side in _alignments(frame))
    escaped = frame.map(lambda cell: cell.translate(_LATEX))
    escaped = escaped.rename(columns=lambda head: head.translate(_LATEX))
    lines = escaped.style.hide(axis="index").to_latex(hrules=True, column_format=align)
    packages = "booktabs"
    if len(table.columns) > _MOST_COLUMNS:
        packages = "booktabs,graphicx"
        lines = f"\\resizebox{{\\linewidth}}{{!}}{{%\n{lines.strip()}}}\n"
    note = _CODE.sub(r"\\texttt{\1}", table.note.translate(_LATEX))
    return (
        f"% \\usepackage{{{packages}}}\n\\begin{{table}}\n\\centering\\small\n"
        f"\\caption{{{table.title.translate(_LATEX)}}}\n\\label{{tab:{table.name}}}\n"
        f"{lines}\\par\\smallskip\\footnotesize {note}\n\\end{{table}}\n"
    )


def _prose(text: str) -> Markup:
    """Return plain text as HTML; what stands in backticks becomes code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def _page(report: Report) -> str:
    """Return the report as one HTML page that opens without a network."""
    environment = templates(autoescape=True)
    environment.filters |= {
        "prose": _prose,
        "base64": lambda text: base64.b64encode(text.encode()).decode(),
        "url": quote,
        "anchor": lambda title: re.sub(r"[^a-z0-9]+", "-", title.lower()),
    }
    environment.tests["table"] = lambda item: isinstance(item, Table)
    return environment.get_template("report.html.j2").render(
        report=report,
        alignments=_alignments,
        not_defined=NOT_DEFINED,
        css=Markup((_FOLDER / "report.css").read_text("utf-8")),  # noqa: S704 - our own file
        js=Markup((_FOLDER / "report.js").read_text("utf-8")),  # noqa: S704 - our own file
    )


def write(report: Report, folder: Path) -> None:
    """Write the page, and the files of the tables and figures that it links to.

    ``report.html``; ``tables/<name>.csv`` (all rows and columns), ``.md`` and ``.tex`` (as shown);
    ``figures/<name>.svg`` and ``.png``.
    """
    files: dict[str, str | bytes] = {}
    for table in report.tables:
        files[f"tables/{table.name}.csv"] = table.frame.to_csv(index=False)
        files[f"tables/{table.name}.md"] = markdown(table)
        files[f"tables/{table.name}.tex"] = latex(table)
    for figure in report.figures:
        files[f"figures/{figure.name}.svg"] = figure.svg
        files[f"figures/{figure.name}.png"] = figure.png
    # The page is last, so that its links never lead to missing files.
    files["report.html"] = _page(report)
    for name, content in files.items():
        with replacing(folder / name, lasting=False) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
