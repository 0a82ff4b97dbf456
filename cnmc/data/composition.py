"""Subjects and cells of a data set, beside the paper's Table 1."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

from cnmc.data.names import LABELS, PARTS

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
_HEADS = dict(
    zip(
        COUNTS,
        ("ALL subjects", "HEM subjects", "ALL cells", "HEM cells", "unlabelled"),
        strict=True,
    )
)


def composition(cells: pd.DataFrame) -> pd.DataFrame:
    """Count subjects and cells by part and class.

    Args:
        cells: Rows of a manifest (``part``, ``subject``, ``label``).

    Returns:
        Counts with the index and columns of :data:`TABLE1`. A subject with cells of both classes
        counts in both.
    """
    counts = pd.DataFrame(0, index=TABLE1.index, columns=pd.Index(COUNTS), dtype="Int64")
    for part, of_part in cells.groupby("part"):
        for name, label in LABELS.items():
            subjects = of_part.loc[of_part["label"].eq(label).fillna(value=False), "subject"]
            counts.loc[part, f"subjects_{name}"] = subjects.nunique()
            counts.loc[part, f"cells_{name}"] = len(subjects)
        counts.loc[part, "cells_unlabelled"] = int(of_part["label"].isna().sum())
    return counts


def format_composition(counts: pd.DataFrame) -> str:
    """Format the composition beside Table 1, and list the differences.

    Args:
        counts: The result of :func:`composition`.

    Returns:
        Lines of at most 80 columns; each number of the data set is followed by the paper's.
    """
    heads = [
        f"{head:>14}" if name in COUNTS[:4] else f"{head:>12}" for name, head in _HEADS.items()
    ]
    lines = [f"{'':12}{''.join(heads)}", f"{'':12}{'   here  paper' * 4}  here paper"]
    for part, title in PART_TITLES.items():
        line = f"{title:12}"
        for name in COUNTS:
            width = 7 if name in COUNTS[:4] else 6
            line += f"{_number(counts, part, name):>{width}}{_number(TABLE1, part, name):>{width}}"
        lines.append(line)
    remarks = [
        textwrap.fill(f"{title}: {remark}.", 80, subsequent_indent="  ")
        for part, title in PART_TITLES.items()
        for remark in _differences(counts.loc[part], TABLE1.loc[part])
    ]
    return "\n".join([*lines, "", *remarks])


def _number(counts: pd.DataFrame, part: str, name: str) -> str:
    value: Any = counts.loc[part, name]
    if counts is TABLE1 and name == "cells_unlabelled" and part != "final":
        return "-"
    return "?" if pd.isna(value) else f"{int(value):,}"


def _differences(here: Any, paper: Any) -> list[str]:
    """Describe how one part differs from Table 1."""
    # Subjects and classes of the final part are not public: only its size can be compared.
    is_final = paper.name == "final"
    names = ["cells_unlabelled"] if is_final else list(COUNTS[:4])
    if here.sum() == 0:
        return ["missing as a whole"]
    if not is_final and not here[names].any():
        return ["labels missing"]
    short = (paper - here)[names]
    missing = [f"{number:,} {_HEADS[name]}" for name, number in short.items() if number > 0]
    beyond = [f"{-number:,} {_HEADS[name]}" for name, number in short.items() if number < 0]
    remarks = [f"missing {', '.join(missing)}"] if missing else []
    remarks += [f"beyond Table 1 {', '.join(beyond)}"] if beyond else []
    return remarks or ["complete"]
