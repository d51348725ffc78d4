"""What can be exported of the core: a backbone or a classifier, with its way from pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.export.formats import FORMATS, Format, Run
from swinv2_backbone.export.graph import FromPixels, GraphBackbone, GraphClassifier

# Of ImageNet, in RGB and pixels from 0 to 255: what published weights were trained with.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Exportable:
    """A model in the form to be exported, and what its file must give.

    Attributes:
        model: (B, C_in, H, W), pixels -> outputs by name.
        expected: the same by the model as users run it.
        backbone: which has windows and their normaliser.
        image_format: "RGB" or "BGR", the order of the channels.
        mean, std: which normalise the pixels, inside the file.
        outputs: what each output is, in words.
        format_of: the name of a format -> the format; raises ValueError if the model cannot have
            it.
        one_image: a batch is always of one image.
    """

    model: nn.Module
    expected: Run
    backbone: SwinV2
    image_format: str
    mean: Sequence[float]
    std: Sequence[float]
    outputs: dict[str, str]
    format_of: Callable[[str], Format] = FORMATS.__getitem__
    one_image: bool = False


def exportable(model: SwinV2 | SwinV2Classifier) -> Exportable:
    """A model with published weights, or in their place weights that were trained alike.

    Raises:
        ValueError: the images are not RGB, or see :class:`GraphBackbone`.
    """
    model = model.eval()
    if isinstance(model, SwinV2Classifier):
        graph, backbone = GraphClassifier(model), model.backbone
        outputs = {"logits": f"(batch, {model.head.out_features}), before the softmax"}
    else:
        graph, backbone, outputs = GraphBackbone(model), model, feature_outputs(model)
    if backbone.in_channels != len(MEAN):
        raise ValueError(
            f"the mean of ImageNet is for RGB, not for {backbone.in_channels} channels"
        )
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (MEAN, STD))

    def run(images: Tensor) -> dict[str, Tensor]:
        found = model((images - mean) / std)
        return {"logits": found} if isinstance(found, Tensor) else found

    return Exportable(FromPixels(graph, MEAN, STD), run, backbone, "RGB", MEAN, STD, outputs)


def feature_outputs(backbone: SwinV2) -> dict[str, str]:
    """The features of a backbone in words."""
    return {
        name: f"(batch, {channels}, ceil(height / {stride}), ceil(width / {stride}))"
        for (name, channels), stride in zip(backbone.channels.items(), backbone.strides.values())
    }
