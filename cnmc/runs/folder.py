"""The run folder ``<root>/<experiment>/<name>``: what training leaves to everything after it.

``config.yaml`` holds the resolved configuration, ``run.json`` a :class:`RunInfo`, ``metrics.csv``
one row per epoch with epoch 0 (before training) first, ``predictions.parquet`` one logit per epoch,
cell and rotation, and ``checkpoints`` the files ``best.ckpt`` and ``last.ckpt``. Every file is
complete or absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import yaml
from filelock import FileLock, Timeout

from cnmc.errors import CnmcError, RefusedError
from cnmc.files import natural_key, replacing

CONFIG, INFO, METRICS_CSV, PREDICTIONS = (
    "config.yaml",
    "run.json",
    "metrics.csv",
    "predictions.parquet",
)

F1, F1_NOROT = "val/f1", "val/f1_norot"
"""Columns of the metrics: weighted F1 of the mean logit, and of the original orientation only."""

LOCK_PATIENCE = 10.0
"""Seconds to wait for the lock: the data workers of a killed training hold it a little longer."""

Status = Literal["running", "finished", "failed"]


def logit_column(num_eighths: int) -> str:
    """Return the column of the logit of a rotation by ``num_eighths`` times 45 degrees."""
    return f"logit_{num_eighths}"


def logit_columns(predictions: pd.DataFrame) -> list[str]:
    """Return the logit columns of a table of predictions, by angle."""
    return [c for c in map(logit_column, range(8)) if c in predictions.columns]


@dataclass
class RunInfo:
    """The content of ``run.json``."""

    status: Status
    experiment: str
    name: str
    seed: int
    config_hash: str
    started: str  # when its first process started, ISO 8601 with the time zone
    # The swept overrides except experiment and seed; runs of the same are repetitions.
    setting: str = ""
    protocol: str | None = None  # "paper" or "honest"; None until the data were read
    manifest_fingerprint: str | None = None
    split_fingerprint: str | None = None
    run_id: str = ""  # permanent, also at W&B: the hash of the configuration and a random part
    weights_sha256: str | None = None  # of the file of initial weights, if there is one
    seconds: float = 0.0  # up to the last complete epoch, over all processes that trained the run
    max_epochs: int = 0
    epochs_done: int = 0
    best_epoch: int | None = None  # see RunFolder.best_epoch
    best_f1: float | None = None
    git_commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    study_id: str | None = None  # study.id of the last command that trained the run
    logged: bool = False  # the finished run was logged to W&B completely, online or offline
    retries: int = 0  # how often the run was tried again after an error
    error: str | None = None  # traceback of the error that ended a failed run

    @property
    def label(self) -> str:
        """Experiment and name."""
        return f"{self.experiment}/{self.name}"

    @property
    def reason(self) -> str | None:
        """The error in one line."""
        last = (self.error or "").strip().rsplit("\n", 1)[-1]
        return last.removeprefix("cnmc.errors.CnmcError: ") or None

    def identity(self) -> dict[str, Any]:
        """Return the values that identify the run in its checkpoints."""
        names = ["experiment", "name", "seed", "protocol", "config_hash", "run_id"]
        names += ["manifest_fingerprint", "split_fingerprint", "git_commit"]
        return {name: getattr(self, name) for name in names}


class RunFolder:
    """Reads and writes one run folder. Every ``read`` raises CnmcError for a damaged file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best_checkpoint = path / "checkpoints" / "best.ckpt"
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"
        # Beside the folder, so that starting over can remove the whole folder.
        self.lock_path = path.with_name(f".{path.name}.lock")

    def is_finished(self) -> bool:
        """Return whether the run is finished."""
        return (info := self.read_info()) is not None and info.status == "finished"

    def has_results(self) -> bool:
        """Return whether anything was trained or evaluated in this folder."""
        results = (self.path / METRICS_CSV, self.path / PREDICTIONS, self.last_checkpoint)
        return any(path.is_file() for path in results)

    def remove_temporaries(self) -> None:
        """Remove the incomplete files of a process that was killed; needs the lock."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)

    def lock(self) -> AbstractContextManager[object]:
        """Lock this run until the context ends; raise RefusedError if another process trains it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return FileLock(self.lock_path).acquire(timeout=LOCK_PATIENCE)
        except Timeout:
            raise RefusedError(
                f"{self.path}: another process trains this run; repeat the command when it ended"
            ) from None

    def is_locked(self) -> bool:
        """Return whether a process is training this run."""
        if not self.lock_path.exists():
            return False
        try:
            with FileLock(self.lock_path).acquire(timeout=0):
                return False
        except OSError as error:
            # In a folder that cannot be written, no process of this user trains.
            return isinstance(error, Timeout)

    def read_config(self) -> dict[str, Any]:
        """Return the resolved configuration."""
        with self._reading(CONFIG) as path:
            config = dict(yaml.safe_load(path.read_text()))
            json.dumps(config, sort_keys=True)
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Store the resolved configuration."""
        with replacing(self.path / CONFIG) as temporary:
            temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def read_info(self) -> RunInfo | None:
        """Return the content of ``run.json``; None if there is no such file."""
        if not (self.path / INFO).is_file():
            return None
        with self._reading(INFO) as path:
            values = json.loads(path.read_text())
            names = (item.name for item in fields(RunInfo) if item.name in values)
            info = RunInfo(**{name: values[name] for name in names})
            if info.status not in get_args(Status):
                raise ValueError(f"status is {info.status}")
        return info

    def write_info(self, info: RunInfo) -> None:
        """Store ``run.json``."""
        with replacing(self.path / INFO) as temporary:
            temporary.write_text(json.dumps(asdict(info), indent=2) + "\n")

    def read_metrics(self) -> pd.DataFrame:
        """Return one row per epoch; no row if nothing was evaluated yet."""
        if not (self.path / METRICS_CSV).is_file():
            return pd.DataFrame({"epoch": pd.Series(dtype=int)})
        with self._reading(METRICS_CSV) as path:
            table = pd.read_csv(path)
            table["epoch"]  # every reader needs it
        return table

    def add_metrics(self, row: Mapping[str, float]) -> None:
        """Add the row of an epoch; it replaces an earlier row of the same epoch."""
        before = self.read_metrics()
        table = pd.concat([before[before["epoch"] != row["epoch"]], pd.DataFrame([row])])
        self._write_metrics(table.sort_values("epoch"))

    def read_predictions(self) -> pd.DataFrame | None:
        """Return all stored logits; None if nothing was evaluated yet."""
        table = None
        if (self.path / PREDICTIONS).is_file():
            with self._reading(PREDICTIONS) as path:
                table = pd.read_parquet(path, page_checksum_verification=True)
        return table

    def add_predictions(self, rows: pd.DataFrame) -> None:
        """Add predictions; they replace earlier ones of the same epochs and roles.

        Columns: epoch, role, cell_id, subject, label, then ``logit_<k>`` (float32).
        """
        before = self.read_predictions()
        if before is not None:
            old, new = (pd.MultiIndex.from_frame(t[["epoch", "role"]]) for t in (before, rows))
            rows = pd.concat([before[~old.isin(new)], rows], ignore_index=True)
        self._write_predictions(rows)

    def forget_after(self, epoch: int) -> None:
        """Remove the metrics and predictions of later epochs, which a resumed run repeats."""
        metrics, predictions = self.read_metrics(), self.read_predictions()
        if (metrics["epoch"] > epoch).any():
            self._write_metrics(metrics[metrics["epoch"] <= epoch])
        if predictions is not None and (predictions["epoch"] > epoch).any():
            self._write_predictions(predictions[predictions["epoch"] <= epoch])

    def best_epoch(self) -> tuple[int, float] | None:
        """Return the first trained epoch with the highest F1, and that F1; None without one."""
        metrics = self.read_metrics()
        trained = metrics[metrics["epoch"] > 0]
        if trained.empty or trained[F1].isna().all():
            return None
        best = trained.iloc[int(trained[F1].argmax())]
        return int(best["epoch"]), float(best[F1])

    def _write_metrics(self, table: pd.DataFrame) -> None:
        with replacing(self.path / METRICS_CSV) as temporary:
            table.to_csv(temporary, index=False)

    def _write_predictions(self, table: pd.DataFrame) -> None:
        with replacing(self.path / PREDICTIONS) as temporary:
            table.to_parquet(temporary, index=False, write_page_checksum=True)

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        try:
            yield self.path / name
        # Damaged bytes raise many kinds of errors.
        except Exception as error:
            # The messages of other errors are about Python, not about the file.
            is_clear = isinstance(error, OSError | ValueError | yaml.YAMLError)
            reason = " ".join(str(error).split()) if is_clear else "damaged or incomplete"
            raise CnmcError(
                f"{self.path / name} cannot be read ({reason}); "
                "run.overwrite=true starts this run over, or remove its folder"
            ) from error


def find_runs(root: Path, experiments: Sequence[str] | None = None) -> list[RunFolder]:
    """Return the run folders below ``root``, in natural order of experiment and name."""
    found = [path.parent for path in root.glob(f"*/*/{INFO}")]
    wanted = [path for path in found if experiments is None or path.parent.name in experiments]
    wanted.sort(key=lambda path: (path.parent.name, natural_key(path.name)))
    return [RunFolder(path) for path in wanted]
