"""The paper's tables, figures and tests, recomputed from run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis import published
from cnmc.analysis.comparisons import Row
from cnmc.analysis.metrics import METRICS, decision_metrics
from cnmc.analysis.results import Group, Study
from cnmc.analysis.statistics import SIGNIFICANCE
from cnmc.analysis.subjects import best_and_last
from cnmc.reporting import figures
from cnmc.reporting.document import (
    Column,
    Section,
    Table,
    column,
    count,
    interval,
    number,
    p_value,
    signed,
    spread,
)
from cnmc.reporting.terms import CLASSES, GROUP, TITLES, best_position, is_generated
from cnmc.runs.folder import F1

SOURCE = "Prellberg & Kramer 2019"
_LARGEST_NUMBER = 10_000


def table2(study: Study, table: pd.DataFrame) -> Table:
    """Return min, mean, standard deviation and max of each metric, beside the paper's.

    Args:
        study: The groups.
        table: Rows of :func:`cnmc.analysis.results.run_table`.
    """
    rows = []
    for group in study.groups:
        of_group = table[table["group"] == group.label]
        headline = of_group[of_group["view"] == of_group["view"].iloc[0]]
        for metric in METRICS:
            values = 100 * headline[metric].to_numpy(dtype=float)
            paper = published.published(group.experiment, group.protocol, metric)
            row: dict[str, Any] = {
                "experiment": group.label,
                "protocol": group.protocol,
                "metric": metric,
                "n": len(values),
                "min": values.min(),
                "mean": values.mean(),
                "std": values.std(),
                "max": values.max(),
            }
            for name in ("min", "mean", "std", "max"):
                row[f"published_{name}"] = getattr(paper, name) if paper else float("nan")
            rows.append(row)

    def of_paper(row: Mapping[str, Any]) -> str:
        if np.isnan(row["published_mean"]):
            return ""
        text = spread(row["published_mean"], row["published_std"])
        if np.isnan(row["published_min"]):
            return text
        return f"{text} ({row['published_min']:.2f} to {row['published_max']:.2f})"

    return Table(
        name="table2",
        title="Table 2: the best epoch of each run",
        frame=pd.DataFrame(rows),
        columns=[
            *GROUP,
            column("metric", "metric", lambda name: TITLES[name], align="left"),
            column("n", "n", count),
            column("min", "min", number),
            Column("mean ± std", lambda row: spread(row["mean"], row["std"])),
            column("max", "max", number),
            Column("published", of_paper),
        ],
        note=(
            "In %. F1, precision and recall are weighted by the cells of each class; ALL is the "
            "positive class. Standard deviation with ddof 0. Published: mean ± std (min to max) of "
            f"{published.NUM_SEEDS} runs on the preliminary test set, protocol paper ({SOURCE}, "
            "Table 2 and section 4.4)."
        ),
    )


def curve_of_best_run(group: Group) -> pd.DataFrame:
    """Return epoch, train_loss, val_loss and val_f1 of the best run, from its ``metrics.csv``."""
    metrics = group.runs[best_position(group)].metrics
    names = {"epoch": "epoch", "train/loss": "train_loss", "val/loss": "val_loss", F1: "val_f1"}
    return metrics.reindex(columns=list(names)).rename(columns=names)


def by_epoch(group: Group) -> pd.DataFrame:
    """Return mean and std (ddof 0) over runs of each metric by epoch, of the reported cells."""
    epochs, logits = group.by_epoch
    scores = decision_metrics(group.labels, logits)
    return pd.DataFrame(
        [
            {"epoch": int(epoch), "metric": metric, "mean": values.mean(), "std": values.std()}
            for metric, by_run in scores.items()
            for epoch, values in zip(epochs, by_run, strict=True)
        ]
    )


def results_section(study: Study, table: pd.DataFrame) -> Section:
    """Return Table 2, and Figures 2 to 4."""
    group = study.reference
    best = group.runs[best_position(group)]
    curve = pd.DataFrame({"epoch": range(len(published.CURVE_F1)), "f1": list(published.CURVE_F1)})
    subjects = best_and_last(group, best_position(group))
    names = set(subjects["subject"])
    is_prelim = not is_generated(group) and names <= set(published.SUBJECT_ACCURACY)
    if is_prelim:
        subjects["published"] = subjects["subject"].map(published.SUBJECT_ACCURACY)
    items: list[Any] = [
        table2(study, table),
        figures.figure2(
            curve_of_best_run(group), label=f"{group.label}, {best.info.name}", published=curve
        ),
        figures.figure3(subjects, published=is_prelim),
        Table(
            name="figure3",
            folded=True,
            title="Figure 3 in numbers: cell accuracy by subject of the best run",
            frame=subjects.assign(
                **{
                    name: 100 * subjects[name]
                    for name in ("best", "last", "published")
                    if name in subjects
                }
            ),
            columns=[
                column("subject", "subject"),
                column("class", "label", lambda label: CLASSES[label], align="left"),
                column("cells", "num_cells", count),
                column("best epoch", "best", number),
                column("last epoch", "last", number),
                *([column("published, last epoch", "published", number)] if is_prelim else []),
            ],
            note=f"In %. The best run is `{best.info.label}`, protocol {group.protocol}.",
        ),
    ]
    courses = {g.label: by_epoch(g) for g in study.groups if len(g.by_epoch[0]) > 1}
    if courses:
        items.append(figures.figure4(courses))
        items.append(_course_table(courses, study))
    honest = [g.label for g in study.groups if len(g.by_epoch[0]) == 1]
    if honest:
        items.append(
            f"Not in Figure 4: {', '.join(honest)}. Their reported cells were evaluated once, by "
            "the chosen checkpoint."
        )
    return Section("The paper's results", items)


def _course_table(courses: Mapping[str, pd.DataFrame], study: Study) -> Table:
    protocols = {group.label: group.protocol for group in study.groups}
    rows = []
    for label, course in courses.items():
        for epoch, part in course.groupby("epoch", sort=False):
            row: dict[str, Any] = {"experiment": label, "protocol": protocols[label]}
            row["epoch"] = epoch
            for metric, mean, std in zip(part["metric"], part["mean"], part["std"], strict=True):
                row |= {f"{metric}_mean": 100 * mean, f"{metric}_std": 100 * std}
            rows.append(row)

    def shown(metric: str) -> Column:
        mean, std = f"{metric}_mean", f"{metric}_std"
        return Column(TITLES[metric], lambda row: spread(row[mean], row[std]))

    frame = pd.DataFrame(rows)
    return Table(
        name="figure4",
        folded=True,
        title="Figure 4 in numbers: metrics by epoch",
        frame=frame,
        columns=[
            *GROUP,
            column("epoch", "epoch", count),
            *[shown(metric) for metric in METRICS if f"{metric}_mean" in frame.columns],
        ],
        note="In %: mean ± std (ddof 0) over runs. Epoch 0 is the network before training.",
    )


def comparison_table(rows: Sequence[Row]) -> Table:
    """Return every comparison with its tests, intervals and effect size."""
    frame = pd.DataFrame([_comparison(row) for row in rows])

    def needed(row: Mapping[str, Any]) -> str:
        if row["p_holm"] <= SIGNIFICANCE:
            return "seen"
        wanted = row["num_needed"]
        if np.isnan(wanted):
            return number(wanted)
        return f"more than {_LARGEST_NUMBER:,}" if wanted > _LARGEST_NUMBER else count(wanted)

    return Table(
        name="comparisons",
        title="Comparisons of F1",
        frame=frame,
        columns=[
            column("first", "first"),
            column("second", "second"),
            column("protocol", "protocol"),
            Column("n", lambda row: f"{row['num_first']}, {row['num_second']}"),
            column("difference", "difference", signed),
            Column("95 %, seeds", lambda row: interval(row["seeds_low"], row["seeds_high"])),
            Column(
                "95 %, subjects and seeds",
                lambda row: interval(row["subjects_low"], row["subjects_high"]),
            ),
            column("P(first beats second)", "superiority", number),
            Column("95 %", lambda row: interval(row["superiority_low"], row["superiority_high"])),
            column("test", "test"),
            column("p, one-sided", "p_one_sided", p_value),
            column("p, two-sided", "p_two_sided", p_value),
            column("p, Holm", "p_holm", p_value),
            column("published p, one-sided", "published_p"),
            Column("seeds to see it", needed),
        ],
        note=(
            "Difference: mean F1 of the first less that of the second, in points of %, with "
            "bootstrap intervals over seeds alone, and over subjects as well. One-sided, as in the "
            "paper: that the first is lower. Holm's correction is over the two-sided p-values of "
            "this table. P(first beats second): that a run of the first has a higher F1 than a run "
            "of the second (of paired runs: than its own partner), 0.5 without a difference; "
            "Newcombe's interval (Wilson's for pairs). Seeds to see it: runs in each group, or "
            "pairs, for a power of 80 % at p = 0.05 if the difference is as large as here (Noether "
            "1987); a guess from few runs is itself rough."
        ),
    )


def _comparison(row: Row) -> dict[str, Any]:
    found = row.found
    return {
        "first": row.first,
        "second": row.second,
        "protocol": row.protocol,
        "test": row.test,
        "num_first": row.num_first,
        "num_second": row.num_second,
        "mean_first": 100 * row.mean_first,
        "mean_second": 100 * row.mean_second,
        "difference": 100 * found.difference,
        "seeds_low": 100 * row.seeds[0],
        "seeds_high": 100 * row.seeds[1],
        "subjects_low": 100 * row.subjects[0],
        "subjects_high": 100 * row.subjects[1],
        "superiority": found.superiority,
        "superiority_low": found.superiority_interval[0],
        "superiority_high": found.superiority_interval[1],
        "p_one_sided": found.p_less,
        "p_two_sided": found.p_value,
        "p_holm": row.p_holm,
        "published_p": published.P_VALUES.get(row.experiment, ""),
        "num_needed": found.num_needed,
    }


def comparison_section(rows: Sequence[Row], refused: Sequence[str]) -> Section:
    """Return the tests, the paper's and others."""
    items: list[Any] = [comparison_table(rows)] if rows else []
    if not rows:
        items.append("There is nothing to compare: one group of runs, without rotations.")
    items += [f"Refused: {line}." for line in refused]
    items += [
        f"{row.first} against {row.second}: so few runs ({row.num_first} and {row.num_second}) "
        f"cannot come below p = {SIGNIFICANCE} whatever they show."
        for row in rows
        if not row.found.can_tell
    ]
    return Section("Comparisons", items)
