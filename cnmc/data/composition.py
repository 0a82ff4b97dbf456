"""Subjects and cells of a data set, beside the paper's Table 1."""

from __future__ import annotations

import textwrap

import pandas as pd

from cnmc.data.names import LABELS, PARTS

COUNTS = ("subjects_all", "subjects_hem", "cells_all", "cells_hem", "cells_unlabelled")
TABLE1 = pd.DataFrame(
    [
        [47, 26, 7272, 3389, 0],
        [13, 15, 1219, 648, 0],
        # The paper does not count unlabelled cells: the release has 2,586 in its final part.
        [9, 8, None, None, 2586],
    ],
    index=pd.Index(PARTS, name="part"),
    columns=pd.Index(COUNTS),
    dtype="Int64",
)
"""Subjects and cells by class and part (Table 1 of the paper); NA where the paper has ``?``."""
PART_TITLES = {"train": "Train", "prelim": "Prelim. test", "final": "Final test"}
"""The names of the parts in Table 1."""
_HEADS = ("ALL subjects", "HEM subjects", "ALL cells", "HEM cells", "unlabelled cells")


def composition(cells: pd.DataFrame) -> pd.DataFrame:
    """Count subjects and cells by part and class, with the index and columns of :data:`TABLE1`.

    A subject with cells of both classes counts in both.
    """
    names = {label: name for name, label in LABELS.items()}
    kinds = cells["label"].astype(object).map(names).fillna("unlabelled")
    subjects = cells.groupby(["part", kinds])["subject"]
    counts = pd.concat(
        [
            subjects.nunique().unstack().add_prefix("subjects_"),
            subjects.size().unstack().add_prefix("cells_"),
        ],
        axis=1,
    )
    return counts.reindex(index=TABLE1.index, columns=TABLE1.columns).fillna(0).astype("Int64")


def format_composition(counts: pd.DataFrame) -> str:
    """Format the composition beside Table 1, and list the differences, in at most 80 columns."""
    here, paper = (
        table.map(lambda n: "?" if pd.isna(n) else f"{n:,}") for table in (counts, TABLE1)
    )
    table = (here + " / " + paper).rename(index=PART_TITLES).T.set_axis(list(_HEADS))
    remarks = [
        textwrap.fill(f"{title}: {_compare(counts.loc[part], part)}.", 80, subsequent_indent="  ")
        for part, title in PART_TITLES.items()
    ]
    return "\n".join([table.rename_axis(columns=None).to_string(col_space=18), "", *remarks])


def _compare(here: pd.Series, part: str) -> str:
    """Describe how one part differs from Table 1."""
    # Subjects and classes of the final part are not public: only its size can be compared.
    names = ["cells_unlabelled"] if part == "final" else list(COUNTS[:4])
    if not here.any():
        return "missing as a whole"
    if not here[names].any():
        return "labels missing"
    heads = dict(zip(COUNTS, _HEADS, strict=True))
    short = (TABLE1.loc[part] - here)[names]
    missing = [f"{number:,} {heads[name]}" for name, number in short.items() if number > 0]
    beyond = [f"{-number:,} {heads[name]}" for name, number in short.items() if number < 0]
    remarks = [f"missing {', '.join(missing)}"] if missing else []
    remarks += [f"beyond Table 1 {', '.join(beyond)}"] if beyond else []
    return "; ".join(remarks) or "complete"
