"""A trained model for Python: ``swinv2_backbone.load("output")("photo.jpg").boxes``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from swinv2_backbone.d2.engine.trainer import load_plan
from swinv2_backbone.d2.inference.pictures import KINDS, is_picture, path_of, picture_of
from swinv2_backbone.d2.inference.pipeline import Pipeline
from swinv2_backbone.d2.inference.prediction import Prediction
from swinv2_backbone.d2.inference.predictor import Predictor, predictor_of_plan
from swinv2_backbone.d2.inference.result import Result
from swinv2_backbone.d2.inference.sources import changes, checked_device
from swinv2_backbone.d2.inference.tiling import Tiling, require_joinable
from swinv2_backbone.d2.inference.tiling.result import predict_large
from swinv2_backbone.recipes import find_trained

logger = logging.getLogger(__name__)


def load(
    source: str | Path,
    weights: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    confidence: float = 0.5,
    half: bool = False,
    deterministic: bool = False,
    batch_size: int | None = None,
    opts: Sequence[str] = (),
    imports: Sequence[str] = (),
) -> Model:
    """Load a trained detector or segmentor; see :class:`Model`. It needs Detectron2.

    Args:
        source: the output folder of a training, whose best weights are taken if the training kept
            them (``TEST.BEST_METRIC``), else the final ones, else those of its last checkpoint; or
            a checkpoint beside its config; or a config, or the name of a recipe.
        weights: weights to take instead, such as an address of the recipe's weights.
        device: such as "cpu" or "cuda:1"; default: a GPU if there is one.
        confidence: objects with a lower score are dropped.
        half: compute in mixed precision with float16, on a GPU.
        deterministic: on a GPU, use algorithms that give the same bits in every call, which may be
            slower; on a CPU that is always so.
        batch_size: images of one size that enter the model together; default: 1 on a CPU, 8 on a
            GPU.
        opts: changes to the config: ``KEY VALUE ...``, or ``key=value ...`` for a LazyConfig.
        imports: other projects' code that the config needs.

    Raises:
        FileNotFoundError: there is no such source, or it has no weights.
        ValueError: an argument or the config is invalid, or the weights do not fit the model.
    """
    if not 0 <= confidence <= 1:
        raise ValueError(f"confidence is a score from 0 to 1, got {confidence}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    trained, device = find_trained(source, weights), checked_device(device)
    plan = load_plan(
        str(trained.config), [*opts, *changes(trained.config, trained.weights, device)], imports
    )
    if not plan.run.weights:
        raise ValueError(f"{source} names no weights: load({str(source)!r}, weights='FILE.pth')")
    if deterministic:  # read by CUDA's libraries when they start
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    predictor = replace(predictor_of_plan(plan, confidence, half), deterministic=deterministic)
    logger.info(f"Loaded {plan.run.weights} for {trained.config}")
    return Model(predictor, str(trained.config), plan.run.weights, batch_size)


class Model:
    """A trained model, which is called with images and returns :class:`Result` objects.

    Args:
        predictor: the model with its preprocessing and class names.
        config, weights: where it comes from, for descriptions.
        batch_size: images of one size that enter the model together.

    Attributes:
        names: names of the classes of objects, or of pixels if it finds no objects.
        stuff_names: names of the classes of pixels.
    """

    def __init__(
        self, predictor: Predictor, config: str, weights: str, batch_size: int | None = None
    ):
        self.predictor, self.config, self.weights = predictor, config, weights
        self._pipeline, self._batch_size = Pipeline(predictor, batch_size), batch_size
        self.stuff_names = list(predictor.classes.stuff)
        self.names = list(predictor.classes.things) or self.stuff_names

    @property
    def device(self) -> torch.device:
        return self.predictor.device

    @overload
    def __call__(
        self,
        images: str | os.PathLike | np.ndarray | torch.Tensor,
        *,
        order: str = "RGB",
        urls: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
        tile_scale: float | None = None,
    ) -> Result: ...
    @overload
    def __call__(
        self,
        images: Any,
        *,
        order: str = "RGB",
        urls: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
        tile_scale: float | None = None,
    ) -> Any: ...
    def __call__(
        self,
        images: Any,
        *,
        order: str = "RGB",
        urls: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
        tile_scale: float | None = None,
    ) -> Any:
        """Predict one image, or several, which are read while the model computes.

        Args:
            images: an image: a path, a PIL image, an array (H, W, 3) or (H, W), or a tensor
                (3, H, W) or (H, W); a list of them, also of several kinds; or an iterator. Arrays
                and tensors are uint8, or other numbers from 0 to 255; uint16 is scaled from 0 to
                65535. A model of bands takes files, arrays (H, W, n) and tensors (n, H, W), whose
                numbers are used as they are.
            order: channel order of arrays and tensors: "RGB", or "BGR" as OpenCV reads them.
            urls: download images whose paths are addresses, such as https://.
            tile: side of the tiles of large pictures, such as 1024 pixels: files are read by
                windows, tiles enter the model one after the other without resizing, and objects
                across their sides are joined. See :class:`TiledResult`.
            overlap: of neighboring tiles; default: a quarter of the tile.
            tile_scale: resizing of tiles before the model; default: 1.

        Returns:
            A :class:`Result` for an image, a list of them for a list, and a generator for an
            iterator.

        Raises:
            OSError: a file cannot be read.
            TypeError, ValueError: a value is no image, or its meaning is in doubt.
        """
        if order not in ("RGB", "BGR"):
            raise ValueError(f"order must be 'RGB' or 'BGR', got {order!r}")
        if tile is not None:
            tiling = Tiling.given(tile, overlap, tile_scale, self._batch_size)
            require_joinable(self.predictor)
            predict = partial(predict_large, self.predictor, tiling=tiling, order=order, urls=urls)
            return _each(images, predict)
        if overlap is not None or tile_scale is not None:
            raise ValueError("overlap and tile_scale need tile=PIXELS, such as tile=1024")
        if is_picture(images):
            picture = picture_of(images, self.predictor, order, urls)
            return Result(self.predictor, picture, self.predictor(picture), path_of(images))
        if isinstance(images, (list, tuple)):
            return list(self._stream(images, order, urls))
        if isinstance(images, Iterator):
            return self._stream(images, order, urls)
        raise _no_image(images)

    def _stream(self, images: Iterable[Any], order: str, urls: bool) -> Iterator[Result]:
        def read(image: Any) -> np.ndarray:
            return picture_of(image, self.predictor, order, urls)

        def finish(image: Any, picture: np.ndarray, found: Prediction) -> Result:
            return Result(self.predictor, picture, found, path_of(image))

        for number, (_, outcome) in enumerate(self._pipeline.run(images, read, finish)):
            if isinstance(outcome, Exception):
                outcome.args = (f"image {number}: {outcome}", *outcome.args[1:])
                raise outcome
            yield outcome

    def __repr__(self) -> str:
        kind = type(self.predictor.model).__name__
        shown = ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")
        return (
            f"Model({kind}, {self.config} with {self.weights}; {len(self.names)} classes: {shown}; "
            f"on {self.device}, confidence {self.predictor.confidence})"
        )


def _each(images: Any, predict: Callable[[Any], Result]) -> Any:
    """Apply a function to an image, to each of a list, or to each of an iterator when it is due."""
    if is_picture(images):
        return predict(images)
    if isinstance(images, (list, tuple)):
        return [predict(image) for image in images]
    if isinstance(images, Iterator):
        return map(predict, images)
    raise _no_image(images)


def _no_image(value: Any) -> TypeError:
    return TypeError(
        f"expected {KINDS}, or a list or an iterator of them, got {type(value).__name__}"
    )
