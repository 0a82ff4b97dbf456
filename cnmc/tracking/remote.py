"""The runs of a study at W&B and their checkpoints, through W&B's public API."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import wandb

from cnmc.analysis.ranking import CELLS, Candidate
from cnmc.errors import CnmcError
from cnmc.tracking import keys


class Project:
    """A project at W&B, of an entity (user or team) or of the account's default.

    Its methods raise :class:`CnmcError` if W&B cannot be reached, or has no such run or checkpoint.
    """

    def __init__(self, project: str, entity: str | None) -> None:
        # W&B's own messages contain its address.
        wandb.setup(wandb.Settings(silent=True))
        with _in_one_line("logging in"):
            self._api = wandb.Api()
            owner = entity or self._api.settings["entity"] or self._api.default_entity
        if not owner:
            raise CnmcError("entity=null: this account has no default; give entity=NAME")
        self.path = f"{owner}/{project}"

    def candidates(self, experiment: str | None) -> tuple[list[Candidate], int]:
        """Return the finished trainings with an F1 of one or all experiments, and count others."""
        runs = self._trainings(experiment)
        if not runs:
            known = {run.config[keys.ORIGIN]["experiment"] for run in self._trainings()}
            raise CnmcError(
                f"{self.path} at W&B: no run of {experiment or 'this program'}; expected "
                f"{', '.join(sorted(known)) or 'runs of logger=wandb, sent by wandb sync'}"
            )
        # A finished run that a sweep's agent asked for again is there twice.
        runs.sort(key=lambda run: run.state == "finished")
        by_id = {run.config[keys.ORIGIN]["run_id"]: run for run in runs}
        finished = [self._candidate(run) for run in by_id.values() if run.state == "finished"]
        scored = [run for run in finished if not math.isnan(run.f1)]
        return scored, len(by_id) - len(scored)

    def download(self, run: Candidate, path: Path) -> None:
        """Write a run's best checkpoint to a file."""
        artifact = self._checkpoint(run)
        with (
            TemporaryDirectory(dir=path.parent, prefix=".") as folder,
            _in_one_line(f"downloading {artifact.name}"),
        ):
            artifact.download(root=folder, skip_cache=True)
            artifact.verify(folder)
            (Path(folder) / "best.ckpt").replace(path)

    def promote(self, run: Candidate, experiment: str | None) -> list[str]:
        """Move the alias ``best-of-study`` to a run's best checkpoint.

        Then remove it from the other runs of the experiment, or of all experiments, on the same
        cells, and return the names of the checkpoints that had it.
        """
        artifact = self._checkpoint(run)
        removed = []
        with _in_one_line("promoting"):
            if keys.BEST_OF_STUDY not in artifact.aliases:
                artifact.aliases = [*artifact.aliases, keys.BEST_OF_STUDY]
                artifact.save()
            origins = [other.config[keys.ORIGIN] for other in self._trainings(experiment)]
            for origin in origins:
                if any(origin.get(key) != run.origin.get(key) for key in CELLS.values()):
                    continue
                holder = self._artifact(origin, keys.BEST_OF_STUDY)
                if holder is not None and origin["run_id"] != run.origin["run_id"]:
                    kept = [alias for alias in holder.aliases if alias != keys.BEST_OF_STUDY]
                    holder.aliases = kept
                    holder.save()
                    removed.append(str(holder.name))
        return removed

    def _trainings(self, experiment: str | None = None) -> list[Any]:
        filters = {"jobType": keys.TRAIN} | ({} if experiment is None else {"group": experiment})
        with _in_one_line(f"reading {self.path}"):
            # lazy=True would ask for the numbers of each run separately.
            found = list(self._api.runs(self.path, filters=filters, lazy=False))
        # Other programs may use the project too.
        return [run for run in found if "run_id" in run.config.get(keys.ORIGIN, {})]

    def _candidate(self, run: Any) -> Candidate:
        # W&B keeps NaN as text.
        numbers = pd.to_numeric(pd.Series(dict(run.summary_metrics), dtype=object), errors="coerce")
        choosing, reported = (
            {str(key).removeprefix(part): value for key, value in numbers.filter(like=part).items()}
            for part in (keys.best(""), keys.test(""))
        )
        origin = run.config[keys.ORIGIN]
        return Candidate(
            origin=origin,
            epoch=int(choosing.get("epoch", 0)),
            choosing={"f1": math.nan} | choosing,
            reported=reported,
            checkpoint=f"{self.path}/{keys.artifact_name(origin['run_id'])}:{keys.BEST}",
        )

    def _artifact(self, origin: Mapping[str, Any], alias: str) -> Any:
        """Return a checkpoint of a run, or None if it does not exist."""
        name = f"{self.path}/{keys.artifact_name(origin['run_id'])}:{alias}"
        with _in_one_line(f"reading {name}"):
            exists = self._api.artifact_exists(name, type=keys.MODEL)
            return self._api.artifact(name, type=keys.MODEL) if exists else None

    def _checkpoint(self, run: Candidate) -> Any:
        artifact = self._artifact(run.origin, keys.BEST)
        if artifact is None:
            raise CnmcError(
                f"{run.checkpoint}: W&B has no checkpoint of {run.label}; it was logged without "
                "its checkpoints, or wandb sync has not sent them yet"
            )
        return artifact


@contextmanager
def _in_one_line(action: str) -> Iterator[None]:
    """Turn an error of W&B's client, whose message contains the server's address, into one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, CnmcError) or getattr(error, "filename", None) is not None:
            raise
        kind = type(getattr(error, "exc", None) or error).__name__
        raise CnmcError(
            f"W&B, {action}: {kind}; check the login (wandb login, WANDB_API_KEY), project=NAME, "
            "entity=NAME and the network"
        ) from None
