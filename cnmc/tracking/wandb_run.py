"""What W&B keeps of a training and of a study: metrics, tables, charts, images, checkpoints."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from cnmc.analysis.decision import sigmoid
from cnmc.analysis.loading import load_run
from cnmc.analysis.metrics import METRICS
from cnmc.analysis.ranking import scores_of
from cnmc.analysis.results import Group, Run, hardest_cells, persons, run_table
from cnmc.analysis.statistics import mean_interval, std
from cnmc.config import CONFIG_DIR
from cnmc.config.groups import LoggerConfig
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.runs.identity import agent_run_id, without_folders
from cnmc.tracking import keys
from cnmc.tracking.loggers import Guard, GuardedLogger, Pixels, Tracker

_CLASSES = ["HEM", "ALL"]

STATISTICS = ("mean", "std", "min", "max", "ci_low", "ci_high")
"""Statistics of a metric over runs, as fractions of 1: the population's standard deviation (ddof 0)
and the 95 % interval of the mean over other seeds on the same cells."""

# W&B's own messages contain addresses.
_setup = partial(wandb.setup, wandb.Settings(silent=True))
_DATA_DIR = os.environ.get("WANDB_DATA_DIR")


@cache
def default_mode() -> str:
    """Return the mode of W&B's settings, but offline if not logged in.

    The result is cached, because a login takes seconds without a network.
    """
    mode = str(_setup().settings.mode)
    try:
        return mode if mode != "online" or wandb.login(prompt=False) else "offline"
    except Exception as error:
        kind = type(error).__name__
        sys.stderr.write(f"warning: the login to W&B failed ({kind}): logging offline\n")
        return "offline"


def start(
    options: LoggerConfig,
    folder: Path,
    info: RunInfo,
    config: Mapping[str, Any],
    *,
    job_type: str,
    run_id: str,
    name: str,
) -> wandb.Run | None:
    """Start or resume a W&B run, offline if it fails; return None if W&B is disabled.

    W&B's files are written to ``wandb/`` in the folder.
    """
    mode: Any = options.mode or os.environ.get("WANDB_MODE") or default_mode()
    if mode == "disabled":
        return None
    more = ("setting", "weights_sha256", "versions", "hardware")
    origin = info.identity() | {key: getattr(info, key) for key in more}
    init = partial(
        wandb.init,
        project=options.project,
        entity=options.entity,
        id=run_id,
        name=name[:128],  # W&B accepts 128 characters, and 64 of a tag
        group=info.experiment,
        job_type=job_type,
        tags=[str(tag)[:64] for tag in (info.protocol, config["model"]["name"])],
        notes=_notes(info.experiment),
        config={**without_folders(config), keys.ORIGIN: origin},
        dir=folder,
        resume="allow",
        # Separates the runs of one process, also from one that a notebook has open.
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            init_timeout=30.0,
            finish_timeout=600.0,
            finish_timeout_raises=True,
            # Names of machines, repositories and people stay private.
            host="-",
            x_disable_meta=True,
            disable_git=True,
        ),
    )
    _setup()
    # Files that are not sent yet would be in the user's home.
    os.environ["WANDB_DATA_DIR"] = _DATA_DIR or str(folder / "wandb" / "data")
    try:
        return init(mode=mode)
    except Exception as error:
        kind = type(error).__name__
        sys.stderr.write(f"warning: W&B cannot be reached ({kind}): this run is logged offline\n")
        # The failed attempt holds the id, or the service of an earlier run is broken.
        wandb.teardown()
        _setup()
        return init(mode="offline")


def _notes(experiment: str) -> str | None:
    """Return the comment at the head of an experiment's file; None if there is none."""
    folders = [str(CONFIG_DIR)]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders = [source.path for source in sources if source.schema == "file"]
    paths = (Path(folder, "experiment", f"{experiment}.yaml") for folder in folders)
    text = next((path.read_text() for path in paths if path.is_file()), "")
    head = takewhile(lambda line: line.startswith("#"), text.splitlines())
    words = (line[1:].removeprefix(" ").rstrip() for line in head if "@package" not in line)
    return "\n".join(words).strip() or None


class RunLogger(WandbLogger):
    """Logs epochs by their own count, and keeps the summary of the best epoch up to date.

    The recorder updates ``info`` before it logs an epoch.
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
    """Yield the W&B logger of a run; see :func:`cnmc.tracking.loggers.tracked`."""
    run: wandb.Run | None = None
    concluded = False
    with guard:
        names = {"run_id": agent_run_id() or info.run_id, "name": info.label}
        run = start(options, folder.path, info, config, job_type=keys.TRAIN, **names)
    if run is None:
        yield Tracker()
        return

    def conclude(pixels: Pixels | None) -> None:
        with guard:
            results = load_run(folder, info)
            summary = _summary(results)
            with guard:
                run.summary.update(summary)
                run.log(_charts(results, options.num_images, pixels))
            if options.log_model:
                _log_checkpoints(run, folder, info, summary, log_last=options.log_last)
        nonlocal concluded
        concluded = True

    tracker = Tracker(conclude=conclude)
    files = Path(run.dir).parent
    address = f"not everything was sent; wandb sync --include-online {files} sends the rest"
    try:
        with guard:
            tracker.loggers = [GuardedLogger(RunLogger(run, info), guard)]
        yield tracker
    finally:
        with guard:
            # A failure after the training is not a failure of the run.
            run.finish(exit_code=0 if info.status == "finished" else 1)
            sync = f"logged offline; wandb sync {files} sends it"
            address = sync if run.offline else str(run.url)
        if concluded and not guard.failed:
            info.logged = True
            with suppress(OSError):
                folder.write_info(info)
        if not quiet:
            print(f"W&B: {address}")


def _best_summary(row: Mapping[Any, float]) -> dict[str, float]:
    """Return the summary of the best epoch from its row of ``metrics.csv``."""
    metrics = {name[4:]: value for name, value in row.items() if name.startswith("val/")}
    metrics[keys.EPOCH] = int(row[keys.EPOCH])
    return {keys.best(name): value for name, value in metrics.items()}


def _summary(run: Run) -> dict[str, float]:
    best = run.metrics[run.metrics["epoch"] == run.best_epoch]
    summary = _best_summary(best.iloc[0].dropna().to_dict())
    if run.reported is not run.choosing:
        found = scores_of(run, run.reported)
        summary |= {keys.test(name): value for name, value in found.items()}
    return summary


def _charts(run: Run, num_images: int, pixels: Pixels | None) -> dict[str, Any]:
    """Return tables, charts and images of the best checkpoint on the reported cells."""
    group = Group(run.info.label, (run,))
    labels = group.labels.tolist()
    probs = sigmoid(group.logits[0]).tolist()
    subjects = persons(group).drop(columns=["std_probability", "wrong_share"])
    subjects = subjects.rename(columns={"mean_accuracy": "accuracy"})
    charts: dict[str, Any] = {
        keys.CONFUSION_MATRIX: wandb.plot.confusion_matrix(
            y_true=labels, preds=[int(p > 0.5) for p in probs], class_names=_CLASSES
        ),
        keys.SUBJECTS: wandb.Table(dataframe=subjects),
    }
    if len(set(labels)) == len(_CLASSES):
        curve: Any = (labels, [[1 - p, p] for p in probs], _CLASSES, [1])
        charts[keys.ROC] = wandb.plot.roc_curve(*curve)
        charts[keys.PRECISION_RECALL] = wandb.plot.pr_curve(*curve)
    wrong = hardest_cells(group).drop(columns="wrong_share").head(num_images)
    if len(wrong):
        cells = wandb.Table(dataframe=wrong.rename(columns={"mean_probability": "probability"}))
        if pixels is not None:
            cells.add_column("image", [wandb.Image(pixels(cell)) for cell in wrong["cell_id"]])
        charts[keys.WRONG_CELLS] = cells
    return charts


def _log_checkpoints(
    run: wandb.Run, folder: RunFolder, info: RunInfo, summary: dict[str, float], *, log_last: bool
) -> None:
    """Log the best checkpoint of a finished run as an artifact, and the last one if wanted."""
    name = keys.artifact_name(info.run_id)
    seed = f"seed-{info.seed}"
    wanted = [(folder.best_checkpoint, info.best_epoch, summary, [keys.BEST, seed])]
    if log_last:
        wanted.append((folder.last_checkpoint, info.epochs_done, {}, [keys.LAST]))
    for path, epoch, scores, aliases in wanted:
        metadata = {**info.identity(), "epoch": epoch, "summary": scores}
        description = f"{info.label}, epoch {epoch}"
        artifact = wandb.Artifact(name, keys.MODEL, description, metadata)
        # The file is not copied: W&B reads it from the run folder.
        artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=aliases)
    run.summary[keys.best("checkpoint")] = f"{name}:{keys.BEST}"


def log_group(
    options: LoggerConfig,
    group: Group,
    root: Path,
    figures: Callable[[Group, Path, bool], Sequence[Any]],
) -> None:
    """Log the runs of a group as one W&B run; see :func:`cnmc.tracking.loggers.log_study`."""
    # The id comes from the run that started first, so that it stays the same when runs are added.
    first = min(group.runs, key=lambda run: (run.info.started, run.info.seed))
    shared = {key: value for key, value in first.config.items() if key not in ("seed", "run")}
    shared["seeds"] = group.seeds
    name = f"{group.label} ({len(group.runs)} runs)"
    names = {"run_id": f"{keys.STUDY}-{first.info.run_id}", "name": name}
    run = start(options, root, first.info, shared, job_type=keys.STUDY, **names)
    if run is None:
        return
    with run:
        views = [part for _, part in run_table([group]).groupby("view", sort=False)]
        values = {name: views[0][name].to_numpy(dtype=float) for name in METRICS}
        values["f1_norot"] = views[-1]["f1"].to_numpy(dtype=float)
        table = [
            (name, len(x), x.mean(), std(x), x.min(), x.max(), *mean_interval(x))
            for name, x in values.items()
        ]
        metrics = pd.DataFrame(table, columns=["metric", "n", *STATISTICS])
        rows = metrics.melt("metric", STATISTICS).dropna()
        columns = rows["metric"] + "/" + rows["variable"]
        run.summary.update(dict(zip(columns, rows["value"], strict=True)) | {"n": len(group.runs)})
        charts: dict[str, Any] = {keys.METRICS_TABLE: wandb.Table(dataframe=metrics)}
        for figure in figures(group, root, options.num_images > 0):
            picture = Image.open(io.BytesIO(figure.png))
            charts[f"figures/{figure.name}"] = wandb.Image(picture, caption=figure.title)
        run.log(charts)
    if not run.offline:
        print(f"W&B: {run.url}")
