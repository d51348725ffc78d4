"""A trained detector on single pictures: detections, as objects, as JSON and drawn.

Legend: H, W the picture in pixels; pictures are (H, W, 3) uint8 in BGR order, as in OpenCV.
"""

from __future__ import annotations

import cv2
import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils.visualizer import Visualizer
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.checkpoint import Checkpointer
from swinv2_backbone.d2.data.custom import class_names

LINE_HEIGHT = 400  # pixels; a smaller picture is enlarged before it is drawn on


class Predictor:
    """The detector that ``cfg`` describes, with the weights ``cfg.MODEL.WEIGHTS``.

    Args:
        cfg: a config from :func:`swinv2_backbone.d2.config.load_config`.
        confidence: detections with a lower score are left out.

    Attributes:
        classes: the names of the classes, in the order of the model's outputs.

    Raises:
        ValueError: there are no weights, they do not fit, or the class names are not known.
    """

    def __init__(self, cfg: CfgNode, confidence: float = 0.5):
        if not cfg.MODEL.WEIGHTS:
            raise ValueError("MODEL.WEIGHTS is empty: add MODEL.WEIGHTS output/model_final.pth")
        self.classes = class_names(cfg)
        self.confidence = confidence
        self.model = build_model(cfg).eval()
        checkpointer = Checkpointer(self.model)
        checkpointer.load(cfg.MODEL.WEIGHTS, checkpointables=[])
        checkpointer.require_complete()
        self.format = cfg.INPUT.FORMAT
        self.resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> Instances:
        """(H, W, 3) BGR -> detections on the CPU, in the picture's own pixels."""
        height, width = picture.shape[:2]
        pixels = picture[:, :, ::-1] if self.format == "RGB" else picture
        pixels = self.resize.get_transform(pixels).apply_image(pixels)
        pixels = torch.as_tensor(pixels.astype("float32").transpose(2, 0, 1))
        output = self.model([{"image": pixels, "height": height, "width": width}])[0]
        found = output["instances"].to("cpu")
        return found[found.scores >= self.confidence]

    def records(self, found: Instances) -> list[dict]:
        """Detections as plain data: category, score, bbox (x, y, w, h), segmentation (RLE)."""
        records = []
        for index, (x0, y0, x1, y1) in enumerate(found.pred_boxes.tensor.tolist()):
            record = {
                "category": self.classes[int(found.pred_classes[index])],
                "score": float(found.scores[index]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            if found.has("pred_masks"):
                rle = coco_mask.encode(np.asfortranarray(found.pred_masks[index].numpy(), np.uint8))
                record["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
            records.append(record)
        return records

    def draw(self, picture: np.ndarray, found: Instances) -> np.ndarray:
        """The picture, enlarged if it is small, with boxes, masks, class names and scores."""
        canvas = _canvas(picture, self.classes)
        return canvas.draw_instance_predictions(found).get_image()[:, :, ::-1]

    def draw_truth(self, picture: np.ndarray, image: dict) -> np.ndarray:
        """The same with the annotations of an image of a Detectron2 dataset."""
        return _canvas(picture, self.classes).draw_dataset_dict(image).get_image()[:, :, ::-1]


def _canvas(picture: np.ndarray, classes: list[str]) -> Visualizer:
    scale = max(LINE_HEIGHT / picture.shape[0], 1.0)
    # Without a name a Metadata belongs to no catalog, so that nothing is registered.
    return Visualizer(picture[:, :, ::-1], Metadata(thing_classes=classes), scale=scale)


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
