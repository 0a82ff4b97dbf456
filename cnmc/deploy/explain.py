"""Show with Grad-CAM where in a cell a network finds evidence. Needs torch and captum.

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
from cnmc.deploy.graph import CellGraph, read_trained
from cnmc.deploy.networks import Images
from cnmc.errors import CnmcError
from cnmc.model.tta import rotate, rotation_columns

Maps = NDArray[np.float32]


def decision_maps(checkpoints: Sequence[Path], images: Images, is_all: Sequence[bool]) -> Maps:
    """Return where networks find evidence for the class of each cell.

    Maps are the mean over the networks, 0 (no evidence) to 1 (the most in this cell), of shape
    (N, size, size).
    """
    sign = [1.0 if value else -1.0 for value in is_all]
    cells = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    maps = torch.zeros(len(images), 1, *images.shape[1:3])
    with progress("Grad-CAM", len(checkpoints) * len(cells)) as advance:
        for graph in (read_trained(path).graph for path in checkpoints):
            # One cell at a time, because the gradient keeps the activations of all layers.
            for number, cell in enumerate(cells):
                positive = (sign[number] * evidence(graph, cell[None])).clamp(min=0)
                maps[number] += (positive / positive.max().clamp(min=1e-30))[0]
                advance(1)
    result: Maps = (maps / len(checkpoints)).squeeze(1).numpy()
    return result


def overlay(pixels: Pixels, heat: Maps) -> Pixels:
    """Lay a map, 0 to 1, of shape (size, size), over a grey cell of the same size."""
    levels = (255 * heat).round().astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    share = 0.8 * heat[..., None]  # of the colour
    mixed: Pixels = ((1 - share) * grey + share * colours).round().astype(np.uint8)
    return mixed


def evidence(graph: CellGraph, cell: Tensor) -> Tensor:
    """Return Grad-CAM of the mean logit for ALL, in the original orientation.

    The map of each rotation is turned back. Corners that a rotation fills with black are not part
    of the mean. The cell is uint8, 1 x 3 x S x S; the map is 1 x 1 x S x S, positive for ALL and
    negative for HEM.
    """
    size = cell.shape[-1]
    # timm lists the stages; the last one comes before the pooling.
    stages: Sequence[dict[str, str]] = graph.network.feature_info  # type: ignore[assignment]
    gradcam = LayerGradCam(graph.network, graph.network.get_submodule(stages[-1]["module"]))
    total, num_valid = torch.zeros(1, 1, size, size), torch.zeros(1, 1, size, size)
    for eighths in rotation_columns(graph.info.num_rotations):
        view = graph.scaled(rotate(cell, eighths))
        coarse = gradcam.attribute(view, relu_attributions=False).detach()
        if coarse.ndim != 4 or coarse.shape[1] != 1:
            raise CnmcError(f"{graph.info.network} has no last convolutional stage for Grad-CAM")
        fine = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        valid = rotate(rotate(torch.ones(1, 1, size, size), eighths), -eighths)
        total += rotate(fine, -eighths) * valid
        num_valid += valid
    return total / num_valid
