"""Generated tables of the kind that a report draws, ordinary and nasty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from cnmc.reporting import document, figures
from cnmc.reporting.figures.paper import METRICS

NAN = float("nan")
GROUPS = ("proposal", "norot", "nospeclr")
EIGHT_LONG = tuple(
    f"demo optimizer.lr={rate} model={model}"
    for rate in ("0.003", "0.0003")
    for model in ("efficientnet_lite0", "seresnext50_32x4d", "resnet18", "mobilenetv3_small_100")
)
NASTY = (
    "cost_$x^2$_{a",
    "$",
    "a_b^c\\frac{1}{2}",
    "supercalifragilistic_without_any_space_" * 3,
    "supercalifragilistic_without_any_space_" * 2 + "other_" + "without_any_space_" * 2,
    "漢字 <b>&amp; -->",
    "",
)

Draw = Callable[[], document.Figure]


def curve(num_epochs: int = 6, *, first: int = 0) -> pd.DataFrame:
    epochs = np.arange(first, num_epochs + 1)
    trained = epochs > 0
    f1 = np.where(trained, 0.86 + 0.03 * np.sin(epochs), 0.179)
    return pd.DataFrame(
        {
            "epoch": epochs,
            "train_loss": np.where(trained, 0.32 / (1 + 0.5 * epochs), NAN),
            "val_loss": np.where(trained, 0.25 + 0.04 * np.cos(epochs), 0.58),
            "val_f1": f1,
        }
    )


def published_curve() -> pd.DataFrame:
    f1 = [0.8571, 0.8632, 0.8846, 0.8867, 0.8981, 0.8934]
    return pd.DataFrame({"epoch": range(1, 7), "f1": f1})


def subjects(names_all: Sequence[str], names_hem: Sequence[str], seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    number = len(names_all) + len(names_hem)
    labels = np.repeat([1, 0], [len(names_all), len(names_hem)])
    best = np.clip(np.where(labels == 1, 0.93, 0.8) + random.normal(0, 0.12, number), 0, 1)
    return pd.DataFrame(
        {
            "subject": [*names_all, *names_hem],
            "label": labels,
            "num_cells": random.integers(7, 260, number),
            "best": best,
            "last": np.clip(best + random.normal(0, 0.05, number), 0, 1),
            "published": np.clip(best + random.normal(0, 0.08, number), 0, 1),
        }
    )


def paper_subjects() -> pd.DataFrame:
    hem = ["25", *range(33, 46), 50]
    return subjects([str(k) for k in range(53, 66)] + ["66"], [f"H{k}" for k in hem][:14])


def by_epoch(
    groups: Sequence[str], num_epochs: int = 6, *, first: int = 0, std: float = 0.009
) -> dict[str, pd.DataFrame]:
    frames = {}
    for place, group in enumerate(groups):
        rows = []
        for epoch in range(first, num_epochs + 1):
            for k, metric in enumerate(METRICS):
                mean = 0.86 + 0.02 * np.sin(k) + 0.005 * epoch - 0.006 * place
                rows.append((epoch, metric, mean if epoch else 0.2, std * (1 + 0.3 * k)))
        frames[group] = pd.DataFrame(rows, columns=["epoch", "metric", "mean", "std"])
    return frames


def interval_rows(
    groups: Sequence[str], protocols: Sequence[str] = ("paper", "holdout")
) -> pd.DataFrame:
    rows = []
    for place, group in enumerate(groups):
        for protocol in protocols:
            mean = 0.8789 - 0.006 * place - (0.015 if protocol == "holdout" else 0.0)
            theirs = (0.8789 - 0.0097 * place, 0.0085) if protocol == "paper" else (NAN, NAN)
            ends = (mean - 0.0037, mean + 0.0036, mean - 0.041, mean + 0.033)
            rows.append((group, protocol, 24, mean, *ends, *theirs))
    columns = ["group", "protocol", "num_runs", "mean", "seeds_low", "seeds_high"]
    columns += ["subjects_low", "subjects_high", "published_mean", "published_std"]
    return pd.DataFrame(rows, columns=columns)


def f1_by_group(groups: Sequence[str], num_runs: int = 24) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        group: 0.8789 - 0.006 * place + random.normal(0, 0.009, num_runs)
        for place, group in enumerate(groups)
    }


def by_size(groups: Sequence[str], largest: int = 24) -> dict[str, pd.DataFrame]:
    frames = {}
    for place, group in enumerate(groups):
        k = np.arange(1, largest + 1)
        f1, auroc = 0.895 - 0.014 / k - 0.006 * place, 0.958 - 0.01 / k - 0.004 * place
        half = 0.018 / np.sqrt(k)
        columns = {"k": k, "f1_mean": f1, "f1_low": f1 - half, "f1_high": f1 + half}
        columns |= {"auroc_mean": auroc, "auroc_low": auroc - half / 2}
        frames[group] = pd.DataFrame({**columns, "auroc_high": auroc + half / 2})
    return frames


def by_count(groups: Sequence[str]) -> dict[str, pd.DataFrame]:
    number = np.arange(1, 9)
    frames = {}
    for place, group in enumerate(groups):
        mean = 0.88 - 0.012 / number - 0.006 * place
        spaced = np.where(np.isin(number, [1, 2, 4, 8]), mean + 0.002, NAN)
        columns = {"num_views": number, "mean": mean, "std": 0.008, "spaced": spaced}
        frames[group] = pd.DataFrame(columns)
    return frames


def bins(groups: Sequence[str], *, calibrated: bool = True) -> dict[str, pd.DataFrame]:
    frames = {}
    edges = np.linspace(0, 1, 11)
    for place, group in enumerate(groups):
        middle = (edges[:-1] + edges[1:]) / 2
        fraction = np.clip(0.5 + (0.55 - 0.05 * place) * np.sin(2.6 * (middle - 0.5)), 0, 1)
        columns: dict[str, object] = {"low": edges[:-1], "high": edges[1:]}
        columns["num_cells"] = (40 + 4000 * (middle - 0.45) ** 4 * 10).astype(int)
        columns |= {"mean_probability": middle, "fraction": fraction}
        if calibrated:
            columns |= {"calibrated_probability": middle, "calibrated_fraction": middle + 0.02}
        frames[group] = pd.DataFrame(columns)
    return frames


def roc_curve(place: int = 0) -> pd.DataFrame:
    fpr = np.linspace(0, 1, 101)
    tpr = fpr ** (0.045 + 0.015 * place)
    low, high = np.clip(tpr - 0.02 * (1 - fpr), 0, 1), np.clip(tpr + 0.02 * (1 - fpr), 0, 1)
    return pd.DataFrame({"fpr": fpr, "tpr_mean": tpr, "tpr_low": low, "tpr_high": high})


def roc_curves(groups: Sequence[str]) -> dict[str, pd.DataFrame]:
    return {group: roc_curve(place) for place, group in enumerate(groups)}


def roc_points(groups: Sequence[str], num_runs: int = 24) -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(2)
    frames = {}
    for place, group in enumerate(groups):
        fpr = np.clip(0.19 + 0.01 * place + random.normal(0, 0.03, num_runs), 0, 1)
        tpr = np.clip(fpr ** (0.045 + 0.015 * place) + random.normal(0, 0.006, num_runs), 0, 1)
        frames[group] = pd.DataFrame({"fpr": fpr, "tpr": tpr})
    return frames


def person_rows(frame: pd.DataFrame) -> pd.DataFrame:
    random = np.random.default_rng(3)
    number = len(frame)
    mean = np.where(frame["label"] == 1, 0.82, 0.25) + random.normal(0, 0.15, number)
    mean = np.clip(mean, 0.02, 0.99)
    wrong = np.where(frame["label"] == 1, mean < 0.5, mean > 0.5)
    return pd.DataFrame(
        {
            "subject": frame["subject"],
            "label": frame["label"],
            "num_cells": frame["num_cells"],
            "mean_probability": mean,
            "std_probability": random.uniform(0.01, 0.06, number),
            "wrong_share": np.where(wrong, 0.875, 0.0),
        }
    )


def selection_rows(groups: Sequence[str]) -> pd.DataFrame:
    schemes = (
        "best epoch on the reported cells",
        "last epoch",
        "epoch chosen on other subjects",
        "honest protocol",
    )
    rows = [
        (scheme, group, mean := 0.8789 - 0.005 * k - 0.006 * g, mean - 0.004, mean + 0.004)
        for k, scheme in enumerate(schemes)
        for g, group in enumerate(groups)
    ]
    return pd.DataFrame(rows, columns=["scheme", "group", "mean", "low", "high"])


def emptied(frame: pd.DataFrame, *kept: str) -> pd.DataFrame:
    """Return the frame with NaN for every number but the kept columns."""
    changed = frame.copy()
    for column in changed.select_dtypes("number"):
        if column not in kept:
            changed[column] = NAN
    return changed


def all_emptied(frames: Mapping[str, pd.DataFrame], *kept: str) -> dict[str, pd.DataFrame]:
    return {group: emptied(frame, *kept) for group, frame in frames.items()}


def with_gaps(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return the frame with every second value missing."""
    changed = frame.copy()
    for column in columns:
        changed[column] = changed[column].where(np.arange(len(changed)) % 2 == 0)
    return changed


PUBLISHED_POINT = (1 - 0.8036, 0.9201)


def ordinary() -> dict[str, Draw]:
    """Return each figure of a study like the paper's."""
    cells = paper_subjects()
    means = {"proposal": 0.8789, "norot": 0.8692, "nospeclr": 0.8720}
    return {
        "figure2": lambda: figures.figure2(
            curve(), label="proposal, seed 12", published=published_curve()
        ),
        "figure3": lambda: figures.figure3(cells, published=True),
        "figure4": lambda: figures.figure4(by_epoch(GROUPS)),
        "intervals": lambda: figures.intervals(interval_rows(GROUPS), level=0.95),
        "runs": lambda: figures.runs_by_group(f1_by_group(GROUPS), published=means),
        "ensembles": lambda: figures.ensembles(by_size(GROUPS)),
        "views": lambda: figures.views(by_count(GROUPS)),
        "reliability": lambda: figures.reliability(bins(GROUPS)),
        "roc": lambda: figures.roc(
            roc_curves(GROUPS), roc_points(GROUPS), published=PUBLISHED_POINT
        ),
        "persons": lambda: figures.persons(person_rows(cells), roc_curve()),
        "selection": lambda: figures.selection(selection_rows(GROUPS)),
    }


def several(groups: Sequence[str]) -> dict[str, Draw]:
    """Return each figure that tells groups apart, for these groups."""
    return {
        "figure4": lambda: figures.figure4(by_epoch(groups)),
        "intervals": lambda: figures.intervals(interval_rows(groups)),
        "runs": lambda: figures.runs_by_group(f1_by_group(groups)),
        "ensembles": lambda: figures.ensembles(by_size(groups)),
        "views": lambda: figures.views(by_count(groups)),
        "reliability": lambda: figures.reliability(bins(groups)),
        "roc": lambda: figures.roc(roc_curves(groups), roc_points(groups)),
        "selection": lambda: figures.selection(selection_rows(groups)),
    }


def only(draws: Mapping[str, Draw], *kept: str) -> dict[str, Draw]:
    return {name: draws[name] for name in kept}


def undefined() -> dict[str, Draw]:
    """Return each figure where nothing is defined."""
    cells = paper_subjects()
    numbers = ("label", "num_cells", "num_runs")
    runs = {group: np.full(3, NAN) for group in GROUPS}
    return {
        "figure2": lambda: figures.figure2(emptied(curve(), "epoch"), label="proposal"),
        "figure3": lambda: figures.figure3(emptied(cells, *numbers), published=True),
        "figure4": lambda: figures.figure4(all_emptied(by_epoch(GROUPS), "epoch")),
        "intervals": lambda: figures.intervals(emptied(interval_rows(GROUPS), *numbers)),
        "runs": lambda: figures.runs_by_group(runs, published={"proposal": NAN}),
        "ensembles": lambda: figures.ensembles(all_emptied(by_size(GROUPS), "k")),
        "views": lambda: figures.views(all_emptied(by_count(GROUPS), "num_views")),
        "reliability": lambda: figures.reliability(all_emptied(bins(GROUPS), "low", "high")),
        "roc": lambda: figures.roc(
            all_emptied(roc_curves(GROUPS), "fpr"), all_emptied(roc_points(GROUPS))
        ),
        "persons": lambda: figures.persons(
            emptied(person_rows(cells), *numbers), emptied(roc_curve(), "fpr")
        ),
        "selection": lambda: figures.selection(emptied(selection_rows(GROUPS))),
    }


def nothing() -> dict[str, Draw]:
    """Return each figure of no runs at all."""
    cells = paper_subjects().head(0)
    return {
        "figure2": lambda: figures.figure2(curve().head(0), label="proposal"),
        "figure3": lambda: figures.figure3(cells),
        "figure4": lambda: figures.figure4({}),
        "intervals": lambda: figures.intervals(interval_rows(GROUPS).head(0)),
        "runs": lambda: figures.runs_by_group({}),
        "ensembles": lambda: figures.ensembles({}),
        "views": lambda: figures.views({}),
        "reliability": lambda: figures.reliability({}),
        "roc": lambda: figures.roc({}, {}),
        "persons": lambda: figures.persons(person_rows(cells), roc_curve().head(0)),
        "selection": lambda: figures.selection(selection_rows(GROUPS).head(0)),
    }


def single() -> dict[str, Draw]:
    """Return each figure of one run, one epoch, one subject."""
    one = ("proposal",)
    cell = subjects(["53"], [])
    steps = pd.DataFrame({"fpr": [0.0, 0.0, 1.0], "tpr": [0.0, 1.0, 1.0]})
    interval = interval_rows(one, ["paper"]).assign(num_runs=1, seeds_low=NAN, seeds_high=NAN)
    return {
        "figure2": lambda: figures.figure2(curve(1, first=1), label="proposal, seed 0"),
        "figure3": lambda: figures.figure3(cell.assign(last=NAN).drop(columns="published")),
        "figure4": lambda: figures.figure4(by_epoch(one, 1, first=1)),
        "intervals": lambda: figures.intervals(interval),
        "runs": lambda: figures.runs_by_group({"proposal": [0.88]}),
        "ensembles": lambda: figures.ensembles(by_size(one, 1)),
        "views": lambda: figures.views({"norot": by_count(one)["proposal"].head(1)}),
        "reliability": lambda: figures.reliability(bins(one, calibrated=False)),
        "roc": lambda: figures.roc({"proposal": steps}, roc_points(one, 1)),
        "persons": lambda: figures.persons(
            person_rows(cell).assign(std_probability=NAN), roc_curve().head(0)
        ),
        "selection": lambda: figures.selection(selection_rows(one).head(1)),
    }


def gaps() -> dict[str, Draw]:
    """Return each figure with every second number missing."""
    cells = with_gaps(paper_subjects(), "best", "published")
    holes = {group: np.array([0.88, NAN, 0.87]) for group in GROUPS}
    return {
        "figure2": lambda: figures.figure2(
            with_gaps(curve(), "val_loss", "val_f1"), label="proposal"
        ),
        "figure3": lambda: figures.figure3(cells, published=True),
        "figure4": lambda: figures.figure4(
            {
                group: frame[frame["metric"] != "f1"].pipe(with_gaps, "std")
                for group, frame in by_epoch(GROUPS).items()
            }
        ),
        "intervals": lambda: figures.intervals(
            with_gaps(interval_rows(GROUPS), "mean", "subjects_low")
        ),
        "runs": lambda: figures.runs_by_group({**holes, "empty": []}),
        "ensembles": lambda: figures.ensembles(
            {group: with_gaps(f, "f1_low", "auroc_mean") for group, f in by_size(GROUPS).items()}
        ),
        "views": lambda: figures.views(
            {
                group: with_gaps(f, "mean").drop(columns="spaced")
                for group, f in by_count(GROUPS).items()
            }
        ),
        "reliability": lambda: figures.reliability(
            {group: with_gaps(f, "fraction") for group, f in bins(GROUPS).items()}
        ),
        "roc": lambda: figures.roc(
            {group: with_gaps(f, "tpr_low") for group, f in roc_curves(GROUPS).items()},
            {group: with_gaps(f, "tpr") for group, f in roc_points(GROUPS[:2]).items()},
            published=(NAN, 0.9),
        ),
        "persons": lambda: figures.persons(
            with_gaps(person_rows(cells), "mean_probability", "wrong_share"), roc_curve()
        ),
        "selection": lambda: figures.selection(with_gaps(selection_rows(GROUPS), "mean", "low")),
    }


def many_subjects() -> dict[str, Draw]:
    """Return the figures by subject, for 80 of them."""
    cells = subjects([f"C{k}" for k in range(47)], [f"H{k}" for k in range(33)])
    return {
        "figure3": lambda: figures.figure3(cells, published=True),
        "persons": lambda: figures.persons(person_rows(cells), roc_curve()),
    }


def nasty_subjects() -> dict[str, Draw]:
    """Return the figures by subject, for names that are hard to draw."""
    cells = subjects(NASTY, NASTY)
    return {
        "figure2": lambda: figures.figure2(curve(), label=" ".join(NASTY)),
        "figure3": lambda: figures.figure3(cells, published=True),
        "persons": lambda: figures.persons(person_rows(cells), roc_curve()),
    }
