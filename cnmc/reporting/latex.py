"""A table as LaTeX that pdflatex sets with booktabs alone."""
# ruff: noqa: RUF001 - characters that look like others are the matter of this file

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from cnmc.reporting.document import Column, Table
from cnmc.reporting.prose import one_line, pieces

CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    "`": r"\char96{}",
    "[": "{[}",  # else the option of the line end before it
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "∞": r"$\infty$",
    "°": r"$^\circ$",
    "²": "$^2$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "Δ": r"$\Delta$",
    "κ": r"$\kappa$",
    "λ": r"$\lambda$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "χ": r"$\chi$",
    "\u00a0": "~",
    "\u2009": r"\,",
    "\u202f": r"\,",
}
"""Characters that are not themselves in LaTeX."""

LETTERS = frozenset("àáâãäåæçèéêëìíîïñòóôõöøœùúûüýÿßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØŒÙÚÛÜÝŸ")
"""Letters beyond ASCII that pdflatex sets without a package."""


def _character(character: str) -> str:
    if character in CHARACTERS:
        return CHARACTERS[character]
    if character in LETTERS or (character.isascii() and character.isprintable()):
        return character
    if unicodedata.category(character).startswith("C"):
        return ""
    plain = unicodedata.normalize("NFKD", character)
    near = "".join(CHARACTERS.get(c, c) for c in plain if c.isascii() and c.isprintable())
    return near or "?"


_MOST_COLUMNS = 8
"""Columns that the width of a page holds in small print."""


def _escaped(text: str) -> str:
    return "".join(map(_character, unicodedata.normalize("NFC", text)))


def latex_text(text: str) -> str:
    """Return plain text as LaTeX that pdflatex sets without further packages.

    A character that it knows nothing of becomes the nearest in ASCII, or a question mark.
    """
    return _escaped(one_line(text))


def _note(text: str) -> str:
    """Return plain text as LaTeX, what stands in backticks as code."""
    return "".join(
        rf"\texttt{{{_escaped(piece)}}}" if code else _escaped(piece)
        for piece, code in pieces(one_line(text))
    )


def _cell(text: str, column: Column) -> str:
    cell = latex_text(text)
    # A hyphen before a number is a minus.
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", cell) if column.align == "right" else cell


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def latex(table: Table) -> str:
    r"""Return a table as a LaTeX ``table``, with ``\label{tab:<name>}``; it needs booktabs.

    One of many columns is made as wide as the text, for which it needs graphicx too.
    """
    wide = len(table.columns) > _MOST_COLUMNS
    label = re.sub(r"[^A-Za-z0-9:._-]+", "-", table.name)
    lines = [
        r"% \usepackage{booktabs,graphicx}" if wide else r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{latex_text(table.title)}}}",
        rf"\label{{tab:{label}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{{''.join(column.align[0] for column in table.columns)}}}",
        r"\toprule",
        _row([latex_text(column.head) for column in table.columns]),
        r"\midrule",
        *(
            _row([_cell(*pair) for pair in zip(row, table.columns, strict=True)])
            for row in table.shown()
        ),
        r"\bottomrule",
        r"\end{tabular}}" if wide else r"\end{tabular}",
    ]
    if table.note:
        lines += [
            "",
            r"\smallskip",
            rf"\begin{{minipage}}{{\linewidth}}\footnotesize {_note(table.note)}\end{{minipage}}",
        ]
    return "\n".join([*lines, r"\end{table}", ""])
