"""UPerNet, the paper's head for semantic segmentation, as a Detectron2 ``sem_seg_head``.

Pyramid pooling over the coarsest feature, a top-down pathway, and the fusion of all levels (Xiao et
al. 2018, "Unified Perceptual Parsing for Scene Understanding"; with the pooling scales, widths and
auxiliary head that the Swin papers train on ADE20K).

Legend: B images, K classes, D channels of the head; H, W are those of the finest feature, or of
the labels, h, w those of any feature.
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

from swinv2_backbone.windows import Size


class PyramidPooling(nn.Module):
    """The coarsest feature together with its averages over ever coarser grids.

    (B, C, h, w) -> (B, D, h, w), for grids of ``scales`` x ``scales`` cells.
    """

    def __init__(self, in_channels: int, channels: int, scales: Sequence[int], norm: str):
        super().__init__()
        self.scales = tuple(scales)
        self.convs = nn.ModuleList(_conv(in_channels, channels, 1, norm) for _ in scales)
        self.bottleneck = _conv(in_channels + len(scales) * channels, channels, 3, norm)

    def forward(self, feature: Tensor) -> Tensor:
        pooled = [
            _resize(conv(F.adaptive_avg_pool2d(feature, scale)), feature.shape[-2:])
            for scale, conv in zip(self.scales, self.convs, strict=True)
        ]
        return self.bottleneck(torch.cat([feature, *pooled], dim=1))


class AuxiliaryHead(nn.Sequential):
    """A small fully convolutional classifier on one feature, for training alone."""

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
    """Class logits of every pixel from a backbone's features.

    In a config: ``MODEL.META_ARCHITECTURE SemanticSegmentor``, ``MODEL.SEM_SEG_HEAD.NAME
    UPerNetHead`` with that node's ``IN_FEATURES``, ``NUM_CLASSES``, ``CONVS_DIM``, ``NORM``,
    ``LOSS_WEIGHT`` and ``IGNORE_VALUE``, and ``MODEL.UPERNET``.

    Args:
        input_shape: the features to use, and their channels and strides.
        num_classes: K.
        channels: D, of every convolution.
        norm: as Detectron2's ``get_norm`` takes it: "SyncBN" on several GPUs, else "GN".
        pool_scales: grids of the pyramid pooling.
        dropout: share of channels dropped before a classifier, in training.
        ignore_value: of labels that count in no loss.
        loss_weight, aux_loss_weight: of the two cross entropies.
        aux_in_feature: what the auxiliary head works on; None for no auxiliary head.
        aux_channels: its channels.

    Raises:
        ValueError: a feature is missing.
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
                f"group norm of 32 groups needs at least 64 channels, as one cell of the pooling "
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
                f"{cfg.MODEL.BACKBONE.NAME} gives {', '.join(input_shape)}"
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
        """In training (None, losses), else (logits, {}).

        Args:
            features: those of ``input_shape``, and others, which are left alone.
            targets: (B, H, W) class numbers at the resolution of the images.

        Returns:
            Logits (B, K, H', W') at the resolution of the images: the finest feature's size times
            its stride, so up to stride - 1 pixels larger than an image whose sides its stride does
            not divide; the same place in both is the same pixel.
        """
        if self.training:
            self._check_batch(len(features[self.top]))
        logits = self.predictor(self.dropout(self.fuse(features)))
        if self.training:
            return None, self.losses(logits, features, targets)
        return _upsample(logits, min(self.strides.values())), {}

    def _check_batch(self, images: int) -> None:
        """Raise ValueError for one image alone, of which 1 x 1 pooling leaves one value to norm."""
        together = images * (comm.get_world_size() if self.norm == "SyncBN" else 1)
        if together == 1 and self.norm in ("BN", "SyncBN"):
            raise ValueError(
                f"{self.norm} cannot learn from one image at a time: give the model more at once "
                "(SOLVER.IMS_PER_BATCH, SOLVER.ACCUMULATE), or set MODEL.SEM_SEG_HEAD.NORM GN"
            )

    def fuse(self, features: dict[str, Tensor]) -> Tensor:
        """Features -> (B, D, H, W) at the finest of them."""
        level = self.pooling(features[self.top])
        levels = [level]
        for name in reversed(self.laterals.keys()):  # from coarse to fine
            lateral = self.laterals[name](features[name])
            level = lateral + _resize(level, lateral.shape[-2:])
            levels.append(self.outputs[name](level))
        finest = levels[-1].shape[-2:]
        return self.fusion(torch.cat([_resize(one, finest) for one in reversed(levels)], dim=1))

    def losses(
        self, logits: Tensor, features: dict[str, Tensor], targets: Tensor
    ) -> dict[str, Tensor]:
        """The weighted cross entropies of the classifier and of the auxiliary one."""
        main = self._cross_entropy(logits, targets, min(self.strides.values()))
        losses = {"loss_sem_seg": main * self.loss_weight}
        if self.aux_in_feature:
            logits = self.auxiliary(features[self.aux_in_feature])
            aux = self._cross_entropy(logits, targets, self.strides[self.aux_in_feature])
            losses["loss_sem_seg_aux"] = aux * self.aux_loss_weight
        return losses

    def _cross_entropy(self, logits: Tensor, targets: Tensor, stride: int) -> Tensor:
        """The mean over the labelled pixels; 0 if there are none."""
        height, width = targets.shape[-2:]
        # In float32 also under autocast, and cut to the labels: logits may be wider than the image.
        logits = _upsample(logits.float(), stride)[..., :height, :width]
        total = F.cross_entropy(logits, targets, ignore_index=self.ignore_value, reduction="sum")
        return total / (targets != self.ignore_value).sum().clamp(min=1)


def _conv(in_channels: int, channels: int, kernel_size: int, norm: str) -> Conv2d:
    """Convolution of the same size out as in, norm, ReLU."""
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
    nn.init.zeros_(predictor.bias)
    return predictor


def _resize(feature: Tensor, size: Size) -> Tensor:
    return F.interpolate(feature, tuple(size), mode="bilinear", align_corners=False)


def _upsample(logits: Tensor, stride: int) -> Tensor:
    return F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
