"""Confidence intervals of the means, and the bias of choosing the epoch on the reported cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import METRICS, evaluate_each
from cnmc.analysis.published import published
from cnmc.analysis.results import Group, Study
from cnmc.analysis.selection import HONEST, is_honest_twin, schemes
from cnmc.analysis.statistics import CONFIDENCE, mean_interval
from cnmc.reporting import plots
from cnmc.reporting.document import GROUP, Figure, Item, Table, interval, named, spread
from cnmc.reporting.findings import TITLES, Findings, ends

_LEVEL = f"{100 * CONFIDENCE:g} % interval"


@plots.styled()
def intervals(findings: Findings) -> list[Item]:
    """Return the confidence interval of each mean over seeds, and over subjects and seeds."""
    rows = [row for group in findings.study.groups for row in _means(findings, group)]
    frame = pd.DataFrame(rows)
    words = (
        "The interval over seeds shows what another training on the same data would give. The "
        "second, wider interval shows what to expect for other patients."
    )
    table = Table(
        "intervals",
        "95 % confidence intervals of the mean",
        frame,
        GROUP
        | {"metric": named("metric", TITLES), "n": "n", "mean": "mean"}
        | {"over seeds": interval("seeds_"), "over subjects and seeds": interval("subjects_")},
        "In %. Over seeds: bootstrap over other trainings on the same cells, bias-corrected and "
        "accelerated. Over subjects and seeds: also over other patients; whole subjects are "
        "resampled within each class, because the cells of one subject are not independent, and "
        "seeds are resampled separately. Not defined with one run, or with one subject of a class.",
    )
    return [words, _draw_intervals(frame[frame["metric"] == "f1"], findings.study), table]


def _means(findings: Findings, group: Group) -> list[dict[str, Any]]:
    bootstrap = findings.bootstraps[group.cells_key]
    values = evaluate_each(group.labels, group.logits)
    resampled = bootstrap.all_metrics(group.logits)
    return [
        {
            "experiment": group.label,
            "protocol": group.protocol,
            "metric": metric,
            "n": len(group.runs),
            "num_subjects": len(group.subjects[0]),
            "mean": 100 * values[metric].mean(),
            **ends("seeds_", mean_interval(values[metric])),
            **ends("subjects_", bootstrap.interval(resampled[metric])),
        }
        for metric in METRICS
    ]


def _draw_intervals(frame: pd.DataFrame, study: Study) -> Figure:
    drawing, (axes,) = plots.panels(0.6 + plots.row_height(list(frame["experiment"]), 0.36))
    protocols = list(dict.fromkeys(frame["protocol"]))
    numbers = []
    for place, (row, group) in enumerate(zip(frame.to_dict("records"), study.groups, strict=True)):
        style = plots.marks(protocols.index(row["protocol"]), linestyle="")
        for over, width, alpha in (("subjects", 1.1, 1.0), ("seeds", 4.0, 0.55)):
            line = {"color": style["color"], "linewidth": width, "alpha": alpha}
            label = f"{_LEVEL} over {over}" + (" and seeds" if over == "subjects" else "")
            axes.hlines(place, row[f"{over}_low"], row[f"{over}_high"], label=label, **line)
        axes.plot(row["mean"], place, label=f"mean, protocol {row['protocol']}", **style)
        if paper := published(group.experiment, group.protocol, "f1"):
            grey = plots.hollow({"color": plots.GREY, "marker": "D"}, label="published mean ± std")
            axes.errorbar(paper["mean"], place + 0.25, xerr=paper["std"], **grey)
        numbers.append(f"{row['n']} runs, {row['mean']:.2f} %")
    plots.label_rows(axes, frame["experiment"], numbers)
    axes.set_xlabel("F1 in %")
    return plots.finish(
        drawing,
        "intervals",
        "Mean F1 of each experiment, with intervals",
        "Mean F1 of each experiment with both intervals, and the published mean.",
    )


@plots.styled()
def selection(findings: Findings) -> list[Item]:
    """Return F1 by the rule that chooses the epoch."""
    groups = findings.study.groups
    twins = {
        other.label
        for group in groups
        for other in groups
        if group is not other and is_honest_twin(group, other)
    }
    rows = [row for group in groups if group.label not in twins for row in _rules(group, groups)]
    frame = pd.DataFrame(rows)
    words = (
        "The paper chooses the epoch of each run by the F1 on the cells that it reports, which "
        "makes the results optimistic. This section shows what other rules give for the same runs."
    )
    table = Table(
        "selection",
        "F1 by the rule that chooses the epoch",
        frame,
        GROUP
        | {"rule": "scheme", "n": "n", "F1, mean ± std": spread()}
        | {"difference": "{difference:+.2f}", "95 %, seeds": interval("difference_")}
        | {"note": "note"},
        "In %, on the same reported cells. Difference: from the first rule of the experiment, in "
        "points of %.",
    )
    items: list[Item] = [words, _draw_rules(frame), table]
    if HONEST not in set(frame["scheme"]):
        items.append(
            "There is no run of the honest protocol on these cells. `split=nested` trains one, in "
            "which subjects of the training part choose the epoch."
        )
    return items


def _rules(group: Group, groups: tuple[Group, ...]) -> list[dict[str, Any]]:
    found = schemes(group, groups)
    first, rows = found[0].f1, []
    for scheme in found:
        if len(scheme.f1) == len(first) and scheme.name != HONEST:
            gain = mean_interval(scheme.f1 - first)
        else:
            gain = mean_interval(scheme.f1, first)
        rows.append(
            {
                "experiment": group.label,
                "protocol": "honest" if scheme.name == HONEST else group.protocol,
                "scheme": scheme.name,
                "n": len(scheme.f1),
                "mean": 100 * scheme.f1.mean(),
                "std": 100 * scheme.f1.std(),
                **ends("seeds_", mean_interval(scheme.f1)),
                "difference": 100 * (scheme.f1.mean() - first.mean()),
                **ends("difference_", gain),
                "note": scheme.note,
            }
        )
    return rows


def _draw_rules(frame: pd.DataFrame) -> Figure:
    rules, num_groups = list(dict.fromkeys(frame["scheme"])), frame["experiment"].nunique()
    least = max(0.36, 0.13 * (num_groups + 1))
    drawing, (axes,) = plots.panels(0.5 + plots.row_height(rules, least))
    for position, (style, rows) in enumerate(plots.by_experiment(frame)):
        shift = (position - (num_groups - 1) / 2) * 0.7 / num_groups
        place = np.array([rules.index(rule) for rule in rows["scheme"]]) + shift
        axes.hlines(place, rows["seeds_low"], rows["seeds_high"], color=style["color"], lw=1.3)
        axes.plot(rows["mean"], place, **style | {"linestyle": ""})
    plots.label_rows(axes, rules)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("F1 in %")
    return plots.finish(
        drawing,
        "selection",
        "Mean F1 by the rule that chooses the epoch",
        "Mean F1 with its interval for each rule that chooses the epoch and each experiment.",
        f"Bars: {_LEVEL} over seeds.",
    )
