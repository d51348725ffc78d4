"""The drawing of the demo dataset: five shape classes on textured backgrounds.

All randomness comes from a generator that is seeded per image, so that an image depends only on its
seed, split and index.

Shapes: H, W are the height and width of one image; images are (H, W, 3) uint8 in BGR order,
masks (H, W) bool. Lengths are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from swinv2_backbone.d2.demo.texture import draw_texture

SPLITS = ("train", "val")
CATEGORIES = {2: "disc", 3: "square", 7: "triangle", 11: "star", 20: "ring"}
MIN_VISIBLE = 0.25  # an object is not drawn if a smaller share of it is visible
EMPTY_EVERY = 16  # one image in 16 has no objects ...
CROWD_EVERY = 10  # ... and one in 10 has a crowd: odd and even indices, so never both
RLE_SHARE = 0.15  # of the objects that polygons could describe


@dataclass(frozen=True)
class Instance:
    """One object or crowd: `mask` is its visible part, `as_rle` excludes polygons."""

    category_id: int
    mask: np.ndarray
    iscrowd: bool
    as_rle: bool


@dataclass(frozen=True)
class Scene:
    """A drawn image, its background without objects, and the objects from back to front."""

    image: np.ndarray
    background: np.ndarray
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class _Shape:
    """An instance before occlusion; `full_area` counts the pixels outside the image too."""

    instance: Instance
    full_area: int


def _regular(corners: int, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
    """Return the corners of a polygon around the origin, (corners, 2), with repeating `radii`."""
    angles = np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.resize(radii, (corners, 1))


# Closed outlines in the unit circle, filled by the even-odd rule: a second outline is a hole.
OUTLINES = {
    "disc": (_regular(48),),
    "square": (_regular(4),),
    "triangle": (_regular(3),),
    "star": (_regular(10, (1.0, 0.42)),),
    "ring": (_regular(48), _regular(48) * 0.55),
}


def _pick_color(rng: np.random.Generator, taken: list[np.ndarray]) -> np.ndarray:
    """Pick the one of eight random colors that is farthest from those in use, for visible edges.

    Objects are lighter than the background, so that only their shapes are to be learned, which a
    small model does in minutes.
    """
    candidates = rng.uniform(130, 255, (8, 3))
    distances = np.linalg.norm(candidates[:, None] - np.stack(taken), axis=2)
    return candidates[distances.min(axis=1).argmax()]


def _rasterize(
    name: str, center: np.ndarray, diameter: float, angle: float, h: int, w: int
) -> tuple[np.ndarray, int]:
    """Return the mask of a shape centered at (x, y), and its area before the border cuts it."""
    pad = int(diameter / 2) + 2
    cos, sin = np.cos(angle), np.sin(angle)
    placed = [
        outline @ np.array([[cos, sin], [-sin, cos]]) * diameter / 2 + center + pad
        for outline in OUTLINES[name]
    ]
    canvas = np.zeros((h + 2 * pad, w + 2 * pad), np.uint8)
    cv2.fillPoly(canvas, [np.rint(p * 16).astype(np.int32) for p in placed], 1, shift=4)
    return canvas[pad : pad + h, pad : pad + w].astype(bool), int(canvas.sum())


def _place_object(rng: np.random.Generator, h: int, w: int, image_size: int) -> _Shape:
    """Place an object of log-uniform size; its center is inside, so the border cuts some."""
    category_id = int(rng.choice(list(CATEGORIES)))
    diameter = np.exp(rng.uniform(np.log(max(10, 0.09 * image_size)), np.log(0.55 * image_size)))
    margin = 0.15 * diameter  # with less, an object in a corner could be mostly invisible
    center = rng.uniform(margin, np.array([w, h]) - 1 - margin)
    angle = rng.uniform(0, 2 * np.pi)
    mask, area = _rasterize(CATEGORIES[category_id], center, diameter, angle, h, w)
    as_rle = bool(rng.random() < RLE_SHARE)
    return _Shape(Instance(category_id, mask, iscrowd=False, as_rle=as_rle), area)


def _place_crowd(rng: np.random.Generator, h: int, w: int, image_size: int) -> _Shape:
    """Place a cluster of 15 to 30 tiny shapes of one class, too close to tell apart."""
    category_id = int(rng.choice(list(CATEGORIES)))
    middle = rng.uniform(0.3, 0.7, 2) * (w, h)
    crowd = np.zeros((h, w), bool)
    for _ in range(rng.integers(15, 31)):
        center = rng.normal(middle, 0.1 * image_size)
        diameter = rng.uniform(0.04, 0.07) * image_size
        angle = rng.uniform(0, 2 * np.pi)
        # Shapes outside the image are never visible, so the full area is the part inside.
        crowd |= _rasterize(CATEGORIES[category_id], center, diameter, angle, h, w)[0]
    return _Shape(Instance(category_id, crowd, iscrowd=True, as_rle=True), int(crowd.sum()))


def _occlude(shapes: list[_Shape]) -> list[Instance]:
    """Cut from each shape the parts that later ones cover, and drop those that are mostly hidden.

    Works from front to back, so that a dropped shape covers nothing.
    """
    kept: list[Instance] = []
    if not shapes:
        return kept
    covered = np.zeros_like(shapes[0].instance.mask)
    for shape in reversed(shapes):
        visible = shape.instance.mask & ~covered
        if visible.sum() >= MIN_VISIBLE * shape.full_area:
            kept.append(replace(shape.instance, mask=visible))
            covered |= visible
    return kept[::-1]


def draw_scene(seed: int, split: str, index: int, image_size: int = 128) -> Scene:
    """Draw image `index` of a split; it depends only on the arguments.

    Sides vary from 0.75 to 1.25 times `image_size`. There are 1 to 5 objects (in some images
    none, in some also a crowd behind them); objects that are mostly hidden are not drawn.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    h, w = (int(side) for side in rng.integers(image_size * 3 // 4, image_size * 5 // 4 + 1, 2))
    shapes: list[_Shape] = []
    if index % CROWD_EVERY == CROWD_EVERY // 2 - 1:
        shapes.append(_place_crowd(rng, h, w, image_size))
    if index % EMPTY_EVERY != EMPTY_EVERY - 1:
        shapes += [_place_object(rng, h, w, image_size) for _ in range(rng.integers(1, 6))]
    instances = tuple(_occlude(shapes))

    colors = [rng.uniform(0, 90, 3)]
    background = draw_texture(rng, h, w, colors[0], spread=40)
    image = background.copy()
    for instance in instances:
        colors.append(_pick_color(rng, colors))
        image[instance.mask] = draw_texture(rng, h, w, colors[-1], spread=40)[instance.mask]
    return Scene(image, background, instances)
