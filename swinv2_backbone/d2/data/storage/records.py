"""The records of a COCO-format dataset, built from columns of numbers on access.

A list of dicts needs about ten times the memory, and Detectron2's loader serializes it into a
second copy. Columns can also be saved, and mapped into the memory of several processes.

Legend: M images, N annotations in the order of their images, P polygons, C coordinates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.storage.columns import POLYGONS, RLE, Columns


class Images(NamedTuple):
    """The M images of a file, in any order.

    Attributes:
        ids: unique numbers, or unique strings.
        names: file names, relative to the folder of images.
        sizes: (M, 2) int64 height, width.
    """

    ids: Sequence[int] | Sequence[str]
    names: Sequence[str]
    sizes: np.ndarray

    @property
    def rows(self) -> dict[Any, int]:
        """The place of each image in the file, by id."""
        return {key: row for row, key in enumerate(self.ids)}


class Records(Sequence[dict]):
    """Detectron2's records of a dataset of objects, built one by one.

    Each access builds a new dict, which the caller may change.

    Args:
        folder: folder that the file names are relative to.
        arrays: the columns, as :func:`record_arrays` makes them.
        rows: the images to use; default: all.
    """

    def __init__(self, folder: str, arrays: dict[str, np.ndarray], rows: np.ndarray | None = None):
        self.folder, self.arrays = folder, arrays
        self.rows = np.arange(len(arrays["sizes"])) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._record(row) for row in self.rows[index].tolist()]
        return self._record(int(self.rows[index]))

    def __iter__(self) -> Iterator[dict]:
        return map(self._record, self.rows.tolist())

    def select(self, chosen: np.ndarray) -> Records:
        """Return some of the images: (len(self),) bool, or their indices."""
        return Records(self.folder, self.arrays, self.rows[chosen])

    def files(self) -> list[str]:
        """Return the paths of the image files."""
        names = texts_of(self.arrays, "name")
        return [os.path.join(self.folder, names[row]) for row in self.rows.tolist()]

    def sizes(self) -> np.ndarray:
        """Return (len(self), 2) height and width of the images."""
        return self.arrays["sizes"][self.rows]

    def object_counts(self) -> np.ndarray:
        """Return the number of annotations of each image, without crowds, (len(self),)."""
        objects = np.concatenate([[0], np.cumsum(~self.arrays["crowd"])])
        first = self.arrays["first"]
        return (objects[first[1:]] - objects[first[:-1]])[self.rows]

    def with_classes_only(self) -> Iterator[dict]:
        """Yield the records with nothing but the ``category_id`` and ``iscrowd`` of annotations."""
        first = self.arrays["first"]
        shared: dict[tuple, dict] = {}
        for row in self.rows.tolist():
            part = slice(first[row], first[row + 1])
            keys = zip(self.arrays["category"][part].tolist(), self.arrays["crowd"][part].tolist())
            annotations = [
                shared.setdefault(key, {"category_id": key[0], "iscrowd": int(key[1])})
                for key in keys
            ]
            yield {"annotations": annotations}

    def _record(self, row: int) -> dict:
        height, width = self.arrays["sizes"][row].tolist()
        first, last = self.arrays["first"][row : row + 2].tolist()
        ids = self.arrays["ids"]
        return {
            "file_name": os.path.join(self.folder, _text(self.arrays, "name", row)),
            "height": height,
            "width": width,
            "image_id": ids[row].item() if len(ids) else _text(self.arrays, "id", row),
            "annotations": [self._annotation(at, height, width) for at in range(first, last)],
        }

    def _annotation(self, at: int, height: int, width: int) -> dict:
        arrays = self.arrays
        found = {
            "iscrowd": int(arrays["crowd"][at]),
            "bbox": arrays["box"][at].tolist(),
            "category_id": int(arrays["category"][at]),
            "bbox_mode": BoxMode.XYWH_ABS,
        }
        start = int(arrays["mask"][at])
        if arrays["kind"][at] == POLYGONS:
            ends = arrays["polygon_end"][start : start + int(arrays["count"][at])].tolist()
            begin = int(arrays["polygon_end"][start - 1]) if start else 0
            values = arrays["coordinates"][begin : ends[-1]].tolist()
            starts = [begin, *ends[:-1]]
            found["segmentation"] = [values[a - begin : b - begin] for a, b in zip(starts, ends)]
        elif arrays["kind"][at] == RLE:
            counts = _bytes(arrays, "rle", start)
            found["segmentation"] = {"size": [height, width], "counts": counts}
        if len(arrays["keypoint_end"]):
            points = arrays["keypoints"][slice(*_range(arrays["keypoint_end"], at))]
            if len(points):
                found["keypoints"] = points.tolist()
        return found


def record_arrays(images: Images, parts: Sequence[Columns]) -> dict[str, np.ndarray]:
    """Join the columns of a file; sort its images by id, and its annotations by image.

    Args:
        parts: columns without unknown images and classes, and without unusable masks.

    Returns:
        sizes (M, 2), ids (M,) or empty, first (M + 1,) annotation of each image; category, crowd,
        box, kind, count of polygons and mask (N, ...), the first polygon or the RLE mask;
        polygon_end (P,), coordinates (C,); texts of names, ids and RLE masks as bytes and ends;
        keypoints and keypoint_end (N,), empty if there are none.
    """
    in_order = np.array(sorted(range(len(images.ids)), key=images.ids.__getitem__), np.int64)
    images = Images(
        [images.ids[at] for at in in_order],
        [images.names[at] for at in in_order],
        images.sizes.reshape(-1, 2)[in_order],
    )
    image = np.argsort(in_order)[_joined([part.image for part in parts], np.int64)]
    order = np.argsort(image, kind="stable")
    count, kind = (
        _joined([getattr(p, name) for p in parts], np.int64) for name in ("count", "kind")
    )
    mask = np.where(kind == RLE, np.cumsum(kind == RLE) - 1, np.cumsum(count) - count)
    arrays = {
        "sizes": images.sizes,
        "ids": np.array([key for key in images.ids if isinstance(key, int)], np.int64),
        "first": np.searchsorted(image[order], np.arange(len(images.ids) + 1)),
        "category": _joined([part.category for part in parts], np.int64)[order].astype(np.int32),
        "crowd": _joined([part.crowd == 1 for part in parts], bool)[order],
        "box": _joined([part.box for part in parts], np.float64).reshape(-1, 4)[order],
        "kind": kind[order].astype(np.int8),
        "count": count[order].astype(np.int32),
        "mask": mask[order],
        "polygon_end": np.cumsum(_joined([part.length for part in parts], np.int64)),
        "coordinates": _joined([part.coordinates for part in parts], np.float64),
    }
    texts = [] if len(arrays["ids"]) else [str(key) for key in images.ids]
    masks = [_compressed(rle) for part in parts for rle in part.rle]
    arrays |= _text_arrays("name", [name.encode("utf-8", "surrogatepass") for name in images.names])
    arrays |= _text_arrays("id", [text.encode("utf-8", "surrogatepass") for text in texts])
    return arrays | _text_arrays("rle", masks) | _keypoint_arrays(parts, order)


def save_arrays(arrays: dict[str, np.ndarray], folder: Path) -> None:
    """Save arrays as one ``.npy`` file each."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Map the arrays of :func:`save_arrays` into memory, shared with other processes.

    Raises:
        OSError, ValueError: files are missing or damaged.
    """
    return {
        path.stem: np.load(path, mmap_mode="r" if path.stat().st_size > 4096 else None)
        for path in sorted(folder.glob("*.npy"))
    }


def _joined(parts: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)


def _compressed(rle: dict) -> bytes:
    """Return the counts of an RLE mask in COCO's compressed form."""
    counts = rle["counts"]
    if isinstance(counts, list):
        counts = coco_mask.frPyObjects(rle, *rle["size"])["counts"]
    return counts.encode() if isinstance(counts, str) else counts


def _text_arrays(name: str, texts: Sequence[bytes]) -> dict[str, np.ndarray]:
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64))
    return {f"{name}_text": np.frombuffer(b"".join(texts), np.uint8), f"{name}_end": ends}


def _keypoint_arrays(parts: Sequence[Columns], order: np.ndarray) -> dict[str, np.ndarray]:
    """Return the keypoints of all annotations, moved by half a pixel as Detectron2 does."""
    if not any(part.keypoints for part in parts):
        return {"keypoints": np.zeros(0), "keypoint_end": np.zeros(0, np.int64)}
    lists = [one or [] for part in parts for one in part.keypoints or [None] * len(part)]
    lists = [lists[at] for at in order]
    values = np.array([value for one in lists for value in one], np.float64)
    place = np.concatenate([np.arange(len(one)) for one in lists])
    return {
        "keypoints": np.where(place % 3 == 2, values, values + 0.5),
        "keypoint_end": np.cumsum(np.fromiter(map(len, lists), np.int64)),
    }


def _range(ends: np.ndarray, at: int) -> tuple[int, int]:
    return int(ends[at - 1]) if at else 0, int(ends[at])


def _bytes(arrays: dict[str, np.ndarray], name: str, at: int) -> bytes:
    return arrays[f"{name}_text"][slice(*_range(arrays[f"{name}_end"], at))].tobytes()


def _text(arrays: dict[str, np.ndarray], name: str, at: int) -> str:
    return _bytes(arrays, name, at).decode("utf-8", "surrogatepass")


def texts_of(arrays: Mapping[str, np.ndarray], name: str) -> list[str]:
    """Return all texts stored under a name."""
    text, ends = arrays[f"{name}_text"].tobytes(), arrays[f"{name}_end"].tolist()
    parts = (text[start:end] for start, end in zip([0, *ends], ends))
    return [part.decode("utf-8", "surrogatepass") for part in parts]
