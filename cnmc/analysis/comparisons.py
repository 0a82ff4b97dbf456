"""All comparisons of a report: groups, their tests, and the numbers of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cnmc.analysis.bootstrap import SubjectBootstrap
from cnmc.analysis.metrics import FloatArray, decision_metrics
from cnmc.analysis.results import Group, Study
from cnmc.analysis.selection import best_upright_logits
from cnmc.analysis.statistics import compare, holm, mean_interval

MANN_WHITNEY, WILCOXON = "Mann-Whitney", "Wilcoxon signed-rank"
PUBLISHED: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text())
"""The numbers of Prellberg & Kramer (2019); the file describes them."""


def published(experiment: str, protocol: str, metric: str) -> dict[str, float]:
    """Return mean, std, and of PROPOSAL min and max, of a metric in the paper, in %.

    It is empty if the paper does not have the metric. All its numbers are of protocol ``paper``.
    """
    runs = PUBLISHED["runs"] if protocol == "paper" else {}
    found: dict[str, float] = runs.get(experiment, {}).get(metric, {})
    return found


def comparisons(
    study: Study, bootstraps: dict[tuple[str, ...], SubjectBootstrap]
) -> tuple[pd.DataFrame, list[str]]:
    """Compare the F1 of every group with the first on the same cells, and rotations with none.

    ``bootstraps`` has the resamples of the subjects by :attr:`Group.cells_key`.

    Returns:
        The comparisons, and a line for each that is refused because the cells are not the same.
        The columns are those of :func:`_compared`; first and second, the names; experiment, which
        the first repeats (``norot``, ``nospeclr`` or none); and p_holm, the two-sided p-value
        corrected for the number of comparisons.
    """
    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    references: dict[tuple[str, ...], Group] = {}
    for group in study.groups:
        reference = references.setdefault(group.cells_key, group)
        bootstrap, label = bootstraps[group.cells_key], group.label
        if reference is not group:
            names = {"first": label, "second": reference.label, "experiment": group.experiment}
            rows.append(names | _compared(group, group.logits, reference.logits, bootstrap))
            continue
        if group is not study.reference:
            pairs = zip(group.cells_key, study.reference.cells_key, strict=True)
            differences = ", ".join(f"{one} against {two}" for one, two in pairs if one != two)
            refused.append(f"{label} is not compared with {study.reference.label}: {differences}")
        if group.has_rotations:
            norot = "norot" if group.experiment == "proposal" else ""
            names = {"second": label, "experiment": norot}
            first = {"first": f"{label}, no rotation (same checkpoints)"}
            found = _compared(group, group.upright, group.logits, bootstrap, paired=True)
            rows.append(first | names | found)
            on_same = {g.experiment for g in study.groups if g.cells_key == group.cells_key}
            if norot and group.protocol == "paper" and "norot" not in on_same:
                first = {"first": f"{label}, no rotation (own epoch)"}
                own = best_upright_logits(group)
                rows.append(first | names | _compared(group, own, group.logits, bootstrap))
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p_two_sided"])) if rows else table, refused


def _compared(
    group: Group,
    first: FloatArray,
    second: FloatArray,
    bootstrap: SubjectBootstrap,
    *,
    paired: bool = False,
) -> dict[str, Any]:
    """Compare two groups of logits, (R, N) and (Q, N), on the group's cells, as fractions of 1.

    The intervals of the difference are over other seeds, and over other seeds and subjects.
    """
    one, other = (decision_metrics(group.labels, logits)["f1"] for logits in (first, second))
    resampled = [bootstrap.metrics(logits)["f1"] for logits in (first, second)]
    if paired:
        seeds = mean_interval(one - other)
        subjects = bootstrap.interval(resampled[0] - resampled[1])
    else:
        seeds, subjects = mean_interval(one, other), bootstrap.interval(*resampled)
    return {
        "protocol": group.protocol,
        "test": WILCOXON if paired else MANN_WHITNEY,
        "num_first": len(one),
        "num_second": len(other),
        "mean_first": float(one.mean()),
        "mean_second": float(other.mean()),
        "seeds_low": seeds[0],
        "seeds_high": seeds[1],
        "subjects_low": subjects[0],
        "subjects_high": subjects[1],
        **compare(one, other, paired=paired),
    }
