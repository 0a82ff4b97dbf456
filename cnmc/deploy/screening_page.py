"""Write the results of a screening as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from cnmc.data.images import (
    Pixels,
    UnreadableImageError,
    center_crop,
    crop_and_resize,
    decode,
    read_file,
)
from cnmc.data.parallel import map_threads
from cnmc.deploy.gather import Skipped
from cnmc.deploy.judgement import LEAST_ODDS, MOST_AGAINST, Cell, Subject
from cnmc.deploy.networks import Network
from cnmc.devices import num_cores
from cnmc.errors import CnmcError
from cnmc.extras import needs

_THUMBNAIL, _PICTURE = 80, 160
"""Sides of the pictures in pixels: in a grid of cells, and beside Grad-CAM."""

_NUM_BINS = 20
_MAX_ROWS = 500


@dataclass(frozen=True)
class Screening:
    """Everything that a screening found; lists are in natural order."""

    networks: Sequence[Network]
    wanted: str
    """The threshold as given on the command line."""
    threshold: float
    """The threshold as a probability."""
    cells: Sequence[Cell]
    subjects: Sequence[Subject]
    skipped: Sequence[Skipped]


def write_page(
    path: Path,
    found: Screening,
    *,
    num_cells: int,
    num_maps: int,
    num_threads: int | None = None,
) -> None:
    """Write the page with at most ``num_cells`` cells and ``num_maps`` maps of Grad-CAM."""
    doubtful, others = cells_to_show(found.cells, num_cells)
    decisive = most_decisive(found.cells, num_maps)
    threads = num_threads or num_cores()
    heats, no_heats = _heats(found.networks, decisive, threads)
    crop = found.networks[0].info.crop
    cards = map_threads(
        lambda cell: (cell, _picture(cell.path, crop, _THUMBNAIL), ""),
        [*doubtful, *others],
        num_workers=threads,
        description="Drawing the page",
        show_progress=len(doubtful) + len(others) > _MAX_ROWS,
    )
    counts, _ = np.histogram([c.probability for c in found.cells], _NUM_BINS, (0.0, 1.0))
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"prob": _probability, "count": "{:,}".format}
    page = environment.get_template("screening.html.j2").render(
        vars(found),
        css=(folder / "screening.css").read_text(encoding="utf-8"),
        doubtful=cards[: len(doubtful)],
        others=cards[len(doubtful) :],
        decisive=[
            (cell, _picture(cell.path, crop, _PICTURE), heat)
            for cell, heat in zip(decisive, heats, strict=True)
        ],
        no_heats=no_heats,
        counts=counts.tolist(),
        most=max(1, int(counts.max())),
        num_doubtful=sum(cell.doubtful for cell in found.cells),
        num_all=sum(cell.is_all for cell in found.cells),
        warned=Counter(w for cell in found.cells for w in cell.warnings).most_common(),
        most_against=MOST_AGAINST,
        least_odds=LEAST_ODDS,
        max_rows=_MAX_ROWS,
    )
    path.write_text(page, encoding="utf-8")


def cells_to_show(cells: Sequence[Cell], limit: int) -> tuple[list[Cell], list[Cell]]:
    """Return the doubtful cells and the other cells that the page shows, sorted by probability.

    Doubtful cells have priority; of each kind the highest and lowest probabilities are kept.
    """
    chosen: list[list[Cell]] = []
    for wanted in (True, False):
        ordered = sorted((c for c in cells if c.doubtful == wanted), key=lambda c: -c.probability)
        room = min(limit - sum(map(len, chosen)), len(ordered))
        top = (room + 1) // 2
        chosen.append(ordered[:top] + ordered[len(ordered) - (room - top) :])
    return chosen[0], chosen[1]


def most_decisive(cells: Sequence[Cell], limit: int) -> list[Cell]:
    """Return the cells farthest from the threshold, equally many of both classes if possible.

    Cells called ALL come first; doubtful cells are left out.
    """
    sure = sorted((c for c in cells if not c.doubtful), key=lambda c: -abs(c.margin))
    called = [c for c in sure if c.is_all], [c for c in sure if not c.is_all]
    num_all = min(len(called[0]), max((limit + 1) // 2, limit - len(called[1])))
    return called[0][:num_all] + called[1][: limit - num_all]


def _heats(
    networks: Sequence[Network], cells: Sequence[Cell], num_threads: int
) -> tuple[list[str], str]:
    """Return pictures of Grad-CAM, and the reason where there are none."""
    nothing = [""] * len(cells)
    exported = [network.path.name for network in networks if not network.is_checkpoint]
    if not cells:
        return [], ""
    if exported:
        return nothing, f"it needs a checkpoint, and {exported[0]} is an exported network"
    info = networks[0].info
    try:
        with needs("explain", "it"):
            from cnmc.deploy.explain import decision_maps, overlay  # noqa: PLC0415 (torch)
        images = [
            crop_and_resize(decode(read_file(cell.path)), crop=info.crop, resize=info.resize)
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


def _picture(path: Path, crop: int, side: int) -> str:
    """Return the central square of a file as a data URI; empty where the file is gone."""
    try:
        return _address(center_crop(decode(read_file(path)), crop), side)
    except UnreadableImageError:
        return ""


def _address(pixels: Pixels, side: int) -> str:
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    file = io.BytesIO()
    Image.fromarray(small).save(file, "WEBP", quality=70)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _probability(value: float) -> str:
    """Format a probability so that only 0 and 1 look like them."""
    if 0 < value < 0.001:
        return "< 0.001"
    return "> 0.999" if 0.999 < value < 1 else f"{value:.3f}"
