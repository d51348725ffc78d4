"""The exportable form of a backbone or a classifier, which takes pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.export.check import Align, as_found
from swinv2_backbone.export.formats import FORMATS, Format, Run
from swinv2_backbone.export.graph import FromPixels, GraphBackbone, GraphClassifier
from swinv2_backbone.variants import PIXEL_MEAN, PIXEL_STD


@dataclass(frozen=True)
class Exportable:
    """The exportable form of a model, with the outputs that its file must have.

    Attributes:
        model: (B, C_in, H, W), pixels -> outputs by name.
        expected: the same, computed by the original model.
        backbone: the original backbone, with its windows and pretrained windows.
        image_format: "RGB" or "BGR", the order of the channels; "BANDS": all in stored order.
        mean, std: the numbers that normalize pixels, stored in the file.
        outputs: a description of each output.
        format_of: returns the format with a name; raises ValueError if it cannot hold the model.
        one_image: True if the model takes one image at a time.
        align: see :func:`compare`.
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
    align: Align = as_found


def exportable_model(
    model: SwinV2 | SwinV2Classifier,
    image_format: str = "RGB",
    mean: Sequence[float] = PIXEL_MEAN,
    std: Sequence[float] = PIXEL_STD,
) -> Exportable:
    """Return the exportable form of a model.

    Args:
        image_format, mean, std: see :class:`Exportable`; default: those of published weights.

    Raises:
        ValueError: the model takes another number of channels, or see :class:`GraphBackbone`.
    """
    model = model.eval()
    graph: nn.Module
    if isinstance(model, SwinV2Classifier):
        backbone, graph = model.backbone, GraphClassifier(model)
        outputs = {"logits": f"(batch, {model.head.out_features}), before the softmax"}
    else:
        backbone, graph, outputs = model, GraphBackbone(model), feature_outputs(model)
    if not backbone.in_channels == len(mean) == len(std):
        raise ValueError(
            f"the model takes {backbone.in_channels} channels or bands, but there are {len(mean)} "
            f"means and {len(std)} standard deviations"
        )
    means, stds = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (mean, std))

    def run(images: Tensor) -> dict[str, Tensor]:
        found = model((images - means) / stds)
        return {"logits": found} if isinstance(found, Tensor) else found

    pixels = FromPixels(graph, mean, std)
    return Exportable(pixels, run, backbone, image_format, mean, std, outputs)


def feature_outputs(backbone: SwinV2) -> dict[str, str]:
    """Describe the features of a backbone."""
    return {
        name: f"(batch, {channels}, ceil(height / {stride}), ceil(width / {stride}))"
        for (name, channels), stride in zip(backbone.channels.items(), backbone.strides.values())
    }
