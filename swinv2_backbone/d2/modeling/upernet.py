"""UPerNet, the paper's head for semantic segmentation, as a Detectron2 ``sem_seg_head``.

Pyramid pooling over the coarsest feature, a top-down pathway, and the fusion of all levels (Xiao et
al. 2018, "Unified Perceptual Parsing for Scene Understanding"), with the pooling scales, widths and
auxiliary head of the Swin papers' ADE20K models.

Legend: B images, K classes, D channels of the head; H, W of the finest feature or of the labels;
h, w of any feature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.utils import comm
from torch import Tensor, nn


class PyramidPooling(nn.Module):
    """The fusion of the coarsest feature with its averages over grids of several scales.

    (B, C, h, w) -> (B, D, h, w), for grids of ``scale`` x ``scale`` cells.
    """

    def __init__(self, in_channels: int, channels: int, scales: Sequence[int], norm: str):
        super().__init__()
        self.scales = tuple(scales)
        self.convs = nn.ModuleList(_conv(in_channels, channels, 1, norm) for _ in scales)
        self.bottleneck = _conv(in_channels + len(scales) * channels, channels, 3, norm)

    def forward(self, feature: Tensor) -> Tensor:
        pooled = [
            _resize_like(conv(F.adaptive_avg_pool2d(feature, scale)), feature)
            for scale, conv in zip(self.scales, self.convs, strict=True)
        ]
        return self.bottleneck(torch.cat([feature, *pooled], dim=1))


class AuxiliaryHead(nn.Sequential):
    """A small fully convolutional classifier on one feature, used in training only."""

    def __init__(
        self, in_channels: int, channels: int, num_classes: int, norm: str, dropout: float
    ):
        super().__init__(
            _conv(in_channels, channels, 3, norm),
            nn.Dropout2d(dropout),
            _predictor(channels, num_classes),
        )


@SEM_SEG_HEADS_REGISTRY.register()
class UPerNetHead(nn.Module):
    """A head that predicts the class logits of every pixel from a backbone's features.

    In a config, set ``MODEL.META_ARCHITECTURE SemanticSegmentor`` and ``MODEL.SEM_SEG_HEAD.NAME
    UPerNetHead``.  The head reads that node's ``IN_FEATURES``, ``NUM_CLASSES``, ``CONVS_DIM``,
    ``NORM``, ``LOSS_WEIGHT`` and ``IGNORE_VALUE``, and ``MODEL.UPERNET``.

    Args:
        input_shape: channels and strides of the features to use, by name.
        num_classes: K.
        channels: D, the channels of every convolution.
        norm: a name for Detectron2's ``get_norm``: "SyncBN" on several GPUs, otherwise "GN".
        pool_scales: scales of the pyramid pooling.
        dropout: probability of dropping a channel before a classifier, in training.
        ignore_value: label of the pixels that the losses ignore.
        loss_weight, aux_loss_weight: weights of the two cross entropies.
        aux_in_feature: input feature of the auxiliary head; None for no auxiliary head.
        aux_channels: channels of the auxiliary head.

    Raises:
        ValueError: a feature is missing, or the norm does not fit the channels.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        channels: int = 512,
        norm: str = "SyncBN",
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        aux_in_feature: str | None = "res4",
        aux_channels: int = 256,
        aux_loss_weight: float = 0.4,
    ):
        super().__init__()
        if norm == "GN" and channels < 64:
            raise ValueError(
                "group norm of 32 groups needs at least 64 channels, because a cell of the pooling "
                f"has one value per channel: MODEL.SEM_SEG_HEAD.CONVS_DIM is {channels}"
            )
        if len(input_shape) < 2:
            raise ValueError(f"UPerNet needs at least two features, got {list(input_shape)}")
        if aux_in_feature and aux_in_feature not in input_shape:
            raise ValueError(
                f"the auxiliary head's feature {aux_in_feature!r} (MODEL.UPERNET.AUX_IN_FEATURE) "
                f"is not among MODEL.SEM_SEG_HEAD.IN_FEATURES {list(input_shape)}"
            )
        finest_first = sorted(input_shape.items(), key=lambda item: item[1].stride)
        *lower, (self.top, top_shape) = finest_first
        self.strides = {name: shape.stride for name, shape in finest_first}
        self.norm = norm
        self.ignore_value, self.loss_weight = ignore_value, loss_weight
        self.aux_in_feature, self.aux_loss_weight = aux_in_feature, aux_loss_weight

        self.pooling = PyramidPooling(top_shape.channels, channels, pool_scales, norm)
        self.laterals = nn.ModuleDict(
            {name: _conv(shape.channels, channels, 1, norm) for name, shape in lower}
        )
        self.outputs = nn.ModuleDict(
            {name: _conv(channels, channels, 3, norm) for name, _ in lower}
        )
        self.fusion = _conv(len(finest_first) * channels, channels, 3, norm)
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = _predictor(channels, num_classes)
        if aux_in_feature:
            self.auxiliary = AuxiliaryHead(
                input_shape[aux_in_feature].channels, aux_channels, num_classes, norm, dropout
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        node, own = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.UPERNET
        absent = [name for name in node.IN_FEATURES if name not in input_shape]
        if absent:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES {', '.join(absent)}: the backbone "
                f"{cfg.MODEL.BACKBONE.NAME} returns {', '.join(input_shape)}"
            )
        return {
            "input_shape": {name: input_shape[name] for name in node.IN_FEATURES},
            "num_classes": node.NUM_CLASSES,
            "channels": node.CONVS_DIM,
            "norm": node.NORM,
            "pool_scales": own.POOL_SCALES,
            "dropout": own.DROPOUT,
            "ignore_value": node.IGNORE_VALUE,
            "loss_weight": node.LOSS_WEIGHT,
            "aux_in_feature": own.AUX_IN_FEATURE,
            "aux_channels": own.AUX_CONVS_DIM,
            "aux_loss_weight": own.AUX_LOSS_WEIGHT,
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return (None, losses) in training, otherwise (logits, {}).

        Args:
            features: the features of ``input_shape``; others are ignored.
            targets: (B, H, W) class indices at the resolution of the images; only in training.

        Returns:
            Logits (B, K, H', W') at the resolution of the images.  H' and W' are the finest
            feature's size times its stride; they exceed the image by up to stride - 1 pixels at the
            bottom and right.
        """
        if not self.training:
            return _upsample(self._logits(features), min(self.strides.values())), {}
        self._check_batch(len(features[self.top]))
        if targets is None:
            raise ValueError("UPerNetHead needs targets in training")
        return None, self.losses(self._logits(features), features, targets)

    def _logits(self, features: dict[str, Tensor]) -> Tensor:
        """Features -> (B, K, H, W)."""
        return self.predictor(self.dropout(self.fuse(features)))

    def _check_batch(self, images: int) -> None:
        """Raise ValueError for one image, whose 1 x 1 pooling batch norm cannot normalize."""
        together = images * (comm.get_world_size() if self.norm == "SyncBN" else 1)
        if together == 1 and self.norm in ("BN", "SyncBN"):
            raise ValueError(
                f"{self.norm} cannot train on one image at a time: give the model more at once "
                "(SOLVER.IMS_PER_BATCH, SOLVER.ACCUMULATE), or set MODEL.SEM_SEG_HEAD.NORM GN"
            )

    def fuse(self, features: dict[str, Tensor]) -> Tensor:
        """Features -> (B, D, H, W) at the finest resolution."""
        level = self.pooling(features[self.top])
        levels = [level]
        for name in reversed([*self.laterals.keys()]):  # from coarse to fine
            lateral = self.laterals[name](features[name])
            level = lateral + _resize_like(level, lateral)
            levels.append(self.outputs[name](level))
        resized = [_resize_like(one, levels[-1]) for one in reversed(levels)]
        return self.fusion(torch.cat(resized, dim=1))

    def losses(
        self, logits: Tensor, features: dict[str, Tensor], targets: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted cross entropies of the classifier and the auxiliary classifier."""
        main = self._cross_entropy(logits, targets, min(self.strides.values()))
        losses = {"loss_sem_seg": main * self.loss_weight}
        if self.aux_in_feature:
            logits = self.auxiliary(features[self.aux_in_feature])
            aux = self._cross_entropy(logits, targets, self.strides[self.aux_in_feature])
            losses["loss_sem_seg_aux"] = aux * self.aux_loss_weight
        return losses

    def _cross_entropy(self, logits: Tensor, targets: Tensor, stride: int) -> Tensor:
        """Return the mean over the labeled pixels; 0 if there are none."""
        height, width = targets.shape[-2:]
        # In float32 also under autocast; cropped, because logits may exceed the image.
        logits = _upsample(logits.float(), stride)[..., :height, :width]
        total = F.cross_entropy(logits, targets, ignore_index=self.ignore_value, reduction="sum")
        return total / (targets != self.ignore_value).sum().clamp(min=1)


def _conv(in_channels: int, channels: int, kernel_size: int, norm: str) -> Conv2d:
    """Return a convolution that keeps the size, with norm and ReLU."""
    conv = Conv2d(
        in_channels,
        channels,
        kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, channels),
        activation=F.relu,
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _predictor(channels: int, num_classes: int) -> nn.Conv2d:
    predictor = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(predictor.weight, std=0.01)
    assert predictor.bias is not None
    nn.init.zeros_(predictor.bias)
    return predictor


def _resize_like(feature: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(feature, other.shape[-2:], mode="bilinear", align_corners=False)


def _upsample(logits: Tensor, stride: int) -> Tensor:
    return F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
