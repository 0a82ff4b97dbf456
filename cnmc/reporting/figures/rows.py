"""Panels with one row a subject or group: its name on the left, numbers on the right."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from cnmc.reporting.drawing import SECONDARY, SMALL
from cnmc.reporting.figures.labels import width

_GAP = 9.0
"""Points between two columns."""


def set_rows(axes: Axes, labels: Sequence[str], *, num_rows: int | None = None) -> None:
    """Give each label a row; the first stands on top.

    Args:
        axes: The panel.
        labels: One a row; row k is at y = k.
        num_rows: The panel has room for so many rows, so that panels side by side match.
    """
    axes.set_yticks(range(len(labels)), labels=list(labels))
    axes.set_ylim((num_rows or len(labels)) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def write_columns(axes: Axes, columns: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Write columns of numbers beside the rows, aligned right under their heads."""
    place = _GAP / 2
    for head, cells in columns:
        place += 72 * max(width(text) for text in (head, *cells))
        for row, cell in enumerate(cells):
            axes.annotate(
                cell,
                (1.0, row),
                xycoords=axes.get_yaxis_transform(),
                xytext=(place, 0.0),
                textcoords="offset points",
                ha="right",
                va="center_baseline",
                fontsize=SMALL,
                annotation_clip=False,
            )
        axes.annotate(
            head,
            (1.0, 1.0),
            xycoords="axes fraction",
            xytext=(place, 7.0),
            textcoords="offset points",
            ha="right",
            va="baseline",
            fontsize=SMALL,
            color=SECONDARY,
            annotation_clip=False,
        )
        place += _GAP
