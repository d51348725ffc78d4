"""Generated pictures for a classifier: two shapes; the upper one is the class.

Telling the upper from the lower needs positions.  Pictures are drawn large and scaled down, so that
a picture shows the same at any size, as a photograph does.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from swinv2_backbone.d2.demo.scene import OUTLINES

SHAPES = tuple(OUTLINES)
DRAWN = 192  # pixels of a side, from which all sizes are scaled
SHIFT = 3  # fractional bits of a coordinate
DARK, BRIGHT = (10, 80), (150, 245)  # background and shapes
RADII = (0.11, 0.22)  # in sides of the picture: shapes of many sizes, as in photographs
TURN = 0.5  # largest rotation, in radians


def pictures(size: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return (count, 3, size, size) float32, mean 0 and deviation 1 or so, and (count,) classes."""
    images, classes = _drawn(count, seed)
    small = [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images]
    tensor = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float()
    return (tensor - 128) / 64, torch.from_numpy(classes)


@lru_cache(maxsize=2)
def _drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = [_draw(np.random.default_rng([seed, number])) for number in range(count)]
    return np.stack([image for image, _ in drawn]), np.array([upper for _, upper in drawn])


def _draw(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return (DRAWN, DRAWN, 3) uint8 and the index of the upper shape."""
    image = _texture(rng, DARK)
    upper, lower = rng.choice(len(SHAPES), 2, replace=False)
    heights = DRAWN * np.array([rng.uniform(0.18, 0.35), rng.uniform(0.65, 0.82)])
    for shape, height in zip((upper, lower), heights):
        center = np.array([DRAWN * rng.uniform(0.25, 0.75), height])
        radius = DRAWN * np.exp(rng.uniform(*np.log(RADII)))
        mask = _mask(SHAPES[shape], center, radius, rng.uniform(-TURN, TURN))
        image = np.where(mask[..., None], _texture(rng, BRIGHT), image)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return (image + 6 * noise).clip(0, 255).astype(np.uint8), int(upper)


def _texture(rng: np.random.Generator, brightness: tuple[int, int]) -> np.ndarray:
    """Return (DRAWN, DRAWN, 3) float32: smooth noise around a color of this brightness."""
    cells = int(rng.integers(3, 12))
    noise = 14 * rng.standard_normal((cells, cells, 3), dtype=np.float32)
    smooth = cv2.resize(noise, (DRAWN, DRAWN), interpolation=cv2.INTER_LINEAR)
    return smooth + rng.uniform(*brightness, 3).astype(np.float32)


def _mask(shape: str, center: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """Return (DRAWN, DRAWN) uint8, 1 inside the shape."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outlines = [center + radius * outline @ turn for outline in OUTLINES[shape]]
    points = [np.round(outline * 2**SHIFT).astype(np.int32) for outline in outlines]
    return cv2.fillPoly(np.zeros((DRAWN, DRAWN), np.uint8), points, 1, cv2.LINE_8, SHIFT)
