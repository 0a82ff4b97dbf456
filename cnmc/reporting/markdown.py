"""A table as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cnmc.reporting.document import Table
from cnmc.reporting.prose import one_line


def _text(text: str) -> str:
    """Return text in which no HTML begins."""
    return re.sub(r"&(?=#?\w+;)", "&amp;", one_line(text)).replace("<", "&lt;")


def _cell(text: str) -> str:
    # The backslash first: one that stood before a bar would take the bar's away.
    return re.sub(r"\\(?=[\\|])", r"\\\\", _text(text)).replace("|", r"\|")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown(table: Table) -> str:
    """Return a table as Markdown: its title, a pipe table of what is shown, its note."""
    rules = {"left": ":---", "right": "---:"}
    lines = [
        f"# {_text(table.title)}",
        "",
        _row([_cell(column.head) for column in table.columns]),
        _row([rules[column.align] for column in table.columns]),
        *(_row([_cell(cell) for cell in row]) for row in table.shown()),
    ]
    if table.note:
        lines += ["", _text(table.note)]
    return "\n".join([*lines, ""])
