"""The run folder: the contract between training and everything that comes after it.

``<root>/<experiment>/<name>/`` holds

========================  ========================================================================
``config.yaml``           the resolved configuration
``run.json``              :class:`RunInfo`: status, identity, fingerprints, time, best epoch, error
``metrics.csv``           one row an epoch, epoch 0 (before training) first
``predictions.parquet``   ``epoch, role, cell_id, subject, label`` and one logit a rotation
``checkpoints/``          ``best.ckpt`` and ``last.ckpt``
========================  ========================================================================

Every file is written under a temporary name and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryFile
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
"""Columns of the metrics: weighted F1 of the mean logit, and of the original orientation alone."""

LONGEST_NAME = 240
"""Bytes of the longest name of a run folder: file systems take 255, and the lock adds some."""

LOCK_PATIENCE = 10.0
"""Seconds to wait for a run's lock: the data loader's processes of a training process that was
killed keep it for some five seconds more, until they notice."""

NUM_EIGHTHS = 8
"""Rotations are counted in eighths of a turn, 45 degrees: the k of ``logit_<k>``."""

_OWN_ERROR = re.compile(rf"^{re.escape(CnmcError.__module__)}\.\w+: ")
"""How Python begins the last line of the traceback of an error that is a user's to mend."""

_LARGEST = 2**63

Status = Literal["running", "finished", "failed"]

# What a run is, is everything but where it lies, how it is shown and how fast it is fed.
_NOT_IDENTITY = (
    "run",
    "study",
    "logger",
    "data.root",
    "data.work_dir",
    "data.num_workers",
    "data.eval_batch_size",
    "model.weights",
    "split.path",
    "trainer.accelerator",
    "trainer.num_threads",
    "trainer.progress_bar",
)

# Keys that runs were made without, and what the program did then. At these values a run is the same
# with the key and without it: it is gone on with, stays in its group and has the same hash.
_ADDED = {"augment.device": False, "trainer.channels_last": False, "trainer.compile": False}


def logit_column(num_eighths: int) -> str:
    """Return the column of the logit of a rotation by ``num_eighths`` times 45 degrees."""
    return f"logit_{num_eighths}"


def logit_columns(predictions: pd.DataFrame) -> list[str]:
    """Return the logit columns that a predictions table has, by growing angle."""
    return [c for c in map(logit_column, range(NUM_EIGHTHS)) if c in predictions.columns]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def without_folders(value: Any) -> Any:
    """Return plain values in which only the last part of each absolute path is left.

    Checkpoints and W&B get this: they leave the machine, and the fingerprints identify the data.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    is_path = isinstance(value, str) and Path(value).expanduser().is_absolute()
    return Path(value).name if is_path else value


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a resolved configuration that decide what a run computes."""
    return _ADDED | {
        key: value
        for key, value in flatten(config).items()
        if not any(key == name or key.startswith(f"{name}.") for name in _NOT_IDENTITY)
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits over the :func:`identity` of a resolved configuration."""
    keys = [item for item in identity(config).items() if item not in _ADDED.items()]
    text = json.dumps(dict(keys), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the keys of the :func:`identity` in which two configurations differ, sorted."""
    a, b = identity(one), identity(other)
    missing = object()
    return sorted(key for key in a.keys() | b.keys() if a.get(key, missing) != b.get(key, missing))


def run_name(seed: int | str, swept: Mapping[str, str]) -> str:
    """Return the name of a run folder: the seed, then every other swept override by its key.

    Sorted keys let the same command find the same folder whatever the order of its overrides.
    """
    others = sorted(
        (key, value) for key, value in swept.items() if key not in ("seed", "experiment")
    )
    name = ",".join(f"{key}={value}" for key, value in [("seed", str(seed)), *others])
    return re.sub(r"[^\w.=+,@-]", "_", name)


def _fits(value: object, kind: Any) -> bool:
    """Check a value against a type of :class:`RunInfo`; numbers are finite and not negative."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_fits(value, one) for one in get_args(kind))
    if kind in (int, float):
        number = type(value) is int or (kind is float and type(value) is float)
        return number and 0 <= value < _LARGEST  # type: ignore[operator]
    return isinstance(value, get_origin(kind) or kind)


@dataclass
class RunInfo:
    """What ``run.json`` holds."""

    status: Status
    experiment: str
    name: str
    seed: int
    config_hash: str
    started: str
    """Start of the run's first process, ISO 8601 with the zone."""
    setting: str = ""
    """What was swept besides experiment and seed, as it names the folder: runs of one experiment
    and one setting are repetitions of each other."""
    protocol: str | None = None
    """``paper`` or ``honest``; this and the fingerprints are None until the data were opened."""
    manifest_fingerprint: str | None = None
    split_fingerprint: str | None = None
    run_id: str = ""
    """Names the run for good, also at W&B: the hash of its configuration and a random part."""
    weights_sha256: str | None = None
    """Digest of the file of initial weights; None for those of timm's hub, or none."""
    seconds: float = 0.0
    """Time spent, over all processes that worked on the run, up to the last whole epoch."""
    max_epochs: int = 0
    epochs_done: int = 0
    best_epoch: int | None = None
    """The epoch with the highest F1 among 1 to ``epochs_done``; the earliest of equals."""
    best_f1: float | None = None
    git_commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    study_id: str | None = None
    """``study.id`` of the command that worked on it last; None for one that asked for one run."""
    logged: bool = False
    """Whether W&B, or its files for later, have everything of the finished run."""
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
        """Experiment and name, as people call the run."""
        return f"{self.experiment}/{self.name}"

    @property
    def reason(self) -> str | None:
        """The error in one line."""
        return _OWN_ERROR.sub("", (self.error or "").strip().rsplit("\n", 1)[-1]) or None

    def identity(self) -> dict[str, Any]:
        """Return what tells where a checkpoint of this run comes from."""
        names = (
            "experiment",
            "name",
            "seed",
            "protocol",
            "config_hash",
            "run_id",
            "manifest_fingerprint",
            "split_fingerprint",
            "git_commit",
        )
        return {name: getattr(self, name) for name in names}


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
        """Everything that is needed to go on after the last whole epoch."""
        return self.path / "checkpoints" / "last.ckpt"

    def is_run(self) -> bool:
        """Tell whether a run was ever begun in this folder."""
        return (self.path / CONFIG).is_file() or (self.path / INFO).is_file()

    def is_finished(self) -> bool:
        """Tell whether the run of this folder is finished."""
        info = self.read_info()
        return info is not None and info.status == "finished"

    def has_results(self) -> bool:
        """Tell whether anything was trained or evaluated in this folder."""
        results = (self.path / METRICS, self.path / PREDICTIONS, self.last_checkpoint)
        return any(path.is_file() for path in results)

    def remove_temporaries(self) -> None:
        """Remove what a process that was killed left half-written; the lock must be held."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)

    def check_place(self) -> None:
        """Check that the folder can be made and written; nothing is created.

        Raises:
            CnmcError: Its name is too long, or ``run.root`` cannot be written.
        """
        size = len(os.fsencode(self.path.name))
        if size > LONGEST_NAME:
            raise CnmcError(
                f"run.name: {self.path.name[:40]}... has {size} bytes, at most {LONGEST_NAME} "
                "fit; give a shorter run.name, or sweep fewer keys"
            )
        place = next(path for path in (self.path, *self.path.parents) if path.exists())
        try:
            with TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise CnmcError(
                f"run.root={self.path.parents[1]}: cannot write in {place} ({error.strerror}); "
                "expected a folder that you may write to"
            ) from None

    @property
    def _lock_path(self) -> Path:
        # Beside the folder, so that starting over can remove the whole folder.
        return self.path.with_name(f".{self.path.name}.lock")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from working on this run; a dead process holds no lock.

        Raises:
            RefusedError: Another process works on it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock_path)
        try:
            lock.acquire(timeout=LOCK_PATIENCE)
        except Timeout:
            raise RefusedError(
                f"{self.path}: another process is training this run; the same command can be run "
                "again when it has ended"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Tell whether a process works on this run at this moment."""
        if not self._lock_path.exists():
            return False
        lock = FileLock(self._lock_path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:
            # Somebody else's folder, or one that cannot be written: nobody here works on it.
            return False
        lock.release()
        return False

    def read_config(self) -> dict[str, Any]:
        """Return the resolved configuration.

        Raises:
            CnmcError: The file is missing or is not YAML.
        """
        try:
            config = dict(yaml.safe_load((self.path / CONFIG).read_text()))
            json.dumps(config, sort_keys=True)
            return config
        # Each reader raises many kinds of errors on damaged bytes.
        except Exception as error:
            raise self._unreadable(CONFIG, error) from error

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Store the resolved configuration."""
        with replacing(self.path / CONFIG) as temporary:
            temporary.write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def read_info(self) -> RunInfo | None:
        """Return what ``run.json`` holds, or None where there is none.

        Raises:
            CnmcError: The file is not what this version writes.
        """
        path = self.path / INFO
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text())
            known = {item.name for item in fields(RunInfo)}
            info = RunInfo(**{key: value for key, value in values.items() if key in known})
            info.check()
            return info
        except Exception as error:
            raise self._unreadable(INFO, error) from error

    def write_info(self, info: RunInfo) -> None:
        """Store ``run.json``."""
        with replacing(self.path / INFO) as temporary:
            temporary.write_text(json.dumps(asdict(info), indent=2) + "\n")

    def read_metrics(self) -> pd.DataFrame:
        """Return one row an epoch; no row where nothing was evaluated yet."""
        path = self.path / METRICS
        if not path.is_file():
            return pd.DataFrame({"epoch": pd.Series(dtype=int)})
        try:
            table = pd.read_csv(path)
            table["epoch"]  # every reader needs it
            return table
        except Exception as error:
            raise self._unreadable(METRICS, error) from error

    def add_metrics(self, row: Mapping[str, float]) -> None:
        """Add the row of an epoch; it takes the place of an earlier one of the same epoch."""
        before = self.read_metrics()
        table = pd.concat([before[before["epoch"] != row["epoch"]], pd.DataFrame([row])])
        self._write_metrics(table.sort_values("epoch"))

    def read_predictions(self) -> pd.DataFrame | None:
        """Return all stored logits, or None where nothing was evaluated yet."""
        path = self.path / PREDICTIONS
        if not path.is_file():
            return None
        try:
            return pd.read_parquet(path, page_checksum_verification=True)
        except Exception as error:
            raise self._unreadable(PREDICTIONS, error) from error

    def add_predictions(self, rows: pd.DataFrame) -> None:
        """Add predictions; they take the place of earlier ones of the same epochs and roles.

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
        """Drop what was stored of epochs after ``epoch``, which a resumed run repeats."""
        metrics = self.read_metrics()
        if (metrics["epoch"] > epoch).any():
            self._write_metrics(metrics[metrics["epoch"] <= epoch])
        predictions = self.read_predictions()
        if predictions is not None and (predictions["epoch"] > epoch).any():
            self._write_predictions(predictions[predictions["epoch"] <= epoch])

    def best_epoch(self) -> tuple[int, float] | None:
        """Return the epoch with the highest F1 and that F1; None before the first trained epoch.

        Epoch 0, the network before training, is not a candidate. The earliest of equals is taken.
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

    def _unreadable(self, name: str, error: Exception) -> CnmcError:
        return CnmcError(
            f"{self.path / name} cannot be read ({' '.join(str(error).split())}); "
            "run.overwrite=true starts this run over, or remove its folder"
        )


def find_runs(root: Path, experiments: Sequence[str] | None = None) -> list[RunFolder]:
    """Return the run folders below ``root``, sorted by experiment and then naturally by name."""
    found = [
        RunFolder(path.parent)
        for path in root.glob(f"*/*/{INFO}")
        if experiments is None or path.parent.parent.name in experiments
    ]

    return sorted(found, key=lambda run: (run.path.parent.name, natural_key(run.path.name)))
