"""What averaging brings: over runs, and over rotations of a cell."""

from __future__ import annotations

import pandas as pd

from cnmc.analysis.averaging import ensembles, views
from cnmc.analysis.results import Study
from cnmc.reporting import figures
from cnmc.reporting.document import (
    Column,
    Row,
    Section,
    Table,
    column,
    count,
    interval,
    number,
    signed,
    spread,
)
from cnmc.reporting.terms import GROUP, f1_of


def _stored(frames: dict[str, pd.DataFrame], study: Study, scaled: list[str]) -> pd.DataFrame:
    """Join the frames of the groups, fractions as %."""
    protocols = {group.label: group.protocol for group in study.groups}
    joined = pd.concat(
        [
            frame.assign(**{name: 100 * frame[name] for name in scaled}).assign(
                experiment=label, protocol=protocols[label]
            )
            for label, frame in frames.items()
        ]
    )
    names = ["experiment", "protocol"]
    return joined[names + [name for name in joined.columns if name not in names]]


def ensembles_section(study: Study) -> Section:
    """Return F1 and AUROC of the mean logit of k runs."""
    by_size = {
        group.label: ensembles(group.labels, group.logits)
        for group in study.groups
        if len(group.runs) > 1
    }
    if not by_size:
        return Section("Ensembles of runs", ["One run is no ensemble."])
    scaled = [f"{metric}_{end}" for metric in ("f1", "auroc") for end in ("mean", "low", "high")]

    def shown(title: str, metric: str) -> list[Column]:
        def middle(row: Row) -> str:
            return interval(row[f"{metric}_low"], row[f"{metric}_high"])

        return [column(title, f"{metric}_mean", number), Column("95 % of choices", middle)]

    table = Table(
        name="ensembles",
        folded=True,
        title="Ensembles: the mean logit of k runs",
        frame=_stored(by_size, study, scaled),
        columns=[
            *GROUP,
            column("k", "k", count),
            column("choices", "num_choices", count),
            *shown("F1", "f1"),
            *shown("AUROC", "auroc"),
        ],
        note=(
            "In %, each run at its best epoch. Mean over random choices of k runs (all of them "
            "where they are few), and the middle 95 % of those; choices of nearly all runs share "
            "most of them, so their spread tells little."
        ),
    )
    return Section("Ensembles of runs", [figures.ensembles(by_size), table])


def views_section(study: Study) -> Section:
    """Return F1 against the number of rotations that are averaged."""
    title = "Rotations"
    groups = [group for group in study.groups if group.has_rotations]
    if not groups:
        return Section(title, ["These runs stored the original orientation alone."])
    by_count = {group.label: views(group) for group in groups}
    words = []
    for group in groups:
        gains = f1_of(group) - f1_of(group, rotations=False)
        words.append(
            f"{group.label}: F1 with all stored rotations less that with none, from the same "
            f"checkpoints: {signed(100 * gains.mean())} points of %; higher in "
            f"{(gains > 0).sum()} of {len(gains)} runs."
        )
    table = Table(
        name="views",
        folded=True,
        title="F1 by the number of rotations that are averaged",
        frame=_stored(by_count, study, ["mean", "std", "spaced"]),
        columns=[
            *GROUP,
            column("rotations", "num_views", count),
            Column("F1, mean ± std", lambda row: spread(row["mean"], row["std"])),
            column("equally spaced", "spaced", lambda f1: "" if f1 != f1 else number(f1)),  # noqa: PLR0124
        ],
        note=(
            "In %: mean and std (ddof 0) over runs of the F1 averaged over all choices of so many "
            "of the stored rotations. Equally spaced: those of `tta.num_rotations`, which begin "
            "with the original orientation. The checkpoint is the one that all rotations chose."
        ),
    )
    return Section(title, [*words, figures.views(by_count), table])
