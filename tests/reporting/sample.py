"""A small report by hand: tables, drawings, thirty runs, and names that want to break it."""
# ruff: noqa: RUF001 - characters that look like others are what has to be written

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from cnmc.reporting.document import (
    Column,
    Figure,
    Report,
    Section,
    Table,
    column,
    count,
    interval,
    number,
    signed,
)

SCRIPT = "<script>alert(1)</script>"
NASTY = "a&b_c%$#{}~^\\|\"'<i>`[*]"
PARAGRAPH = (
    "The proposal is ahead by `2.19` points; <em>nothing</em> is decided by ten seeds. What is "
    "compared are runs that share their seed and their split, so that the order of the cells and "
    "the first weights do not decide."
)
LONG = "experiment_" + 12 * "that_goes_on_"

INK, GREY, GRID, PAPER = "#1b1e23", "#6b7280", "#e5e7eb", "#ffffff"
BLUE, ORANGE = "#0072b2", "#e69f00"


def _style(drawing: Drawing) -> None:
    for axes in drawing.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.set_axisbelow(True)


def _saved(drawing: Drawing) -> tuple[str, bytes]:
    files = io.BytesIO(), io.BytesIO()
    # One salt: drawings that name their parts alike are what has to be told apart.
    with rc_context({"svg.hashsalt": "same"}):
        drawing.savefig(files[0], format="svg")
    drawing.savefig(files[1], format="png", dpi=50)
    return files[0].getvalue().decode(), files[1].getvalue()


@cache
def lines() -> Figure:
    """Return a wide drawing of two lines."""
    drawing = Drawing(figsize=(8, 3.6), layout="constrained")
    axes = drawing.subplots()
    axes.grid(color=GRID)
    epochs = np.arange(1, 21)
    axes.plot(epochs, 60 + 30 * (1 - np.exp(-epochs / 5)), color=BLUE, marker="o", label="proposal")
    axes.plot(epochs, 58 + 28 * (1 - np.exp(-epochs / 7)), color=ORANGE, marker="s", label="norot")
    axes.set_xlabel("epoch")
    axes.set_ylabel("weighted F1 in %")
    axes.text(12, 70, "mean of ten seeds", color=GREY)
    axes.legend(frameon=False, labelcolor=INK)
    _style(drawing)
    svg, png = _saved(drawing)
    return Figure(
        name="curves",
        title=f"F1 over the epochs {NASTY}",
        svg=svg,
        png=png,
        alt=f"Two lines that rise, {SCRIPT}",
        note="Mean over seeds; the band is one standard deviation. `val/f1` of every epoch.",
    )


@cache
def squares() -> Figure:
    """Return a narrow drawing that holds a picture."""
    drawing = Drawing(figsize=(4.2, 3.2), layout="constrained")
    axes = drawing.subplots()
    noise = np.random.default_rng(0).random((24, 24))
    axes.imshow(noise, cmap="cividis")
    axes.set_xlabel("pixels")
    _style(drawing)
    svg, png = _saved(drawing)
    return Figure("cells", "Cells that every run gets wrong", svg, png, alt="A grid of cells")


def groups() -> Table:
    """Return a table that joins columns and lacks numbers."""
    frame = pd.DataFrame(
        {
            "experiment": ["proposal", "norot", SCRIPT, NASTY, "two\nlines"],
            "runs": [10, 10, 3, 3, 1],
            "f1": [0.8931234, 0.8712, float("nan"), 0.5, 0.25],
            "low": [0.88, 0.86, float("nan"), 0.4, 0.2],
            "high": [0.90, 0.88, float("nan"), 0.6, 0.3],
            "difference": [0.0, -0.0219, float("nan"), -0.39, -0.64],
        }
    )
    return Table(
        name="groups",
        title="Weighted F1 by experiment, mean ± standard deviation",
        frame=frame,
        columns=[
            column("experiment", "experiment"),
            column("runs", "runs", count),
            Column("F1, %", lambda row: number(100 * row["f1"])),
            Column("95 % interval", lambda row: interval(100 * row["low"], 100 * row["high"])),
            Column("Δ to proposal", lambda row: signed(100 * row["difference"])),
        ],
        note="F1 in %, protocol `paper`: the epoch is chosen on them; p ≤ 0.05 × 2 <b>.",
    )


def wide() -> Table:
    """Return a table that no phone can show at once."""
    subjects = [f"subject {position}" for position in range(1, 15)]
    frame = pd.DataFrame(
        [
            {"measure": name, **{s: 0.5 + i / 40 + j / 20 for i, s in enumerate(subjects)}}
            for j, name in enumerate(("sensitivity", "specificity", LONG))
        ]
    )
    return Table(
        name="by_subject",
        title="Sensitivity and specificity of each subject that is held out, " * 2,
        frame=frame,
        columns=[column("measure", "measure"), *(column(s, s, number) for s in subjects)],
    )


def runs() -> pd.DataFrame:
    """Return thirty runs: some with nasty names, some that are not defined, some that tie."""
    rows = []
    for experiment in ("proposal", "norot", NASTY):
        for seed in range(10):
            f1 = 0.9 - 0.01 * ((seed * 7) % 10) - (0.02 if experiment == "norot" else 0)
            name = f"seed={seed}"
            rows.append(
                {
                    "experiment": experiment,
                    "setting": "optimizer.lr=0.0003" if experiment == "norot" else "",
                    "seed": seed,
                    "run": name,
                    "protocol": "paper" if seed % 2 else "nested",
                    "f1": f1,
                    "f1_norot": f1 - 0.013,
                    "sensitivity": 0.95 if seed < 5 else 0.9,
                    "specificity": f1 - 0.04,
                    "best_epoch": 3 * seed + 1,
                    "seconds": 3000.4 + 977 * seed,
                    "checkpoint": f"runs/{experiment}/{name}/checkpoints/best.ckpt",
                }
            )
    rows[3] |= {"experiment": SCRIPT, "run": SCRIPT, "checkpoint": f"runs/{SCRIPT}/best.ckpt"}
    rows[4] |= {"experiment": LONG, "checkpoint": f"/home/{LONG}/runs/{LONG}/best.ckpt"}
    frame = pd.DataFrame(rows)
    frame.loc[[5, 17], ["f1", "specificity", "best_epoch", "seconds"]] = float("nan")
    frame["checkpoint"] = frame["checkpoint"].where(frame.index != 17)
    return frame


@cache
def report() -> Report:
    """Return the whole report; the same one, since the drawings take their time."""
    return Report(
        title="C-NMC 2019: proposal, norot and <nospeclr>",
        facts=[
            ("Folder", f"/data/{LONG}/runs"),
            ("Data", "10,661 training and 1,867 preliminary cells"),
            ("Protocol", "paper, nested"),
            ("Runs", "30 finished, 2 running"),
            ("Made", "2026-11-23 09:15 by cnmc 0.1.0 (9a184e5)"),
        ],
        warnings=[
            "norot has only 3 seeds: its interval is wide.",
            f"{SCRIPT}/seed=1 did not finish; `python -m cnmc.train` resumes it.",
        ],
        sections=[
            Section(
                "Rank of the experiments",
                [
                    PARAGRAPH,
                    groups(),
                    lines(),
                ],
            ),
            Section("Rank of the experiments", ["A heading that is there twice.", wide()]),
            Section("Cells", [squares()]),
        ],
        runs=runs(),
    )
