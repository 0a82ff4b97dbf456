"""Show the results of a screening as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from cnmc.data.images import Pixels, crop_and_resize, decode, read_file
from cnmc.data.names import CLASS_NAMES
from cnmc.deploy.networks import EXPORTED, Network
from cnmc.deploy.outputs import LEAST_ODDS, MOST_AGAINST, Cell
from cnmc.errors import CnmcError, needs


def screening_page(
    networks: Sequence[Network],
    sources: Mapping[str, Path],
    cells: Sequence[Cell],
    *,
    num_cells: int,
    num_maps: int,
    **facts: Any,
) -> str:
    """Return the page with at most ``num_cells`` cells and ``num_maps`` maps of Grad-CAM.

    ``sources`` has the paths of the cells by file. ``facts`` are what the template also shows:
    ``threshold``, ``wanted`` (the threshold on the command line), ``subjects`` and ``skipped``.
    """
    info = networks[0].info

    def image_of(cell: Cell) -> Pixels:
        whole = decode(read_file(sources[cell.file]))
        return crop_and_resize(whole, crop=info.crop, resize=info.resize)

    doubtful, others = cells_to_show(cells, num_cells)
    decisive = most_decisive(cells, num_maps)
    exported = [network.path.name for network in networks if network.path.suffix in EXPORTED]
    no_maps = f"it needs a checkpoint, and {exported[0]} is an exported network" if exported else ""
    maps: list[Pixels] = []
    if decisive and not exported:
        images = np.stack([image_of(cell) for cell in decisive])
        try:
            with needs("explain", "it"):
                from cnmc.deploy.explain import decision_maps, overlay  # noqa: PLC0415 (torch)
            is_all = [cell.label == CLASS_NAMES[1] for cell in decisive]
            heats = decision_maps([network.path for network in networks], images, is_all)
            maps = [overlay(*pair) for pair in zip(images, heats, strict=True)]
        except CnmcError as error:
            no_maps = str(error)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"prob": _probability, "count": "{:,}".format, "address": _address}
    return environment.get_template("screening.html.j2").render(
        facts,
        networks=networks,
        cells=cells,
        doubtful=doubtful,
        others=others,
        decisive=decisive,
        image_of=image_of,
        maps=maps,
        no_maps=no_maps,
        counts=np.histogram([c.probability for c in cells], 20, (0.0, 1.0))[0].tolist(),
        warned=Counter(warning for cell in cells for warning in cell.warnings).most_common(),
        most_against=MOST_AGAINST,
        least_odds=LEAST_ODDS,
    )


def cells_to_show(cells: Sequence[Cell], limit: int) -> tuple[list[Cell], list[Cell]]:
    """Return the doubtful cells and the other cells that the page shows, sorted by probability.

    Doubtful cells have priority; of each kind the highest and lowest probabilities are kept.
    """

    def ends(cells: list[Cell], limit: int) -> list[Cell]:
        bottom = len(cells) - limit // 2
        return cells if len(cells) <= limit else cells[: (limit + 1) // 2] + cells[bottom:]

    ordered = sorted(cells, key=lambda cell: -cell.probability)
    doubtful = ends([cell for cell in ordered if cell.doubtful], limit)
    return doubtful, ends([c for c in ordered if not c.doubtful], limit - len(doubtful))


def most_decisive(cells: Sequence[Cell], limit: int) -> list[Cell]:
    """Return the cells farthest from the threshold, equally many of both classes if possible.

    Cells called ALL come first; doubtful cells are left out.
    """
    sure = sorted((c for c in cells if not c.doubtful), key=lambda cell: -abs(cell.margin))
    negative, positive = ([c for c in sure if c.label == name] for name in CLASS_NAMES)
    num_positive = min(len(positive), max((limit + 1) // 2, limit - len(negative)))
    return positive[:num_positive] + negative[: limit - num_positive]


def _address(pixels: Pixels, side: int) -> str:
    """Return a square image, resized, as a data URI."""
    file = io.BytesIO()
    small = crop_and_resize(pixels, crop=len(pixels), resize=side)
    Image.fromarray(small).save(file, "WEBP", quality=70)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _probability(value: float) -> str:
    """Format a probability so that only 0 and 1 look like them."""
    if 0 < value < 0.001:
        return "< 0.001"
    return "> 0.999" if 0.999 < value < 1 else f"{value:.3f}"
