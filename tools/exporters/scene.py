"""A small scene with known masks, for exporters and readers of annotation formats.

It needs NumPy and Pillow alone, so that it can be imported in the environment of the exporters.

Legend: H, W are in pixels. A polygon is [x, y, x, y, ...] along the outer edges of pixels, so that
it covers exactly its mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
CLASSES = ("date", "fig")
IMAGES = ("a.png", "b.png", "empty.png")


@dataclass(frozen=True)
class Thing:
    """An object: its image, its class, the polygons of its parts, and those of its holes."""

    image: str
    name: str
    parts: tuple[tuple[int, ...], ...]
    holes: tuple[tuple[int, ...], ...] = ()

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        mask = np.zeros((HEIGHT, WIDTH), bool)
        for polygons, value in ((self.parts, True), (self.holes, False)):
            for polygon in polygons:
                mask[_inside(polygon)] = value
        return mask

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def rectangle(x: int, y: int, width: int, height: int) -> tuple[int, ...]:
    """Return the polygon of a rectangle."""
    return x, y, x + width, y, x + width, y + height, x, y + height


STAIRS = (44, 20, 58, 20, 58, 26, 52, 26, 52, 34, 44, 34)
THINGS = (
    Thing("a.png", "fig", (rectangle(5, 4, 12, 10),)),
    Thing("a.png", "date", (rectangle(22, 4, 8, 6), rectangle(36, 6, 10, 8))),  # in two parts
    Thing("a.png", "fig", (rectangle(8, 22, 20, 20),), (rectangle(14, 28, 6, 7),)),  # with a hole
    Thing("a.png", "date", (STAIRS,)),
    Thing("b.png", "fig", (rectangle(0, 0, 10, 8),)),  # in the upper left corner
    Thing("b.png", "date", (rectangle(54, 40, 10, 8),)),  # in the lower right corner
)


def of_image(name: str) -> list[Thing]:
    return [thing for thing in THINGS if thing.image == name]


def write_images(folder: Path) -> Path:
    """Write the images into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(IMAGES):
        pixels = np.full((HEIGHT, WIDTH, 3), 60 + 20 * number, np.uint8)
        for thing in of_image(name):
            pixels[thing.mask] = (200, 80, 40) if thing.name == "fig" else (90, 160, 60)
        Image.fromarray(pixels).save(folder / name)
    return folder


def _inside(polygon: tuple[int, ...]) -> np.ndarray:
    """Return the pixels whose center is in a polygon, (H, W), by the even-odd rule."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = np.zeros((HEIGHT, WIDTH), bool)
    points = np.reshape(polygon, (-1, 2))
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0)):
        if y0 != y1:
            crossed = (y0 <= y) != (y1 <= y)
            inside ^= crossed & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside
