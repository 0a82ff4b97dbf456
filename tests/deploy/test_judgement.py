"""What logits come to: probabilities, doubts, subjects, and the cells that the page shows."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from cnmc.analysis.decision import Decision
from cnmc.deploy.gather import Source
from cnmc.deploy.journal import Entry
from cnmc.deploy.judgement import Cell, by_subject, judge
from cnmc.deploy.screen import Seen
from cnmc.deploy.screening_page import cells_to_show, most_decisive
from cnmc.deploy.screening_tables import write_subjects


def make_cell(name: str, margin: float, *, doubtful: bool = False, mean_logit: float = 0.0) -> Cell:
    """Make a cell that is decided at a probability of 0.5."""
    return Cell(
        name=name,
        path=Path(name),
        subject="",
        probability=1 / (1 + math.exp(-margin)),
        is_all=margin >= 0,
        margin=margin,
        mean_logit=mean_logit,
        spread=0.0,
        num_against=0,
        num_views=8,
        doubtful=doubtful,
        warnings=(),
    )


def names(cells: list[Cell]) -> str:
    return " ".join(cell.name for cell in cells)


def seen(*rows: tuple[tuple[float, ...], ...]) -> list[Seen]:
    """Make cells of one row of logits per network."""
    return [Seen(Source(Path(str(n)), str(n)), Entry(row, ())) for n, row in enumerate(rows)]


def test_views_of_all_networks_are_counted() -> None:
    first = ((2.0, 2.0, 2.0, 2.0), (8.0, 8.0, 8.0, 8.0))
    second = ((2.0, 2.0, 2.0, -2.0), (8.0, 8.0, 8.0, -8.0))
    one, other = judge(seen(first, second), [Decision(), Decision(temperature=4.0)], 0.5)
    assert (one.num_against, other.num_against, one.num_views) == (0, 2, 8)
    high, low = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))
    assert other.spread == pytest.approx(np.std([high] * 6 + [low] * 2))
    assert one.probability == pytest.approx(high)
    assert [one.margin, other.margin] == pytest.approx([2.0, 1.0])
    assert [one.mean_logit, other.mean_logit] == pytest.approx([5.0, 2.5])
    # The second has a quarter of its views against it.
    assert [one.doubtful, other.doubtful] == [False, True]


@pytest.mark.parametrize(
    ("threshold", "probability", "doubtful"),
    [
        (0.5, 0.66, True),
        (0.5, 0.67, False),
        (0.5, 0.34, True),
        (0.5, 0.33, False),
        # The odds at the threshold are 1/9: those within a factor of 2 are from 1/18 to 2/9.
        (0.1, 0.0527, True),
        (0.1, 0.0526, False),
        (0.1, 0.1818, True),
        (0.1, 0.1819, False),
    ],
)
def test_odds_near_those_of_the_threshold_are_doubtful(
    threshold: float, probability: float, doubtful: bool
) -> None:
    logit = math.log(probability / (1 - probability))
    (cell,) = judge(seen(((logit,) * 8,)), [Decision()], threshold)
    assert (cell.doubtful, cell.is_all) == (doubtful, probability >= threshold)
    assert cell.num_against == 0


def test_subjects_are_summed_up(tmp_path: Path) -> None:
    logits = {
        "UID_H10_1_1_hem.bmp": -3.0,
        "UID_7_1_1_all.bmp": 2.0,
        "UID_7_1_2_all.bmp": -2.0,
        "UID_7_1_3_all.bmp": 0.1,
        "a/scan.bmp": 1.5,
        "b/scan.bmp": 3.0,
    }
    items = [
        Seen(Source(Path(name), name), Entry(((logit,) * 8,), ())) for name, logit in logits.items()
    ]
    cells = judge(items, [Decision()], 0.5)
    write_subjects(tmp_path / "subjects.csv", by_subject(cells))
    with (tmp_path / "subjects.csv").open(newline="") as file:
        seven, ten, unknown = csv.DictReader(file)
    assert [seven["subject"], ten["subject"], unknown["subject"]] == ["7", "H10", ""]
    assert [seven[key] for key in ("cells", "all", "doubtful")] == ["3", "2", "1"]
    assert float(seven["share_all"]) == pytest.approx(2 / 3, abs=1e-6)
    assert float(seven["mean_probability"]) == pytest.approx(0.508, abs=1e-3)
    assert float(seven["low"]) < 0.508 < float(seven["high"])
    # A single cell measures no mean.
    assert (ten["cells"], ten["all"], ten["low"], ten["high"]) == ("1", "0", "", "")
    assert (unknown["cells"], unknown["all"]) == ("2", "2")


def test_the_page_shows_doubtful_cells_before_others_and_the_ends_of_each() -> None:
    cells = [make_cell(f"d{n}", n / 10, doubtful=True) for n in range(-3, 4)]
    cells += [make_cell(f"s{n}", n) for n in (-3, -2, 2, 3, 4)]
    for limit, doubtful, others in (
        (0, "", ""),
        (3, "d3 d2 d-3", ""),
        (7, "d3 d2 d1 d0 d-1 d-2 d-3", ""),
        (9, "d3 d2 d1 d0 d-1 d-2 d-3", "s4 s-3"),
        (100, "d3 d2 d1 d0 d-1 d-2 d-3", "s4 s3 s2 s-2 s-3"),
    ):
        shown = cells_to_show(cells, limit)
        assert (names(shown[0]), names(shown[1])) == (doubtful, others)


def test_the_most_decisive_cells_are_the_farthest_from_the_threshold() -> None:
    cells = [make_cell(f"s{n}", n, mean_logit=-n) for n in (-3, -2, 1, 2, 40, 50)]
    cells += [make_cell("d9", 9.0, doubtful=True), make_cell("d-9", -9.0, doubtful=True)]
    # From 40 on every probability is 1.
    assert names(most_decisive(cells, 4)) == "s50 s40 s-3 s-2"
    assert names(most_decisive(cells, 3)) == "s50 s40 s-3"
    assert names(most_decisive(cells, 100)) == "s50 s40 s2 s1 s-3 s-2"
    assert names(most_decisive(cells[2:], 2)) == "s50 s40"
    assert names(most_decisive(cells[:2], 2)) == "s-3 s-2"
    assert most_decisive(cells, 0) == []


def test_a_network_that_exaggerates_does_not_choose_the_decisive_cells() -> None:
    # The mean logit of the first is larger, its odds are not.
    logits = [((3.0,) * 8, (0.0,) * 8), ((0.0,) * 8, (2.5,) * 8)]
    items = seen(*logits)
    cells = judge(items, [Decision(temperature=10.0), Decision()], 0.2)
    assert [cell.mean_logit for cell in cells] == [1.5, 1.25]
    assert names(most_decisive(cells, 2)) == "1 0"
    assert cells[1].margin == pytest.approx(1.25 + math.log(4))
