"""Averaging over the rotations of a cell, and over runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from cnmc.analysis import averaging
from cnmc.analysis.results import Group
from cnmc.reporting import plots
from cnmc.reporting.document import GROUP, Item, Table, interval, spread
from cnmc.reporting.findings import Findings, f1_of, in_percent


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


@plots.styled()
def rotations(findings: Findings) -> list[Item]:
    """Return F1 by the number of rotations that are averaged."""
    groups = [group for group in findings.study.groups if group.has_rotations]
    if not groups:
        return ["These runs stored only the original orientation."]
    words: list[Item] = []
    for group in groups:
        gains = f1_of(group) - f1_of(group, rotations=False)
        words.append(
            f"{group.label}: F1 with all stored rotations minus F1 without, from the same "
            f"checkpoints: {100 * gains.mean():+.2f} points of %; higher in "
            f"{(gains > 0).sum()} of {len(gains)} runs."
        )
    frame = _joined(groups, averaging.views, "mean", "std", "spaced")
    drawing, (axes,) = plots.panels(2.8)
    for style, rows in plots.by_experiment(frame):
        x, mean, std = rows["num_views"], rows["mean"], rows["std"]
        plots.band(axes, x, (mean - std, mean + std), style["color"])
        axes.plot(x, mean, **style)
        axes.plot(x, rows["spaced"], **plots.hollow(style, markersize=6.5, label=""))
    grey = plots.hollow({"color": plots.GREY, "marker": "o"}, label="equally spaced rotations")
    axes.plot([], [], **grey)
    axes.set_ylabel("F1 in %")
    plots.count_along(axes, "rotations averaged")
    title = "F1 by the number of rotations averaged"
    figure = plots.finish(
        drawing,
        "views",
        title,
        "Line chart of F1 by the number of averaged rotations, one line for each experiment.",
        "Lines are means over runs; the shaded area is one standard deviation.",
    )
    table = Table(
        "views",
        title,
        frame,
        GROUP | {"rotations": "num_views", "F1, mean ± std": spread(), "equally spaced": "spaced"},
        "In %: mean and std (ddof 0) over runs of the F1 averaged over all choices of this many "
        "stored rotations. Equally spaced: the rotations of `tta.num_rotations`, which begin with "
        "the original orientation. The checkpoint is the one that all rotations chose.",
        folded=True,
    )
    return [*words, figure, table]


@plots.styled()
def ensembles(findings: Findings) -> list[Item]:
    """Return F1 and AUROC of the mean logit of k runs."""
    groups = [group for group in findings.study.groups if len(group.runs) > 1]
    if not groups:
        return ["An ensemble needs at least two runs."]
    metrics = {"f1": "F1", "auroc": "AUROC"}
    scaled = [f"{metric}_{end}" for metric in metrics for end in ("mean", "low", "high")]
    frame = _joined(groups, lambda g: averaging.ensembles(g.labels, g.logits), *scaled)
    drawing, panels = plots.panels(2.4, columns=2)
    for axes, (metric, title) in zip(panels, metrics.items(), strict=True):
        for style, rows in plots.by_experiment(frame):
            some = style | {"markevery": max(1, len(rows) // 12), "markersize": 4}
            ends = rows[f"{metric}_low"], rows[f"{metric}_high"]
            plots.band(axes, rows["k"], ends, style["color"])
            axes.plot(rows["k"], rows[f"{metric}_mean"], **some)
        axes.set(title=title, ylabel=f"{title} in %")
        plots.count_along(axes, "runs averaged")
    figure = plots.finish(
        drawing,
        "ensembles",
        "F1 and AUROC of averaged runs",
        "Line charts of F1 and AUROC by the number of averaged runs.",
        "The shaded area holds the middle 95 % of the choices of runs.",
    )
    table = Table(
        "ensembles",
        "Ensembles: the mean logit of k runs",
        frame,
        GROUP
        | {"k": "k", "choices": "num_choices"}
        | {"F1": "f1_mean", "95 % of choices, F1": interval("f1_")}
        | {"AUROC": "auroc_mean", "95 % of choices, AUROC": interval("auroc_")},
        "In %, each run at its best epoch. Mean over random choices of k runs (over all choices "
        "where there are few), and the middle 95 % of them. Choices of nearly all runs share most "
        "of their runs, so their spread is too small.",
        folded=True,
    )
    return [figure, table]
