"""Draw artificial white blood cells that resemble those of C-NMC 2019.

Lengths are in pixels of the release (an image side of 450) and scale with the image. Sizes, colours
and spatial frequencies were adjusted to real cells. The classes differ in size and in the maturity
of the nucleus; both overlap, so no classifier can be perfect.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

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

Traits = tuple[float, ...]
"""Deviations of a subject from its class: width in pixels, immaturity (the mean is +1 for ALL, -1
for normal cells), and the logarithms of factors on light, hue and contrast."""

_NUCLEUS, _CYTOPLASM, _MEMBRANE, _PLASMA, _CHROMATIN, _RING = np.array(
    [
        [65.0, 25.5, 75.0],
        [86.0, 60.0, 101.0],
        [122.0, 80.0, 106.0],
        [108.0, 80.0, 102.0],
        # Chromatin that is less dense lets red through more than green and blue.
        [1.0, 0.5, 0.45],
        # The dark ring below the outline is bluish: it loses red and gains a little blue.
        [-15.0, -4.0, 5.0],
    ],
    np.float32,
)[..., None, None]
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def subject_traits(seed: int, part: int, label: int, index: int) -> Traits:
    """Return the traits of a subject, numbered from 0 within its part and class.

    Successive subjects fill the range evenly, by an additive recurrence modulo 1: with independent
    draws a data set of few subjects would be easy or impossible by chance.
    """
    starts = np.random.default_rng([1, seed, part, label]).random(5)
    steps = np.sqrt(np.array([5.0, 2.0, 3.0, 7.0, 11.0]))
    shares = np.clip((starts + index * steps) % 1.0, 0.01, 0.99)
    deviations = zip((12.0, 0.4, 0.04, 0.02, 0.12), shares, strict=True)
    return tuple(sd * NormalDist().inv_cdf(float(share)) for sd, share in deviations)


class _Canvas(NamedTuple):
    """A square to draw on, with the cell in its middle."""

    rng: np.random.Generator
    side: int
    scale: float

    def fill(self, outline: _Field) -> Image:
        """Return the mask (side, side) of the inside of an outline, 1, and its outside, 0."""
        mask = np.zeros((self.side, self.side), np.uint8)
        # fillPoly takes integers: these are sixteenths of a pixel.
        points = np.rint((outline * self.scale + (self.side - 1) / 2.0) * 16.0).astype(np.int32)
        cv2.fillPoly(mask, [points], 1, shift=4)
        return mask

    def noise(self, wavelength: float) -> _Field:
        """Return smooth noise (side, side) of mean 0 and standard deviation about 1."""
        waves = math.ceil(2.0 * self.side / (self.scale * wavelength))
        cells = max(2, min(self.side, waves)) + 2
        grid = self.rng.standard_normal((cells, cells), dtype=np.float32)
        # Interpolation averages neighbours; 1.4 restores the deviation.
        smooth = cv2.resize(grid, (self.side, self.side), interpolation=cv2.INTER_CUBIC)
        return np.asarray(1.4 * smooth, np.float32)

    def blob(self, centre: _Field, radius: float, ragged: float) -> Image:
        """Return the mask (side, side) of a ragged blob; its centre is relative to the middle."""
        middle = np.float32(self.side / (2.0 * self.scale))
        axis = np.arange(self.side, dtype=np.float32) / np.float32(self.scale) - middle
        distance = np.hypot(axis[None, :] - centre[0], axis[:, None] - centre[1])
        threshold = 1.0 + ragged * self.noise(55.0)
        return np.asarray(distance < radius * threshold, np.uint8)

    def nucleolus(self) -> _Field:
        """Return a light round spot (side, side) in the inner half of the nucleus."""
        centre = self.rng.uniform(-0.25, 0.25, 2) * self.side
        width = self.rng.uniform(6.0, 14.0) * self.scale
        axis = np.arange(self.side, dtype=np.float32) - np.float32((self.side - 1) / 2.0)
        x, y = (np.exp(-0.5 * ((axis - at) / width) ** 2).astype(np.float32) for at in centre)
        return np.outer(y, x) * np.float32(self.rng.uniform(6.0, 18.0))


def draw_cell(
    rng: np.random.Generator,
    label: int,
    traits: Traits,
    image_size: int = RELEASE_SIZE,
    canvas_size: int | None = None,
) -> Image:
    """Draw one cell in the middle of a black RGB image of shape (canvas_size, canvas_size, 3).

    ``image_size`` scales the cell: at 450 it is as large as in the release. Pixels outside are 0;
    pixels of the cell and of leftover background have no channel at 0.
    """
    canvas_size = canvas_size or image_size
    scale = image_size / RELEASE_SIZE
    mean = 1.0 if label == 1 else -1.0
    # With these deviations 14 % of the cells of either class are on the wrong side of zero.
    immaturity = mean + traits[1] + 0.85 * rng.standard_normal()
    width = (179.0, 219.0)[label] + traits[0] + 22.0 * rng.standard_normal()
    outline = _outline(rng, float(np.clip(width, 110.0, 340.0)))
    is_cut, has_background = rng.random(2) < (CUT_RATE, BACKGROUND_RATE)

    # Only a central square is drawn; leftover background needs room around the cell.
    reach = float(np.abs(outline).max()) * (1.7 if has_background else 1.0) + 3.0
    side = min(canvas_size, 2 * math.ceil(reach * scale))
    canvas = _Canvas(rng, side, scale)
    mask = canvas.fill(outline)
    planes = _shade(canvas, mask, immaturity, traits)
    if has_background:
        patch = _background(canvas, outline) & (1 - mask)
        mask, planes = mask | patch, np.where(patch == 1, _plasma(canvas, patch), planes)
    if is_cut:
        mask = _cut(canvas, mask, outline)

    # Half of a pixel on the outline belongs to the black background, as in the release.
    edge = 0.5 * (mask + cv2.erode(mask, _CROSS, borderValue=0)).astype(np.float32)
    pixels = cv2.merge(tuple(planes * edge))
    # A dither of 1.8 grey levels gives the grain of the camera.
    dither = np.frombuffer(rng.bytes(pixels.size), np.uint8).reshape(pixels.shape)
    grey = cv2.addWeighted(pixels, 1.0, dither, 1.8 / 255.0, -0.9, dtype=cv2.CV_8U)
    image = np.zeros((canvas_size, canvas_size, 3), np.uint8)
    start = (canvas_size - side) // 2
    image[start : start + side, start : start + side] = np.maximum(grey, 1) * mask[..., None]
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


def _shade(canvas: _Canvas, mask: Image, immaturity: float, traits: Traits) -> _Field:
    """Return the colours (3, side, side) of nucleus, cytoplasm and membrane."""
    _, _, light, hue, contrast = traits
    # Drawn before any noise, whose number of draws depends on the scale.
    deviations = canvas.rng.standard_normal(4).tolist()
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3) * np.float32(1.0 / canvas.scale)
    # The nucleus is off the middle, so cytoplasm shows as a crescent on one side.
    rim = math.exp(1.0 - 0.35 * immaturity + 0.5 * deviations[0])
    thickness = rim * (canvas.noise(2.0 * canvas.side / canvas.scale) + 0.3)
    cytoplasm = 1.0 / (1.0 + np.exp(np.clip((depth - thickness) * 0.45, -20.0, 20.0)))
    membrane = np.exp(depth * np.float32(-1.0 / 3.2)) * (1.0 - 0.6 * cytoplasm)
    ring = np.exp(depth * np.float32(-1.0 / 15.0))

    clump = 22.0 * math.exp(-0.28 * immaturity)
    contrast = math.exp(contrast - 0.1 * immaturity + 0.25 * deviations[1])
    clumps, patches = canvas.noise(clump), canvas.noise(3.0 * clump)
    # Light gaps are sharper than dark clumps, and come in groups.
    chromatin = 0.5 * np.square(np.maximum(clumps + 0.6 * patches, 0.0))
    chromatin += 0.7 * clumps + 1.1 * patches + 0.45 * canvas.noise(0.45 * clump)
    chromatin *= np.float32(2.2 * contrast)
    chromatin += 2.8 * canvas.noise(140.0)
    for _ in range(canvas.rng.poisson(min(2.5, 0.5 * math.exp(0.7 * immaturity)))):
        chromatin += canvas.nucleolus()
    chromatin *= 1.0 - 0.7 * cytoplasm

    planes = _NUCLEUS + _RING * ring + _CHROMATIN * chromatin
    planes += (_CYTOPLASM - _NUCLEUS) * cytoplasm
    planes += (_MEMBRANE - _NUCLEUS) * membrane
    hue = math.exp(hue + 0.02 * deviations[3])
    stains = math.exp(light + 0.07 * deviations[2]) * np.array([hue, 1.0, 1.0 / hue])
    return np.asarray(planes * stains.astype(np.float32)[:, None, None], np.float32)


def _background(canvas: _Canvas, outline: _Field) -> Image:
    """Return the mask of a neighbouring red cell, of debris, or of a strip of plasma."""
    rng = canvas.rng
    point = outline[rng.integers(len(outline))]
    kind = rng.random()
    if kind < 0.2:
        axes = rng.uniform(35.0, 60.0, 2)
        centre = point * np.float32(1.0 + 0.8 * axes.min() / np.hypot(*point))
        angle = np.linspace(0.0, 2.0 * np.pi, 90)
        ellipse = axes * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return canvas.fill((ellipse + centre).astype(np.float32))
    if kind < 0.65:
        return canvas.blob(point * np.float32(1.1), radius=rng.uniform(18.0, 45.0), ragged=0.4)
    strip = canvas.fill(outline * np.float32(rng.uniform(1.06, 1.15)))
    return strip & canvas.blob(point, radius=rng.uniform(50.0, 110.0), ragged=0.4)


def _plasma(canvas: _Canvas, patch: Image) -> _Field:
    """Return the colours (3, side, side) of leftover background."""
    depth = cv2.distanceTransform(patch, cv2.DIST_L2, 3) / canvas.scale
    # A red cell is pale in its middle; the other kinds are not deep enough to become pale.
    light = 0.9 + 0.06 * canvas.noise(80.0) + np.clip((depth - 15.0) / 45.0, 0.0, 0.4)
    tint = _PLASMA * canvas.rng.uniform(0.94, 1.06, (3, 1, 1)).astype(np.float32)
    return np.asarray(light * tint, np.float32)


def _cut(canvas: _Canvas, mask: Image, outline: _Field) -> Image:
    """Blacken everything beyond a straight line, or a ragged piece of the edge."""
    rng = canvas.rng
    if rng.random() < 0.5:
        keep = np.ones_like(mask)
        reach = canvas.scale * np.abs(outline).max()
        limit = canvas.side / 2.0 + reach * rng.uniform(0.5, 0.85)
        keep[:, round(limit) :] = 0
        return mask & np.rot90(keep, int(rng.integers(4)))
    point = outline[rng.integers(len(outline))]
    # In proportion to the cell, so that some of it remains.
    radius = float(np.hypot(*point)) * rng.uniform(0.3, 0.6)
    return mask & (1 - canvas.blob(point, radius, ragged=0.2))
