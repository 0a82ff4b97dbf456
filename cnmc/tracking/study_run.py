"""A study's own run at W&B, since the table of runs there shows no spread."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import wandb
from PIL import Image

from cnmc.analysis.metrics import METRICS
from cnmc.analysis.results import Group, Study, run_table
from cnmc.analysis.statistics import mean_interval
from cnmc.config import LoggerConfig
from cnmc.reporting.assemble import assemble
from cnmc.reporting.document import Figure
from cnmc.reporting.pictures import PICTURES
from cnmc.runs.identity import without_folders
from cnmc.tracking import keys as names
from cnmc.tracking import wandb_run

STATISTICS = ("mean", "std", "min", "max", "ci_low", "ci_high")
"""Of each metric over runs, in fractions of 1: the standard deviation is the population's (ddof 0),
the interval that of the mean over other seeds on the same cells, 95 %."""


def over_runs(group: Group) -> pd.DataFrame:
    """Return one row a metric at the best epochs: metric, n and :data:`STATISTICS`.

    Beside :data:`cnmc.analysis.metrics.METRICS` there is ``f1_norot``, without rotations.
    """
    table = run_table([group])
    views = list(table["view"].unique())
    of_view = {view: table[table["view"] == view] for view in views}
    values = {name: of_view[views[0]][name].to_numpy(dtype=float) for name in METRICS}
    values["f1_norot"] = of_view[views[-1]]["f1"].to_numpy(dtype=float)
    rows = []
    for metric, found in values.items():
        numbers = found.mean(), found.std(), found.min(), found.max(), *mean_interval(found)
        rows.append(
            {"metric": metric, "n": len(found), **dict(zip(STATISTICS, numbers, strict=True))}
        )
    return pd.DataFrame(rows)


def log_group(options: LoggerConfig, group: Group, root: Path) -> wandb.Run | None:
    """Log the runs of a group as one; None where W&B is disabled.

    Args:
        options: Project, entity and mode.
        group: The runs.
        root: Where the run folders lie; W&B's files come into ``wandb/`` below it.
    """
    # The first run that was ever begun stays the same when others are added.
    first = min(group.runs, key=lambda run: (run.info.started, run.info.seed))
    shared = {key: value for key, value in first.config.items() if key not in ("seed", "run")}
    run = wandb_run.start(
        options,
        root,
        id=f"{names.STUDY}-{first.info.run_id}",
        name=f"{group.label} ({len(group.runs)} runs)",
        group=group.experiment,
        job_type=names.STUDY,
        tags=wandb_run.tags(first.info, first.config),
        notes=wandb_run.experiment_notes(group.experiment),
        config={
            **without_folders(shared),
            "seeds": group.seeds,
            names.ORIGIN: first.info.identity(),
        },
    )
    if run is None:
        return None
    try:
        with wandb_run.staged_below(root):
            _log(run, group, _figures(group, root, pictures=options.num_images > 0))
    except BaseException:
        wandb_run.finish(run, exit_code=1)
        raise
    wandb_run.finish(run, exit_code=0)
    return run


def _log(run: wandb.Run, group: Group, figures: Sequence[Figure]) -> None:
    metrics = over_runs(group)
    run.summary.update(summary(metrics))
    charts: dict[str, Any] = {names.METRICS: wandb_run.table(metrics)}
    for figure in figures:
        picture = Image.open(io.BytesIO(figure.png))
        charts[names.figure(figure.name)] = wandb.Image(picture, caption=figure.title)
    run.log(charts)


def summary(metrics: pd.DataFrame) -> dict[str, float]:
    """Return the summary of a study from its :func:`over_runs`; what is not defined is left out."""
    found: dict[str, float] = {"n": int(metrics["n"].iloc[0])}
    for row in metrics.to_dict(orient="records"):
        for name in STATISTICS:
            if not np.isnan(row[name]):
                found[names.over_runs(row["metric"], name)] = row[name]
    return found


def _figures(group: Group, root: Path, *, pictures: bool) -> list[Figure]:
    """Return the figures of the report that is of this group alone."""
    figures = assemble(Study((group,), ()), root=root).figures
    return [figure for figure in figures if pictures or figure.name not in PICTURES]
