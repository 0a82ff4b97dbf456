"""The life of a run folder: begun, resumed, failed, started over, or refused to another run."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from cnmc.config import Config
from cnmc.errors import CnmcError, RefusedError, is_interruption
from cnmc.runs.folder import CONFIG, INFO, RunFolder, RunInfo
from cnmc.runs.identity import config_hash, differing_keys, git_commit, versions

_WAYS_OUT = "choose another run.name or run.root, or start over with run.overwrite=true"

_ORIGIN = {
    "data.root": "manifest_fingerprint",
    "split": "split_fingerprint",
    "model.weights": "weights_sha256",
}
"""The field of the run's description that identifies the content behind a key."""


def file_digest(path: str | None) -> str | None:
    """Return the SHA-256 of a file; None without a path, or if there is no such file."""
    file = Path(path or "").expanduser()
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def check_place(folder: RunFolder) -> None:
    """Raise CnmcError if a run folder cannot be made or written; create nothing."""
    name, root = folder.path.name, folder.path.parents[1]
    try:
        place = next(path for path in (folder.path, *folder.path.parents) if path.exists())
        with NamedTemporaryFile(dir=place, prefix="", suffix=folder.lock_path.name):
            pass
    except OSError as error:
        raise CnmcError(
            f"run.root={root}, run.name={name[:40]}: cannot write there ({error.strerror}); choose "
            "a folder that you may write to, or a shorter name, or sweep fewer keys"
        ) from None


def find_run(folder: RunFolder, config: Config, resolved: Mapping[str, Any]) -> RunInfo:
    """Return the description of a run before its data are read; needs the lock.

    That of a finished run is the stored one. That of an interrupted run keeps identity and progress
    and has the versions and the machine of this process.

    Raises:
        RefusedError: The folder holds results of another configuration.
    """
    # A run without results, such as one that failed by a mistake, can be replaced.
    differing = differing_keys(folder.read_config(), resolved) if folder.has_results() else {}
    if differing:
        values = (f"{key} (there {old}, now {new})" for key, (old, new) in differing.items())
        raise RefusedError(
            f"{folder.path} holds a run of another configuration: {', '.join(values)}; sweep "
            f"the key so that it names the folder, {_WAYS_OUT}"
        )
    digest, name, seed = config_hash(resolved), folder.path.name, f"seed={config.seed},"
    info = RunInfo(
        status="running",
        experiment=config.experiment,
        name=name,
        setting=name.removeprefix(seed) if name.startswith(seed) else "",
        seed=config.seed,
        config_hash=digest,
        study_id=config.study.id,
        # Two folders may hold the same configuration on other data.
        run_id=f"{digest}-{secrets.token_hex(3)}",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        max_epochs=config.trainer.max_epochs,
        git_commit=git_commit(),
        versions=versions(),
        hardware={"machine": platform.machine(), "cores": os.cpu_count()},
    )
    before = folder.read_info()
    if before is None or before.config_hash != digest:
        return info
    if before.status == "finished":
        return before
    of_this_process = ("name", "setting", "study_id", "git_commit", "versions", "hardware")
    return replace(before, **{name: getattr(info, name) for name in of_this_process})


def begin_run(
    folder: RunFolder,
    info: RunInfo,
    resolved: Mapping[str, Any],
    origin: Mapping[str, str | None],
    epochs_done: int,
) -> None:
    """Prepare a run folder for training after ``epochs_done`` epochs, and complete ``info``."""
    check_origin(folder, info, origin)
    folder.remove_temporaries()
    folder.write_config(resolved)
    folder.forget_after(epochs_done if epochs_done else -1)
    metrics = folder.read_metrics()
    vars(info).update(origin)
    info.epochs_done = epochs_done
    info.seconds = float(metrics["seconds"].sum()) if len(metrics) else 0.0
    info.best_epoch, info.best_f1 = folder.best_epoch() or (None, None)
    info.status, info.error = "running", None
    folder.write_info(info)


def check_origin(folder: RunFolder, info: RunInfo, origin: Mapping[str, str | None]) -> None:
    """Raise RefusedError if a run was begun with other data, another split or other weights."""
    for key, name in _ORIGIN.items() if info.manifest_fingerprint is not None else ():
        old, new = str(getattr(info, name))[:12], str(origin[name])[:12]
        if old != new:
            raise RefusedError(
                f"{key}: {folder.path} was begun with another ({name} {old}, now {new}); use that, "
                f"{_WAYS_OUT}"
            )


@contextmanager
def failure_recorded(folder: RunFolder, info: RunInfo) -> Iterator[None]:
    """Store an error in the run folder; a mistake before the first evaluation leaves no folder."""
    is_new = not folder.path.exists()
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        if isinstance(error, CnmcError) and is_new and not folder.has_results():
            shutil.rmtree(folder.path, ignore_errors=True)
        elif not is_interruption(error):
            info.status, info.error = "failed", traceback.format_exc()
            # A full disk may be the error.
            with suppress(OSError):
                folder.write_info(info)
        raise


def start_over(folder: RunFolder, study_id: str | None) -> None:
    """Remove a run folder, except one that this study began and that a restarted job resumes."""
    if not folder.path.exists():
        return
    if not (folder.has_results() or any((folder.path / name).is_file() for name in (CONFIG, INFO))):
        raise RefusedError(
            f"run.overwrite=true: {folder.path} is not a run folder; remove it yourself, or choose "
            "another run.name or run.root"
        )
    info = folder.read_info() if study_id is not None else None
    if info is None or info.study_id != study_id:
        # Renamed first, since a half-removed folder could be taken for an interrupted run.
        removed = folder.path.with_name(f".{folder.path.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        folder.path.rename(removed)
        shutil.rmtree(removed)
