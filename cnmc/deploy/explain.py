"""Grad-CAM: where in a cell a network found what speaks for its decision. Needs torch and captum.

R. R. Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn

from cnmc.data.images import Pixels
from cnmc.data.parallel import progress
from cnmc.deploy.backends import threads
from cnmc.deploy.graph import CellGraph, load_graph
from cnmc.deploy.runtime import Images
from cnmc.errors import CnmcError
from cnmc.model.preprocess import to_float
from cnmc.model.tta import rotate

Maps = NDArray[np.float32]

_STRENGTH = 0.8
"""Share of the colour where a map is 1; below it the cell shines through."""


def decision_maps(
    checkpoints: Sequence[Path],
    images: Images,
    is_all: Sequence[bool],
    *,
    num_threads: int,
    show_progress: bool = True,
) -> Maps:
    """Return where networks found what speaks for the class that a cell is called.

    Args:
        checkpoints: The networks; their maps are averaged.
        images: Cells as the networks take them, uint8 of shape (N, size, size, 3).
        is_all: The class of each cell.
        num_threads: Cores to use.
        show_progress: Show how far it is, on stderr.

    Returns:
        Numbers from 0 (nothing) to 1 (the most of this cell), of shape (N, size, size).

    Raises:
        CnmcError: A checkpoint cannot be read, or its network has no convolutional stage.
    """
    sign = torch.tensor([1.0 if value else -1.0 for value in is_all]).view(-1, 1, 1, 1)
    cells = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    maps = torch.zeros(len(images), 1, *images.shape[1:3])
    total = len(checkpoints) * len(cells)
    with (
        threads(num_threads),
        progress("Grad-CAM", total, show_progress=show_progress) as advance,
    ):
        for path in checkpoints:
            graph = load_graph(path)
            found = []
            # One at a time: the activations of all of a network's layers are kept for the gradient.
            for cell in cells:
                found.append(_evidence(graph, cell[None], path))
                advance(1)
            speaking = (sign * torch.cat(found)).clamp(min=0)
            most = speaking.amax(dim=(1, 2, 3), keepdim=True)
            maps += speaking / most.clamp(min=torch.finfo(most.dtype).tiny)
    result: Maps = (maps / len(checkpoints)).squeeze(1).numpy()
    return result


def overlay(pixels: Pixels, heat: Maps) -> Pixels:
    """Lay a map over a cell, which is grey below it so that no colour of its own misleads.

    Args:
        pixels: The cell, uint8 of shape (size, size, 3).
        heat: Its map, 0 to 1, of shape (size, size). From nothing to the most its colours go from
            black over red to yellow, so that they also tell on the black background.

    Returns:
        uint8 of shape (size, size, 3).
    """
    levels = (255 * heat).round().astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    share = _STRENGTH * heat[..., None]
    mixed: Pixels = ((1 - share) * grey + share * colours).round().astype(np.uint8)
    return mixed


def _evidence(graph: CellGraph, cell: Tensor, path: Path) -> Tensor:
    """Return Grad-CAM of the mean logit for ALL, in the original orientation.

    Each rotation's map is turned back. The corners that a rotation by 45 degrees fills with black
    are no part of the cell: they are left out of the mean over the rotations.

    Args:
        graph: The network.
        cell: uint8, 1 x 3 x S x S.
        path: Its checkpoint, for the message.

    Returns:
        1 x 1 x S x S, positive where something speaks for ALL and negative for HEM.
    """
    size, info = cell.shape[-1], graph.info
    gradcam = LayerGradCam(graph.network, _last_stage(graph.network))
    total, num_valid = torch.zeros(1, 1, size, size), torch.zeros(1, 1, size, size)
    for eighths in graph.columns:
        view = to_float(rotate(cell, eighths), info.mean, info.std)
        coarse = gradcam.attribute(view, relu_attributions=False).detach()
        if coarse.ndim != 4 or coarse.shape[1] != 1:
            raise CnmcError(f"{path}: its network has no last convolutional stage for Grad-CAM")
        fine = nn.functional.interpolate(
            coarse, size=(size, size), mode="bilinear", align_corners=False
        )
        valid = rotate(rotate(torch.ones(1, 1, size, size), eighths), -eighths)
        total += rotate(fine, -eighths) * valid
        num_valid += valid
    # The original orientation is among the rotations, so every pixel is valid at least once.
    return total / num_valid


def _last_stage(network: nn.Module) -> nn.Module:
    """Return the last stage before pooling, as timm names it."""
    stages: Sequence[dict[str, str]] = network.feature_info  # type: ignore[assignment]
    return network.get_submodule(stages[-1]["module"])
