"""How sure the means are, and what choosing the epoch on the reported cells flatters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cnmc.analysis.bootstrap import SubjectBootstrap
from cnmc.analysis.metrics import METRICS, aurocs, decision_metrics
from cnmc.analysis.published import published
from cnmc.analysis.results import Study
from cnmc.analysis.selection import HONEST, is_honest_twin, schemes
from cnmc.analysis.statistics import CONFIDENCE, difference_interval, mean_interval
from cnmc.reporting import figures
from cnmc.reporting.document import (
    Column,
    Section,
    Table,
    column,
    count,
    interval,
    number,
    signed,
    spread,
)
from cnmc.reporting.terms import GROUP, TITLES

Bootstraps = Mapping[tuple[str, ...], SubjectBootstrap]

_TWO_INTERVALS = (
    "The interval over seeds says what another training on the same data would show. What to "
    "expect for other patients is the second, wider one."
)
_FLATTERY = (
    "The paper chooses each run's epoch by the F1 on the very cells that it reports, which "
    "flatters. The same runs tell what other rules would have reported."
)


def intervals_section(study: Study, bootstraps: Bootstraps) -> Section:
    """Return how sure each mean is: over seeds, and over subjects as well."""
    rows = []
    for group in study.groups:
        bootstrap = bootstraps[group.cells_key]
        values = decision_metrics(group.labels, group.logits)
        values["auroc"] = aurocs(group.labels, group.logits)
        resampled = bootstrap.metrics(group.logits)
        resampled["auroc"] = bootstrap.auroc(group.logits)
        for metric in METRICS:
            seeds = mean_interval(values[metric])
            persons = bootstrap.interval(resampled[metric])
            rows.append(
                {
                    "experiment": group.label,
                    "protocol": group.protocol,
                    "metric": metric,
                    "n": len(group.runs),
                    "num_subjects": len(group.subjects[0]),
                    "mean": 100 * values[metric].mean(),
                    "seeds_low": 100 * seeds[0],
                    "seeds_high": 100 * seeds[1],
                    "subjects_low": 100 * persons[0],
                    "subjects_high": 100 * persons[1],
                }
            )
    frame = pd.DataFrame(rows)
    table = Table(
        name="intervals",
        title="95 % confidence intervals of the mean",
        frame=frame,
        columns=[
            *GROUP,
            column("metric", "metric", lambda name: TITLES[name], align="left"),
            column("n", "n", count),
            column("mean", "mean", number),
            Column("over seeds", lambda row: interval(row["seeds_low"], row["seeds_high"])),
            Column(
                "over subjects and seeds",
                lambda row: interval(row["subjects_low"], row["subjects_high"]),
            ),
        ],
        note=(
            "In %. Over seeds: other trainings, the same cells (bootstrap, bias-corrected and "
            "accelerated). Over subjects and seeds: other patients too; whole subjects are "
            "resampled within each class, since the cells of one person are not independent, and "
            "seeds apart from them. Not defined with one run, or with one subject of a class."
        ),
    )
    drawn = frame[frame["metric"] == "f1"].rename(columns={"experiment": "group", "n": "num_runs"})
    scale = ["mean", "seeds_low", "seeds_high", "subjects_low", "subjects_high"]
    drawn = drawn.assign(**{name: drawn[name] / 100 for name in scale})
    drawn = drawn.assign(**_published_f1(study))
    return Section(
        "How sure the means are",
        [
            _TWO_INTERVALS,
            figures.intervals(drawn, level=CONFIDENCE),
            table,
        ],
    )


def _published_f1(study: Study) -> dict[str, list[float]]:
    found = [published(group.experiment, group.protocol, "f1") for group in study.groups]
    nan = float("nan")
    return {
        "published_mean": [paper.mean / 100 if paper else nan for paper in found],
        "published_std": [paper.std / 100 if paper else nan for paper in found],
    }


def selection_section(study: Study) -> Section:
    """Return what choosing the epoch on the reported cells flatters."""
    rows = []
    honest = False
    twins = {
        other.label
        for group in study.groups
        for other in study.groups
        if group is not other and is_honest_twin(group, other)
    }
    for group in study.groups:
        if group.label in twins:
            continue
        found = schemes(group, study.groups)
        for scheme in found:
            paired = len(scheme.f1) == len(found[0].f1) and scheme.name != HONEST
            gain = (
                mean_interval(scheme.f1 - found[0].f1)
                if paired
                else difference_interval(scheme.f1, found[0].f1)
            )
            own = mean_interval(scheme.f1)
            honest |= scheme.name == HONEST
            rows.append(
                {
                    "experiment": group.label,
                    "protocol": "honest" if scheme.name == HONEST else group.protocol,
                    "scheme": scheme.name,
                    "n": len(scheme.f1),
                    "mean": 100 * scheme.f1.mean(),
                    "std": 100 * scheme.f1.std(),
                    "seeds_low": 100 * own[0],
                    "seeds_high": 100 * own[1],
                    "difference": 100 * (scheme.f1.mean() - found[0].f1.mean()),
                    "difference_low": 100 * gain[0],
                    "difference_high": 100 * gain[1],
                    "note": scheme.note,
                }
            )
    frame = pd.DataFrame(rows)
    table = Table(
        name="selection",
        title="F1 by the rule that chooses the epoch",
        frame=frame,
        columns=[
            *GROUP,
            column("rule", "scheme"),
            column("n", "n", count),
            Column("F1, mean ± std", lambda row: spread(row["mean"], row["std"])),
            column("difference", "difference", signed),
            Column(
                "95 %, seeds",
                lambda row: interval(row["difference_low"], row["difference_high"]),
            ),
            column("", "note"),
        ],
        note=(
            "In %, on the same reported cells. Difference: from the first rule of the experiment, "
            "in points of %."
        ),
    )
    drawn = frame.rename(columns={"experiment": "group"})
    drawn["low"], drawn["high"] = drawn["seeds_low"], drawn["seeds_high"]
    ends = ["mean", "low", "high"]
    drawn[ends] = drawn[ends] / 100
    items: list[Any] = [_FLATTERY, figures.selection(drawn, level=CONFIDENCE), table]
    if not honest:
        items.append(
            "No run of the honest protocol on these cells is here: `split=nested` trains one, in "
            "which subjects of the training part choose the epoch."
        )
    return Section("What choosing the epoch flatters", items)
