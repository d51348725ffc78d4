"""A trained model on single pictures: what it finds, as objects, as JSON and drawn.

Legend: H, W the picture in pixels; pictures are (H, W, 3) uint8 in BGR order, as in OpenCV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import Visualizer
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from swinv2_backbone.d2.config.lazy import load_lazy_config, plan_from_lazy
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.custom import class_names
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.prepare import register_datasets
from swinv2_backbone.d2.engine.training import factories_of

LINE_HEIGHT = 400  # pixels; a smaller picture is enlarged before it is drawn on


@dataclass(frozen=True)
class Classes:
    """Names in the order of the model's outputs: of objects, and of what pixels can be."""

    things: Sequence[str] = ()
    stuff: Sequence[str] = ()


@dataclass(frozen=True)
class Prediction:
    """What a model says of a picture, on the CPU, in the picture's own pixels; None: it does not.

    Attributes:
        instances: objects; boxes are (x0, y0, x1, y1).
        labels: (H, W) class numbers.
        panoptic: (H, W) segment numbers, and what each segment is.
    """

    instances: Instances | None = None
    labels: np.ndarray | None = None
    panoptic: tuple[Tensor, list[dict]] | None = None


@dataclass
class Predictor:
    """A model with what is needed to use it; see :func:`load_predictor`.

    Args:
        model: of Detectron2's input and output format, with its weights.
        classes: their names.
        resize: of pictures before the model.
        image_format: "RGB" or "BGR", what the model expects.
        confidence: detections with a lower score are left out.
    """

    model: nn.Module
    classes: Classes
    resize: T.Augmentation
    image_format: str
    confidence: float = 0.5
    _metadata: Metadata = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.model.eval()
        # Without a name a Metadata belongs to no catalog, so that nothing is registered.
        self._metadata = Metadata(
            thing_classes=list(self.classes.things),
            stuff_classes=list(self.classes.stuff),
            # Always the same colours, so that truth and prediction can be compared.
            stuff_colors=_colours(len(self.classes.stuff)),
        )

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> Prediction:
        height, width = picture.shape[:2]
        pixels = picture[:, :, ::-1] if self.image_format == "RGB" else picture
        pixels = self.resize.get_transform(pixels).apply_image(pixels)
        pixels = torch.as_tensor(pixels.astype("float32").transpose(2, 0, 1))
        output = self.model([{"image": pixels, "height": height, "width": width}])[0]
        instances, labels, panoptic = None, None, None
        if "instances" in output:
            instances = output["instances"].to("cpu")
            instances = instances[instances.scores >= self.confidence]
        if "sem_seg" in output:
            labels = output["sem_seg"].argmax(dim=0).cpu().numpy()
        if "panoptic_seg" in output:
            segments, descriptions = output["panoptic_seg"]
            panoptic = segments.cpu(), descriptions
        return Prediction(instances, labels, panoptic)

    def records(self, found: Prediction) -> dict:
        """The prediction as plain data: ``detections``, ``classes`` and ``segments`` as there are.

        A detection has category, score, bbox (x, y, w, h) and perhaps segmentation (RLE); a class
        its share of the pixels; a segment its number, category and area.
        """
        plain = {}
        if found.instances is not None:
            plain["detections"] = self._detections(found.instances)
        if found.panoptic is not None:
            plain["segments"] = [self._segment(one) for one in found.panoptic[1]]
        elif found.labels is not None:
            numbers, counts = np.unique(found.labels, return_counts=True)
            plain["classes"] = {
                self.classes.stuff[number]: count / found.labels.size
                for number, count in zip(numbers.tolist(), counts.tolist())
            }
        return plain

    def draw(self, picture: np.ndarray, found: Prediction) -> np.ndarray:
        """The picture, enlarged if it is small, with what was found and its names and scores."""
        canvas = self._canvas(picture)
        if found.panoptic is not None:
            canvas.draw_panoptic_seg(*found.panoptic)
        elif found.instances is not None:
            canvas.draw_instance_predictions(found.instances)
        elif found.labels is not None:
            canvas.draw_sem_seg(found.labels, alpha=0.5)
        return canvas.output.get_image()[:, :, ::-1]

    def draw_truth(self, picture: np.ndarray, image: dict) -> np.ndarray:
        """The same with the annotations of an image of a Detectron2 dataset."""
        return self._canvas(picture).draw_dataset_dict(image).get_image()[:, :, ::-1]

    def _canvas(self, picture: np.ndarray) -> Visualizer:
        scale = max(LINE_HEIGHT / picture.shape[0], 1.0)
        return Visualizer(picture[:, :, ::-1], self._metadata, scale=scale)

    def _detections(self, instances: Instances) -> list[dict]:
        records = []
        for index, (x0, y0, x1, y1) in enumerate(instances.pred_boxes.tensor.tolist()):
            record = {
                "category": self.classes.things[int(instances.pred_classes[index])],
                "score": float(instances.scores[index]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            if instances.has("pred_masks"):
                mask = np.asfortranarray(instances.pred_masks[index].numpy(), np.uint8)
                rle = coco_mask.encode(mask)
                record["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
            records.append(record)
        return records

    def _segment(self, segment: dict) -> dict:
        names = self.classes.things if segment["isthing"] else self.classes.stuff
        kept = {key: segment[key] for key in ("id", "isthing", "score", "area") if key in segment}
        return {**kept, "category": names[segment["category_id"]]}


def load_predictor(
    config_file: str, opts: Sequence[str] = (), confidence: float = 0.5
) -> Predictor:
    """The model of a config with its weights: a yacs config, or a LazyConfig (.py).

    Raises:
        ValueError: there are no weights, they do not fit, or the class names are not known.
    """
    if Path(config_file).suffix == ".py":
        return _from_lazy(load_lazy_config(config_file, opts), confidence)
    return predictor_of(load_config(config_file, opts), confidence)


def predictor_of(cfg: CfgNode, confidence: float = 0.5) -> Predictor:
    """:func:`load_predictor` for a yacs config that has been loaded."""
    if not cfg.MODEL.WEIGHTS:
        raise ValueError("MODEL.WEIGHTS is empty: add MODEL.WEIGHTS output/model_final.pth")
    names, architecture = class_names(cfg), cfg.MODEL.META_ARCHITECTURE
    if architecture == "SemanticSegmentor":
        classes = Classes(stuff=names)
    elif architecture == "PanopticFPN":
        classes = Classes(names, _stuff_of(cfg.DATASETS.TEST[0]))
    else:
        classes = Classes(names)
    return Predictor(
        _loaded(build_model(cfg), cfg.MODEL.WEIGHTS),
        classes,
        T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST),
        cfg.INPUT.FORMAT,
        confidence,
    )


def _from_lazy(cfg, confidence: float) -> Predictor:
    if not cfg.train.init_checkpoint:
        raise ValueError("there are no weights: add train.init_checkpoint=output/model_final.pth")
    plan = plan_from_lazy(cfg)
    if not plan.data.test:
        raise ValueError("the class names are not known: give dataloader.test.dataset.names")
    dataset = plan.data.test[0]
    if dataset not in DatasetCatalog:
        register_datasets(plan, ("test",))
    metadata = MetadataCatalog.get(dataset)
    mapper = instantiate(cfg.dataloader.test.mapper)
    return Predictor(
        _loaded(factories_of(plan).model(), cfg.train.init_checkpoint),
        Classes(metadata.get("thing_classes", ()), metadata.get("stuff_classes", ())),
        mapper.augmentations.augs[0],
        mapper.image_format,
        confidence,
    )


def _loaded(model: nn.Module, weights: str) -> nn.Module:
    checkpointer = Checkpointer(model)
    checkpointer.load(weights, checkpointables=[])
    checkpointer.require_complete()
    return model


def _stuff_of(dataset: str) -> list[str]:
    return list(MetadataCatalog.get(dataset).get("stuff_classes", ()))


def _colours(count: int) -> list[list[int]]:
    """``count`` RGB colours; the first, which often is the background, is grey."""
    palette = colormap(rgb=True, maximum=255).tolist()
    return [[128, 128, 128], *(palette[i % len(palette)] for i in range(count - 1))][:count]


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two pictures side by side, with a white line between them."""
    height = max(left.shape[0], right.shape[0])
    padded = [
        cv2.copyMakeBorder(
            one, 0, height - one.shape[0], 0, 8, cv2.BORDER_CONSTANT, value=(255, 255, 255)
        )
        for one in (left, right)
    ]
    return np.concatenate(padded, axis=1)
