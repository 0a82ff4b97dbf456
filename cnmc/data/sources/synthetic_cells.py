"""Draw one artificial white blood cell that resembles those of C-NMC 2019.

Lengths are in pixels of the release (an image side of 450) and scale with the image. Sizes, colours
and spatial frequencies were adjusted to real cells of the release.

The classes differ by size and by the maturity of the nucleus (finer chromatin, visible nucleoli and
less cytoplasm in ALL). Both overlap, within a subject and between subjects, so no classifier can be
perfect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
_Field = NDArray[np.float32]

RELEASE_SIZE = 450
"""Side of an image of the release in pixels."""
CUT_RATE = 0.06
"""Share of cells with a blackened piece (Figure 1c of the paper)."""
BACKGROUND_RATE = 0.08
"""Share of cells with leftover background (Figure 1d of the paper)."""

# Width before imperfections, by label.
_WIDTH = (179.0, 219.0)
_WIDTH_SD_SUBJECT = 12.0
_WIDTH_SD_CELL = 22.0
# With these deviations 14 % of the cells of either class are on the wrong side of zero.
_IMMATURITY_SD_SUBJECT = 0.4
_IMMATURITY_SD_CELL = 0.85

_NUCLEUS = np.array([65.0, 25.5, 75.0], np.float32)
_CYTOPLASM = np.array([86.0, 60.0, 101.0], np.float32)
_MEMBRANE = np.array([122.0, 80.0, 106.0], np.float32)
_PLASMA = np.array([108.0, 80.0, 102.0], np.float32)
# Chromatin that is less dense lets red through more than green and blue.
_CHROMATIN = np.array([1.0, 0.5, 0.45], np.float32)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
# The dark ring below the outline is bluish: it loses red and gains a little blue.
_RING = np.array([-15.0, -4.0, 5.0], np.float32)


@dataclass(frozen=True)
class SubjectTraits:
    """Deviations of the cells of one subject from their class.

    Attributes:
        width: Pixels added to the mean width.
        immaturity: Added to the mean immaturity, +1 for ALL and -1 for normal cells.
        light: Logarithm of the factor on all colours.
        hue: Logarithm of the factor on red against blue.
        contrast: Logarithm of the factor on the contrast of the chromatin.
    """

    width: float
    immaturity: float
    light: float
    hue: float
    contrast: float


def subject_traits(seed: int, part: int, label: int, index: int) -> SubjectTraits:
    """Return the traits of a subject.

    Successive subjects fill the range evenly, by an additive recurrence modulo 1: with independent
    draws a data set of few subjects would be easy or impossible by chance.

    Args:
        seed: Seed of the data set.
        part: Number of its part: 0 training, 1 preliminary, 2 final.
        label: 1 for ALL, 0 for normal.
        index: Number of the subject within its part and class, from 0.
    """
    starts = np.random.default_rng([1, seed, part, label]).random(5)
    steps = np.sqrt(np.array([5.0, 2.0, 3.0, 7.0, 11.0]))
    shares = np.clip((starts + index * steps) % 1.0, 0.01, 0.99)
    width, immaturity, light, hue, contrast = (NormalDist().inv_cdf(float(u)) for u in shares)
    return SubjectTraits(
        width=_WIDTH_SD_SUBJECT * width,
        immaturity=_IMMATURITY_SD_SUBJECT * immaturity,
        light=0.04 * light,
        hue=0.02 * hue,
        contrast=0.12 * contrast,
    )


def draw_cell(
    rng: np.random.Generator,
    label: int,
    traits: SubjectTraits,
    image_size: int = RELEASE_SIZE,
    canvas_size: int | None = None,
) -> Image:
    """Draw one cell in the middle of a black image.

    Args:
        rng: Source of all differences from other cells of the subject.
        label: 1 for ALL, 0 for normal.
        traits: The subject's traits.
        image_size: Size of the cell: at 450 cells are as large as in the release.
        canvas_size: Side of the image in pixels; None is ``image_size``.

    Returns:
        RGB image of shape (canvas_size, canvas_size, 3). Pixels outside the cell and leftover
        background are 0; pixels inside have no channel at 0.
    """
    canvas_size = image_size if canvas_size is None else canvas_size
    scale = image_size / RELEASE_SIZE
    sign = 1.0 if label == 1 else -1.0
    immaturity = sign + traits.immaturity + _IMMATURITY_SD_CELL * rng.standard_normal()
    width = _WIDTH[label] + traits.width + _WIDTH_SD_CELL * rng.standard_normal()
    outline = _outline(rng, float(np.clip(width, 110.0, 340.0)))
    is_cut, has_background = rng.random(2) < (CUT_RATE, BACKGROUND_RATE)

    # Only a central square is drawn; leftover background needs room around the cell.
    reach = float(np.abs(outline).max()) * (1.7 if has_background else 1.0) + 3.0
    side = min(canvas_size, 2 * math.ceil(reach * scale))
    mask = _fill(outline, side, scale)
    planes = _shade_cell(rng, mask, immaturity, traits, scale)
    if has_background:
        mask, planes = _add_background(rng, mask, planes, outline, scale)
    if is_cut:
        mask = _cut(rng, mask, outline, scale)

    # Half of a pixel on the outline belongs to the black background, as in the release.
    inner = cv2.erode(mask, _CROSS, borderValue=0)
    edge = 0.5 * (mask + inner).astype(np.float32)
    pixels = cv2.merge([plane * edge for plane in planes])
    # A dither of 1.8 grey levels gives the grain of the camera.
    dither = np.frombuffer(rng.bytes(pixels.size), np.uint8).reshape(pixels.shape)
    grey = cv2.addWeighted(pixels, 1.0, dither, 1.8 / 255.0, -0.9, dtype=cv2.CV_8U)
    grey = np.maximum(grey, 1)
    image = np.zeros((canvas_size, canvas_size, 3), np.uint8)
    start = (canvas_size - side) // 2
    image[start : start + side, start : start + side] = cv2.bitwise_and(grey, grey, mask=mask)
    return image


def _outline(rng: np.random.Generator, width: float) -> _Field:
    """Return a closed irregular outline around (0, 0), ``width`` wide on average: (points, 2)."""
    num_points = 360
    waves = np.arange(num_points // 2 + 1)
    # A few long waves give the shape, many short ones the ragged edge of the segmentation.
    amplitude = np.zeros(waves.size)
    amplitude[2:9] = 0.32 * rng.lognormal(0.0, 0.45) * waves[2:9] ** -2.0
    amplitude[9:70] = 0.13 * rng.lognormal(0.0, 0.6) * waves[9:70] ** -1.5
    spectrum = amplitude * (rng.standard_normal(waves.size) + 1j * rng.standard_normal(waves.size))
    # A wave of amplitude 1 has height 1/2.
    radius = 1.0 + np.fft.irfft(spectrum, num_points) * num_points / 4.0
    angle = np.linspace(0.0, 2.0 * np.pi, num_points, endpoint=False)
    for _ in range(rng.poisson(0.5)):
        offset = np.angle(np.exp(1j * (angle - rng.uniform(0.0, 2.0 * np.pi))))
        height = rng.choice((-0.5, 1.0)) * rng.uniform(0.03, 0.16)
        radius += height * np.exp(-0.5 * (offset / rng.uniform(0.03, 0.1)) ** 2)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.maximum(radius, 0.4)[:, None]
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - (low + high) / 2.0) * (width / (high - low).mean())
    return np.asarray(points + 4.0 * rng.standard_normal(2), np.float32)


def _fill(outline: _Field, side: int, scale: float) -> Image:
    """Return the mask (side, side) of the inside of an outline, 1, and its outside, 0."""
    mask = np.zeros((side, side), np.uint8)
    # fillPoly takes integers: these are sixteenths of a pixel.
    points = np.rint((outline * scale + (side - 1) / 2.0) * 16.0).astype(np.int32)
    cv2.fillPoly(mask, [points], 1, shift=4)
    return mask


def _noise(rng: np.random.Generator, side: int, scale: float, wavelength: float) -> _Field:
    """Return smooth noise (side, side) of mean 0 and standard deviation about 1."""
    cells = max(2, min(side, math.ceil(2.0 * side / (scale * wavelength)))) + 2
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    # Interpolation averages neighbours; 1.4 restores the deviation.
    return 1.4 * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)


def _shade_cell(
    rng: np.random.Generator, mask: Image, immaturity: float, traits: SubjectTraits, scale: float
) -> list[_Field]:
    """Return the red, green and blue planes (side, side) of nucleus, cytoplasm and membrane."""
    side = mask.shape[0]
    # Drawn before any noise, whose number of draws depends on the scale.
    deviations = rng.standard_normal(4).tolist()
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3) * np.float32(1.0 / scale)
    # The nucleus is off the middle, so cytoplasm shows as a crescent on one side.
    rim = math.exp(1.0 - 0.35 * immaturity + 0.5 * deviations[0])
    thickness = rim * (_noise(rng, side, scale, 2.0 * side / scale) + 0.3)
    cytoplasm = 1.0 / (1.0 + np.exp(np.clip((depth - thickness) * 0.45, -20.0, 20.0)))
    membrane = np.exp(depth * np.float32(-1.0 / 3.2))
    membrane *= 1.0 - 0.6 * cytoplasm
    ring = np.exp(depth * np.float32(-1.0 / 15.0))

    clump = 22.0 * math.exp(-0.28 * immaturity)
    contrast = math.exp(traits.contrast - 0.1 * immaturity + 0.25 * deviations[1])
    clumps = _noise(rng, side, scale, clump)
    patches = _noise(rng, side, scale, 3.0 * clump)
    # Light gaps are sharper than dark clumps, and come in groups.
    chromatin = np.square(np.maximum(clumps + 0.6 * patches, 0.0))
    chromatin *= 0.5
    chromatin += 0.7 * clumps + 1.1 * patches + 0.45 * _noise(rng, side, scale, 0.45 * clump)
    chromatin *= np.float32(2.2 * contrast)
    chromatin += 2.8 * _noise(rng, side, scale, 140.0)
    for _ in range(rng.poisson(min(2.5, 0.5 * math.exp(0.7 * immaturity)))):
        chromatin += _nucleolus(rng, side, scale)
    chromatin *= 1.0 - 0.7 * cytoplasm

    planes = []
    stain = math.exp(traits.light + 0.07 * deviations[2])
    hue = math.exp(traits.hue + 0.02 * deviations[3])
    for channel, tint in enumerate((hue, 1.0, 1.0 / hue)):
        base = float(_NUCLEUS[channel])
        plane = base + _RING[channel] * ring + _CHROMATIN[channel] * chromatin
        plane += (float(_CYTOPLASM[channel]) - base) * cytoplasm
        plane += (float(_MEMBRANE[channel]) - base) * membrane
        planes.append(plane * np.float32(stain * tint))
    return planes


def _nucleolus(rng: np.random.Generator, side: int, scale: float) -> _Field:
    """Return a light round spot (side, side) in the inner half of the nucleus."""
    x, y = rng.uniform(-0.25, 0.25, 2) * side
    width = rng.uniform(6.0, 14.0) * scale
    axis = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2.0)
    along = np.exp(-0.5 * ((axis - x) / width) ** 2).astype(np.float32)
    across = np.exp(-0.5 * ((axis - y) / width) ** 2).astype(np.float32)
    return np.outer(across, along) * np.float32(rng.uniform(6.0, 18.0))


def _blob(
    rng: np.random.Generator,
    side: int,
    scale: float,
    centre: _Field,
    *,
    radius: float,
    ragged: float,
) -> Image:
    """Return the mask (side, side) of a ragged blob; its centre is relative to the middle."""
    axis = np.arange(side, dtype=np.float32) / np.float32(scale) - np.float32(side / (2.0 * scale))
    distance = np.hypot(axis[None, :] - centre[0], axis[:, None] - centre[1])
    threshold = 1.0 + ragged * _noise(rng, side, scale, 55.0)
    blob: Image = (distance < radius * threshold).astype(np.uint8)
    return blob


def _add_background(
    rng: np.random.Generator, mask: Image, planes: list[_Field], outline: _Field, scale: float
) -> tuple[Image, list[_Field]]:
    """Add a neighbouring red cell, debris, or a strip of plasma outside the cell."""
    side = mask.shape[0]
    point = outline[rng.integers(len(outline))]
    kind = rng.random()
    if kind < 0.2:
        axes = rng.uniform(35.0, 60.0, 2)
        centre = point * np.float32(1.0 + 0.8 * axes.min() / np.hypot(*point))
        angle = np.linspace(0.0, 2.0 * np.pi, 90)
        ellipse = np.stack([axes[0] * np.cos(angle), axes[1] * np.sin(angle)], axis=1)
        patch = _fill((ellipse + centre).astype(np.float32), side, scale)
    elif kind < 0.65:
        patch = _blob(
            rng, side, scale, point * np.float32(1.1), radius=rng.uniform(18.0, 45.0), ragged=0.4
        )
    else:
        patch = _fill(outline * np.float32(rng.uniform(1.06, 1.15)), side, scale)
        patch &= _blob(rng, side, scale, point, radius=rng.uniform(50.0, 110.0), ragged=0.4)
    patch &= 1 - mask
    depth = cv2.distanceTransform(patch, cv2.DIST_L2, 3) / scale
    # A red cell is pale in its middle; the other kinds are not deep enough to become pale.
    light = 0.9 + 0.06 * _noise(rng, side, scale, 80.0) + np.clip((depth - 15.0) / 45.0, 0.0, 0.4)
    tint = _PLASMA * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    covered = [np.where(patch == 1, light * tint[i], plane) for i, plane in enumerate(planes)]
    return mask | patch, covered


def _cut(rng: np.random.Generator, mask: Image, outline: _Field, scale: float) -> Image:
    """Blacken everything beyond a straight line, or a ragged piece of the edge."""
    side = mask.shape[0]
    if rng.random() < 0.5:
        keep = np.ones((side, side), np.uint8)
        limit = side / 2.0 + scale * np.abs(outline).max() * rng.uniform(0.5, 0.85)
        keep[:, round(limit) :] = 0
        return mask & np.rot90(keep, int(rng.integers(4)))
    point = outline[rng.integers(len(outline))]
    # In proportion to the cell, so that some of it remains.
    radius = float(np.hypot(*point)) * rng.uniform(0.3, 0.6)
    return mask & (1 - _blob(rng, side, scale, point, radius=radius, ragged=0.2))
