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
    """A finished run that may be the best one.

    Attributes:
        origin: See :meth:`cnmc.runs.folder.RunInfo.identity`.
        epoch: Its best epoch.
        f1: The F1 that chose the epoch, as a fraction of 1; NaN if there is none.
        choosing: By name, the metrics of :func:`cnmc.analysis.metrics.evaluate` and
            :data:`F1_NOROT` at that epoch, as fractions of 1, on the cells that chose it.
        reported: The same on the reported cells; empty if they are the same cells.
        checkpoint: The path of its checkpoint, or the name of its artifact at W&B.
        folder: The run folder; None for a run at W&B.
    """

    origin: Mapping[str, Any]
    epoch: int
    f1: float
    choosing: Mapping[str, float]
    checkpoint: str
    reported: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def label(self) -> str:
        """Experiment and name of the run."""
        return f"{self.origin['experiment']}/{self.origin['name']}"

    @property
    def cells(self) -> dict[str, str]:
        """What runs must have in common to be compared: protocol, data and split."""
        return cells_of(self.origin)


@dataclass(frozen=True)
class Ranking:
    """Runs that can be compared, best first."""

    runs: tuple[Candidate, ...]
    num_left_out: int
    """Number of runs that are not finished or not readable."""
    num_unscored: int
    """Number of finished runs without an F1."""


def cells_of(origin: Mapping[str, Any]) -> dict[str, str]:
    """Return protocol and fingerprints of a run, keys ``protocol``, ``manifest``, ``split``."""
    return {name: str(origin.get(key)) for name, key in _CELLS.items()}


def candidates_in(root: Path, experiment: str | None) -> tuple[list[Candidate], int]:
    """Read the run folders below a folder.

    Args:
        root: The folder.
        experiment: Those of one experiment; None takes all.

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
            f1=math.nan if run.info.best_f1 is None else run.info.best_f1,
            choosing=_scores(run, run.choosing),
            reported={} if run.reported is run.choosing else _scores(run, run.reported),
            checkpoint=str(run.folder.best_checkpoint),
            folder=run.folder.path,
        )
        for group in load_study(folders).groups
        for run in group.runs
    ]
    return found, len(folders) - len(found)


def _scores(run: Run, logits: Logits) -> dict[str, float]:
    upright = logits.mean_at(run.best_epoch, rotations=False)
    return {
        **evaluate(logits.labels, logits.mean_at(run.best_epoch)),
        F1_NOROT: evaluate(logits.labels, upright)["f1"],
    }


def rank(
    candidates: Sequence[Candidate],
    *,
    num_left_out: int = 0,
    only: Mapping[str, str | None] | None = None,
) -> Ranking:
    """Rank runs by the F1 that chose their epochs; equal runs by their seed.

    Args:
        candidates: Finished runs.
        num_left_out: Number of other runs.
        only: First characters of ``protocol``, ``manifest`` and ``split`` of the runs to rank.

    Raises:
        CnmcError: There is no run, no run has an F1, or they differ in data, split or protocol.
    """
    if not candidates:
        raise CnmcError(
            f"no run is finished, {num_left_out} are not; repeat the command that started them to "
            "continue"
        )
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
    _refuse_mixtures(chosen)
    scored = [run for run in chosen if not math.isnan(run.f1)]
    if not scored:
        raise CnmcError(f"{_count(len(chosen), 'finished run')}, but none has an F1")
    scored.sort(key=lambda run: (-run.f1, run.origin["seed"], run.label))
    return Ranking(tuple(scored), num_left_out, len(chosen) - len(scored))


def _refuse_mixtures(candidates: Sequence[Candidate]) -> None:
    kinds = _by_cells(candidates)
    if len(kinds) == 1:
        return
    cells = [members[0].cells for members in kinds]
    differing = [name for name in _CELLS if len({kind[name] for kind in cells}) > 1]
    # One key is enough if it differs between all of them.
    telling = [name for name in differing if len({kind[name] for kind in cells}) == len(kinds)]
    ways = [
        " ".join(override(name, kind[name][:_NUM_DIGITS]) for name in telling[:1] or differing)
        for kind in cells
    ]
    raise CnmcError(
        f"these runs differ in {' and '.join(differing)}, and F1 on other cells cannot be "
        f"compared: {_listing(candidates)}; choose with {' or '.join(ways)}"
    )


def _by_cells(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    kinds: dict[tuple[str, ...], list[Candidate]] = {}
    for run in candidates:
        kinds.setdefault(tuple(run.cells.values()), []).append(run)
    return list(kinds.values())


def _listing(candidates: Sequence[Candidate]) -> str:
    """Return the cells of the runs, with the number of runs of each experiment."""
    parts = []
    for members in _by_cells(candidates):
        names = [str(run.origin["experiment"]) for run in members]
        counts = [f"{name} ({_count(names.count(name), 'run')})" for name in dict.fromkeys(names)]
        parts.append(f"{_words(members[0].cells)}: {', '.join(counts)}")
    return "; ".join(parts)


def _words(cells: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value[:_NUM_DIGITS]}" for name, value in cells.items())


def override(key: str, value: str) -> str:
    """Return an override, quoted for a shell."""
    return shlex.quote(f"{key}={value}")


def describe(ranking: Ranking) -> str:
    """Return the best run and the next ones as text, with the meaning of the F1."""
    best, count = ranking.runs[0], len(ranking.runs)
    told = f"seed {best.origin['seed']}, F1 {_percent(best.f1)} at epoch {best.epoch}"
    lines = [
        f"best of {_count(count, 'run')}: {best.label}, {told}",
        f"  {_words(best.cells)}",
        f"  checkpoint {best.checkpoint}",
        "",
    ]
    choosing = _table(ranking, [run.choosing for run in ranking.runs])
    of_all = f"mean F1 of {_count(count, 'run')}"
    if best.cells["protocol"] == "honest":
        reported = [run.reported for run in ranking.runs]
        spread = _spread([row.get("f1", math.nan) for row in reported])
        lines += ["on the cells that chose epoch and run, in %", *choosing, ""]
        lines += ["on the reported cells, which chose nothing, in %", *_table(ranking, reported)]
        lines += ["", f"protocol honest: the reported F1 is not optimistic; {of_all}: {spread}"]
    else:
        spread = _spread([run.f1 for run in ranking.runs])
        lines += ["on the reported cells, which also chose each run's epoch, in %", *choosing, ""]
        flattered = f"the reported cells also chose this run among {count}, so its F1 is optimistic"
        lines += [f"protocol {best.cells['protocol']}: {flattered}; {of_all}: {spread}"]
    left_out = {
        "not finished or not readable": ranking.num_left_out,
        "finished without an F1": ranking.num_unscored,
    }
    lines += [f"left out: {_count(n, 'run')} {what}" for what, n in left_out.items() if n]
    return "\n".join(lines)


def _table(ranking: Ranking, scores: Sequence[Mapping[str, float]]) -> list[str]:
    titles = {name: metric.title for name, metric in METRICS.items()} | {F1_NOROT: "no rotation"}
    names = ["f1", F1_NOROT, *(name for name in METRICS if name != "f1")]
    rows = [["", "run", "seed", "epoch", *(titles[name] for name in names)]]
    for position, (run, values) in enumerate(zip(ranking.runs, scores, strict=True), start=1):
        known = [str(position), run.label, str(run.origin["seed"]), str(run.epoch)]
        rows.append([*known, *(_percent(values.get(name, math.nan)) for name in names)])
    rows = rows[: 1 + _NUM_SHOWN]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column == 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{_percent(float(np.mean(values)))} ± {_percent(float(np.std(values)))}"


def _percent(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{100 * value:.2f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
