"""The ImageNet classifier, whose logits show that a checkpoint was read correctly."""

from __future__ import annotations

from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2


class SwinV2Classifier(nn.Module):
    """A linear classifier on the mean of the last feature map.

    Args:
        backbone: backbone, whose last output is classified, whichever stage it comes from.
        num_classes: 1000 for ImageNet-1k, 21841 for ImageNet-21k.

    Raises:
        ValueError: ``num_classes`` is less than 1.
    """

    def __init__(self, backbone: SwinV2, num_classes: int):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more, got {num_classes}")
        self.backbone = backbone
        self.head = nn.Linear(backbone.channels[backbone.out_features[-1]], num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C_in, H, W) -> logits (B, num_classes)."""
        return self.head(self.extract_features(images))

    def extract_features(self, images: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C), the mean of the last feature map, the input of the head.

        The maps themselves are ``model.backbone(images)``.
        """
        return self.backbone(images)[self.backbone.out_features[-1]].mean(dim=(2, 3))
