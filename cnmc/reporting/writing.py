"""The report as files: the page, and each table and figure for use elsewhere."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup, escape

from cnmc.files import replacing
from cnmc.reporting.document import (
    FOLDER,
    NOT_DEFINED,
    Figure,
    Report,
    Table,
    alignments,
    templates,
)

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


def markdown(table: Table) -> str:
    """Return a table as Markdown: title, pipe table and note."""
    frame = table.formatted()
    pipes = frame.map(lambda cell: re.sub(r"([\\|<])", r"\\\1", cell)).to_markdown(
        index=False, tablefmt="pipe", disable_numparse=True, colalign=alignments(frame)
    )
    return "\n\n".join(filter(None, (f"# {table.title}", pipes, table.note))) + "\n"


def latex(table: Table) -> str:
    r"""Return a table as a LaTeX ``table`` with ``\label{tab:<name>}``, for booktabs."""
    frame = table.formatted()
    align = "".join(side[0] for side in alignments(frame))
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


def _image(figure: Figure) -> str:
    """Return a figure as a data URI, so that the page is one file."""
    return "data:image/svg+xml;base64," + base64.b64encode(figure.svg.encode()).decode()


def page(report: Report) -> str:
    """Return the report as one HTML page that opens without a network."""
    environment = templates(autoescape=True)
    environment.filters |= {"prose": _prose, "image": _image, "url": quote}
    environment.tests |= {
        "table": lambda item: isinstance(item, Table),
        "figure": lambda item: isinstance(item, Figure),
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        alignments=alignments,
        not_defined=NOT_DEFINED,
        css=Markup((FOLDER / "report.css").read_text("utf-8")),  # noqa: S704 - our own file
        js=Markup((FOLDER / "report.js").read_text("utf-8")),  # noqa: S704 - our own file
    )


def _write(path: Path, content: str | bytes) -> None:
    with replacing(path, lasting=False) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write(report: Report, folder: Path) -> None:
    """Write the page, and the files of the tables and figures that it links to.

    ``report.html``; ``tables/<name>.csv`` (all rows and columns), ``.md`` and ``.tex`` (as shown);
    ``figures/<name>.svg`` and ``.png``.
    """
    for table in report.tables:
        forms = {"csv": table.frame.to_csv(index=False), "md": markdown(table), "tex": latex(table)}
        for suffix, content in forms.items():
            _write(folder / "tables" / f"{table.name}.{suffix}", content)
    for figure in report.figures:
        _write(folder / "figures" / f"{figure.name}.svg", figure.svg)
        _write(folder / "figures" / f"{figure.name}.png", figure.png)
    # The page is last, so that its links never lead to missing files.
    _write(folder / "report.html", page(report))
