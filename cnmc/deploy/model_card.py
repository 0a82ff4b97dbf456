"""Write the model card of an exported file: what it is, what it is for, and how good it is."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cnmc.analysis.bootstrap import SubjectBootstrap
from cnmc.analysis.calibration import expected_calibration_error
from cnmc.analysis.decision import Decision
from cnmc.analysis.metrics import METRICS, evaluate, mean_logits
from cnmc.analysis.statistics import proportion_interval
from cnmc.data.names import CLASS_NAMES
from cnmc.deploy.exported import GraphInfo
from cnmc.deploy.graph import TrainedNetwork
from cnmc.deploy.release import Check
from cnmc.deploy.run_cells import CellsOfRun
from cnmc.errors import CnmcError
from cnmc.files import natural_key
from cnmc.runs.identity import identity, without_folders
from cnmc.runs.provenance import versions

_NAME = "model_card.md"
_ROLES = {
    "val": "cells that chose the epoch",
    "test": "cells that chose nothing (honest protocol)",
}
_POINTS = ("checkpoint", "paper", "sensitivity:0.95", "specificity:0.95")
_NOT_SHOWN = ("model.stages.", "split.", "data.synthetic")


def card_path(path: Path) -> Path:
    """Return the path of an exported file's card.

    It is ``model_card.md`` beside the file. Where that is the card of another file, the file's
    name comes first.
    """
    common, own = path.with_name(_NAME), path.with_name(f"{path.name}.{_NAME}")
    if own.exists() or not common.exists():
        return own if own.exists() else common
    lines = common.read_text(encoding="utf-8", errors="replace").splitlines()
    return common if f"- file: {markdown(path.name)}" in lines else own


def model_card(
    trained: TrainedNetwork, check: Check, path: Path, cells_of_run: CellsOfRun | None
) -> str:
    """Return the card of a file as Markdown, with the numbers of its run folder."""
    info, cells = check.info, _evaluated(trained)
    size, run = info.size, f"{info.run.get('experiment', '?')}/{info.run.get('name', '?')}"
    cropped = f"the central {info.crop} x {info.crop} pixels"
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.j2").render(
        info=info,
        run=run,
        check=check,
        generated=trained.config["data"].get("synthetic") is not None,
        facts={
            "file": path.name,
            "network": info.network,
            "run": f"{run}, epoch {info.epoch}",
            "input": f"uint8 RGB, cells x {size} x {size} x 3: {cropped}"
            + (f", resized to {info.resize} by averaging over areas" if info.resize else ""),
            "views": f"{info.num_rotations} rotations, whose logits are averaged",
            "output": "logits (one per rotation) and the probability of ALL (of the mean logit)",
            "numbers": info.precision,
        },
        recipe=_recipe(trained, cells, cells_of_run),
        protocol=info.run.get("protocol"),
        parts=[_part(title, part, info) for title, part in _parts(cells)],
        titles=_ROLES,
        versions=_versions(trained),
    )


def markdown(value: object) -> Markup:
    """Return a value as one line of Markdown that shows it unchanged."""
    if isinstance(value, Markup):  # already Markdown: the result of a macro
        return value
    text = " ".join(str(value).encode(errors="replace").decode().split())
    return Markup(re.sub(r"([\\`*_{}\[\]()#+!|<>~$&])", r"\\\1", text))  # noqa: S704


def _evaluated(trained: TrainedNetwork) -> pd.DataFrame | None:
    """Return the predictions of the network's epoch with their mean logits, if known."""
    predictions = trained.folder.read_predictions() if trained.folder is not None else None
    if predictions is None:
        return None
    mine = predictions[predictions["epoch"] == trained.info.epoch]
    return mine.assign(logit=mean_logits(mine))


def _parts(cells: pd.DataFrame | None) -> list[tuple[str, pd.DataFrame]]:
    if cells is None:
        return []
    parts = [(title, cells[cells["role"] == role]) for role, title in _ROLES.items()]
    return [(title, part) for title, part in parts if len(part)]


def _recipe(
    trained: TrainedNetwork, cells: pd.DataFrame | None, cells_of_run: CellsOfRun | None
) -> dict[str, object]:
    """Return data, split and configuration, without the folders of this machine."""
    config, run = without_folders(trained.config), trained.info.run
    training = None if cells_of_run is None else cells_of_run.cells.query("role == 'train'")
    facts: dict[str, object] = {
        "data set": cells_of_run.root.name if cells_of_run else "not available here",
        "fingerprint of the data": run.get("manifest_fingerprint"),
        "fingerprint of the split": run.get("split_fingerprint"),
        "commit of the training": run.get("git_commit"),
        "training cells": "unknown" if training is None else _count(training),
        **{title: _count(part) for title, part in _parts(cells)},
        **{f"split.{key}": value for key, value in config["split"].items() if value},
        "model.weights": config["model"].get("weights"),
    }
    keys = identity(config)
    facts |= {key: keys[key] for key in sorted(keys) if not key.startswith(_NOT_SHOWN)}
    return {key: value for key, value in facts.items() if value is not None}


def _count(part: pd.DataFrame) -> str:
    kinds = [f"{(part['label'] == label).sum():,} {CLASS_NAMES[label]}" for label in (1, 0)]
    return f"{len(part):,} ({', '.join(kinds)}) of {part['subject'].nunique()} subjects"


def _part(title: str, part: pd.DataFrame, info: GraphInfo) -> dict[str, Any]:
    """Return the results on one part of the cells, as text."""
    labels, logits = part["label"].to_numpy(dtype=np.int64), part["logit"].to_numpy()
    bootstrap = SubjectBootstrap(labels, np.unique(part["subject"], return_inverse=True)[1])
    scores, upright = evaluate(labels, logits), evaluate(labels, part["logit_0"].to_numpy())
    resampled = bootstrap.all_metrics(logits[np.newaxis])
    metrics = [
        (
            metric.title,
            _percent(scores[name]),
            _interval(*bootstrap.interval_of_run(resampled[name][:, 0])),
            _percent(upright[name]),
        )
        for name, metric in METRICS.items()
    ]
    subjects = []
    correct = part.assign(correct=(part["logit"] > 0) == (part["label"] == 1))
    for label in (1, 0):
        of_class = correct[correct["label"] == label]
        for subject in sorted(of_class["subject"].unique(), key=natural_key):
            cells = of_class.loc[of_class["subject"] == subject, "correct"]
            right, number = int(cells.sum()), len(cells)
            interval = _interval(*proportion_interval(right, number))
            row = (subject, CLASS_NAMES[label], f"{number:,}", _percent(right / number), interval)
            subjects.append(row)
    probabilities = info.decision.probabilities(logits)
    points = []
    for wanted in _POINTS:
        with suppress(CnmcError):  # the cells may not have such a point
            threshold = info.decision.threshold_for(wanted)
            called = evaluate(labels, np.where(probabilities >= threshold, 1.0, -1.0))
            shown = (_percent(called[name]) for name in ("sensitivity", "specificity", "f1"))
            points.append((wanted, f"{threshold:.4f}", *shown))
    errors = [
        _percent(expected_calibration_error(labels, decision.probabilities(logits)))
        for decision in (Decision(), info.decision)
    ]
    return {
        "title": title.capitalize(),
        "metrics": metrics,
        "subjects": subjects,
        "points": points,
        "errors": errors,
    }


def _versions(trained: TrainedNetwork) -> list[tuple[str, str, str]]:
    info = trained.folder.read_info() if trained.folder is not None else None
    before, here = info.versions if info is not None else {}, versions()
    return [(name, before.get(name, "?"), here.get(name, "?")) for name in {**before, **here}]


def _percent(share: float) -> str:
    return "n/a" if np.isnan(share) else f"{100 * share:.2f}"


def _interval(low: float, high: float) -> str:
    return "n/a" if np.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"
