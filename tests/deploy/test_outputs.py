"""Probabilities, doubts, subjects, and the choice of cells for the page."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cnmc.analysis.decision import Decision
from cnmc.deploy.outputs import Cell, Entry, by_subject, judge
from cnmc.deploy.screening_page import cells_to_show, most_decisive


def make_cell(file: str, margin: float, *, doubtful: bool = False) -> Cell:
    """Make a cell that is decided at a probability of 0.5."""
    label = "ALL" if margin >= 0 else "HEM"
    probability = 1 / (1 + math.exp(-margin))
    return Cell(file, "", probability, label, doubtful, 0.0, 0, 8, 0.0, [], margin)


def names(cells: list[Cell]) -> str:
    return " ".join(cell.file for cell in cells)


def seen(*rows: tuple[tuple[float, ...], ...]) -> dict[str, Entry]:
    """Make cells of one row of logits per network."""
    return {str(number): Entry(row, []) for number, row in enumerate(rows)}


def test_views_of_all_networks_are_counted() -> None:
    first = ((2.0, 2.0, 2.0, 2.0), (8.0, 8.0, 8.0, 8.0))
    second = ((2.0, 2.0, 2.0, -2.0), (8.0, 8.0, 8.0, -8.0))
    one, other = judge(seen(first, second), [Decision(), Decision(temperature=4.0)], 0.5)
    assert (one.views_against, other.views_against, one.views) == (0, 2, 8)
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
    label = "ALL" if probability >= threshold else "HEM"
    assert (cell.doubtful, cell.label, cell.views_against) == (doubtful, label, 0)


def test_subjects_are_summarised() -> None:
    logits = {
        "UID_H10_1_1_hem.bmp": -3.0,
        "UID_7_1_1_all.bmp": 2.0,
        "UID_7_1_2_all.bmp": -2.0,
        "UID_7_1_3_all.bmp": 0.1,
        "a/scan.bmp": 1.5,
        "b/scan.bmp": 3.0,
    }
    entries = {name: Entry([[logit] * 8], []) for name, logit in logits.items()}
    seven, ten, unknown = by_subject(judge(entries, [Decision()], 0.5))
    assert (seven.subject, seven.cells, seven.all, seven.doubtful) == ("7", 3, 2, 1)
    assert seven.share_all == pytest.approx(2 / 3)
    assert seven.mean_probability == pytest.approx(0.508, abs=1e-3)
    assert seven.low is not None
    assert seven.high is not None
    assert 0.119 <= seven.low < 0.508 < seven.high <= 0.881
    # A single cell measures no mean.
    assert (ten.subject, ten.cells, ten.all, ten.low, ten.high) == ("H10", 1, 0, None, None)
    assert (unknown.subject, unknown.cells, unknown.all) == ("", 2, 2)


@pytest.mark.parametrize(
    ("limit", "doubtful", "others"),
    [
        (0, "", ""),
        (3, "d3 d2 d-3", ""),
        (7, "d3 d2 d1 d0 d-1 d-2 d-3", ""),
        (9, "d3 d2 d1 d0 d-1 d-2 d-3", "s4 s-3"),
        (100, "d3 d2 d1 d0 d-1 d-2 d-3", "s4 s3 s2 s-2 s-3"),
    ],
)
def test_the_page_shows_doubtful_cells_before_others_and_the_ends_of_each(
    limit: int, doubtful: str, others: str
) -> None:
    cells = [make_cell(f"d{n}", n / 10, doubtful=True) for n in range(-3, 4)]
    cells += [make_cell(f"s{n}", n) for n in (-3, -2, 2, 3, 4)]
    shown = cells_to_show(cells, limit)
    assert (names(shown[0]), names(shown[1])) == (doubtful, others)


def test_the_most_decisive_cells_are_the_farthest_from_the_threshold() -> None:
    # From 40 on every probability is 1.
    cells = [make_cell(f"s{n}", n) for n in (-3, -2, 1, 2, 40, 50)]
    cells += [make_cell("d9", 9.0, doubtful=True), make_cell("d-9", -9.0, doubtful=True)]
    assert names(most_decisive(cells, 4)) == "s50 s40 s-3 s-2"
    assert names(most_decisive(cells, 3)) == "s50 s40 s-3"
    assert names(most_decisive(cells, 100)) == "s50 s40 s2 s1 s-3 s-2"
    assert names(most_decisive(cells[2:], 2)) == "s50 s40"
    assert names(most_decisive(cells[:2], 2)) == "s-3 s-2"
    assert most_decisive(cells, 0) == []


def test_a_network_that_exaggerates_does_not_choose_the_decisive_cells() -> None:
    # The mean logit of the first is larger, its odds are not.
    entries = seen(((3.0,) * 8, (0.0,) * 8), ((0.0,) * 8, (2.5,) * 8))
    cells = judge(entries, [Decision(temperature=10.0), Decision()], 0.2)
    assert [cell.mean_logit for cell in cells] == [1.5, 1.25]
    assert names(most_decisive(cells, 2)) == "1 0"
    assert cells[1].margin == pytest.approx(1.25 + math.log(4))
