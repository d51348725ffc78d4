"""The textures of the demo dataset: random patterns between two colors, (H, W, 3) uint8 in BGR."""

from __future__ import annotations

import cv2
import numpy as np


def _noise(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Draw three octaves of smooth noise; the coarsest cell has 8 to 48 pixels."""
    cell, field = rng.uniform(8, 48), np.zeros((h, w), np.float32)
    for octave in range(3):
        rows, cols = (int(side * 2**octave / cell) + 2 for side in (h, w))
        coarse = rng.random((rows, cols), dtype=np.float32)
        field += cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC) / 2**octave
    return (field - field.min()) / np.ptp(field)


def _turned_axes(rng: np.random.Generator, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel coordinates along two perpendicular axes of random direction, each (H, W)."""
    y, x = np.mgrid[:h, :w].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _gradient(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    along, _ = _turned_axes(rng, h, w)
    return (along - along.min()) / np.ptp(along)


def _stripes(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    along, _ = _turned_axes(rng, h, w)
    return 0.5 + 0.5 * np.sin(along * 2 * np.pi / rng.uniform(5, 24))


def _checks(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    along, across = _turned_axes(rng, h, w)
    side = rng.uniform(4, 16)
    return (np.floor(along / side) + np.floor(across / side)) % 2


PATTERNS = (_noise, _gradient, _stripes, _checks)  # each (H, W) in [0, 1]


def draw_texture(
    rng: np.random.Generator, h: int, w: int, color: np.ndarray, spread: float
) -> np.ndarray:
    """Draw a random pattern between `color` and one at most `spread` away per channel."""
    change = rng.uniform(-spread, spread, 3)
    pattern = PATTERNS[rng.integers(len(PATTERNS))](rng, h, w)
    texture = color + pattern[..., None] * change + rng.normal(0, 4, (h, w, 3))
    return texture.clip(0, 255).astype(np.uint8)
