"""A whole Faster, Mask or Cascade R-CNN as a file of ONNX.

What it finds is of a number that only the image decides: boxes are chosen by value, level by level.
PyTorch's exporter wants such numbers declared, which Detectron2's code does not do, while its older
tracer records the operators one by one, for one image at a time, and Detectron2 is written for it.

Legend: n detections; K classes; H, W the image.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.modeling.roi_heads import fast_rcnn, mask_head
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from swinv2_backbone.export.formats import FORMATS, INPUT, Format, Notes, output_names

TRACED_OPSET = 20  # the newest that PyTorch's tracer writes
WHY_ONNX_ALONE = (
    "torch.export cannot trace a detector: Detectron2's proposals (find_top_rpn_proposals) and "
    "heads branch in Python on values, and how many boxes there are depends on the image.  Take "
    "--format onnx, or --what backbone+fpn"
)


class GraphDetector(nn.Module):
    """(1, C_in, H, W), normalised -> boxes, scores, classes and, if there are any, masks.

    Args:
        backbone: for images that are not padded.
        detector: whose proposals and heads are shared.
    """

    def __init__(self, backbone: nn.Module, detector: GeneralizedRCNN):
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = detector.proposal_generator
        self.roi_heads = detector.roi_heads

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        size = torch.stack([torch.as_tensor(length) for length in images.shape[-2:]])
        listed, features = ImageList(images, [size]), self.backbone(images)
        with _lengths_as_tensors():
            proposals, _ = self.proposal_generator(listed, features, None)
            (found,), _ = self.roi_heads(listed, features, proposals, None)
        return _outputs(found)


def detect(model: GeneralizedRCNN, images: Tensor) -> dict[str, Tensor]:
    """What the detector itself finds in one image (1, C_in, H, W), in the image's own pixels."""
    (found,) = model.inference([{"image": images[0]}], do_postprocess=False)
    return _outputs(found)


def detector_outputs(model: GeneralizedRCNN) -> dict[str, str]:
    """The outputs in words."""
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
            f"--what detector is for Faster, Mask and Cascade R-CNN; how a {kind} puts its results "
            "together is Python: take --what backbone+fpn"
        )
    if model.proposal_generator is None or model.roi_heads.keypoint_on:
        raise ValueError(
            "detectors with keypoints or with proposals from files cannot be exported whole: take "
            "--what backbone+fpn"
        )


def detector_format(name: str) -> Format:
    """ONNX by the tracer.

    Raises:
        ValueError: for any other format.
    """
    if name != "onnx":
        raise ValueError(f"--format {name}: {WHY_ONNX_ALONE}")
    return FORMATS["onnx"]._replace(write=_write_traced)


def _write_traced(model: nn.Module, images: Tensor, path: Path, notes: Notes) -> None:
    import onnx

    with torch.no_grad(), warnings.catch_warnings():
        # That Python decided something: always about the one image, or checks of its shape.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Tuple(model).eval(),  # the mode that it leaves the model in
            (images,),
            path,
            dynamo=False,
            opset_version=TRACED_OPSET,
            input_names=[INPUT],
            output_names=output_names(model, images),
            dynamic_axes={INPUT: {2: "height", 3: "width"}},
        )
    written = onnx.load(path)
    onnx.helper.set_model_props(written, dict(notes))
    onnx.save(written, path)
    onnx.checker.check_model(path, full_check=True)


class _Tuple(nn.Module):
    """The tracer knows tuples alone."""

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
def _lengths_as_tensors() -> Iterator[None]:
    """``len`` of boxes is a tensor to be traced where Detectron2's heads divide by image.

    (Detectron2 does it in ``detectron2.export``, which version 0.6 cannot import without Caffe2.)
    """
    modules = (fast_rcnn, mask_head)
    for module in modules:
        module.len = lambda several: several.__len__()
    try:
        yield
    finally:
        for module in modules:
            del module.len
