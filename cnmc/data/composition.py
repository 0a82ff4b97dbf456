"""What a data set is made of, beside the paper's Table 1."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

from cnmc.data.names import PARTS

COUNTS = ("subjects_all", "subjects_hem", "cells_all", "cells_hem", "cells_unlabelled")

TABLE1 = pd.DataFrame(
    {
        "subjects_all": [47, 13, 9],
        "subjects_hem": [26, 15, 8],
        "cells_all": [7272, 1219, None],
        "cells_hem": [3389, 648, None],
        # Not in the paper's table: the release has this many images in its final part.
        "cells_unlabelled": [0, 0, 2586],
    },
    index=pd.Index(PARTS, name="part"),
    dtype="Int64",
)
"""Subjects and cells by class and part (Table 1 of the paper); NA where the paper has ``?``."""

PART_TITLES = {"train": "Train", "prelim": "Prelim. test", "final": "Final test"}
"""The names of the parts in Table 1."""
_HEADS = {
    "subjects_all": "ALL subjects",
    "subjects_hem": "HEM subjects",
    "cells_all": "ALL cells",
    "cells_hem": "HEM cells",
    "cells_unlabelled": "unlabelled",
}
_WIDTHS = {
    "subjects_all": 7,
    "subjects_hem": 7,
    "cells_all": 7,
    "cells_hem": 7,
    "cells_unlabelled": 6,
}
_TITLE_WIDTH = 12


def composition(cells: pd.DataFrame) -> pd.DataFrame:
    """Count subjects and cells by part and class.

    Args:
        cells: Rows of a manifest (``part``, ``subject``, ``label``).

    Returns:
        Counts with the index and columns of :data:`TABLE1`. A subject with cells of both classes
        counts in both.
    """
    counts = pd.DataFrame(0, index=TABLE1.index, columns=pd.Index(COUNTS), dtype="Int64")
    for part in PARTS:
        of_part = cells[cells["part"] == part]
        for name, label in (("all", 1), ("hem", 0)):
            of_class = of_part[of_part["label"].eq(label).fillna(value=False)]
            counts.loc[part, f"subjects_{name}"] = of_class["subject"].nunique()
            counts.loc[part, f"cells_{name}"] = len(of_class)
        counts.loc[part, "cells_unlabelled"] = int(of_part["label"].isna().sum())
    return counts


def format_composition(counts: pd.DataFrame) -> str:
    """Lay the composition out beside Table 1, and say what is missing against it.

    Args:
        counts: As :func:`composition` returns them.

    Returns:
        Lines of at most 80 columns; in each column of the table the data set's number is
        followed by the paper's.
    """
    head = " " * _TITLE_WIDTH
    subhead = " " * _TITLE_WIDTH
    for name in COUNTS:
        width = _WIDTHS[name]
        head += f"{_HEADS[name]:>{2 * width}}"
        subhead += f"{'here':>{width}}{'paper':>{width}}"
    lines = [head, subhead]
    for part in PARTS:
        line = f"{PART_TITLES[part]:<{_TITLE_WIDTH}}"
        for name in COUNTS:
            width = _WIDTHS[name]
            line += f"{_number(counts, part, name):>{width}}"
            line += f"{_published(part, name):>{width}}"
        lines.append(line)
    remarks = [textwrap.fill(line, 80, subsequent_indent="  ") for line in _differences(counts)]
    return "\n".join([*lines, "", *remarks])


def _number(counts: pd.DataFrame, part: str, name: str) -> str:
    value: Any = counts.loc[part, name]
    return "?" if pd.isna(value) else f"{int(value):,}"


def _published(part: str, name: str) -> str:
    if name == "cells_unlabelled" and part != "final":
        return "-"
    return _number(TABLE1, part, name)


def _differences(counts: pd.DataFrame) -> list[str]:
    """Say in a line a part how it differs from Table 1."""
    lines: list[str] = []
    for part in PARTS:
        title = PART_TITLES[part]
        # Subjects and classes of the final part are not public: only its size can be compared.
        names = ["cells_unlabelled"] if part == "final" else list(COUNTS[:4])
        have: Any = counts.loc[part]
        paper: Any = TABLE1.loc[part]
        short = {name: int(paper[name]) - int(have[name]) for name in names}
        if have.sum() == 0:
            lines.append(f"{title}: missing as a whole.")
            continue
        if part != "final" and not have[names].any():
            lines.append(f"{title}: labels missing.")
            continue
        missing = [f"{number:,} {_HEADS[name]}" for name, number in short.items() if number > 0]
        beyond = [f"{-number:,} {_HEADS[name]}" for name, number in short.items() if number < 0]
        if missing:
            lines.append(f"{title}: missing {', '.join(missing)}.")
        if beyond:
            lines.append(f"{title}: beyond Table 1 {', '.join(beyond)}.")
        if not missing and not beyond:
            lines.append(f"{title}: complete.")
    return lines
