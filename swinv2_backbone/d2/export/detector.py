"""A whole Faster, Mask or Cascade R-CNN as an ONNX file.

The number of detections depends on the image.  torch.export requires such numbers to be declared,
which Detectron2's code does not do.  PyTorch's older tracer records the operators for one image at
a time, and Detectron2 supports it.

Legend: n detections; K classes; H, W the image.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.modeling.roi_heads import fast_rcnn, mask_head
from detectron2.structures import ImageList, Instances
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from swinv2_backbone.export.check import LIMIT
from swinv2_backbone.export.fixed import fix_shape
from swinv2_backbone.export.formats import FORMATS, INPUT, Format, Notes, Options, output_names
from swinv2_backbone.export.formats.openvino import Write, write_openvino

TRACED_OPSET = 20  # the newest that PyTorch's tracer writes
ONLY_ONNX = (
    "torch.export cannot trace a detector: Detectron2's proposals (find_top_rpn_proposals) and "
    "heads branch in Python on values, and the number of boxes depends on the image.  Use "
    "--format onnx or openvino, or --what backbone+fpn"
)


class GraphDetector(nn.Module):
    """A normalized image (1, C_in, H, W) -> boxes, scores, classes and, with a mask head, masks.

    Args:
        backbone: a backbone for images that are not padded.
        detector: the original model, whose proposal generator and heads are shared.
    """

    def __init__(self, backbone: nn.Module, detector: GeneralizedRCNN):
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = detector.proposal_generator
        self.roi_heads = detector.roi_heads

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        size = torch.stack([torch.as_tensor(length) for length in images.shape[-2:]])
        listed, features = ImageList(images, [size]), self.backbone(images)
        with _lengths_as_tensors(), _nms_of_any_number():
            proposals, _ = self.proposal_generator(listed, features, None)
            (found,), _ = self.roi_heads(listed, features, proposals, None)
        return _outputs(found)


def detect(model: GeneralizedRCNN, images: Tensor) -> dict[str, Tensor]:
    """Run the original detector on one image (1, C_in, H, W); boxes are in pixels of the input."""
    (found,) = model.inference([{"image": images[0]}], do_postprocess=False)
    return _outputs(found)


def align_ties(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return detections in the expected order, where equal scores (up to LIMIT) have swapped.

    The scores themselves keep their places.
    """
    boxes, others = found["boxes"], expected["boxes"]
    if boxes.shape != others.shape or found["classes"].shape != expected["classes"].shape:
        return found
    distance = torch.cdist(others.double(), boxes.double(), p=float("inf"))
    distance += 1e6 * (expected["classes"][:, None] != found["classes"])
    tied = (expected["scores"][:, None] - found["scores"]).abs() <= LIMIT
    _, order = linear_sum_assignment(torch.where(tied, distance, 1e12).nan_to_num(1e12))
    if not tied[range(len(order)), order].all():
        return found
    return {
        name: value if name == "scores" else value[torch.from_numpy(order)]
        for name, value in found.items()
    }


def detector_outputs(model: GeneralizedRCNN) -> dict[str, str]:
    """Describe the outputs of a detector."""
    found = {
        "boxes": "(n, 4) x0, y0, x1, y1 in pixels of the input",
        "scores": "(n,) from high to low",
        "classes": "(n,) int64, from 0",
    }
    if model.roi_heads.mask_on:
        found["masks"] = "(n, M, M) probabilities within the box, to be resized to it"
    return found


def check_detector(model: nn.Module) -> None:
    """Raise ValueError for a detector that cannot be exported."""
    kind = type(model).__name__
    if not isinstance(model, GeneralizedRCNN) or isinstance(model, PanopticFPN):
        raise ValueError(
            f"--what detector is for Faster, Mask and Cascade R-CNN; a {kind} combines its results "
            "in Python: use --what backbone+fpn"
        )
    if model.proposal_generator is None or model.roi_heads.keypoint_on:
        raise ValueError(
            "detectors with keypoints or with proposals from files cannot be exported whole: use "
            "--what backbone+fpn"
        )


def detector_format(name: str) -> Format:
    """Return a format whose ONNX file is written by PyTorch's tracer.

    Raises:
        ValueError: the format is neither "onnx" nor "openvino".
    """
    writers: dict[str, Write] = {
        "onnx": _write_traced,
        "openvino": partial(write_openvino, write=_write_traced),
    }
    if name not in writers:
        raise ValueError(f"--format {name}: {ONLY_ONNX}")
    return FORMATS[name]._replace(write=writers[name])


def _write_traced(
    model: nn.Module, images: Tensor, path: Path, notes: Notes, options: Options
) -> None:
    import onnx

    with torch.no_grad(), warnings.catch_warnings():
        # The warnings are about Python control flow, which depends only on the image or its shape.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Tuple(fix_shape(model, images) if options.fixed else model).eval(),
            (images,),
            path,
            dynamo=False,
            opset_version=options.opset or TRACED_OPSET,
            input_names=[INPUT],
            output_names=output_names(model, images),
            dynamic_axes=None if options.fixed else {INPUT: {2: "height", 3: "width"}},
        )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, dict(notes))
    onnx.save(written, path)
    onnx.checker.check_model(path, full_check=True)


class _Tuple(nn.Module):
    """A model with its outputs as a tuple, because the tracer accepts no dict."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(images).values())


def _outputs(found: Instances) -> dict[str, Tensor]:
    outputs = {
        "boxes": found.pred_boxes.tensor,
        "scores": found.scores,
        "classes": found.pred_classes,
    }
    return outputs | ({"masks": found.pred_masks[:, 0]} if found.has("pred_masks") else {})


@contextlib.contextmanager
def _nms_of_any_number() -> Iterator[None]:
    """Give the suppression of Detectron2's heads one more box, of the lowest score, and drop it.

    OpenVINO returns one detection, with numbers from elsewhere, if there is no box to suppress.
    """
    original = fast_rcnn.batched_nms

    def suppress(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
        boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
        scores = torch.cat([scores, scores.new_full((1,), -1.0)])
        classes = torch.cat([classes, classes.new_zeros(1)])
        return original(boxes, scores, classes, threshold)[:-1]

    fast_rcnn.batched_nms = suppress
    try:
        yield
    finally:
        fast_rcnn.batched_nms = original


@contextlib.contextmanager
def _lengths_as_tensors() -> Iterator[None]:
    """Trace ``len`` of boxes as a tensor where Detectron2's heads split results by image.

    (``detectron2.export`` has the same, but cannot be imported in version 0.6 without Caffe2.)
    """
    modules = (fast_rcnn, mask_head)
    for module in modules:
        module.len = lambda several: several.__len__()
    try:
        yield
    finally:
        for module in modules:
            del module.len
