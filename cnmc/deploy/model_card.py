"""The card of an exported network: what it is, what it is for, and how well it does.

Every number is of the run folder; what a checkpoint without one cannot tell is said to be unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from cnmc.analysis.bootstrap import SubjectBootstrap
from cnmc.analysis.calibration import expected_calibration_error
from cnmc.analysis.decision import Decision
from cnmc.analysis.metrics import METRICS, evaluate, mean_logits
from cnmc.analysis.statistics import CONFIDENCE, proportion_interval
from cnmc.deploy.release import Check
from cnmc.deploy.run_cells import CellsOfRun
from cnmc.deploy.runtime import GraphInfo
from cnmc.deploy.trained import TrainedNetwork
from cnmc.errors import CnmcError
from cnmc.files import natural_key
from cnmc.reporting.prose import one_line
from cnmc.reporting.terms import CLASSES, TITLES
from cnmc.runs.identity import identity
from cnmc.runs.provenance import versions

UNKNOWN = "not known: the checkpoint lies outside its run folder"
_NO_CELLS = "not known: the data set is not here"

_NAME = "model_card.md"

ROLES = {
    "val": "cells that chose the epoch",
    "test": "cells that chose nothing (honest protocol)",
}
_POINTS = ("checkpoint", "paper", "sensitivity:0.95", "specificity:0.95")

_INTENDED = """\
Meant for research on the classification of single white blood cells: malignant B-lymphoblasts (ALL)
against normal B-lymphoid precursors (HEM).

**Not a medical device.** It was not validated for diagnosis, and no decision about a patient may
rest on it.

- Valid only for cells like those of C-NMC 2019: one cell an image, segmented on black, normalised
  for stain, photographed at the same scale. On anything else its probabilities mean nothing.
- A cell of any other kind is called ALL or HEM all the same: there is no third answer.
- Cells of one patient are alike. How well it does varies from patient to patient far more than
  from cell to cell; see the results by subject.
- Probabilities hold for the share of ALL among the cells that they were calibrated on."""

_SOURCES = """\
Code: MIT. Data: C-NMC 2019, CC BY 3.0. Initial weights, where a file is named above, have a licence
of their own.

- Method: J. Prellberg and O. Kramer, *Acute Lymphoblastic Leukemia Classification from Microscopic
  Images using Convolutional Neural Networks*, 2019.
- Data: A. Gupta and R. Gupta, *ALL Challenge dataset of ISBI 2019 (C-NMC 2019)*, The Cancer Imaging
  Archive, doi:10.7937/tcia.2019.dc64i46r."""


def card_path(path: Path) -> Path:
    """Return where the card of an exported file belongs.

    It is ``model_card.md`` beside it; where that is the card of another file, or no card at all,
    the file's name comes first, so that nothing is lost.
    """
    common, own = path.with_name(_NAME), path.with_name(f"{path.name}.{_NAME}")
    if own.exists():
        return own
    try:
        lines = common.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return common
    except (OSError, ValueError):
        return own
    return common if _fact("file", path.name) in lines else own


def model_card(
    trained: TrainedNetwork, check: Check, path: Path, cells_of_run: CellsOfRun | None
) -> str:
    """Write the card of an exported network, as Markdown.

    Args:
        trained: The checkpoint; numbers are those of its run folder.
        check: How the file was checked.
        path: The file.
        cells_of_run: The cells of its run; None where they are not here.
    """
    cells = _cells(trained)
    info, run = check.info, trained.run
    name = f"{run.get('experiment', '?')}/{run.get('name', '?')}"
    sections = {
        "What it is": _facts(
            (
                ("file", path.name),
                ("network", info.network),
                ("run", f"{name}, epoch {info.epoch}"),
                ("input", f"uint8 RGB, cells x {info.size} x {info.size} x 3: {_input(info)}"),
                ("views", f"{info.num_rotations} rotations, whose logits are averaged"),
                ("output", "logits, one a rotation; probability of ALL, of the mean logit"),
                ("arithmetic", info.precision),
            )
        ),
        "Intended use and limits": _INTENDED,
        "Data and split": _data(trained, cells, cells_of_run),
        "Recipe": _recipe(trained),
        "Results": _of_32_bits(check) + _results(trained, cells),
        "By subject": _subjects(cells),
        "Calibration and decision": _decision(trained.decision, cells),
        "Check of the file": f"{escape(check.line())}.",
        "Versions": _versions(trained),
        "Licence and sources": _SOURCES,
    }
    parts = [f"# Model card: {escape(info.network)}, {escape(name)}"]
    if (trained.config.get("data") or {}).get("synthetic") is not None:
        parts.append("**Trained on generated cells: it knows nothing of real ones.**")
    for title, body in sections.items():
        parts += [f"## {title}", body]
    return "\n\n".join(parts) + "\n"


def escape(text: object) -> str:
    """Return text of a file as one line that Markdown shows as it is."""
    # A file's name may hold bytes that are no text.
    shown = one_line(str(text).encode(errors="replace").decode())
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$&])", r"\\\1", shown)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a pipe table: names on the left, numbers on the right; its cells are escaped."""
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *([escape(c) for c in r] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _facts(rows: Iterable[tuple[str, object]]) -> str:
    return "\n".join(_fact(name, value) for name, value in rows)


def _fact(name: str, value: object) -> str:
    return f"- {escape(name)}: {escape(value)}"


def _input(info: GraphInfo) -> str:
    square = f"the central {info.crop} x {info.crop} pixels"
    return square if info.resize is None else f"{square}, resized by area to {info.size}"


def _cells(trained: TrainedNetwork) -> pd.DataFrame | None:
    """Return the predictions of the network's epoch, with the mean logit; None if unknown."""
    predictions = trained.folder.read_predictions() if trained.folder is not None else None
    if predictions is None:
        return None
    mine = predictions[predictions["epoch"] == trained.epoch]
    return mine.assign(logit=mean_logits(mine))


def _parts(cells: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    for role, title in ROLES.items():
        part = cells[cells["role"] == role]
        if len(part):
            yield title, part


def _data(
    trained: TrainedNetwork, cells: pd.DataFrame | None, cells_of_run: CellsOfRun | None
) -> str:
    data, split = trained.config.get("data") or {}, trained.config.get("split") or {}
    unknown = "not known"
    facts: list[tuple[str, object]] = [
        ("data set", Path(str(data.get("root", unknown))).name),
        ("fingerprint of the data", trained.run.get("manifest_fingerprint") or unknown),
        ("split", split.get("kind", unknown)),
    ]
    facts += [
        (f"split.{key}", _without_folders(value))
        for key, value in split.items()
        if key != "kind" and value
    ]
    facts.append(("fingerprint of the split", trained.run.get("split_fingerprint") or unknown))
    training = _NO_CELLS
    if cells_of_run is not None:
        training = _count(cells_of_run.cells.query("role == 'train'"))
    facts.append(("training cells", training))
    if cells is None:
        facts.append(("evaluated cells", UNKNOWN))
        return _facts(facts)
    return _facts([*facts, *((title, _count(part)) for title, part in _parts(cells))])


def _count(part: pd.DataFrame) -> str:
    """Return how many cells of which class there are, and of how many subjects."""
    kinds = [f"{(part['label'] == label).sum():,} {CLASSES[label]}" for label in (1, 0)]
    subjects = part["subject"].nunique()
    return f"{len(part):,} ({', '.join(kinds)}) of {subjects} subjects"


def _recipe(trained: TrainedNetwork) -> str:
    keys = {
        key: _without_folders(value)
        for key, value in identity(trained.config).items()
        if not key.startswith(("model.stages.", "split.", "data.synthetic"))
    }
    weights = (trained.config.get("model") or {}).get("weights")
    if weights is not None:
        keys["model.weights"] = Path(str(weights)).name
    return _table(("key", "value"), sorted(keys.items()))


def _without_folders(value: object) -> object:
    """Return a value of the configuration; of an absolute path only the last part."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _of_32_bits(check: Check) -> str:
    """Return what to know of the numbers below where the file computes otherwise."""
    if not check.is_int8:
        return ""
    return (
        "**All results are those of the 32-bit network.** This file computes with 8-bit numbers: "
        f"on {escape(check.cells)} its F1 is {100 * check.f1_moved:+.2f} points from that.\n\n"
    )


def _results(trained: TrainedNetwork, cells: pd.DataFrame | None) -> str:
    if cells is None:
        return f"Results are {UNKNOWN}."
    protocol = trained.run.get("protocol")
    told = {
        "paper": "Protocol: paper. The cells that are reported also chose the epoch, so **these "
        "numbers are optimistic**.",
        "honest": "Protocol: honest. The cells that chose the epoch flatter; those that chose "
        "nothing say what to expect.",
    }.get(str(protocol), "The protocol is not known.")
    told += (
        " In %, positive where the mean logit is above 0, with the "
        f"{100 * CONFIDENCE:.0f} % interval over other subjects (n/a where a class has but one)."
    )
    parts = [told]
    for title, part in _parts(cells):
        labels, logits = part["label"].to_numpy(dtype=np.int64), part["logit"].to_numpy()
        bootstrap = SubjectBootstrap(labels, np.unique(part["subject"], return_inverse=True)[1])
        scores = evaluate(labels, logits)
        upright = evaluate(labels, part["logit_0"].to_numpy())
        resampled = bootstrap.all_metrics(logits[np.newaxis])
        rows = [
            (
                TITLES[name],
                _percent(scores[name]),
                _interval(*bootstrap.interval_of_run(resampled[name][:, 0])),
                _percent(upright[name]),
            )
            for name in METRICS
        ]
        head = ("metric", "rotations", "interval", "original orientation alone")
        parts += [f"### {title.capitalize()}", _table(head, rows)]
    return "\n\n".join(parts)


def _subjects(cells: pd.DataFrame | None) -> str:
    if cells is None:
        return f"Results by subject are {UNKNOWN}."
    parts = [
        "Share of right cells in %, with the Wilson interval over other cells of the same subject."
    ]
    for title, part in _parts(cells):
        right = (part["logit"] > 0) == (part["label"] == 1)
        counts = right.groupby([part["label"], part["subject"]]).agg(["sum", "size"])
        keys = sorted(counts.index, key=lambda key: (-key[0], natural_key(str(key[1]))))
        rows = []
        for label, subject in keys:
            num_right, number = (int(value) for value in counts.loc[(label, subject)])
            rows.append(
                (
                    subject,
                    CLASSES[label],
                    f"{number:,}",
                    _percent(num_right / number),
                    _interval(*proportion_interval(num_right, number)),
                )
            )
        head = ("subject", "class", "cells", "right", "interval")
        parts += [f"### {title.capitalize()}", _table(head, rows)]
    return "\n\n".join(parts)


def _decision(decision: Decision, cells: pd.DataFrame | None) -> str:
    if not decision.chosen_on:
        return "No temperature or threshold was chosen: a cell is ALL from a probability of 0.5."
    role = escape(ROLES.get(decision.chosen_on, decision.chosen_on))
    told = (
        f"Chosen on {decision.num_cells:,} {role}: "
        f"logits are divided by a temperature of {decision.temperature:.3f}, and a cell is called "
        f"ALL from a probability of {decision.threshold:.4f} (the highest weighted F1 there). "
        "On the cells that chose them, all of this flatters."
    )
    parts = [told]
    wanted = []
    for name in _POINTS:
        with suppress(CnmcError):  # of classes that lie far apart, not each point can be had
            wanted.append((name, decision.threshold_for(name)))
    if cells is None:
        rows = [(name, f"{threshold:.4f}") for name, threshold in wanted]
        return "\n\n".join([*parts, _table(("threshold", "probability"), rows)])
    for title, part in _parts(cells):
        labels = part["label"].to_numpy(dtype=np.int64)
        logits = part["logit"].to_numpy()
        probs = decision.probabilities(logits)
        before = expected_calibration_error(labels, Decision().probabilities(logits))
        after = expected_calibration_error(labels, probs)
        errors = f"{_percent(before)} % before and {_percent(after)} % after the temperature"
        points = []
        for name, threshold in wanted:
            scores = evaluate(labels, np.where(probs >= threshold, 1.0, -1.0))
            shown = (scores["sensitivity"], scores["specificity"], scores["f1"])
            points.append((name, f"{threshold:.4f}", *map(_percent, shown)))
        head = ("threshold", "probability", "sensitivity", "specificity", "F1")
        parts += [
            f"### {title.capitalize()}",
            f"Expected calibration error {errors}. In %:",
            _table(head, points),
        ]
    return "\n\n".join(parts)


def _versions(trained: TrainedNetwork) -> str:
    info = trained.folder.read_info() if trained.folder is not None else None
    trained_with = info.versions if info is not None else {}
    here = versions()
    names = list(dict.fromkeys([*trained_with, *here]))
    rows = [(name, trained_with.get(name, "?"), here.get(name, "?")) for name in names]
    commit = f"Commit of the training: {escape(trained.run.get('git_commit') or 'not known')}."
    return f"{commit}\n\n{_table(('package', 'trained with', 'exported with'), rows)}"


def _percent(share: float) -> str:
    return "n/a" if np.isnan(share) else f"{100 * share:.2f}"


def _interval(low: float, high: float) -> str:
    return "n/a" if np.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"
