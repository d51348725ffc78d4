"""A trained model applied to single images: predictions as tensors, as plain data, and drawn.

Legend: images are (H, W, 3) uint8 in BGR order, as in OpenCV, or (H, W, n) of n bands.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.data.datasets.custom import class_names
from swinv2_backbone.d2.data.loading.bands import BANDS, as_picture, read_bands
from swinv2_backbone.d2.data.loading.images import read_image
from swinv2_backbone.d2.data.loading.resizing import transformed
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.prepare import register_datasets
from swinv2_backbone.d2.engine.trainer import load_plan
from swinv2_backbone.d2.engine.training import factories_of
from swinv2_backbone.d2.inference.algorithms import algorithms
from swinv2_backbone.d2.inference.drawing import Artist
from swinv2_backbone.d2.inference.prediction import Classes, Prediction, to_records
from swinv2_backbone.d2.modeling.architectures import kind_of
from swinv2_backbone.d2.modeling.build import build_model
from swinv2_backbone.images.opening import Opener


class Prepared(NamedTuple):
    """An image for the model, and its original size.

    Attributes:
        tensor: (n, H, W) pixels after resizing, uint8, or float32 of bands.
    """

    tensor: Tensor
    height: int
    width: int


@dataclass
class Predictor:
    """A model with its preprocessing and class names; see :func:`load_predictor`.

    Args:
        model: a model with Detectron2's input and output format, and its weights.
        classes: names of its classes.
        resize: resizing of images before the model.
        image_format: "RGB" or "BGR", the channel order that the model expects, or "BANDS".
        confidence: detections with a lower score are dropped.
        display_bands: the bands that are drawn as red, green and blue; see :func:`as_picture`.
        half: compute in float16 where that is accurate enough (mixed precision), on a GPU.
        deterministic: on a GPU, use algorithms that give the same bits in every call.

    Raises:
        ValueError: half precision without a GPU.
    """

    model: nn.Module
    classes: Classes
    resize: T.Augmentation
    image_format: str
    confidence: float = 0.5
    display_bands: Sequence[int] = ()
    half: bool = False
    deterministic: bool = False
    _artist: Artist = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.half and self.device.type != "cuda":
            raise ValueError(
                f"half precision needs a GPU, the model is on {self.device}: CPUs compute float16 "
                "slower than float32"
            )
        self.model.eval()
        self._artist = Artist(self.classes)

    def __call__(self, image: np.ndarray) -> Prediction:
        """Apply the model to an image.

        Raises:
            ValueError: the image has another number of channels or bands than the model takes.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Apply the model to images of any sizes, in their order; see :meth:`apply`.

        Raises:
            ValueError: an image has another number of channels or bands than the model takes.
        """
        return self.apply([self.prepare(image) for image in images])

    def prepare(self, image: np.ndarray) -> Prepared:
        """Resize an image for the model, on the CPU; the threads of a pipeline may do it."""
        if image.ndim != 3:
            raise ValueError(f"an image has the shape (H, W, channels), got {image.shape}")
        height, width, channels = image.shape
        if self.channels not in (None, channels):
            raise ValueError(
                f"the image has {channels} channels or bands, but the model takes {self.channels} "
                "(MODEL.PIXEL_MEAN, pixel_mean)"
            )
        pixels = image[:, :, ::-1] if self.image_format == "RGB" else image
        resize = self.resize.get_transform(pixels)
        if self.image_format == BANDS:
            pixels = transformed(resize, pixels.astype(np.float32))
        else:
            pixels = resize.apply_image(pixels)
        tensor = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)
        return Prepared(
            tensor.pin_memory() if self.device.type == "cuda" else tensor, height, width
        )

    @torch.inference_mode()
    def apply(self, images: Sequence[Prepared]) -> list[Prediction]:
        """Apply the model to prepared images, in their order.

        Images of one prepared size enter the model together. Others do not, because convolutions
        would see their padding, and the predictions would differ from those of single images.
        """
        sizes: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(images):
            sizes.setdefault(image.tensor.shape, []).append(index)
        found: dict[int, Prediction] = {}
        for indices in sizes.values():
            outputs = self._forward([images[index] for index in indices])
            found.update(zip(indices, map(self._prediction, outputs)))
        return [found[index] for index in range(len(images))]

    def _forward(self, images: Sequence[Prepared]) -> list[dict[str, Any]]:
        """Return Detectron2's outputs for images of one prepared size."""
        device, inputs = self.device, []
        for tensor, height, width in images:
            pixels = tensor.to(device, non_blocking=True).float()
            inputs.append({"image": pixels, "height": height, "width": width})
        with (
            torch.autocast(device.type, torch.float16, enabled=self.half),
            algorithms(self.deterministic),
        ):
            return self.model(inputs)

    def _prediction(self, output: dict[str, Any]) -> Prediction:
        instances, labels, panoptic = None, None, None
        if "instances" in output:
            instances = output["instances"]
            instances = instances[instances.scores >= self.confidence].to("cpu")
        if "sem_seg" in output:
            labels = output["sem_seg"].argmax(dim=0).cpu().numpy()
        if "panoptic_seg" in output:
            segments, descriptions = output["panoptic_seg"]
            panoptic = segments.cpu(), descriptions
        return Prediction(instances, labels, panoptic)

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def channels(self) -> int | None:
        """Number of channels or bands of an image; None if the model does not state it."""
        mean = getattr(self.model, "pixel_mean", None)
        return None if mean is None else mean.numel()

    def read(self, path: str | os.PathLike, opener: Opener = PathManager.open) -> np.ndarray:
        """Read an image file in the format of this predictor.

        Args:
            opener: opens the file; another one than PathManager's for images within other files.

        Raises:
            OSError: the file cannot be read.
            ValueError: it has another number of bands, or its pixels have no range of 8 bits.
        """
        bands = self.image_format == BANDS
        if bands:
            return read_bands(path, self.channels, opener=opener)
        return read_image(path, "BGR", opener=opener)

    def picture(self, image: np.ndarray) -> np.ndarray:
        """Return the picture to draw on, (H, W, 3) uint8 in BGR order."""
        return as_picture(image, self.display_bands) if self.image_format == BANDS else image

    def records(self, found: Prediction) -> dict[str, Any]:
        """Convert a prediction to plain data; see :func:`to_records`."""
        return to_records(found, self.classes)

    def draw(self, image: np.ndarray, found: Prediction) -> np.ndarray:
        """Draw a prediction on a copy of the image; see :class:`Artist`."""
        return self._artist.draw(self.picture(image), found)

    def draw_truth(self, image: np.ndarray, record: dict) -> np.ndarray:
        """Draw the annotations of a Detectron2 dataset's record on a copy of its image."""
        return self._artist.draw_truth(self.picture(image), record)


def load_predictor(
    config_file: str,
    opts: Sequence[str] = (),
    confidence: float = 0.5,
    imports: Sequence[str] = (),
    half: bool = False,
) -> Predictor:
    """Load the model of a config with its weights.

    Args:
        config_file: a YAML config, or a LazyConfig (.py).
        opts: changes to the config: ``KEY VALUE ...``, or ``key=value ...`` for a LazyConfig.
        confidence: detections with a lower score are dropped.
        imports: other projects' code that the config needs; see :func:`load_config`.
        half: compute in mixed precision with float16, on a GPU.

    Raises:
        ValueError: there are no weights, they do not match, or the class names are unknown.
    """
    return predictor_of_plan(load_plan(config_file, opts, imports), confidence, half)


def predictor_of_plan(plan: TrainingPlan, confidence: float = 0.5, half: bool = False) -> Predictor:
    """Load the model of a plan with its weights; see :func:`load_predictor`."""
    if plan.dialect is Dialect.LAZY:
        found = _from_lazy(plan, confidence)
    else:
        found = predictor_of(plan.config, confidence)
    return dataclasses.replace(found, half=half)


def predictor_of(cfg: CfgNode, confidence: float = 0.5) -> Predictor:
    """Load the model of a YAML config that is already read; see :func:`load_predictor`."""
    if not cfg.MODEL.WEIGHTS:
        raise ValueError("MODEL.WEIGHTS is empty: add MODEL.WEIGHTS output/model_final.pth")
    names, kind = class_names(cfg), kind_of(cfg.MODEL.META_ARCHITECTURE)
    if kind == "SemanticSegmentor":
        classes = Classes(stuff=names)
    elif kind == "PanopticFPN":
        if not cfg.DATASETS.TEST:
            raise ValueError("the names of the regions are unknown: set DATASETS.TEST")
        classes = Classes(names, _stuff_of(cfg.DATASETS.TEST[0]))
    elif not kind:  # another project's model, which may return any of the outputs
        stuff = [name for test in cfg.DATASETS.TEST[:1] for name in _stuff_of(test)]
        classes = Classes(names, stuff or names)
    else:
        classes = Classes(names)
    return Predictor(
        _loaded(build_model(cfg), cfg.MODEL.WEIGHTS, cfg.MODEL.SWINV2.STEM),
        classes,
        T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST),
        cfg.INPUT.FORMAT,
        confidence,
        cfg.INPUT.DISPLAY_BANDS,
    )


def _from_lazy(plan: TrainingPlan, confidence: float) -> Predictor:
    if not plan.run.weights:
        raise ValueError("there are no weights: add train.init_checkpoint=output/model_final.pth")
    if not plan.data.test:
        raise ValueError("the class names are unknown: set dataloader.test.dataset.names")
    dataset = plan.data.test[0]
    if dataset not in DatasetCatalog:
        register_datasets(plan, ("test",))
    metadata = MetadataCatalog.get(dataset)
    mapper = instantiate(plan.config.dataloader.test.mapper)
    return Predictor(
        _loaded(factories_of(plan).model(), plan.run.weights, plan.run.stem),
        Classes(metadata.get("thing_classes", ()), metadata.get("stuff_classes", ())),
        mapper.augmentations.augs[0],
        mapper.image_format,
        confidence,
        plan.augmentation.display_bands,
    )


def _loaded(model: nn.Module, weights: str, stem: str | None) -> nn.Module:
    checkpointer = Checkpointer(model, stem=stem)
    checkpointer.load(weights, checkpointables=[])
    checkpointer.require_complete()
    return model


def _stuff_of(dataset: str) -> list[str]:
    return list(MetadataCatalog.get(dataset).get("stuff_classes", ()))
