"""What W&B keeps of a study, through its public API: runs and their checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cnmc.analysis.ranking import Candidate, cells_of
from cnmc.errors import CnmcError
from cnmc.tracking import keys as names

_FILE = "best.ckpt"
"""The file in the artifact of a checkpoint."""
_FINISHED = "finished"
"""State of a run that ended well and was sent as a whole."""
_NEEDED = {"experiment", "name", "seed", "run_id", "manifest_fingerprint", "split_fingerprint"}
"""What an origin must have for its run to be one of this program's."""
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404
_LOG_IN = "wandb login, or set WANDB_API_KEY"
_PROJECT = "not there, or not open to this account; give project=NAME and entity=USER_OR_TEAM"


class Project:
    """A project at W&B.

    Nothing is asked for, and W&B's own messages, which name its server, are never shown.

    Args:
        project: Its name.
        entity: The user or team it belongs to; None takes the account's default.

    Raises:
        CnmcError: Nobody is logged in, or the server cannot be reached.
    """

    def __init__(self, project: str, entity: str | None) -> None:
        import wandb  # noqa: PLC0415 - takes a second, and run folders do without

        wandb.setup(wandb.Settings(silent=True))
        with _in_one_line("logging in"):
            self._api = wandb.Api()
            owner = entity or self._api.settings["entity"] or self._api.default_entity
        if not owner:
            raise CnmcError("entity=null: this account has no default; give entity=NAME")
        self.path = f"{owner}/{project}"
        """Entity and project, as W&B's paths begin."""

    def candidates(self, experiment: str | None) -> tuple[list[Candidate], int]:
        """Read the trainings of an experiment, or of all.

        Returns:
            The finished runs, and the number of others. Runs of other programs are no runs here.

        Raises:
            CnmcError: There is no such run, or W&B cannot be asked.
        """
        runs = self._runs(experiment)
        if not runs:
            known = sorted({str(_origin(run)["experiment"]) for run in self._runs(None)})
            raise CnmcError(
                f"{self.path} at W&B: no run of {experiment} there; it has {', '.join(known)}"
                if known
                else f"{self.path} at W&B: no run of this program there; python -m cnmc.train "
                "logger=wandb makes them, wandb sync sends those that were logged offline"
            )
        # An agent's run that was finished before is there twice.
        finished = {_origin(run)["run_id"]: run for run in runs if run.state == _FINISHED}
        num_runs = len({_origin(run)["run_id"] for run in runs})
        return [*map(self._candidate, finished.values())], num_runs - len(finished)

    def checkpoint(self, run: Candidate) -> Any:
        """Return the artifact of a run's best checkpoint.

        Raises:
            CnmcError: There is none, it is another epoch's or of other cells than the run, or W&B
                cannot be asked.
        """
        name = self._checkpoint_name(run.origin, names.BEST)
        artifact = self._artifact(name)
        if artifact is None:
            raise CnmcError(
                f"{name}: W&B has no checkpoint of {run.label}; it was logged without its "
                "checkpoints, or wandb sync has not sent them yet"
            )
        expected = {
            "epoch": run.epoch,
            "manifest_fingerprint": run.origin["manifest_fingerprint"],
            "split_fingerprint": run.origin["split_fingerprint"],
        }
        for key, value in expected.items():
            if artifact.metadata.get(key) != value:
                raise CnmcError(
                    f"{name}: {key} is {artifact.metadata.get(key)}, but {value} in the run "
                    f"{run.label}; expected the checkpoint of its best epoch, wandb sync may not "
                    "have sent it yet"
                )
        return artifact

    def download(self, run: Candidate, path: Path) -> None:
        """Write a run's best checkpoint to a file, as it was sent.

        Raises:
            CnmcError: There is none, what came is not what was sent, or W&B cannot be asked.
            OSError: The file cannot be written.
        """
        artifact = self.checkpoint(run)
        with (
            _in_one_line(
                f"downloading {artifact.name}", "what came is not what was sent; try again"
            ),
            TemporaryDirectory(dir=path.parent, prefix=".") as folder,
        ):
            artifact.download(root=folder, skip_cache=True)
            artifact.verify(folder)
            (Path(folder) / _FILE).replace(path)

    def promote(self, run: Candidate, experiment: str | None) -> list[str]:
        """Give a run's best checkpoint the alias ``best-of-study``, and take it from the others.

        It is given before it is taken, so that there is always one that has it.

        Args:
            run: The run.
            experiment: The others are the runs of this experiment, None for all, on the same cells.

        Returns:
            The names of the checkpoints that it was taken from.

        Raises:
            CnmcError: The run has no checkpoint at W&B, or W&B cannot be asked.
        """
        artifact = self.checkpoint(run)
        with _in_one_line("promoting"):
            if names.BEST_OF_STUDY not in artifact.aliases:
                artifact.aliases = [*artifact.aliases, names.BEST_OF_STUDY]
                artifact.save()
        taken = []
        for origin in map(_origin, self._runs(experiment)):
            if origin["run_id"] == run.origin["run_id"] or cells_of(origin) != run.cells:
                continue
            other = self._artifact(self._checkpoint_name(origin, names.BEST_OF_STUDY))
            if other is not None:
                with _in_one_line("promoting"):
                    kept = [alias for alias in other.aliases if alias != names.BEST_OF_STUDY]
                    other.aliases = kept
                    other.save()
                taken.append(str(other.name))
        return taken

    def _runs(self, experiment: str | None) -> list[Any]:
        filters = {"jobType": names.TRAIN}
        if experiment is not None:
            filters["group"] = experiment
        with _in_one_line(f"reading {self.path}"):
            # Every run is needed, so the server need not sort them; and not lazily, which would
            # ask for each run's numbers by itself.
            found = list(self._api.runs(self.path, filters=filters, lazy=False))
        return [run for run in found if _is_own(run)]

    def _candidate(self, run: Any) -> Candidate:
        summary = {name: _number(value) for name, value in run.summary_metrics.items()}
        choosing, reported = (
            {name.removeprefix(start): v for name, v in summary.items() if name.startswith(start)}
            for start in (names.best(""), names.test(""))
        )
        epoch = choosing.get("epoch", math.nan)
        return Candidate(
            origin=_origin(run),
            epoch=0 if math.isnan(epoch) else int(epoch),
            # Epoch 0 is never the best one: without its epoch an F1 is none.
            f1=math.nan if math.isnan(epoch) else choosing.get("f1", math.nan),
            choosing=choosing,
            reported=reported,
            checkpoint=self._checkpoint_name(_origin(run), names.BEST),
        )

    def _checkpoint_name(self, origin: Mapping[str, Any], alias: str) -> str:
        return f"{self.path}/{names.artifact_name(origin['run_id'])}:{alias}"

    def _artifact(self, name: str) -> Any:
        import wandb  # noqa: PLC0415

        with _in_one_line(f"reading {name}"):
            try:
                return self._api.artifact(name, type=names.MODEL)
            except wandb.errors.CommError as error:
                # The client tells what is not there as a ValueError of its own, not of the server.
                if _is_value_error(error) or _status(error) == _NOT_FOUND:
                    return None
                raise


def _origin(run: Any) -> Mapping[str, Any]:
    origin: Mapping[str, Any] = run.config[names.ORIGIN]
    return origin


def _is_own(run: Any) -> bool:
    origin = run.config.get(names.ORIGIN)
    return isinstance(origin, Mapping) and origin.keys() >= _NEEDED


def _number(value: object) -> float:
    """Return a number of a summary, where NaN stands as text; NaN for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


@contextmanager
def _in_one_line(doing: str, fault: str = _PROJECT) -> Iterator[None]:
    """Tell what W&B's client raises in words of its own, as the client's name the server.

    Args:
        doing: What is tried.
        fault: What it means, and the way out, where the client finds fault with what the server
            answered.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, CnmcError) or _is_local(error):
            raise
        raise CnmcError(f"W&B, {doing}: {_reason(error, fault)}") from None


def _is_local(error: BaseException) -> bool:
    """Tell whether the system refused a file; errors of requests are OSErrors without a reason."""
    network = isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, OSError) and error.strerror is not None and not network


def _reason(error: Exception, fault: str) -> str:
    import wandb  # noqa: PLC0415

    status = _status(error)
    if isinstance(error, wandb.errors.UsageError):
        return f"nobody is logged in; {_LOG_IN}"
    if status == _UNAUTHORIZED:
        return f"the key was refused; {_LOG_IN}"
    if status in (_FORBIDDEN, _NOT_FOUND):
        return f"{_PROJECT} (HTTP {status})"
    if isinstance(error, wandb.errors.AuthenticationError):
        return f"there is no network, or the key is none; {_LOG_IN}"
    if _is_value_error(error):
        return fault
    answer = f"HTTP {status}" if status else type(getattr(error, "exc", None) or error).__name__
    return f"no answer of use ({answer}); try again when the network and the server are up"


def _is_value_error(error: BaseException) -> bool:
    """Tell whether W&B's client found that something is not there; it may wrap its own error.

    What cannot be parsed is a kind of ValueError too, and says nothing of that.
    """
    return ValueError in (type(error), type(getattr(error, "exc", None)))


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status behind an error of W&B's client; None where no server answered."""
    while error is not None:
        for source in (error, getattr(error, "exc", None)):
            status = getattr(getattr(source, "response", None), "http_status", None)
            if status:
                return int(status)
        error = error.__cause__
    return None
