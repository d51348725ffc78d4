"""An exported file as a model with Detectron2's input and output, for its evaluators.

Legend: n detections; K classes; H, W the image that the file takes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from detectron2.layers import paste_masks_in_image
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from swinv2_backbone.export.fitting import fit
from swinv2_backbone.export.formats import Run
from swinv2_backbone.export.opened import open_exported
from swinv2_backbone.packing import Size

EVALUATED = ("detector", "semantic")  # values of --what


class ExportedModel(nn.Module):
    """A file with detections or logits, run on one image at a time.

    Args:
        run: pixels (B, C_in, H, W) -> outputs by name.
        mean: one number per channel, with which images are padded to ``size``.
        size: the only height and width that the file takes; None: it takes all.
        batch: the number of images that it takes.
    """

    def __init__(
        self, run: Run, mean: Sequence[float], size: Size | None = None, batch: int | None = None
    ):
        super().__init__()
        self.run, self.mean, self.size, self.batch = run, mean, size, batch or 1

    def forward(self, inputs: list[dict]) -> list[dict]:
        """Detectron2's inputs -> its outputs, at the images' own heights and widths."""
        return [self._one(one) for one in inputs]

    def _one(self, one: dict) -> dict:
        image: Tensor = one["image"].float()
        size: Size = (image.shape[1], image.shape[2])
        if self.size:
            image, size = fit(image, self.size, self.mean)
        outputs = self.run(image.expand(self.batch, *image.shape).contiguous())
        height, width = one.get("height", size[0]), one.get("width", size[1])
        if "logits" in outputs:
            return {"sem_seg": sem_seg_postprocess(outputs["logits"][0], size, height, width)}
        return {"instances": _instances(outputs, size, (height, width))}


def load_exported(path: Path, image_format: str) -> ExportedModel:
    """Open an exported detector or segmentor.

    Args:
        image_format: the order of the channels, "RGB", "BGR" or "BANDS", of the images.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind of model or takes another format of images.
    """
    run, notes = open_exported(path)
    what = notes.get("what", "a model")
    if what not in EVALUATED:
        raise ValueError(
            f"{path} is {what}: only files of --what {' or '.join(EVALUATED)} can be evaluated"
        )
    if f", {image_format}," not in notes["input"]:
        raise ValueError(
            f"{path} takes {notes['input']}, but the config reads {image_format} images"
        )
    height, _, width = notes.get("size", "").partition("x")
    size = (int(height), int(width)) if width else None
    batch = int(notes["batch"]) if "batch" in notes else None
    return ExportedModel(run, json.loads(notes["mean"]), size, batch)


def _instances(outputs: dict[str, Tensor], size: Size, original: Size) -> Instances:
    """Return detections at the original size of an image that has another size in the file.

    Boxes may reach into the padding.  Each mask belongs to the whole box, so that boxes are clipped
    after the masks are pasted; Detectron2's ``detector_postprocess`` would clip them before.
    """
    height, width = original
    boxes = Boxes(outputs["boxes"].clone())
    boxes.scale(width / size[1], height / size[0])
    clipped = boxes.clone()
    clipped.clip(original)
    keep = clipped.nonempty()
    found = Instances(
        original,
        pred_boxes=clipped[keep],
        scores=outputs["scores"][keep],
        pred_classes=outputs["classes"][keep],
    )
    if "masks" in outputs:
        found.pred_masks = paste_masks_in_image(outputs["masks"][keep], boxes[keep], original)
    return found
