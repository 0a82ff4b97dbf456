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
from cnmc.deploy.formats import CellsOfRun, Check
from cnmc.deploy.graph import TrainedNetwork
from cnmc.errors import CnmcError
from cnmc.files import natural_key
from cnmc.runs.identity import identity, versions, without_folders

_NAME = "model_card.md"
_ROLES = {"val": "cells that chose the epoch", "test": "cells that chose nothing (honest protocol)"}
_POINTS = ("checkpoint", "paper", "sensitivity:0.95", "specificity:0.95")
_NOT_SHOWN = ("model.stages.", "split.", "data.synthetic")


def card_path(path: Path) -> Path:
    """Return the path of an exported file's card: ``model_card.md`` beside the file.

    Where that is the card of another file, the file's name comes first.
    """
    card = path.with_name(_NAME)
    line = f"- file: {_markdown(path.name)}\n"
    if card.exists() and line not in card.read_text(encoding="utf-8", errors="replace"):
        return path.with_name(f"{path.name}.{_NAME}")
    return card


def model_card(trained: TrainedNetwork, check: Check, name: str, cells: CellsOfRun | None) -> str:
    """Return the card of a file as Markdown, with the numbers of its run folder."""
    info, folder = trained.info, trained.folder
    predictions = folder.read_predictions() if folder is not None else None
    parts: dict[str, pd.DataFrame] = {}
    if predictions is not None:
        mine = predictions[predictions["epoch"] == info.epoch]
        of_role = dict(iter(mine.assign(logit=mean_logits(mine)).groupby("role")))
        parts = {title: of_role[role] for role, title in _ROLES.items() if role in of_role}
    trained_on = folder.read_info() if folder is not None else None
    before, here = trained_on.versions if trained_on is not None else {}, versions()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.j2").render(
        file=name,
        info=info,
        check=check,
        generated=trained.config["data"].get("synthetic"),
        recipe=_recipe(trained, parts, cells),
        protocol=info.run.get("protocol"),
        parts={title: _results(part, info.decision) for title, part in parts.items()},
        titles=_ROLES,
        versions=[(key, before.get(key, "?"), here.get(key, "?")) for key in before | here],
    )


def _markdown(value: object) -> Markup:
    """Return a value as one line of Markdown: a share in %, an interval, or unchanged text."""
    match value:
        case Markup():  # already Markdown: the result of a macro
            return value
        case float() | (float(), float()) if np.isnan(value).any():
            text = "n/a"
        case float():
            text = f"{100 * value:.2f}"
        case (float(low), float(high)):
            text = f"{100 * low:.1f} to {100 * high:.1f}"
        case _:
            text = " ".join(str(value).encode(errors="replace").decode().split())
    return Markup(re.sub(r"([\\`*_{}\[\]()#+!|<>~$&])", r"\\\1", text))  # noqa: S704


def _recipe(
    trained: TrainedNetwork, parts: dict[str, pd.DataFrame], cells: CellsOfRun | None
) -> dict[str, str]:
    """Return data, split and configuration, without the folders of this machine."""
    config, run = without_folders(trained.config), trained.info.run
    keys = identity(config)
    facts = {
        "data set": cells.root.name if cells else "not available here",
        "fingerprint of the data": run.get("manifest_fingerprint"),
        "fingerprint of the split": run.get("split_fingerprint"),
        "commit of the training": run.get("git_commit"),
        "training cells": _count(cells.cells.query("role == 'train'")) if cells else "unknown",
        **{title: _count(part) for title, part in parts.items()},
        **{f"split.{key}": value for key, value in config["split"].items() if value},
        "model.weights": config["model"].get("weights"),
        **{key: keys[key] for key in sorted(keys) if not key.startswith(_NOT_SHOWN)},
    }
    return {key: str(value) for key, value in facts.items() if value is not None}


def _count(part: pd.DataFrame) -> str:
    kinds = [f"{(part['label'] == label).sum():,} {CLASS_NAMES[label]}" for label in (1, 0)]
    return f"{len(part):,} ({', '.join(kinds)}) of {part['subject'].nunique()} subjects"


def _results(part: pd.DataFrame, decision: Decision) -> dict[str, Any]:
    """Return the rows of the tables on one part of the cells."""
    labels, logits = part["label"].to_numpy(dtype=np.int64), part["logit"].to_numpy()
    bootstrap = SubjectBootstrap(labels, np.unique(part["subject"], return_inverse=True)[1])
    scores, upright = evaluate(labels, logits), evaluate(labels, part["logit_0"].to_numpy())
    resampled = bootstrap.all_metrics(logits[np.newaxis])
    ranges = {name: bootstrap.interval_of_run(draws[:, 0]) for name, draws in resampled.items()}
    metrics = [(m.title, scores[name], ranges[name], upright[name]) for name, m in METRICS.items()]
    right = part.assign(right=(logits > 0) == (labels == 1)).groupby(["label", "subject"])["right"]
    counts = right.agg(["sum", "size"]).reset_index().to_numpy().tolist()
    counts.sort(key=lambda row: (-row[0], natural_key(row[1])))
    subjects = [
        (subject, CLASS_NAMES[label], f"{size:,}", good / size, proportion_interval(good, size))
        for label, subject, good, size in counts
    ]
    probabilities = decision.probabilities(logits)
    points = []
    for wanted in _POINTS:
        with suppress(CnmcError):  # the cells may not have such a point
            threshold = decision.threshold_for(wanted)
            called = evaluate(labels, np.where(probabilities >= threshold, 1.0, -1.0))
            shown = (called[name] for name in ("sensitivity", "specificity", "f1"))
            points.append((wanted, f"{threshold:.4f}", *shown))
    both = Decision().probabilities(logits), probabilities
    errors = [expected_calibration_error(labels, probs) for probs in both]
    return {"metrics": metrics, "subjects": subjects, "points": points, "errors": errors}
