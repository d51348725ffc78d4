"""A generated instance-segmentation dataset in COCO format, for trying a detector in minutes.

Five shape classes on textured backgrounds, with the awkward parts of real COCO files: category
ids with gaps, images of many sizes, images without objects, occlusion, objects cut by the border,
polygons of several parts, RLE masks and crowd regions. Nothing is downloaded.

The first half of the file draws (`draw_scene`), the second writes (`generate_demo_dataset`).
Since rings have holes, some masks are RLE: Detectron2 needs `INPUT.MASK_FORMAT = "bitmask"`.

Shapes: H, W are the height and width of one image; images are (H, W, 3) uint8 in BGR order,
masks (H, W) bool. Lengths are in pixels.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

SPLITS = ("train", "val")
CATEGORIES = {2: "disc", 3: "square", 7: "triangle", 11: "star", 20: "ring"}
MIN_IMAGE_SIZE = 64
MIN_VISIBLE = 0.25  # share of an object that must stay in sight for it to be drawn at all
EMPTY_EVERY = 16  # one image in so many has no objects ...
CROWD_EVERY = 10  # ... and one in so many has a crowd: odd and even indices, so never both
RLE_SHARE = 0.15  # of the objects that polygons could describe
MIN_POLYGON_IOU = 0.95


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


def _trace_polygons(mask: np.ndarray) -> list[list[float]] | None:
    """Outlines of a mask as COCO polygons [x0, y0, x1, y1, ...]; None if it has holes.

    Contours run through pixel centres, COCO polygons along pixel edges. Traced on a mask
    enlarged four times they are within 1/8 pixel of the edges, which small objects need.
    """
    enlarged = mask.astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    contours, hierarchy = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():  # a contour with a parent is the edge of a hole
        return None
    return [((contour.reshape(-1) + 0.5) / 4).tolist() for contour in contours]


def _encode_segmentation(instance: Instance) -> list[list[float]] | dict:
    """COCO polygons where allowed and faithful to the mask, else compressed RLE."""
    rle = coco_mask.encode(np.asfortranarray(instance.mask, dtype=np.uint8))
    polygons = None if instance.as_rle else _trace_polygons(instance.mask)
    if polygons is not None:
        merged = coco_mask.merge(coco_mask.frPyObjects(polygons, *instance.mask.shape))
        if coco_mask.iou([merged], [rle], [0])[0, 0] >= MIN_POLYGON_IOU:
            return polygons
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def annotate(instance: Instance, annotation_id: int, image_id: int) -> dict:
    """The COCO annotation of an instance; bbox is [x, y, width, height], area is in pixels."""
    ys, xs = np.nonzero(instance.mask)
    x, y = int(xs.min()), int(ys.min())
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": instance.category_id,
        "bbox": [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1],
        "area": int(instance.mask.sum()),
        "iscrowd": int(instance.iscrowd),
        "segmentation": _encode_segmentation(instance),
    }


@dataclass(frozen=True)
class DemoDataset:
    """Where a generated dataset lies: a COCO annotation file and an image folder per split."""

    root: Path
    train_json: Path
    train_images: Path
    val_json: Path
    val_images: Path


@dataclass(frozen=True)
class _Record:
    """What demo.json says: who made the folder's files, and from which parameters."""

    seed: int
    num_train: int
    num_val: int
    image_size: int
    generator: str = "swinv2_backbone.d2.data.demo"
    version: int = 1  # raise it when the drawing changes, so that old folders are made anew

    def files(self) -> set[str]:
        """Paths, relative to the root, of everything the generator makes."""
        counts = zip(SPLITS, (self.num_train, self.num_val), strict=True)
        images = {f"{split}/{_image_name(i)}" for split, n in counts for i in range(n)}
        return images | {f"{split}.json" for split in SPLITS}


def _image_name(index: int) -> str:
    return f"{index + 1:06d}.png"


def _write_split(root: Path, split: str, record: _Record, count: int) -> None:
    """Draw and write the images of a split and its COCO annotation file."""
    (root / split).mkdir(exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        scene = draw_scene(record.seed, split, index, record.image_size)
        (h, w), image_id, name = scene.image.shape[:2], index + 1, _image_name(index)
        if not cv2.imwrite(str(root / split / name), scene.image):
            raise OSError(f"could not write {root / split / name}")
        images.append({"id": image_id, "file_name": name, "height": h, "width": w, "license": 1})
        for instance in scene.instances:
            annotations.append(annotate(instance, len(annotations) + 1, image_id))
    coco = {
        "info": {"description": "generated shapes", "version": str(record.version)},
        "licenses": [
            {"id": 1, "name": "CC0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
        ],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": id, "name": name, "supercategory": "shape"} for id, name in CATEGORIES.items()
        ],
    }
    (root / f"{split}.json").write_text(json.dumps(coco))


def _write_record(path: Path, record: _Record) -> None:
    """Write in one step: a reader sees the whole file or none."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(asdict(record), indent=2) + "\n")
    os.replace(temporary, path)


def _read_record(path: Path) -> _Record | None:
    """The record at `path`, or None where there is none that this generator wrote."""
    try:
        record = _Record(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return record if record.generator == _Record.generator else None


def _claim(root: Path, wanted: _Record) -> None:
    """Make `root` ready for writing: note what is about to be there, remove what we made before.

    Raises ValueError, before anything is changed, if a file in the way is not the generator's.
    """
    markers = (root / "demo.json", root / "demo.partial.json")
    records = [_read_record(marker) for marker in markers if marker.exists()]
    if None in records or (not records and root.is_dir() and any(root.iterdir())):
        raise ValueError(
            f"{root} holds files that the demo generator did not make: choose a new or empty folder"
        )
    ours = set().union(*(record.files() for record in records))
    foreign = sorted(name for name in wanted.files() - ours if (root / name).exists())
    if foreign:
        raise ValueError(
            f"{root / foreign[0]} is not the demo generator's and would be overwritten: "
            "move it, or choose a new or empty folder"
        )
    root.mkdir(parents=True, exist_ok=True)
    # Names depend on the counts only, so the larger counts cover old and new files alike.
    num_train = max(record.num_train for record in (wanted, *records))
    num_val = max(record.num_val for record in (wanted, *records))
    _write_record(markers[1], replace(wanted, num_train=num_train, num_val=num_val))
    markers[0].unlink(missing_ok=True)
    for name in ours:
        (root / name).unlink(missing_ok=True)


def _check_arguments(root: Path, record: _Record) -> None:
    if root.exists() and not root.is_dir():
        raise ValueError(f"root={root} is a file; it must be a folder or not exist yet")
    limits = {"seed": 0, "num_train": 1, "num_val": 1, "image_size": MIN_IMAGE_SIZE}
    for name, lowest in limits.items():
        if getattr(record, name) < lowest:
            raise ValueError(f"{name}={getattr(record, name)} must be at least {lowest}")


def generate_demo_dataset(
    root: str | Path,
    *,
    seed: int = 0,
    num_train: int = 1200,
    num_val: int = 200,
    image_size: int = 128,
) -> DemoDataset:
    """Write the demo dataset under `root`, or reuse the one that is there.

    A complete dataset of the same parameters is left as it is. One that is half-written, lacks
    files or has other parameters is made anew; of the files in `root`, only the generator's own
    are ever removed or overwritten. One process at a time may call this on a folder.

    Args:
        root: folder for train/, val/, train.json, val.json and demo.json, which is written last
            and says that the rest is complete. While writing there is a demo.partial.json.
        seed: at least 0; the same seed gives the same bytes.
        num_train, num_val: images per split, at least 1.
        image_size: typical side of an image in pixels, at least 64.

    Raises:
        ValueError: an argument is out of range, or `root` holds files that are not ours.
    """
    root, record = Path(root), _Record(seed, num_train, num_val, image_size)
    _check_arguments(root, record)
    complete = _read_record(root / "demo.json") == record
    if not (complete and all((root / name).is_file() for name in record.files())):
        _claim(root, record)
        _write_split(root, "train", record, num_train)
        _write_split(root, "val", record, num_val)
        _write_record(root / "demo.json", record)
        (root / "demo.partial.json").unlink(missing_ok=True)
    return DemoDataset(root, root / "train.json", root / "train", root / "val.json", root / "val")
