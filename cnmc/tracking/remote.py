"""The runs of a study at W&B and their checkpoints, through W&B's public API."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import wandb

from cnmc.analysis.ranking import Candidate, cells_of
from cnmc.errors import CnmcError
from cnmc.tracking import keys

_NEEDED = {"experiment", "name", "seed", "run_id", "manifest_fingerprint", "split_fingerprint"}
"""Keys of the origin of a run of this program."""


class Project:
    """A project at W&B.

    Nothing is asked for on the terminal, and W&B's own messages, which contain its address, are
    not shown.

    Args:
        project: Its name.
        entity: The user or team that owns it; None for the account's default.

    Raises:
        CnmcError: Not logged in, or the server cannot be reached.
    """

    def __init__(self, project: str, entity: str | None) -> None:
        wandb.setup(wandb.Settings(silent=True))
        with _in_one_line("logging in"):
            self._api = wandb.Api()
            owner = entity or self._api.settings["entity"] or self._api.default_entity
        if not owner:
            raise CnmcError("entity=null: this account has no default; give entity=NAME")
        self.path = f"{owner}/{project}"

    def candidates(self, experiment: str | None) -> tuple[list[Candidate], int]:
        """Read the trainings of an experiment, or of all.

        Returns:
            The finished runs that have an F1, and the number of other runs. Runs of other programs
            do not count.

        Raises:
            CnmcError: There is no such run, or W&B cannot be asked.
        """
        runs = self._runs(experiment)
        if not runs:
            known = ", ".join(
                sorted({run.config[keys.ORIGIN]["experiment"] for run in self._runs()})
            )
            raise CnmcError(
                f"{self.path} at W&B: no run of {experiment} there; it has {known}"
                if known
                else f"{self.path} at W&B: no run of this program there; python -m cnmc.train "
                "logger=wandb makes them, wandb sync sends those that were logged offline"
            )
        # A finished run that a sweep's agent asked for again is there twice.
        by_id = {run.config[keys.ORIGIN]["run_id"]: run for run in runs if run.state == "finished"}
        num_runs = len({run.config[keys.ORIGIN]["run_id"] for run in runs})
        found = [self._candidate(run) for run in by_id.values()]
        scored = [run for run in found if not math.isnan(run.f1)]
        return scored, num_runs - len(scored)

    def checkpoint(self, run: Candidate) -> Any:
        """Return the artifact of a run's best checkpoint.

        Raises:
            CnmcError: It is not there, it is of another epoch or other cells than the run, or W&B
                cannot be asked.
        """
        name = self._artifact_path(run.origin, keys.BEST)
        artifact = self._artifact(name)
        if artifact is None:
            raise CnmcError(
                f"{name}: W&B has no checkpoint of {run.label}; it was logged without its "
                "checkpoints, or wandb sync has not sent them yet"
            )
        expected = {key: run.origin[key] for key in ("manifest_fingerprint", "split_fingerprint")}
        for key, value in {"epoch": run.epoch, **expected}.items():
            if artifact.metadata.get(key) != value:
                raise CnmcError(
                    f"{name}: {key} is {artifact.metadata.get(key)}, but {value} in the run "
                    f"{run.label}; wandb sync may not have sent its best epoch yet"
                )
        return artifact

    def download(self, run: Candidate, path: Path) -> None:
        """Write a run's best checkpoint to a file.

        Raises:
            CnmcError: It does not exist, the download is damaged, or W&B cannot be asked.
            OSError: The file cannot be written.
        """
        artifact = self.checkpoint(run)
        with (
            _in_one_line(f"downloading {artifact.name}"),
            TemporaryDirectory(dir=path.parent, prefix=".") as folder,
        ):
            artifact.download(root=folder, skip_cache=True)
            try:
                artifact.verify(folder)
            except ValueError:
                raise CnmcError(f"{artifact.name}: the download is damaged; try again") from None
            (Path(folder) / "best.ckpt").replace(path)

    def promote(self, run: Candidate, experiment: str | None) -> list[str]:
        """Move the alias ``best-of-study`` to a run's best checkpoint.

        The alias is added before it is removed from others, so that one checkpoint always has it.

        Args:
            run: The run.
            experiment: Remove the alias from runs of this experiment, None for all, on the same
                cells.

        Returns:
            The names of the checkpoints that had the alias.

        Raises:
            CnmcError: The run has no checkpoint at W&B, or W&B cannot be asked.
        """
        artifact = self.checkpoint(run)
        removed = []
        with _in_one_line("promoting"):
            if keys.BEST_OF_STUDY not in artifact.aliases:
                artifact.aliases = [*artifact.aliases, keys.BEST_OF_STUDY]
                artifact.save()
            for other in self._runs(experiment):
                origin = other.config[keys.ORIGIN]
                if origin["run_id"] == run.origin["run_id"] or cells_of(origin) != run.cells:
                    continue
                holder = self._artifact(self._artifact_path(origin, keys.BEST_OF_STUDY))
                if holder is not None:
                    kept = [alias for alias in holder.aliases if alias != keys.BEST_OF_STUDY]
                    holder.aliases = kept
                    holder.save()
                    removed.append(str(holder.name))
        return removed

    def _runs(self, experiment: str | None = None) -> list[Any]:
        filters = {"jobType": keys.TRAIN} | ({} if experiment is None else {"group": experiment})
        with _in_one_line(f"reading {self.path}"):
            # lazy=True would ask for the numbers of each run separately.
            found = list(self._api.runs(self.path, filters=filters, lazy=False))
        origins = (run.config.get(keys.ORIGIN) for run in found)
        return [
            run
            for run, origin in zip(found, origins, strict=True)
            if isinstance(origin, Mapping) and origin.keys() >= _NEEDED
        ]

    def _candidate(self, run: Any) -> Candidate:
        summary = {name: _number(value) for name, value in run.summary_metrics.items()}
        choosing, reported = (
            {name.removeprefix(start): v for name, v in summary.items() if name.startswith(start)}
            for start in (keys.best(""), keys.test(""))
        )
        epoch = choosing.get("epoch", math.nan)
        return Candidate(
            origin=run.config[keys.ORIGIN],
            epoch=0 if math.isnan(epoch) else int(epoch),
            choosing=choosing
            | {"f1": math.nan if math.isnan(epoch) else choosing.get("f1", math.nan)},
            reported=reported,
            checkpoint=self._artifact_path(run.config[keys.ORIGIN], keys.BEST),
        )

    def _artifact_path(self, origin: Mapping[str, Any], alias: str) -> str:
        return f"{self.path}/{keys.artifact_name(origin['run_id'])}:{alias}"

    def _artifact(self, name: str) -> Any:
        """Return an artifact, or None if it does not exist."""
        with _in_one_line(f"reading {name}"):
            try:
                return self._api.artifact(name, type=keys.MODEL)
            except (wandb.errors.CommError, ValueError) as error:
                if _is_missing(error):
                    return None
                raise


def _number(value: object) -> float:
    """Return a number of a summary, where NaN is text; NaN for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


@contextmanager
def _in_one_line(action: str) -> Iterator[None]:
    """Turn an error of W&B's client, whose message contains the server's address, into one line."""
    try:
        yield
    except Exception as error:
        network = isinstance(error, ConnectionError | TimeoutError)
        on_disk = isinstance(error, OSError) and error.strerror is not None and not network
        if isinstance(error, CnmcError) or on_disk:
            raise
        raise CnmcError(f"W&B, {action}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    status = _status(error)
    if (
        isinstance(error, wandb.errors.UsageError | wandb.errors.AuthenticationError)
        or status == 401
    ):
        return "not logged in, or the key was refused; wandb login, or set WANDB_API_KEY"
    if status == 403 or _is_missing(error):
        return "it does not exist or this account may not use it; give project=NAME and entity=NAME"
    answer = f"HTTP {status}" if status else type(getattr(error, "exc", None) or error).__name__
    return f"no usable answer ({answer}); try again when the network and the server are up"


def _is_missing(error: Exception) -> bool:
    """Check whether W&B's client reports that something does not exist."""
    # The client raises a ValueError, sometimes wrapped in its own error.
    kinds = (type(error), type(getattr(error, "exc", None)))
    return ValueError in kinds or _status(error) == 404


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status behind an error of W&B's client; None if no server answered."""
    while error is not None:
        for source in (error, getattr(error, "exc", None)):
            status = getattr(getattr(source, "response", None), "http_status", None)
            if status:
                return int(status)
        error = error.__cause__
    return None
