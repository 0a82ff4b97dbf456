"""The ranking of finished runs by the F1 of their best epochs.

The F1 that chose the epoch of a run also ranks the run. With protocol ``honest`` the metrics of the
test cells are shown, but they do not rank, because that would make them optimistic.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from cnmc.analysis.loading import existing_runs, load_study
from cnmc.analysis.metrics import METRICS, evaluate
from cnmc.analysis.results import Logits, Run
from cnmc.errors import CnmcError

F1_NOROT = "f1_norot"
_CELLS = {
    "protocol": "protocol",
    "manifest": "manifest_fingerprint",
    "split": "split_fingerprint",
}
"""Keys that must be equal for runs to be compared, and their names in an origin."""
_NUM_DIGITS, _NUM_SHOWN = 12, 5


@dataclass(frozen=True)
class Candidate:
    """A finished run that may be the best one."""

    origin: Mapping[str, Any]
    """See :meth:`cnmc.runs.folder.RunInfo.identity`."""
    epoch: int
    """Its best epoch."""
    choosing: Mapping[str, float]
    """By name, the metrics of :func:`cnmc.analysis.metrics.evaluate` and :data:`F1_NOROT` at that
    epoch, as fractions of 1, on the cells that chose it."""
    checkpoint: str
    """The path of its checkpoint, or the name of its artifact at W&B."""
    reported: Mapping[str, float] = field(default_factory=dict)
    """The same metrics on the reported cells; empty if they are the same cells."""
    folder: Path | None = None
    """The run folder; None for a run at W&B."""

    @property
    def f1(self) -> float:
        """The F1 that chose the epoch, as a fraction of 1."""
        return self.choosing["f1"]

    @property
    def label(self) -> str:
        """Experiment and name of the run."""
        return f"{self.origin['experiment']}/{self.origin['name']}"

    @property
    def cells(self) -> dict[str, str]:
        """What runs must have in common to be compared: protocol, data and split."""
        return cells_of(self.origin)


def cells_of(origin: Mapping[str, Any]) -> dict[str, str]:
    """Return protocol and fingerprints of a run, keys ``protocol``, ``manifest``, ``split``."""
    return {name: str(origin.get(key)) for name, key in _CELLS.items()}


def candidates_in(root: Path, experiment: str | None) -> tuple[list[Candidate], int]:
    """Read the run folders below a folder, of one experiment or (None) of all.

    Returns:
        The finished runs, and the number of runs that are not finished or cannot be read.

    Raises:
        CnmcError: There is no such run.
    """
    folders = existing_runs(root, None if experiment is None else [experiment])
    found = [
        Candidate(
            origin=run.info.identity(),
            epoch=run.best_epoch,
            choosing=_scores(run, run.choosing) | {"f1": run.info.best_f1},
            reported={} if run.reported is run.choosing else _scores(run, run.reported),
            checkpoint=str(run.folder.best_checkpoint),
            folder=run.folder.path,
        )
        for group in load_study(folders).groups
        for run in group.runs
        if run.info.best_f1 is not None
    ]
    return found, len(folders) - len(found)


def _scores(run: Run, logits: Logits) -> dict[str, float]:
    upright = logits.mean_at(run.best_epoch, rotations=False)
    scores = evaluate(logits.labels, logits.mean_at(run.best_epoch))
    return {**scores, F1_NOROT: evaluate(logits.labels, upright)["f1"]}


def rank(
    candidates: Sequence[Candidate], only: Mapping[str, str | None] | None = None
) -> list[Candidate]:
    """Rank runs by the F1 that chose their epochs, best first; equal runs by their seed.

    Args:
        candidates: Finished runs.
        only: First characters of ``protocol``, ``manifest`` and ``split`` of the runs to rank.

    Raises:
        CnmcError: There is no run, or they differ in data, split or protocol.
    """
    if not candidates:
        raise CnmcError("no run is finished; repeat the command that started them to continue")
    wanted = {name: start for name, start in (only or {}).items() if start is not None}
    chosen = [
        run
        for run in candidates
        if all(run.cells[name].startswith(start) for name, start in wanted.items())
    ]
    if not chosen:
        asked = " ".join(f"{name}={start}" for name, start in wanted.items())
        raise CnmcError(
            f"{asked}: no finished run of these cells; there are {_listing(candidates)}"
        )
    kinds = list({tuple(run.cells.values()): run.cells for run in chosen}.values())
    if len(kinds) > 1:
        num_values = {name: len({kind[name] for kind in kinds}) for name in _CELLS}
        differing = [name for name in _CELLS if num_values[name] > 1]
        # One key is enough if it differs between all of them.
        telling = [name for name in differing if num_values[name] == len(kinds)]
        ways = [
            " ".join(override(name, kind[name][:_NUM_DIGITS]) for name in telling[:1] or differing)
            for kind in kinds
        ]
        raise CnmcError(
            f"these runs differ in {' and '.join(differing)}, and F1 on other cells cannot be "
            f"compared: {_listing(chosen)}; choose with {' or '.join(ways)}"
        )
    return sorted(chosen, key=lambda run: (-run.f1, run.origin["seed"], run.label))


def _listing(candidates: Sequence[Candidate]) -> str:
    """Return the cells of the runs, with the number of runs of each experiment."""
    experiments: dict[str, list[str]] = {}
    for run in candidates:
        experiments.setdefault(_words(run), []).append(str(run.origin["experiment"]))
    parts = []
    for words, names in experiments.items():
        counts = (f"{name} ({_count(names.count(name))})" for name in dict.fromkeys(names))
        parts.append(f"{words}: {', '.join(counts)}")
    return "; ".join(parts)


def _words(run: Candidate) -> str:
    return ", ".join(f"{name} {value[:_NUM_DIGITS]}" for name, value in run.cells.items())


def override(key: str, value: str) -> str:
    """Return an override, quoted for a shell."""
    return shlex.quote(f"{key}={value}")


def describe(runs: Sequence[Candidate], num_left_out: int) -> str:
    """Return the best run and the next ones as text, with the meaning of the F1.

    Args:
        runs: The ranked runs.
        num_left_out: Number of runs that are not finished or not readable.
    """
    best, count = runs[0], len(runs)
    reached = f"F1 {_percent(best.f1)} at epoch {best.epoch}"
    protocol, of_all = best.cells["protocol"], f"mean F1 of {_count(count)}"
    lines = [
        f"best of {_count(count)}: {best.label}, seed {best.origin['seed']}, {reached}",
        f"  {_words(best)}",
        f"  checkpoint {best.checkpoint}",
        "",
    ]
    choosing = _table(runs, [run.choosing for run in runs])
    if protocol == "honest":
        reported = [run.reported for run in runs]
        spread = _spread([row.get("f1", math.nan) for row in reported])
        lines += ["on the cells that chose epoch and run, in %", choosing, ""]
        lines += ["on the reported cells, which chose nothing, in %", _table(runs, reported), ""]
        lines += [f"protocol honest: the reported F1 is not optimistic; {of_all}: {spread}"]
    else:
        spread = _spread([run.f1 for run in runs])
        lines += ["on the reported cells, which also chose each run's epoch, in %", choosing, ""]
        flattered = f"the reported cells also chose this run among {count}, so its F1 is optimistic"
        lines += [f"protocol {protocol}: {flattered}; {of_all}: {spread}"]
    if num_left_out:
        lines += [f"left out: {_count(num_left_out)} not finished or not readable"]
    return "\n".join(lines)


def _table(runs: Sequence[Candidate], scores: Sequence[Mapping[str, float]]) -> str:
    titles = {name: metric.title for name, metric in METRICS.items()} | {F1_NOROT: "no rotation"}
    names = ["f1", F1_NOROT, *(name for name in METRICS if name != "f1")]
    rows = [
        [position, run.label, run.origin["seed"], run.epoch]
        + [_percent(values.get(name, math.nan)) for name in names]
        for position, (run, values) in enumerate(zip(runs, scores, strict=True), start=1)
    ]
    text: str = tabulate(
        rows[:_NUM_SHOWN],
        ["", "run", "seed", "epoch", *(titles[name] for name in names)],
        "plain",
        disable_numparse=True,
        colalign=["right", "left", "right", "right", *["right"] * len(names)],
    )
    return text


def _spread(values: Sequence[float]) -> str:
    return f"{_percent(float(np.mean(values)))} ± {_percent(float(np.std(values)))}"


def _percent(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{100 * value:.2f}"


def _count(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"
