"""What was found as one page that opens anywhere, without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

import cnmc.reporting
from cnmc.data.images import Pixels, UnreadableImageError, center_crop, crop_and_resize
from cnmc.data.parallel import map_threads
from cnmc.deploy.gather import Skipped
from cnmc.deploy.judged import Cell, Subject
from cnmc.deploy.judgement import LEAST_ODDS, MOST_AGAINST
from cnmc.deploy.networks import Network
from cnmc.deploy.reading import decode_checked, read_file
from cnmc.devices import num_cores
from cnmc.errors import CnmcError
from cnmc.extras import needs
from cnmc.files import replacing

_THUMBNAIL, _PICTURE = 80, 160
"""Sides of the pictures in pixels: of a cell among many, and beside its Grad-CAM."""

_NUM_BINS = 20
_MAX_ROWS = 500
"""Rows of a table that the page shows; the CSV has all."""


@dataclass(frozen=True)
class Screening:
    """All that a screening found.

    Attributes:
        networks: What screened.
        wanted: The threshold as it was asked for.
        threshold: The same as a probability.
        cells: In natural order.
        subjects: Their cells together.
        skipped: Files that were left out.
    """

    networks: tuple[Network, ...]
    wanted: str
    threshold: float
    cells: tuple[Cell, ...]
    subjects: tuple[Subject, ...]
    skipped: tuple[Skipped, ...]


class _Card(NamedTuple):
    """A cell as it is shown; a picture is the address of its data, empty where it is lost."""

    cell: Cell
    picture: str
    heat: str = ""


class _Bar(NamedTuple):
    """A bar of the histogram, in units of its drawing."""

    x: float
    width: float
    height: float
    num_cells: int


def write(
    path: Path,
    screening: Screening,
    *,
    num_cells: int,
    num_maps: int,
    num_threads: int | None = None,
) -> None:
    """Write the page.

    Args:
        path: The file.
        screening: What was found.
        num_cells: Cells to show at most.
        num_maps: Cells to show with Grad-CAM at most, the most decisive ones.
        num_threads: Cores to use; None takes all.
    """
    doubtful, others = cells_to_show(screening.cells, num_cells)
    decisive = most_decisive(screening.cells, num_maps)
    threads = num_threads or num_cores()
    heats, no_heats = _heats(screening.networks, decisive, threads)
    crop = screening.networks[0].info.crop

    def card(cell: Cell) -> _Card:
        return _Card(cell, _picture(cell.path, crop, _THUMBNAIL))

    shown = map_threads(
        card,
        [*doubtful, *others],
        num_workers=threads,
        description="Drawing the page",
        show_progress=len(doubtful) + len(others) > _MAX_ROWS,
    )
    page = (
        _environment()
        .get_template("screening.html.j2")
        .render(
            screening=screening,
            infos=[network.info for network in screening.networks],
            doubtful=shown[: len(doubtful)],
            others=shown[len(doubtful) :],
            decisive=[
                _Card(cell, _picture(cell.path, crop, _PICTURE), heat)
                for cell, heat in zip(decisive, heats, strict=True)
            ],
            no_heats=no_heats,
            bars=_histogram(screening.cells),
            num_doubtful=sum(cell.doubtful for cell in screening.cells),
            num_all=sum(cell.is_all for cell in screening.cells),
            warned=_warned(screening.cells),
            most_against=MOST_AGAINST,
            least_odds=LEAST_ODDS,
            max_rows=_MAX_ROWS,
            css=Markup(_style()),  # noqa: S704 - our own files
        )
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def cells_to_show(cells: Sequence[Cell], limit: int) -> tuple[list[Cell], list[Cell]]:
    """Return the doubtful cells and the others that a page of limited size shows.

    Doubtful cells go first; of each kind those with the highest and the lowest probabilities stay.

    Returns:
        Both by falling probability.
    """
    chosen: list[list[Cell]] = []
    for wanted in (True, False):
        ordered = sorted(
            (cell for cell in cells if cell.doubtful == wanted),
            key=lambda cell: -cell.probability,
        )
        room = min(limit - sum(map(len, chosen)), len(ordered))
        top = (room + 1) // 2
        chosen.append(ordered[:top] + ordered[len(ordered) - (room - top) :])
    return chosen[0], chosen[1]


def most_decisive(cells: Sequence[Cell], limit: int) -> list[Cell]:
    """Return the cells that the networks are surest of, as many of either class where there are.

    Returns:
        Those called ALL, from the farthest above the threshold down, then those called HEM, from
        the farthest below it up; none that is doubtful.
    """
    sure = sorted((c for c in cells if not c.doubtful), key=lambda cell: -abs(cell.margin))
    called = [c for c in sure if c.is_all], [c for c in sure if not c.is_all]
    num_all = min(len(called[0]), max((limit + 1) // 2, limit - len(called[1])))
    return called[0][:num_all] + called[1][: limit - num_all]


def _heats(
    networks: Sequence[Network], cells: Sequence[Cell], num_threads: int
) -> tuple[list[str], str]:
    """Return the Grad-CAM of some cells as pictures, and why there is none where there is none."""
    nothing = [""] * len(cells)
    if not cells:
        return nothing, ""
    exported = [network.path.name for network in networks if not network.is_checkpoint]
    if exported:
        return nothing, f"it needs a checkpoint, and {exported[0]} is an exported network"
    info = networks[0].info
    try:
        with needs("explain", "Grad-CAM"):
            from cnmc.deploy.explain import decision_maps, overlay  # noqa: PLC0415 - torch
        images = [
            crop_and_resize(_pixels(cell.path, info.crop), crop=info.crop, resize=info.resize)
            for cell in cells
        ]
        maps = decision_maps(
            [network.path for network in networks],
            np.stack(images),
            [cell.is_all for cell in cells],
            num_threads=num_threads,
        )
    except (CnmcError, UnreadableImageError) as error:
        return nothing, str(error)
    pairs = zip(images, maps, strict=True)
    return [_address(overlay(image, heat), _PICTURE) for image, heat in pairs], ""


def _pixels(path: Path, crop: int) -> Pixels:
    return decode_checked(read_file(path), crop)


def _picture(path: Path, crop: int, side: int) -> str:
    """Return what the networks saw of a file, small; empty where the file is no longer there."""
    try:
        return _address(center_crop(_pixels(path, crop), crop), side)
    except UnreadableImageError:
        return ""


def _address(pixels: Pixels, side: int) -> str:
    """Return a picture as a data URI."""
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    file = io.BytesIO()
    Image.fromarray(small).save(file, "WEBP", quality=70)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _histogram(cells: Sequence[Cell]) -> list[_Bar]:
    """Return the bars of the probabilities, in a drawing 100 wide and 100 high."""
    counts, _ = np.histogram([c.probability for c in cells], bins=_NUM_BINS, range=(0.0, 1.0))
    width = 100 / _NUM_BINS
    most = max(1, int(counts.max()))
    return [
        _Bar(position * width, width, 100 * float(count) / most, int(count))
        for position, count in enumerate(counts)
    ]


def _warned(cells: Sequence[Cell]) -> list[tuple[str, int]]:
    """Return each warning with the number of its cells, the most frequent first."""
    found = [warning for cell in cells for warning in cell.warnings]
    counts = [(warning, found.count(warning)) for warning in dict.fromkeys(found)]
    return sorted(counts, key=lambda item: -item[1])


def _style() -> str:
    """Return the style of the report's page, and what this page has beside it."""
    files = (
        Path(cnmc.reporting.__path__[0], "report.css"),
        Path(__file__).parent / "screening.css",
    )
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _probability(value: float) -> str:
    """Format a probability so that none but 0 and 1 look like them."""
    if 0 < value < 0.001:
        return "< 0.001"
    return "> 0.999" if 0.999 < value < 1 else f"{value:.3f}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "prob": _probability,
        "count": lambda number: f"{number:,}",
    }
    return environment
