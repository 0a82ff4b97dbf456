"""A study: the runs that one command asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cnmc.analysis.summary import summary
from cnmc.config import Config
from cnmc.runs import RunFolder, run_name


class StudyPlan(Callback):
    """Knows, in the process that launches a multirun, which run folders it will fill."""

    current: ClassVar[list[RunFolder] | None] = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Work out the run folders from the overrides that are swept."""
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        StudyPlan.current = planned_runs(
            [*params, *config.hydra.overrides.task],
            root=Path(config.run.root),
            seed=config.seed,
            experiment=config.hydra.runtime.choices.experiment,
        )


def planned_runs(
    overrides: Sequence[str], *, root: Path, seed: int, experiment: str
) -> list[RunFolder]:
    """Return the run folders of every combination of swept overrides, in the order of the jobs.

    Args:
        overrides: Those of the command, sweeps included.
        root: ``run.root``.
        seed: The seed of jobs whose overrides name none.
        experiment: The experiment of jobs whose overrides name none.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = [item.get_key_element() for item in parsed if item.is_sweep_override()]
    planned: list[RunFolder] = []
    for job in BasicSweeper.split_arguments(parsed, None)[0]:
        name = run_name(_values(job, ["seed"]).get("seed", str(seed)), _values(job, swept))
        chosen = _values(job, ["experiment"]).get("experiment", experiment)
        planned.append(RunFolder(root / chosen / name))
    return planned


def job_folder(config: Config, overrides: Sequence[str], params: Mapping[str, Any]) -> RunFolder:
    """Return the run folder of a job.

    Args:
        config: The job's configuration.
        overrides: The job's own overrides, a single value for each key.
        params: ``hydra.sweeper.params``: what a study file sweeps.
    """
    name = config.run.name or run_name(
        config.seed, _values(overrides, [*config.run.swept, *params])
    )
    return RunFolder(Path(config.run.root) / config.experiment / name)


def _values(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Return the values that a job's overrides give to some keys, as Hydra writes them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = {item.get_key_element(): item.get_value_element_as_str() for item in parsed}
    return {key: values[key] for key in keys if key in values}


def close_study() -> bool:
    """Print the summary of the multirun that this process launched.

    Returns:
        Whether every planned run is finished; True where there was no multirun.
    """
    folders = StudyPlan.current
    if folders is None:
        return True
    print(summary(folders))
    infos = [folder.read_info() for folder in folders]
    return all(info is not None and info.status == "finished" for info in infos)
