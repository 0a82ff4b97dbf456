"""How F1 varies with seeds, subjects, rules for the epoch, rotations, and the size of ensembles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import METRICS, evaluate_each
from cnmc.analysis.results import Group, Study
from cnmc.analysis.selection import HONEST, is_honest_twin, schemes, views
from cnmc.analysis.selection import ensembles as score_ensembles
from cnmc.analysis.statistics import mean_interval, std
from cnmc.analysis.summary import published
from cnmc.reporting import plots
from cnmc.reporting.document import Figure, Item, say, table
from cnmc.reporting.findings import Findings, ends, f1_of, in_percent


def intervals(findings: Findings) -> list[Item]:
    """Return the confidence interval of each mean over seeds, and over subjects and seeds."""
    rows = []
    for group in findings.study.groups:
        bootstrap = findings.bootstraps[group.cells_key]
        values = evaluate_each(group.labels, group.logits)
        resampled = bootstrap.all_metrics(group.logits)
        rows += [
            {
                "experiment": group.label,
                "protocol": group.protocol,
                "metric": metric,
                "n": len(group.runs),
                "num_subjects": group.cells["subject"].nunique(),
                "mean": 100 * values[metric].mean(),
                **ends("seeds_", mean_interval(values[metric])),
                **ends("subjects_", bootstrap.interval(resampled[metric])),
            }
            for metric in METRICS
        ]
    frame = pd.DataFrame(rows)
    figure = _draw_intervals(frame[frame["metric"] == "f1"], findings.study)
    return [say("intervals"), figure, table("intervals", frame)]


def _draw_intervals(frame: pd.DataFrame, study: Study) -> Figure:
    drawing, (axes,) = plots.panels(0.6 + plots.row_height(list(frame["experiment"]), 0.36))
    protocols = list(dict.fromkeys(frame["protocol"]))
    for place, (row, group) in enumerate(zip(frame.to_dict("records"), study.groups, strict=True)):
        style = plots.marks(protocols.index(row["protocol"]), linestyle="")
        for over, more, width, alpha in (
            ("subjects", " and seeds", 1.1, 1.0),
            ("seeds", "", 4.0, 0.55),
        ):
            line = {"color": style["color"], "linewidth": width, "alpha": alpha}
            label = f"95 % interval over {over}{more}"
            axes.hlines(place, row[f"{over}_low"], row[f"{over}_high"], label=label, **line)
        axes.plot(row["mean"], place, label=f"mean, protocol {row['protocol']}", **style)
        if paper := published(group.experiment, group.protocol, "f1"):
            grey = plots.hollow({"color": plots.GREY, "marker": "D"}, label="published mean ± std")
            axes.errorbar(paper["mean"], place + 0.25, xerr=paper["std"], **grey)
    numbers = [f"{n} runs, {mean:.2f} %" for n, mean in zip(frame["n"], frame["mean"], strict=True)]
    plots.label_rows(axes, frame["experiment"], numbers)
    axes.set_xlabel("F1 in %")
    return plots.finish(drawing, "intervals")


def selection(findings: Findings) -> list[Item]:
    """Return F1 by the rule that chooses the epoch."""
    groups = findings.study.groups
    twins = {twin.label for group, twin in permutations(groups, 2) if is_honest_twin(group, twin)}
    rows = [row for group in groups if group.label not in twins for row in _rules(group, groups)]
    frame = pd.DataFrame(rows)
    items: list[Item] = [say("selection"), _draw_rules(frame), table("selection", frame)]
    return items if HONEST in set(frame["scheme"]) else [*items, say("no_honest_run")]


def _rules(group: Group, groups: tuple[Group, ...]) -> list[dict[str, Any]]:
    found = schemes(group, groups)
    first, rows = found[0].f1, []
    for scheme in found:
        is_paired = len(scheme.f1) == len(first) and scheme.name != HONEST
        gain = mean_interval(scheme.f1 - first) if is_paired else mean_interval(scheme.f1, first)
        rows.append(
            {
                "experiment": group.label,
                "protocol": "honest" if scheme.name == HONEST else group.protocol,
                "scheme": scheme.name,
                "n": len(scheme.f1),
                "mean": 100 * scheme.f1.mean(),
                "std": 100 * std(scheme.f1),
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
    return plots.finish(drawing, "selection")


def _joined(
    groups: Sequence[Group], score: Callable[[Group], pd.DataFrame], *scaled: str
) -> pd.DataFrame:
    """Join the scores of all groups, with fractions in percent."""
    parts = []
    for group in groups:
        parts.append(in_percent(score(group), *scaled))
        parts[-1].insert(0, "experiment", group.label)
        parts[-1].insert(1, "protocol", group.protocol)
    return pd.concat(parts)


def rotations(findings: Findings) -> list[Item]:
    """Return F1 by the number of rotations that are averaged."""
    groups = [group for group in findings.study.groups if group.has_rotations]
    if not groups:
        return [say("no_rotations")]
    words: list[Item] = []
    for group in groups:
        gains = f1_of(group) - f1_of(group, rotations=False)
        numbers = {"gain": 100 * gains.mean(), "higher": (gains > 0).sum(), "runs": len(gains)}
        words.append(say("rotations", group=group.label, **numbers))
    frame = _joined(groups, views, "mean", "std", "spaced")
    drawing, (axes,) = plots.panels(2.8)
    for style, rows in plots.by_experiment(frame):
        plots.line(axes, rows, style, "num_views")
        axes.plot(rows["num_views"], rows["spaced"], **plots.hollow(style, ms=6.5, label=""))
    grey = plots.hollow({"color": plots.GREY, "marker": "o"}, label="equally spaced rotations")
    axes.plot([], [], **grey)
    axes.set_ylabel("F1 in %")
    plots.count_along(axes, "rotations averaged")
    return [*words, plots.finish(drawing, "views"), table("views", frame)]


def ensembles(findings: Findings) -> list[Item]:
    """Return F1 and AUROC of the mean logit of k runs."""
    groups = [group for group in findings.study.groups if len(group.runs) > 1]
    if not groups:
        return [say("no_ensembles")]
    metrics = {"f1": "F1", "auroc": "AUROC"}
    scaled = [f"{metric}_{end}" for metric in metrics for end in ("mean", "low", "high")]
    frame = _joined(groups, lambda g: score_ensembles(g.labels, g.logits), *scaled)
    drawing, panels = plots.panels(2.4, columns=2)
    for axes, (metric, title) in zip(panels, metrics.items(), strict=True):
        for style, rows in plots.by_experiment(frame):
            some = style | {"markevery": max(1, len(rows) // 12), "markersize": 4}
            low, high = rows[f"{metric}_low"], rows[f"{metric}_high"]
            plots.band(axes, rows["k"], low, high, style["color"])
            axes.plot(rows["k"], rows[f"{metric}_mean"], **some)
        axes.set(title=title, ylabel=f"{title} in %")
        plots.count_along(axes, "runs averaged")
    return [plots.finish(drawing, "ensembles"), table("ensembles", frame)]
