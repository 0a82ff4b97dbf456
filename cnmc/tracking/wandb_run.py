"""What W&B keeps of a training and of a study: metrics, tables, charts, images, checkpoints."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from cnmc.analysis.metrics import METRICS, evaluate, sigmoid
from cnmc.analysis.results import Group, Run, run_table
from cnmc.analysis.run_reader import load_run
from cnmc.analysis.statistics import mean_interval
from cnmc.analysis.subjects import hardest_cells, persons
from cnmc.config import LoggerConfig
from cnmc.runs import sweep_agent
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.tracking import keys
from cnmc.tracking.loggers import Figures, Guard, GuardedLogger, Pixels, Tracker
from cnmc.tracking.session import finish, staged_below, start

_CLASSES = ["HEM", "ALL"]

STATISTICS = ("mean", "std", "min", "max", "ci_low", "ci_high")
"""Statistics of a metric over runs, as fractions of 1: the population's standard deviation (ddof 0)
and the 95 % interval of the mean over other seeds on the same cells."""


def table(frame: pd.DataFrame, pixels: Pixels | None = None) -> wandb.Table:
    """Return a W&B table, with the images of its cells in a last column if they are available."""
    made = wandb.Table(dataframe=frame)
    if pixels is not None:
        made.add_column("image", [wandb.Image(pixels(cell)) for cell in frame["cell_id"]])
    return made


class RunLogger(WandbLogger):
    """Logs epochs by their own count, and keeps the summary of the best epoch up to date.

    Args:
        run: The W&B run.
        info: Progress of the run, which the recorder updates before it logs an epoch.
    """

    def __init__(self, run: wandb.Run, info: RunInfo) -> None:
        super().__init__(experiment=run)
        self.info = info
        run.define_metric(keys.EPOCH)
        for pattern in ("train/*", "val/*", "lr/*", "seconds"):
            run.define_metric(pattern, step_metric=keys.EPOCH)
        run.define_metric("trainer/global_step")
        run.define_metric(keys.LOSS_STEP, step_metric="trainer/global_step")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log an epoch of the recorder, or a step of Lightning."""
        if keys.LOSS_STEP in metrics:
            # Lightning's epoch counts from 0 during the epoch.
            metrics = {key: value for key, value in metrics.items() if key != keys.EPOCH}
        super().log_metrics(metrics, step)
        if metrics.get(keys.EPOCH) and metrics[keys.EPOCH] == self.info.best_epoch:
            self.experiment.summary.update(_best_summary(metrics))


@contextmanager
def tracked_at_wandb(
    options: LoggerConfig,
    guard: Guard,
    folder: RunFolder,
    info: RunInfo,
    config: Mapping[str, Any],
    *,
    quiet: bool,
) -> Iterator[Tracker]:
    """Yield the W&B logger of a run, and finish the W&B run at the end.

    See :func:`cnmc.tracking.loggers.tracked`.
    """
    run: wandb.Run | None = None
    with guard:
        run = start(
            options,
            folder.path,
            info,
            config,
            job_type=keys.TRAIN,
            run_id=sweep_agent.run_id() or info.run_id,
            name=info.label,
        )
    if run is None:
        yield Tracker()
        return

    def conclude(pixels: Pixels | None) -> None:
        with guard:
            results = load_run(folder)
            summary = _summary(results)
            with guard:
                run.summary.update(summary)
                run.log(_charts(results, options.num_images, pixels))
            if options.log_model:
                _log_checkpoints(run, folder, info, summary, log_last=options.log_last)
        tracker.complete = True

    tracker = Tracker(conclude=conclude)
    sent = False
    try:
        with guard:
            tracker.loggers = [GuardedLogger(RunLogger(run, info), guard)]
        with staged_below(folder.path):
            yield tracker
    finally:
        with guard:
            # A failure after the training is not a failure of the run.
            finish(run, exit_code=0 if info.status == "finished" else 1)
            sent = True
        tracker.complete = tracker.complete and not guard.failed
        if not quiet:
            print(_address(run, sent=sent))


def _best_summary(row: Mapping[Any, float]) -> dict[str, float]:
    """Return the summary of the best epoch from its row of ``metrics.csv``."""
    metrics = {name[4:]: value for name, value in row.items() if name.startswith("val/")}
    metrics[keys.EPOCH] = int(row[keys.EPOCH])
    return {keys.best(name): value for name, value in metrics.items()}


def _summary(run: Run) -> dict[str, float]:
    best = run.metrics[run.metrics["epoch"] == run.best_epoch]
    summary = _best_summary(best.iloc[0].dropna().to_dict())
    if run.reported is not run.choosing:
        labels = run.reported.labels
        found = evaluate(labels, run.logits())
        found["f1_norot"] = evaluate(labels, run.logits(rotations=False))["f1"]
        summary |= {keys.test(name): value for name, value in found.items()}
    return summary


def _charts(run: Run, num_images: int, pixels: Pixels | None) -> dict[str, Any]:
    """Return tables, charts and images of the best checkpoint on the reported cells."""
    group = Group(run.info.label, (run,))
    labels = group.labels.tolist()
    probs = sigmoid(run.logits()).tolist()
    both: Any = [[1 - p, p] for p in probs]
    only_all: Any = [1]
    subjects = persons(group).drop(columns=["std_probability", "wrong_share"])
    charts: dict[str, Any] = {
        keys.CONFUSION_MATRIX: wandb.plot.confusion_matrix(
            y_true=labels, preds=[int(p > 0.5) for p in probs], class_names=_CLASSES
        ),
        keys.SUBJECTS: table(subjects.rename(columns={"mean_accuracy": "accuracy"})),
    }
    if len(set(labels)) == len(_CLASSES):
        roc, precision_recall = wandb.plot.roc_curve, wandb.plot.pr_curve
        charts[keys.ROC] = roc(labels, both, _CLASSES, only_all)
        charts[keys.PRECISION_RECALL] = precision_recall(labels, both, _CLASSES, only_all)
    wrong = hardest_cells(group).drop(columns="wrong_share").head(num_images)
    if len(wrong):
        wrong = wrong.rename(columns={"mean_probability": "probability"})
        charts[keys.WRONG_CELLS] = table(wrong, pixels)
    return charts


def _log_checkpoints(
    run: wandb.Run, folder: RunFolder, info: RunInfo, summary: dict[str, float], *, log_last: bool
) -> None:
    """Log the best checkpoint of a finished run as an artifact, and the last one if wanted."""
    name = keys.artifact_name(info.run_id)
    wanted = [(folder.best_checkpoint, info.best_epoch, [keys.BEST, f"seed-{info.seed}"])]
    if log_last:
        wanted.append((folder.last_checkpoint, info.epochs_done, [keys.LAST]))
    for path, epoch, aliases in wanted:
        scores = summary if keys.BEST in aliases else {}
        artifact = wandb.Artifact(
            name,
            type=keys.MODEL,
            description=f"{info.label}, epoch {epoch}",
            metadata={**info.identity(), "epoch": epoch, "summary": scores},
        )
        # The file is not copied: W&B reads it from the run folder.
        artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=aliases)
    run.summary[keys.best("checkpoint")] = f"{name}:{keys.BEST}"


def _address(run: wandb.Run, *, sent: bool) -> str:
    """Return a line with the address of a run, or with the command that sends it."""
    folder = Path(run.dir).parent
    if run.offline:
        return f"W&B: logged offline; wandb sync {folder} sends it"
    if not sent:
        return f"W&B: not everything was sent; wandb sync --include-online {folder} sends the rest"
    return f"W&B: {run.url}"


def _over_runs(group: Group) -> pd.DataFrame:
    """Return one row for each metric and ``f1_norot``: metric, n and :data:`STATISTICS`."""
    table = run_table([group])
    views = [part for _, part in table.groupby("view", sort=False)]
    values = {name: views[0][name].to_numpy(dtype=float) for name in METRICS}
    values["f1_norot"] = views[-1]["f1"].to_numpy(dtype=float)
    rows = [
        (name, len(x), x.mean(), x.std(), x.min(), x.max(), *mean_interval(x))
        for name, x in values.items()
    ]
    return pd.DataFrame(rows, columns=["metric", "n", *STATISTICS])


def log_group(options: LoggerConfig, group: Group, root: Path, figures: Figures) -> None:
    """Log the runs of a group as one W&B run, with its files in ``wandb/`` below the root."""
    # The id comes from the run that started first, so that it stays the same when runs are added.
    first = min(group.runs, key=lambda run: (run.info.started, run.info.seed))
    shared = {key: value for key, value in first.config.items() if key not in ("seed", "run")}
    run = start(
        options,
        root,
        first.info,
        {**shared, "seeds": group.seeds},
        job_type=keys.STUDY,
        run_id=f"{keys.STUDY}-{first.info.run_id}",
        name=f"{group.label} ({len(group.runs)} runs)",
    )
    if run is None:
        return
    exit_code = 1
    try:
        with staged_below(root):
            metrics = _over_runs(group)
            rows = metrics.melt("metric", STATISTICS).dropna()
            names = rows["metric"] + "/" + rows["variable"]
            run.summary.update(
                {"n": len(group.runs)} | dict(zip(names, rows["value"], strict=True))
            )
            charts: dict[str, Any] = {keys.METRICS_TABLE: table(metrics)}
            for figure in figures(group, root, options.num_images > 0):
                picture = Image.open(io.BytesIO(figure.png))
                charts[keys.figure(figure.name)] = wandb.Image(picture, caption=figure.title)
            run.log(charts)
        exit_code = 0
    finally:
        finish(run, exit_code)
    if not run.offline:
        print(f"W&B: {run.url}")
