"""The rows of a benchmark as a table to read."""

from __future__ import annotations

from collections.abc import Sequence

from cnmc.benchmarking.measure import Row


def table(rows: Sequence[Row]) -> str:
    """Return the rows as plain text; a ratio above 1 is better than the baseline."""
    lines = [("stage", "what", "unit", "baseline", "ours", "ratio")]
    for row in rows:
        ratio = f"{row.ratio:.2f} ± {row.spread:.2f}" if row.spread else f"{row.ratio:.2f}"
        lines.append((row.stage, row.name, row.unit, _short(row.baseline), _short(row.ours), ratio))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = 3
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
