"""A set of masks with classes for objects, semantic classes or panoptic segments.

Mask2Former (Cheng et al. 2022) on the features of a SwinV2: a pixel decoder, a transformer decoder
with masked attention, and losses on matched masks.

Legend: B images, Q queries, K classes; H, W of an image; h, w of the predicted masks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.structures import BitMasks, ImageList, Instances
from torch import Tensor, nn

from swinv2_backbone.d2.modeling.image_sizes import attach_sizes
from swinv2_backbone.d2.modeling.mask_transformer.criterion import Criterion, Target
from swinv2_backbone.d2.modeling.mask_transformer.decoder import MaskedAttentionDecoder
from swinv2_backbone.d2.modeling.mask_transformer.pixel_decoder import NORM_GROUPS, PixelDecoder

TASKS = ("instance", "semantic")


@META_ARCH_REGISTRY.register()
class MaskTransformer(nn.Module):
    """A meta-architecture that predicts masks by masked attention.

    In a config, set ``MODEL.META_ARCHITECTURE MaskTransformer``, ``MODEL.BACKBONE.NAME
    build_swinv2_backbone`` and ``INPUT.MASK_TARGETS``.

    Args:
        backbone: a backbone with features of at least two strides.
        num_classes: K.
        task: "instance" or "semantic"; in a config, ``INPUT.MASK_TARGETS``.
        pixel_mean, pixel_std: of each channel.
        num_queries: Q; an image with more objects than this loses some.
        channels: channels of both decoders, a multiple of 32.
        num_heads: attention heads of both decoders.
        encoder_layers, decoder_layers: layers of the pixel decoder and the transformer decoder.
        points: points on which the mask losses are computed.
        detections_per_image: most objects that are returned for an image.

    Raises:
        ValueError: the channels or the task do not fit.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    attaches_sizes = True  # to the batch, for the backbone

    @configurable
    def __init__(
        self,
        *,
        backbone: Any,
        num_classes: int,
        task: str,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        num_queries: int = 100,
        channels: int = 256,
        num_heads: int = 8,
        encoder_layers: int = 6,
        decoder_layers: int = 9,
        points: int = 112 * 112,
        detections_per_image: int = 100,
    ):
        super().__init__()
        if task not in TASKS:
            raise ValueError(
                f"MaskTransformer has the tasks {', '.join(TASKS)}, not {task!r} "
                "(INPUT.MASK_TARGETS, model.task)"
            )
        if channels % NORM_GROUPS or channels % num_heads:
            raise ValueError(
                f"channels {channels} must be a multiple of {NORM_GROUPS} and of {num_heads} heads"
            )
        self.backbone, self.task, self.num_classes = backbone, task, num_classes
        self.detections_per_image = detections_per_image
        shape = backbone.output_shape()
        self.pixel_decoder = PixelDecoder(shape, channels, encoder_layers, num_heads)
        self.decoder = MaskedAttentionDecoder(
            channels,
            num_classes,
            num_queries=num_queries,
            levels=len(shape) - 1,
            layers=decoder_layers,
            num_heads=num_heads,
        )
        self.criterion = Criterion(num_classes, points=points)
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.MASK_TRANSFORMER
        return {
            "backbone": build_backbone(cfg),
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "task": cfg.INPUT.MASK_TARGETS,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "num_queries": node.NUM_QUERIES,
            "channels": node.CHANNELS,
            "num_heads": node.NUM_HEADS,
            "encoder_layers": node.ENCODER_LAYERS,
            "decoder_layers": node.DECODER_LAYERS,
            "points": node.POINTS,
            "detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Return losses in training, otherwise "instances" or "sem_seg" of each image.

        Args:
            batched_inputs: dicts with ``image`` (C, H, W) and, in training, ``instances`` as the
                mapper makes them for ``mask_targets``. Predictions have ``height`` and ``width``
                of the dict, as in Detectron2's models.
        """
        images = self.preprocess_image(batched_inputs)
        mask_features, levels = self.pixel_decoder(self.backbone(images.tensor))
        predictions = self.decoder(levels, mask_features)
        if self.training:
            targets = [self._target(one["instances"], images) for one in batched_inputs]
            return self.criterion(predictions, targets)
        classes, masks = predictions[-1]
        postprocess = self._instance if self.task == "instance" else self._semantic
        results = []
        for one, size, logits, mask in zip(
            batched_inputs, images.image_sizes, classes.float(), masks.float(), strict=True
        ):
            output = (one.get("height", size[0]), one.get("width", size[1]))
            resize = _Resize(tuple(images.tensor.shape[-2:]), size, output)
            results.append(postprocess(logits.softmax(1)[:, :-1], mask, resize))
        return results

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalize the images and batch them; their sizes are attached for the backbone."""
        images = ImageList.from_tensors(
            [
                (one["image"].to(self.device) - self.pixel_mean) / self.pixel_std
                for one in batched_inputs
            ],
            self.backbone.size_divisibility,
        )
        attach_sizes(images.tensor, images.image_sizes)
        return images

    def _target(self, instances: Instances, images: ImageList) -> Target:
        """Return the targets of an image on the model's device, padded to the batch."""
        masks = instances.gt_masks.to(self.device)
        height, width = images.tensor.shape[-2:]
        padding = (0, width - masks.shape[2], 0, height - masks.shape[1])
        return Target(instances.gt_classes.to(self.device), F.pad(masks, padding))

    def _instance(self, scores: Tensor, masks: Tensor, resize: _Resize) -> dict[str, Instances]:
        """Return the objects of best score: that of the class times the mean of the mask."""
        best, place = scores.flatten().topk(min(self.detections_per_image, scores.numel()))
        found = resize(masks[place // self.num_classes])
        inside = found > 0
        mean = (found.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        result = Instances(resize.output)
        result.pred_masks = inside
        result.pred_boxes = BitMasks(inside).get_bounding_boxes()
        result.scores = best * mean
        result.pred_classes = place % self.num_classes
        return {"instances": result}

    def _semantic(self, scores: Tensor, masks: Tensor, resize: _Resize) -> dict[str, Tensor]:
        """Return the score (K, H, W) of each class: the sum over the masks times their classes."""
        return {"sem_seg": torch.einsum("qk,qhw->khw", scores, resize(masks).sigmoid())}


class _Resize:
    """Resizing of mask logits (N, h, w) to the size of the output, (N, H, W).

    Args:
        padded, size: sizes of the batch and of the image in it.
        output: size of the output.
    """

    def __init__(self, padded: tuple[int, ...], size: tuple[int, int], output: tuple[int, int]):
        self.padded, self.size, self.output = padded, size, output

    def __call__(self, masks: Tensor) -> Tensor:
        masks = F.interpolate(masks[None], self.padded, mode="bilinear", align_corners=False)
        masks = masks[..., : self.size[0], : self.size[1]]
        return F.interpolate(masks, self.output, mode="bilinear", align_corners=False)[0]
