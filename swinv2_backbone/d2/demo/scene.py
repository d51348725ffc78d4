"""The drawing of the demo dataset: five shape classes on textured backgrounds.

Everything comes from a random generator that is seeded per image, so that an image depends on
nothing but its seed, split and index.

Shapes: H, W are the height and width of one image; images are (H, W, 3) uint8 in BGR order,
masks (H, W) bool. Lengths are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

SPLITS = ("train", "val")
CATEGORIES = {2: "disc", 3: "square", 7: "triangle", 11: "star", 20: "ring"}
MIN_VISIBLE = 0.25  # share of an object that must stay in sight for it to be drawn at all
EMPTY_EVERY = 16  # one image in so many has no objects ...
CROWD_EVERY = 10  # ... and one in so many has a crowd: odd and even indices, so never both
RLE_SHARE = 0.15  # of the objects that polygons could describe


@dataclass(frozen=True)
class Instance:
    """One object or crowd; `mask` is its visible part, `as_rle` forbids polygons for it."""

    category_id: int
    mask: np.ndarray
    iscrowd: bool
    as_rle: bool


@dataclass(frozen=True)
class Scene:
    """A drawn image, the background before any object, and the objects from back to front."""

    image: np.ndarray
    background: np.ndarray
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class _Shape:
    """An instance before occlusion; `full_area` counts the pixels outside the image too."""

    instance: Instance
    full_area: int


def _regular(corners: int, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
    """Corners of a polygon around the origin, (corners, 2); `radii` repeat along it."""
    angles = np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.resize(radii, (corners, 1))


# Closed outlines inside the unit circle, filled by the even-odd rule: a second one is a hole.
OUTLINES = {
    "disc": (_regular(48),),
    "square": (_regular(4),),
    "triangle": (_regular(3),),
    "star": (_regular(10, (1.0, 0.42)),),
    "ring": (_regular(48), _regular(48) * 0.55),
}


def _noise(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Three octaves of smooth noise, from a random coarsest cell of 8 to 48 pixels."""
    cell, field = rng.uniform(8, 48), np.zeros((h, w), np.float32)
    for octave in range(3):
        rows, cols = (int(side * 2**octave / cell) + 2 for side in (h, w))
        coarse = rng.random((rows, cols), dtype=np.float32)
        field += cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC) / 2**octave
    return (field - field.min()) / np.ptp(field)


def _turned_axes(rng: np.random.Generator, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates along two perpendicular axes of random direction, each (H, W)."""
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


def _draw_texture(
    rng: np.random.Generator, h: int, w: int, colour: np.ndarray, spread: float
) -> np.ndarray:
    """A random pattern between `colour` and another at most `spread` away per channel."""
    change = rng.uniform(-spread, spread, 3)
    pattern = PATTERNS[rng.integers(len(PATTERNS))](rng, h, w)
    texture = colour + pattern[..., None] * change + rng.normal(0, 4, (h, w, 3))
    return texture.clip(0, 255).astype(np.uint8)


def _pick_colour(rng: np.random.Generator, taken: list[np.ndarray]) -> np.ndarray:
    """The one of eight random colours that is farthest from those in use, so that edges show.

    Objects are lighter than the background: shapes, which tell the classes apart, are then what
    there is to learn, and a small model learns them in minutes.
    """
    candidates = rng.uniform(130, 255, (8, 3))
    distances = np.linalg.norm(candidates[:, None] - np.stack(taken), axis=2)
    return candidates[distances.min(axis=1).argmax()]


def _rasterise(
    name: str, centre: np.ndarray, diameter: float, angle: float, h: int, w: int
) -> tuple[np.ndarray, int]:
    """Mask of a shape centred at (x, y), and its area before the image border cuts it."""
    pad = int(diameter / 2) + 2
    cos, sin = np.cos(angle), np.sin(angle)
    placed = [
        outline @ np.array([[cos, sin], [-sin, cos]]) * diameter / 2 + centre + pad
        for outline in OUTLINES[name]
    ]
    canvas = np.zeros((h + 2 * pad, w + 2 * pad), np.uint8)
    cv2.fillPoly(canvas, [np.rint(p * 16).astype(np.int32) for p in placed], 1, shift=4)
    return canvas[pad : pad + h, pad : pad + w].astype(bool), int(canvas.sum())


def _place_object(rng: np.random.Generator, h: int, w: int, image_size: int) -> _Shape:
    """One object of log-uniform size; its centre stays inside, so the border cuts some."""
    category_id = int(rng.choice(list(CATEGORIES)))
    diameter = np.exp(rng.uniform(np.log(max(10, 0.09 * image_size)), np.log(0.55 * image_size)))
    margin = 0.15 * diameter  # with less, an object in a corner could be mostly out of sight
    centre = rng.uniform(margin, np.array([w, h]) - 1 - margin)
    angle = rng.uniform(0, 2 * np.pi)
    mask, area = _rasterise(CATEGORIES[category_id], centre, diameter, angle, h, w)
    as_rle = bool(rng.random() < RLE_SHARE)
    return _Shape(Instance(category_id, mask, iscrowd=False, as_rle=as_rle), area)


def _place_crowd(rng: np.random.Generator, h: int, w: int, image_size: int) -> _Shape:
    """A cluster of 15 to 30 tiny shapes of one class, too small and close to tell apart."""
    category_id = int(rng.choice(list(CATEGORIES)))
    middle = rng.uniform(0.3, 0.7, 2) * (w, h)
    crowd = np.zeros((h, w), bool)
    for _ in range(rng.integers(15, 31)):
        centre = rng.normal(middle, 0.1 * image_size)
        diameter = rng.uniform(0.04, 0.07) * image_size
        angle = rng.uniform(0, 2 * np.pi)
        # Members outside the image are never seen, so only the part inside counts as the whole.
        crowd |= _rasterise(CATEGORIES[category_id], centre, diameter, angle, h, w)[0]
    return _Shape(Instance(category_id, crowd, iscrowd=True, as_rle=True), int(crowd.sum()))


def _occlude(shapes: list[_Shape]) -> list[Instance]:
    """Cut from each shape what later ones cover, and leave out those that hardly show.

    Front to back, so that a shape that is left out covers nothing either.
    """
    kept: list[Instance] = []
    covered = np.zeros_like(shapes[0].instance.mask) if shapes else None
    for shape in reversed(shapes):
        visible = shape.instance.mask & ~covered
        if visible.sum() >= MIN_VISIBLE * shape.full_area:
            kept.append(replace(shape.instance, mask=visible))
            covered |= visible
    return kept[::-1]


def draw_scene(seed: int, split: str, index: int, image_size: int = 128) -> Scene:
    """Draw image `index` of a split; it depends on nothing but the arguments.

    Sides vary from 0.75 to 1.25 times `image_size`. There are 1 to 5 objects (in some images
    none, in some a crowd behind them); an occluded object that hardly shows is not drawn.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    h, w = (int(side) for side in rng.integers(image_size * 3 // 4, image_size * 5 // 4 + 1, 2))
    shapes: list[_Shape] = []
    if index % CROWD_EVERY == CROWD_EVERY // 2 - 1:
        shapes.append(_place_crowd(rng, h, w, image_size))
    if index % EMPTY_EVERY != EMPTY_EVERY - 1:
        shapes += [_place_object(rng, h, w, image_size) for _ in range(rng.integers(1, 6))]
    instances = tuple(_occlude(shapes))

    colours = [rng.uniform(0, 90, 3)]
    background = _draw_texture(rng, h, w, colours[0], spread=40)
    image = background.copy()
    for instance in instances:
        colours.append(_pick_colour(rng, colours))
        image[instance.mask] = _draw_texture(rng, h, w, colours[-1], spread=40)[instance.mask]
    return Scene(image, background, instances)
