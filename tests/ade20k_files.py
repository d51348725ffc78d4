"""A small ADE20K of random labels, as the tests of its preparation and its check use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = ("training", "validation")
SHAPE = (9, 7)


def draw(seed: int, low: int = 0, high: int = 150) -> np.ndarray:
    """Draw labels from `low` to `high`; both of them occur in every image."""
    labels = np.random.default_rng(seed).integers(low, high + 1, SHAPE).astype(np.uint8)
    labels.flat[:2] = low, high
    return labels


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def write_ade20k(folder: Path) -> Path:
    """Write an ADE20K of three images to train with and three to test with; return its root."""
    root = folder / "ADEChallengeData2016"
    for number, split in enumerate(SPLITS):
        for i in range(3):
            write(root / "annotations" / split / f"ADE_{i}.png", draw(10 * number + i))
            write(root / "images" / split / f"ADE_{i}.jpg", np.zeros((*SHAPE, 3), np.uint8))
    return root


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-6])
