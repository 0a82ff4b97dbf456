"""Subjects and cells of a data set, beside the paper's Table 1."""

from __future__ import annotations

import pandas as pd

from cnmc.data.names import PARTS

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
HEADS = ("ALL subjects", "HEM subjects", "ALL cells", "HEM cells", "unlabelled cells")


def composition(cells: pd.DataFrame) -> pd.DataFrame:
    """Count subjects and cells by part and class, with the index and columns of :data:`TABLE1`.

    A subject with cells of both classes counts in both.
    """
    counts = pd.DataFrame(0, index=TABLE1.index, columns=TABLE1.columns, dtype="Int64")
    kinds = cells["label"].fillna(2).map({1: "all", 0: "hem", 2: "unlabelled"})
    for (part, kind), subjects in cells.groupby(["part", kinds])["subject"]:
        counts.loc[part, f"cells_{kind}"] = len(subjects)
        if kind != "unlabelled":
            counts.loc[part, f"subjects_{kind}"] = subjects.nunique()
    return counts


def format_composition(counts: pd.DataFrame) -> str:
    """Format the composition beside Table 1."""
    here, paper = (
        table.map(lambda n: "?" if pd.isna(n) else f"{n:,}") for table in (counts, TABLE1)
    )
    table = (here + " / " + paper).rename(index=PART_TITLES).T.set_axis(list(HEADS))
    return table.rename_axis(columns=None).to_string(col_space=18)
