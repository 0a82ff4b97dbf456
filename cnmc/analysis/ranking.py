"""The ranking of finished runs by the F1 that chose their epochs.

With protocol ``honest`` the metrics of the test cells are shown, but they do not rank, because that
would make them optimistic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.loading import existing_runs, load_study
from cnmc.analysis.metrics import METRICS, evaluate
from cnmc.analysis.results import Logits, Run
from cnmc.analysis.statistics import std
from cnmc.errors import CnmcError

F1_NOROT = "f1_norot"
CELLS = {"protocol": "protocol", "manifest": "manifest_fingerprint", "split": "split_fingerprint"}
"""Keys that must be equal for runs to be compared, and their names in an origin."""
_NUM_DIGITS, _NUM_SHOWN = 12, 5


@dataclass(frozen=True)
class Candidate:
    """A finished run that may be the best one, in a run folder or at W&B."""

    origin: Mapping[str, Any]
    """See :meth:`cnmc.runs.folder.RunInfo.identity`."""
    epoch: int
    """The best epoch."""
    choosing: Mapping[str, float]
    """Metrics and :data:`F1_NOROT` of that epoch on the cells that chose it, fractions of 1."""
    checkpoint: str
    """Path of the checkpoint, or name of the artifact at W&B."""
    reported: Mapping[str, float] = field(default_factory=dict)
    """The same metrics on the reported cells; empty if they are the same cells."""
    folder: Path | None = None

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
        """Protocol and fingerprints, by the keys of :data:`CELLS`."""
        return {name: str(self.origin.get(key)) for name, key in CELLS.items()}


def candidates_in(root: Path, experiment: str | None) -> tuple[list[Candidate], int]:
    """Read the runs below a folder, of one experiment or of all, and count those that do not rank.

    Raises:
        CnmcError: There is no such run.
    """
    folders = existing_runs(root, None if experiment is None else [experiment])
    found = [
        Candidate(
            origin=run.info.identity(),
            epoch=run.best_epoch,
            choosing=scores_of(run, run.choosing) | {"f1": run.info.best_f1},
            reported={} if run.reported is run.choosing else scores_of(run, run.reported),
            checkpoint=str(run.folder.best_checkpoint),
            folder=run.folder.path,
        )
        for group in load_study(folders).groups
        for run in group.runs
        if run.info.best_f1 is not None
    ]
    return found, len(folders) - len(found)


def scores_of(run: Run, logits: Logits) -> dict[str, float]:
    """Return the metrics and :data:`F1_NOROT` of a run's best epoch."""
    upright = evaluate(logits.labels, logits.mean(run.best_epoch, rotations=False))
    return {**evaluate(logits.labels, logits.mean(run.best_epoch)), F1_NOROT: upright["f1"]}


def rank(
    candidates: Sequence[Candidate], only: Mapping[str, str | None] | None = None
) -> list[Candidate]:
    """Rank finished runs by the F1 that chose their epochs, best first; equal runs by their seed.

    ``only`` has the first characters of ``protocol``, ``manifest`` and ``split`` of those to rank.

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
    listing = _listing(chosen or candidates)
    if not chosen:
        asked = " ".join(f"{name}={start}" for name, start in wanted.items())
        raise CnmcError(f"{asked}: no finished run of these cells; there are {listing}")
    values = {name: dict.fromkeys(run.cells[name] for run in chosen) for name in CELLS}
    differing = [name for name in CELLS if len(values[name]) > 1]
    if differing:
        first = differing[0]
        ways = [f"{first}={value[:_NUM_DIGITS]}" for value in values[first]]
        raise CnmcError(
            f"these runs differ in {' and '.join(differing)}, and F1 on other cells cannot be "
            f"compared: {listing}; choose with {' or '.join(ways)}"
        )
    return sorted(chosen, key=lambda run: (-run.f1, run.origin["seed"], run.label))


def _listing(candidates: Sequence[Candidate]) -> str:
    """Return the cells of the runs, with the number of runs of each experiment."""
    counts: dict[str, Counter[str]] = {}
    for run in candidates:
        counts.setdefault(_words(run), Counter())[run.origin["experiment"]] += 1
    return "; ".join(
        f"{words}: {', '.join(f'{name} ({_count(n)})' for name, n in experiments.items())}"
        for words, experiments in counts.items()
    )


def _words(run: Candidate) -> str:
    return ", ".join(f"{name} {value[:_NUM_DIGITS]}" for name, value in run.cells.items())


def describe(runs: Sequence[Candidate], num_left_out: int) -> str:
    """Return the ranked runs as text, with the number of those that are not ranked."""
    best, count = runs[0], _count(len(runs))
    reached = f"F1 {100 * best.f1:.2f} at epoch {best.epoch}"
    lines = [f"best of {count}: {best.label}, seed {best.origin['seed']}, {reached}"]
    lines += [f"  {_words(best)}", f"  checkpoint {best.checkpoint}", ""]
    table, protocol = _table(runs, [run.choosing for run in runs]), best.cells["protocol"]
    if protocol == "honest":
        lines += ["on the cells that chose epoch and run, in %", _shown(table), ""]
        table = _table(runs, [run.reported for run in runs])
        title = "on the reported cells, which chose nothing, in %"
        meaning = "the reported F1 is not optimistic"
    else:
        title = "on the reported cells, which also chose each run's epoch, in %"
        meaning = f"the reported cells also chose this run among {len(runs)}, "
        meaning += "so its F1 is optimistic"
    f1 = table["F1"].to_numpy()
    lines += [title, _shown(table), ""]
    lines += [
        f"protocol {protocol}: {meaning}; mean F1 of {count}: {f1.mean():.2f} ± {std(f1):.2f}"
    ]
    if num_left_out:
        lines += [f"left out: {_count(num_left_out)} not finished or not readable"]
    return "\n".join(lines)


def _table(runs: Sequence[Candidate], scores: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    titles = {"f1": "F1", F1_NOROT: "no rotation"}
    titles |= {name: metric.title for name, metric in METRICS.items()}
    known = [(run.label, run.origin["seed"], run.epoch) for run in runs]
    frame = pd.DataFrame(known, columns=["run", "seed", "epoch"], index=range(1, len(runs) + 1))
    for name, title in titles.items():
        frame[title] = [100 * row.get(name, np.nan) for row in scores]
    return frame


def _shown(table: pd.DataFrame) -> str:
    return table[:_NUM_SHOWN].to_string(float_format="{:.2f}".format, na_rep="n/a")


def _count(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"
