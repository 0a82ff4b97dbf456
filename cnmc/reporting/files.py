"""The report as files: the page, and each table and figure for use elsewhere."""

from __future__ import annotations

from pathlib import Path

from cnmc.files import replacing
from cnmc.reporting.document import Report
from cnmc.reporting.latex import latex
from cnmc.reporting.markdown import markdown
from cnmc.reporting.page import render


def _write(path: Path, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    # What a power failure takes away here is made again by one command.
    with replacing(path, lasting=False) as temporary:
        temporary.write_bytes(data)


def write(report: Report, folder: Path) -> None:
    """Write the page, and the files of the tables and figures that it links to.

    ``report.html``; ``tables/<name>.csv`` (as stored), ``.md`` and ``.tex`` (as shown);
    ``figures/<name>.svg`` and ``.png``. The page comes last: what it links to is there before it.

    Raises:
        ValueError: A drawing is not an SVG document.
    """
    page = render(report)
    for table in report.tables:
        path = folder / "tables" / table.name
        _write(path.with_name(f"{table.name}.csv"), table.frame.to_csv(index=False))
        _write(path.with_name(f"{table.name}.md"), markdown(table))
        _write(path.with_name(f"{table.name}.tex"), latex(table))
    for figure in report.figures:
        path = folder / "figures" / figure.name
        _write(path.with_name(f"{figure.name}.svg"), figure.svg)
        _write(path.with_name(f"{figure.name}.png"), figure.png)
    _write(folder / "report.html", page)
