"""All comparisons of a report: groups, tests, and the correction for their number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cnmc.analysis.bootstrap import SubjectBootstrap
from cnmc.analysis.metrics import FloatArray, decision_metrics
from cnmc.analysis.results import Group, Study
from cnmc.analysis.selection import best_logits
from cnmc.analysis.statistics import (
    Comparison,
    Interval,
    compare,
    compare_paired,
    difference_interval,
    holm,
    mean_interval,
)

MANN_WHITNEY, WILCOXON = "Mann-Whitney", "Wilcoxon signed-rank"


@dataclass(frozen=True)
class Row:
    """One comparison of F1 between a first and a second group."""

    first: str
    second: str
    protocol: str
    test: str
    num_first: int
    num_second: int
    mean_first: float
    mean_second: float
    found: Comparison
    seeds: Interval
    """Of the difference of the means, over other seeds."""
    subjects: Interval
    """Of the difference of the means, over other seeds and other subjects."""
    experiment: str = ""
    """The experiment of the paper that the first group repeats: ``norot``, ``nospeclr`` or none."""
    p_holm: float = float("nan")
    """The two-sided p-value, corrected for the number of comparisons (Holm)."""


@dataclass(frozen=True)
class _Sample:
    label: str
    logits: FloatArray


def comparisons(
    study: Study, bootstraps: dict[tuple[str, ...], SubjectBootstrap]
) -> tuple[list[Row], list[str]]:
    """Compare every group with the first one on the same cells, and rotations with none.

    Args:
        study: The groups; the reference is the first of them.
        bootstraps: By :attr:`Group.cells_key`, the resamples of the subjects.

    Returns:
        The comparisons, and a line for each that is refused because the cells are not the same.
    """
    rows: list[Row] = []
    refused: list[str] = []
    references: dict[tuple[str, ...], Group] = {}
    for group in study.groups:
        reference = references.setdefault(group.cells_key, group)
        bootstrap = bootstraps[group.cells_key]
        sample = _Sample(group.label, group.logits)
        if reference is not group:
            against = _Sample(reference.label, reference.logits)
            rows.append(_row(group, sample, against, bootstrap, experiment=group.experiment))
            continue
        if group is not study.reference:
            refused.append(_refusal(group, study.reference))
        if group.has_rotations:
            without = f"{group.label}, no rotation (same checkpoints)"
            rows.append(
                _row(
                    group,
                    _Sample(without, group.upright),
                    sample,
                    bootstrap,
                    paired=True,
                    experiment="norot" if group.experiment == "proposal" else "",
                )
            )
            if _stands_for_norot(group, study):
                own = _Sample(
                    f"{group.label}, no rotation (own epoch)", best_logits(group, rotations=False)
                )
                rows.append(_row(group, own, sample, bootstrap, experiment="norot"))
    corrected = holm([row.found.p_value for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)], refused


def _stands_for_norot(group: Group, study: Study) -> bool:
    """Return whether the runs of PROPOSAL also give NOROT, because it has no runs of its own."""
    trained = any(
        other.experiment == "norot" and other.cells_key == group.cells_key for other in study.groups
    )
    return group.experiment == "proposal" and group.protocol == "paper" and not trained


def _row(
    group: Group,
    first: _Sample,
    second: _Sample,
    bootstrap: SubjectBootstrap,
    *,
    paired: bool = False,
    experiment: str = "",
) -> Row:
    one, other = (decision_metrics(group.labels, sample.logits)["f1"] for sample in (first, second))
    resampled = [bootstrap.metrics(sample.logits)["f1"] for sample in (first, second)]
    return Row(
        first=first.label,
        second=second.label,
        protocol=group.protocol,
        test=WILCOXON if paired else MANN_WHITNEY,
        num_first=len(one),
        num_second=len(other),
        mean_first=float(one.mean()),
        mean_second=float(other.mean()),
        found=(compare_paired if paired else compare)(one, other),
        seeds=mean_interval(one - other) if paired else difference_interval(one, other),
        subjects=bootstrap.difference_interval(*resampled, paired=paired),
        experiment=experiment,
    )


def _refusal(group: Group, reference: Group) -> str:
    differences = [
        f"{one} against {other}"
        for one, other in zip(group.cells_key, reference.cells_key, strict=True)
        if one != other
    ]
    return f"{group.label} is not compared with {reference.label}: {', '.join(differences)}"
