"""The run folder: the contract between training and everything that comes after it.

``<root>/<experiment>/<name>/`` holds

========================  ========================================================================
``config.yaml``           the resolved configuration
``run.json``              :class:`RunInfo`: status, identity, fingerprints, time, best epoch, error
``metrics.csv``           one row per epoch, epoch 0 (before training) first
``predictions.parquet``   ``epoch, role, cell_id, subject, label`` and one logit per rotation
``checkpoints/``          ``best.ckpt`` and ``last.ckpt``
========================  ========================================================================

Every file is written under a temporary name and then renamed, so a file is complete or absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pandas as pd
import yaml
from filelock import FileLock, Timeout

from cnmc.errors import CnmcError, RefusedError
from cnmc.files import natural_key, replacing

CONFIG, INFO, METRICS, PREDICTIONS = "config.yaml", "run.json", "metrics.csv", "predictions.parquet"

PREDICTION_KEYS = ("epoch", "role", "cell_id", "subject", "label")
"""Columns of the predictions before the logits."""

F1, F1_NOROT = "val/f1", "val/f1_norot"
"""Columns of the metrics: weighted F1 of the mean logit, and of the original orientation only."""

LOCK_PATIENCE = 10.0
"""Seconds to wait for the lock of a run: the processes of a killed training hold it a little
longer than the training."""

NUM_EIGHTHS = 8
"""Rotations are counted in eighths of a turn, 45 degrees: the ``k`` of ``logit_<k>``."""

Status = Literal["running", "finished", "failed"]


def logit_column(num_eighths: int) -> str:
    """Return the column of the logit of a rotation by ``num_eighths`` times 45 degrees."""
    return f"logit_{num_eighths}"


def logit_columns(predictions: pd.DataFrame) -> list[str]:
    """Return the logit columns of a table of predictions, by angle."""
    return [c for c in map(logit_column, range(NUM_EIGHTHS)) if c in predictions.columns]


@dataclass
class RunInfo:
    """The content of ``run.json``."""

    status: Status
    experiment: str
    name: str
    seed: int
    config_hash: str
    started: str
    """Start of the run's first process, ISO 8601 with the time zone."""
    setting: str = ""
    """What was swept besides experiment and seed, as in the name of the folder: runs of one
    experiment and one setting are repetitions of each other."""
    protocol: str | None = None
    """``paper`` or ``honest``; this and the fingerprints are None until the data were read."""
    manifest_fingerprint: str | None = None
    split_fingerprint: str | None = None
    run_id: str = ""
    """Permanent name of the run, also at W&B: the hash of its configuration and a random part."""
    weights_sha256: str | None = None
    """Digest of the file of initial weights; None without such a file."""
    seconds: float = 0.0
    """Time spent up to the last complete epoch, over all processes that trained the run."""
    max_epochs: int = 0
    epochs_done: int = 0
    best_epoch: int | None = None
    """The epoch with the highest F1 among 1 to ``epochs_done``; the earliest of equals."""
    best_f1: float | None = None
    git_commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    study_id: str | None = None
    """``study.id`` of the last command that trained the run; None if it was a single run."""
    logged: bool = False
    """Whether the finished run was logged to W&B completely, online or offline."""
    retries: int = 0
    """How often the run was tried again after an error."""
    error: str | None = None
    """Traceback of the error that ended a failed run."""

    def check(self) -> None:
        """Check the types and ranges of all values, which may come from a damaged file.

        Raises:
            ValueError: A value does not fit. The message names it.
        """
        for name, kind in get_type_hints(RunInfo).items():
            value = getattr(self, name)
            if not _fits(value, kind):
                raise ValueError(f"{name} is {str(value)[:40]}, expected {kind}")

    @property
    def label(self) -> str:
        """Experiment and name."""
        return f"{self.experiment}/{self.name}"

    @property
    def reason(self) -> str | None:
        """The error in one line."""
        last = (self.error or "").strip().rsplit("\n", 1)[-1]
        return last.removeprefix(f"{CnmcError.__module__}.{CnmcError.__name__}: ") or None

    def identity(self) -> dict[str, Any]:
        """Return the values that identify the run in its checkpoints."""
        names = "experiment name seed protocol config_hash run_id manifest_fingerprint "
        names += "split_fingerprint git_commit"
        return {name: getattr(self, name) for name in names.split()}


def _fits(value: object, kind: Any) -> bool:
    """Check a value against a type of :class:`RunInfo`; numbers are finite and not negative."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_fits(value, one) for one in get_args(kind))
    if kind in (int, float):
        number = type(value) is int or (kind is float and type(value) is float)
        return number and 0 <= value < 2**63  # type: ignore[operator]
    return isinstance(value, get_origin(kind) or kind)


class RunFolder:
    """Reads and writes one run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def best_checkpoint(self) -> Path:
        """The network of the best epoch."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """Everything that is needed to resume after the last complete epoch."""
        return self.path / "checkpoints" / "last.ckpt"

    def is_run(self) -> bool:
        """Return whether this is a run folder."""
        return (self.path / CONFIG).is_file() or (self.path / INFO).is_file()

    def is_finished(self) -> bool:
        """Return whether the run of this folder is finished."""
        info = self.read_info()
        return info is not None and info.status == "finished"

    def has_results(self) -> bool:
        """Return whether anything was trained or evaluated in this folder."""
        results = (self.path / METRICS, self.path / PREDICTIONS, self.last_checkpoint)
        return any(path.is_file() for path in results)

    def remove_temporaries(self) -> None:
        """Remove the incomplete files of a process that was killed; needs the lock."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)

    @property
    def _lock_path(self) -> Path:
        # Beside the folder, so that starting over can remove the whole folder.
        return self.path.with_name(f".{self.path.name}.lock")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training this run; the lock of a dead process is free.

        Raises:
            RefusedError: Another process trains it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock_path)
        try:
            lock.acquire(timeout=LOCK_PATIENCE)
        except Timeout:
            raise RefusedError(
                f"{self.path}: another process is training this run; repeat the command when it "
                "has ended"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Return whether a process is training this run."""
        if not self._lock_path.exists():
            return False
        try:
            with FileLock(self._lock_path).acquire(timeout=0):
                return False
        except OSError as error:
            # In a folder that cannot be written, no process of this user trains.
            return isinstance(error, Timeout)

    def read_config(self) -> dict[str, Any]:
        """Return the resolved configuration.

        Raises:
            CnmcError: The file is missing or damaged.
        """
        with self._reading(CONFIG) as path:
            config = dict(yaml.safe_load(path.read_text()))
            json.dumps(config, sort_keys=True)
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Store the resolved configuration."""
        with replacing(self.path / CONFIG) as temporary:
            temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def read_info(self) -> RunInfo | None:
        """Return the content of ``run.json``, or None if there is no such file.

        Raises:
            CnmcError: The file is damaged.
        """
        if not (self.path / INFO).is_file():
            return None
        known = {item.name for item in fields(RunInfo)}
        with self._reading(INFO) as path:
            values = json.loads(path.read_text())
            info = RunInfo(**{key: value for key, value in values.items() if key in known})
            info.check()
        return info

    def write_info(self, info: RunInfo) -> None:
        """Store ``run.json``."""
        with replacing(self.path / INFO) as temporary:
            temporary.write_text(json.dumps(asdict(info), indent=2) + "\n")

    def read_metrics(self) -> pd.DataFrame:
        """Return one row per epoch; no row if nothing was evaluated yet."""
        if not (self.path / METRICS).is_file():
            return pd.DataFrame({"epoch": pd.Series(dtype=int)})
        with self._reading(METRICS) as path:
            table = pd.read_csv(path)
            table["epoch"]  # every reader needs it
        return table

    def add_metrics(self, row: Mapping[str, float]) -> None:
        """Add the row of an epoch; it replaces an earlier row of the same epoch."""
        before = self.read_metrics()
        table = pd.concat([before[before["epoch"] != row["epoch"]], pd.DataFrame([row])])
        self._write_metrics(table.sort_values("epoch"))

    def read_predictions(self) -> pd.DataFrame | None:
        """Return all stored logits, or None if nothing was evaluated yet."""
        table = None
        if (self.path / PREDICTIONS).is_file():
            with self._reading(PREDICTIONS) as path:
                table = pd.read_parquet(path, page_checksum_verification=True)
        return table

    def add_predictions(self, rows: pd.DataFrame) -> None:
        """Add predictions; they replace earlier ones of the same epochs and roles.

        Args:
            rows: Columns :data:`PREDICTION_KEYS`, then ``logit_<k>`` (float32).
        """
        before = self.read_predictions()
        if before is not None:
            new = set(zip(rows["epoch"], rows["role"], strict=True))
            old = pd.Series(list(zip(before["epoch"], before["role"], strict=True)))
            rows = pd.concat([before[~old.isin(new).to_numpy()], rows], ignore_index=True)
        self._write_predictions(rows)

    def forget_after(self, epoch: int) -> None:
        """Remove what was stored of the epochs after ``epoch``, which a resumed run repeats."""
        metrics, predictions = self.read_metrics(), self.read_predictions()
        if (metrics["epoch"] > epoch).any():
            self._write_metrics(metrics[metrics["epoch"] <= epoch])
        if predictions is not None and (predictions["epoch"] > epoch).any():
            self._write_predictions(predictions[predictions["epoch"] <= epoch])

    def best_epoch(self) -> tuple[int, float] | None:
        """Return the epoch with the highest F1 and that F1; None before the first trained epoch.

        Epoch 0, before training, is not a candidate. The earliest of equals is taken.
        """
        metrics = self.read_metrics()
        trained = metrics[metrics["epoch"] > 0]
        if trained.empty or trained[F1].isna().all():
            return None
        position = int(trained[F1].argmax())
        return int(trained["epoch"].iloc[position]), float(trained[F1].iloc[position])

    def _write_metrics(self, table: pd.DataFrame) -> None:
        with replacing(self.path / METRICS) as temporary:
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
            raise CnmcError(
                f"{self.path / name} cannot be read ({' '.join(str(error).split())}); "
                "run.overwrite=true starts this run over, or remove its folder"
            ) from error


def find_runs(root: Path, experiments: Sequence[str] | None = None) -> list[RunFolder]:
    """Return the run folders below ``root``, in natural order of experiment and name."""
    found = [
        path.parent
        for path in root.glob(f"*/*/{INFO}")
        if experiments is None or path.parent.parent.name in experiments
    ]
    found.sort(key=lambda path: (path.parent.name, natural_key(path.name)))
    return [RunFolder(path) for path in found]
