"""Reading a study: its runs, grouped into repetitions of each other, and its gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnmc.analysis.results import (
    FINGERPRINTS,
    REFERENCE,
    Group,
    Logits,
    Run,
    Study,
    shorten,
)
from cnmc.analysis.run_reader import load_run
from cnmc.errors import CnmcError
from cnmc.files import printable
from cnmc.runs.folder import RunFolder, RunInfo, find_runs
from cnmc.runs.identity import config_hash, differing_keys


def load_study(folders: Sequence[RunFolder], reasons: Mapping[str, str] | None = None) -> Study:
    """Read run folders, finished or not.

    A folder that is damaged, or whose cells are not those of its group, becomes a gap.

    Args:
        folders: The runs.
        reasons: By path of the folder, a reason that the folder itself does not hold. These runs
            become gaps.
    """
    reasons = reasons or {}
    runs: list[Run] = []
    gaps: dict[Path, str] = {}
    for folder in folders:
        reason = reasons.get(str(folder.path))
        name = printable(folder.path)
        if name != str(folder.path):
            gaps[folder.path] = f"left out: {name}: the name is not UTF-8; rename the folder"
            continue
        try:
            info = folder.read_info()
            if info is None or info.status != "finished":
                gaps[folder.path] = _unfinished(folder, info, reason)
            elif reason is not None:
                gaps[folder.path] = f"left out: {folder.path}: {reason}"
            else:
                runs.append(load_run(folder))
        except CnmcError as error:
            gaps[folder.path] = f"left out: {error}"
    groups = []
    for label, members in _by_variant(runs).items():
        first = members[0]
        same: list[Run] = []
        for run in members:
            if _same_cells(first.reported, run.reported):
                same.append(run)
            else:
                path = run.folder.path
                gaps[path] = f"left out: {path}: other cells than {first.folder.path}"
        groups.append(Group(label, tuple(same)))
    groups.sort(key=lambda group: group.experiment != REFERENCE)
    ordered = (gaps[folder.path] for folder in folders if folder.path in gaps)
    return Study(tuple(groups), tuple(ordered))


def _same_cells(one: Logits, other: Logits) -> bool:
    return one.columns == other.columns and one.cells.equals(other.cells)


def _by_variant(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs that are repetitions of each other, by what they are called.

    Runs of one name that differ in what was not swept are told apart by the keys that differ.
    """
    named: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        variants = named.setdefault((run.info.experiment, run.info.setting), {})
        variants.setdefault(config_hash(run.variant), []).append(run)
    groups: dict[str, list[Run]] = {}
    for names, variants in named.items():
        label = " ".join(name for name in names if name)
        described = [members[0].variant for members in variants.values()]
        for members, words in zip(variants.values(), _differences(described), strict=True):
            groups[" ".join([label, *words])] = members
    return groups


def _differences(variants: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return what tells each variant from the others, as ``key=value``.

    The fingerprints speak only where nothing else does.
    """
    keys = sorted(
        {key for one in variants for other in variants for key in differing_keys(one, other)}
    )
    telling = [key for key in keys if key not in FINGERPRINTS]
    told = [tuple(str(variant.get(key, "absent")) for key in telling) for variant in variants]
    shown = telling if len(set(told)) == len(variants) else keys
    return [
        [f"{key}={shorten(variant.get(key, 'absent'))}" for key in shown] for variant in variants
    ]


def _unfinished(folder: RunFolder, info: RunInfo | None, reason: str | None) -> str:
    """Return the line of a run that is not finished: how far it is, and why."""
    state = "not started" if info is None else _state(folder, info)
    reason = reason or (info.reason if info else None)
    return f"not finished: {folder.path} ({state}{f': {reason}' if reason else ''})"


def _state(folder: RunFolder, info: RunInfo) -> str:
    if info.status == "failed":
        return "failed"
    words = "running" if folder.is_locked() else "interrupted"
    words += f", epoch {info.epochs_done}/{info.max_epochs}"
    return words if info.best_f1 is None else f"{words}, F1 so far {100 * info.best_f1:.2f}"


def existing_runs(root: Path, experiments: Sequence[str] | None = None) -> list[RunFolder]:
    """Return the run folders below ``root``, or those of some experiments.

    Raises:
        CnmcError: No run folder was found.
    """
    folders = find_runs(root, experiments)
    if not folders:
        known = ", ".join(sorted({folder.path.parent.name for folder in find_runs(root)}))
        raise CnmcError(
            f"runs={root}: no run of {', '.join(experiments or ())} there; it has {known}"
            if known
            else f"runs={root}: no run folder there; python -m cnmc.train makes them below run.root"
        )
    return folders


def read_study(root: Path, experiments: Sequence[str] | None = None) -> Study:
    """Read every run folder below ``root``, or those of some experiments."""
    return load_study(find_runs(root, experiments))
