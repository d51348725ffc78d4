"""The prediction of a model on a picture of any size, by tiles.

Legend: H, W are the height and width of the picture in pixels; n is the number of channels.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.modeling import PanopticFPN
from detectron2.structures import Boxes, Instances
from detectron2.utils.file_io import PathManager
from tqdm import tqdm

from swinv2_backbone.d2.inference.pipeline import run_ahead
from swinv2_backbone.d2.inference.prediction import Prediction, RunLengths
from swinv2_backbone.d2.inference.predictor import Predictor
from swinv2_backbone.d2.inference.tiling.geometry import Tile, Tiling
from swinv2_backbone.d2.inference.tiling.labels import LabelRows
from swinv2_backbone.d2.inference.tiling.merging import Merger
from swinv2_backbone.d2.inference.tiling.pieces import MOST_PIXELS, Pieces, crop_of
from swinv2_backbone.images.bands import BANDS
from swinv2_backbone.images.opening import Opener
from swinv2_backbone.images.tiff_windows import Window
from swinv2_backbone.images.windows import Windows, open_windows

DEFAULT = Tiling()
PANOPTIC = (
    "panoptic segments are not joined across tiles: predict without tiles, or use a model for "
    "objects or for semantic segmentation"
)
JOINED = {"pred_boxes", "scores", "pred_classes", "pred_masks"}  # outputs that can be joined


class Scaling(T.Augmentation):
    """Resizing by a fixed factor."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if self.factor == 1:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        scaled = (max(1, round(side * self.factor)) for side in (height, width))
        return T.ResizeTransform(height, width, *scaled)


def predict_tiled(
    predictor: Predictor,
    source: str | os.PathLike | np.ndarray,
    tiling: Tiling = DEFAULT,
    *,
    opener: Opener = PathManager.open,
    progress: bool = False,
    seen: Callable[[Tile, np.ndarray, tuple[int, int]], None] | None = None,
) -> Prediction:
    """Apply a model to the tiles of a picture, and join what they show.

    The memory does not depend on the size of the picture but for its objects and its rows: the
    picture is read by windows (see :func:`open_windows`), masks are run lengths, and class numbers
    are written to a temporary file.

    Args:
        source: a file, or (H, W, n) pixels as :meth:`Predictor.__call__` takes them.
        tiling: the tiles; see :class:`Tiling`.
        opener: opens a file.
        progress: show a progress bar.
        seen: called with every tile, its pixels and the (H, W) of the picture, row by row.

    Returns:
        The objects, whose field ``pred_rles`` has the masks of a model with masks as
        :class:`RunLengths`, and the class numbers of a model that segments pixels, perhaps as a
        ``np.memmap``.

    Raises:
        OSError, ValueError: the file cannot be read by windows; see :func:`open_windows`.
        ValueError: the outputs of the model cannot be joined (panoptic segments, keypoints).
    """
    require_joinable(predictor)
    tile_predictor = dataclasses.replace(predictor, resize=Scaling(tiling.scale))
    with _windows(predictor, source, opener) as picture:
        tiles = tiling.tiles(picture.height, picture.width)
        joined = _Joined(predictor, tiling, tiles, picture.height, picture.width)
        name = None if isinstance(source, np.ndarray) else os.path.basename(source)
        bar = tqdm(total=len(tiles), desc=name, unit="tile", leave=False, disable=not progress)
        with bar:
            for batch, images in _read_ahead(picture, tiles, tiling.batch_size):
                found = tile_predictor.predict_batch(images)
                for tile, pixels, prediction in zip(batch, images, found):
                    joined.add(tile, prediction)
                    if seen is not None:
                        seen(tile, pixels, (picture.height, picture.width))
                    if tile.right == picture.width:
                        _return_memory()
                bar.update(len(batch))
        return joined.finish()


def require_joinable(predictor: Predictor) -> None:
    """Raise ValueError for a model with panoptic segments, which are not joined across tiles."""
    if isinstance(predictor.model, PanopticFPN):
        raise ValueError(PANOPTIC)


def _return_memory() -> None:
    """Return freed memory to the system where the C library can (glibc).

    It would otherwise keep a part of what every tile needs for a moment: some 400 KB per tile,
    because small objects that stay lie between.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class _Joined:
    """What the tiles of a picture show, so far."""

    def __init__(
        self, predictor: Predictor, tiling: Tiling, tiles: list[Tile], height: int, width: int
    ):
        self._many = not 0 < len(predictor.classes.stuff) <= 256
        self._tiling, self._tiles, self._size = tiling, tiles, (height, width)
        self._merger: Merger | None = None
        self._labels: LabelRows | None = None

    def add(self, tile: Tile, found: Prediction) -> None:
        if found.panoptic is not None:
            raise ValueError(PANOPTIC)
        if found.instances is not None:
            pieces = _pieces(found.instances, tile)
            if self._merger is None:
                masks = pieces.crops is not None
                self._merger = Merger(self._tiles, *self._size, self._tiling.overlap, masks)
            self._merger.add(tile, pieces)
        if found.labels is not None:
            if self._labels is None:
                self._labels = LabelRows(self._tiling, *self._size, self._many)
            self._labels.add(tile, found.labels)

    def finish(self) -> Prediction:
        labels = None if self._labels is None else self._labels.finish()
        if self._merger is None:
            return Prediction(labels=labels)
        found = self._merger.finish()
        instances = Instances(self._size)
        instances.pred_boxes = Boxes(torch.from_numpy(found.boxes).float())
        instances.scores = torch.from_numpy(found.scores).float()
        instances.pred_classes = torch.from_numpy(found.classes)
        if found.masks is not None:
            instances.pred_rles = RunLengths(found.masks, self._size)
        return Prediction(instances, labels)


def _pieces(instances: Instances, tile: Tile) -> Pieces:
    if others := set(instances.get_fields()) - JOINED:
        raise ValueError(
            f"the model's outputs {', '.join(sorted(others))} are not joined across tiles: predict "
            "without tiles"
        )
    boxes = instances.pred_boxes.tensor.numpy().astype(np.float64) + (tile[:2] * 2)
    crops = None
    if instances.has("pred_masks"):
        masks = instances.pred_masks.numpy().astype(bool, copy=False)
        crops = [crop_of(mask, tile.left, tile.top) for mask in masks]
    return Pieces(boxes, instances.scores.numpy(), instances.pred_classes.numpy(), crops)


@contextlib.contextmanager
def _windows(
    predictor: Predictor, source: str | os.PathLike | np.ndarray, opener: Opener
) -> Iterator[Windows]:
    """Open a picture in the channel order of :meth:`Predictor.read`."""
    if isinstance(source, np.ndarray):
        height, width = source.shape[:2]
        picture = Windows(height, width, lambda window: _part(source, window))
        yield _checked(picture, "the picture")
        return
    bands = predictor.image_format == BANDS
    channels = predictor.channels if bands else None
    with open_windows(source, BANDS if bands else "BGR", channels, opener) as picture:
        yield _checked(picture, os.fspath(source))


def _part(pixels: np.ndarray, window: Window) -> np.ndarray:
    return pixels[window.top : window.bottom, window.left : window.right]


def _checked(picture: Windows, name: str) -> Windows:
    if picture.height * picture.width >= MOST_PIXELS:
        raise ValueError(
            f"{name} has {picture.width} x {picture.height} pixels, more than COCO's run lengths "
            f"can count ({MOST_PIXELS}): divide it into pictures"
        )
    return picture


def _read_ahead(
    picture: Windows, tiles: Sequence[Tile], batch_size: int
) -> Iterator[tuple[Sequence[Tile], list[np.ndarray]]]:
    """Yield batches of tiles and their pixels, which are read while the model is busy."""

    def read(batch: Sequence[Tile]) -> list[np.ndarray]:
        return [picture.read(Window(*tile)) for tile in batch]

    batches = [tiles[at : at + batch_size] for at in range(0, len(tiles), batch_size)]
    with contextlib.closing(run_ahead(read, batches, threads=1, ahead=1)) as images:
        yield from zip(batches, images)
