"""A small Detectron2 project of the kind that ``--import`` is for: a model, a head and their keys.

The k-th slot of the head looks at the whole image and predicts its k-th object, so that nothing
has to be matched: enough to train, evaluate, resume and predict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.registry import Registry
from torch import Tensor, nn

SLOT_HEADS = Registry("SLOT_HEADS")


def add_slots_config(cfg: CfgNode) -> None:
    """Add the keys of the model, and some that only a trainer of its own would read."""
    cfg.MODEL.SLOTS = CfgNode(
        {"HEAD": "AttentiveSlots", "COUNT": 6, "NUM_CLASSES": 80, "BOX_WEIGHT": 2.0}
    )
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.5
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    cfg.SOLVER.POLY_LR_POWER = 0.9
    cfg.INPUT.SLOTS_MAPPER_NAME = "slots_lsj"


def copies_the_config(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    add_slots_config(cfg)
    return cfg


def takes_two(cfg: CfgNode, other: CfgNode) -> None: ...


@SLOT_HEADS.register()
class AttentiveSlots(nn.Module):
    """(B, C, H, W) -> class logits (B, count, classes + 1) and boxes (B, count, 4) in [0, 1]."""

    def __init__(self, cfg: CfgNode, shape: ShapeSpec):
        super().__init__()
        node = cfg.MODEL.SLOTS
        self.slots = nn.Embedding(node.COUNT, shape.channels)
        self.norm = nn.LayerNorm(shape.channels)
        self.classes = nn.Linear(shape.channels, node.NUM_CLASSES + 1)
        self.boxes = nn.Linear(shape.channels, 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        tokens = features.flatten(2).transpose(1, 2)  # (B, H * W, C)
        queries = self.slots.weight.expand(len(tokens), -1, -1)
        found = self.norm(F.scaled_dot_product_attention(queries, tokens, tokens) + queries)
        return self.classes(found), self.boxes(found).sigmoid()


@META_ARCH_REGISTRY.register()
class SlotDetector(nn.Module):
    """A detector whose head has one output for each of a fixed number of slots."""

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        head: nn.Module,
        pixel_mean: list[float],
        pixel_std: list[float],
        box_weight: float,
    ):
        super().__init__()
        self.backbone, self.head, self.box_weight = backbone, head, box_weight
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        backbone = build_backbone(cfg)
        channels = backbone._out_feature_channels["res5"]  # as projects read it
        shape = ShapeSpec(channels=channels, stride=backbone._out_feature_strides["res5"])
        return {
            "backbone": backbone,
            "head": SLOT_HEADS.get(cfg.MODEL.SLOTS.HEAD)(cfg, shape),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "box_weight": cfg.MODEL.SLOTS.BOX_WEIGHT,
        }

    def forward(self, inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        device = self.pixel_mean.device
        images = [(one["image"].to(device) - self.pixel_mean) / self.pixel_std for one in inputs]
        batch = ImageList.from_tensors(images, 32)
        scores, boxes = self.head(self.backbone(batch.tensor)["res5"])
        if self.training:
            return self._losses(scores, boxes, [one["instances"].to(device) for one in inputs])
        return [
            {"instances": _detections(*found, one)} for *found, one in zip(scores, boxes, inputs)
        ]

    def _losses(self, scores: Tensor, boxes: Tensor, truth: list[Instances]) -> dict[str, Tensor]:
        classes = scores.new_full(scores.shape[:2], scores.shape[-1] - 1, dtype=torch.long)
        distance = boxes.sum() * 0
        for image, objects in enumerate(truth):
            count = min(len(objects), boxes.shape[1])
            height, width = objects.image_size
            size = boxes.new_tensor([width, height, width, height])
            classes[image, :count] = objects.gt_classes[:count]
            wanted = objects.gt_boxes.tensor[:count] / size
            distance = distance + F.l1_loss(boxes[image, :count], wanted, reduction="sum")
        return {
            "loss_class": F.cross_entropy(scores.flatten(0, 1), classes.flatten()),
            "loss_box": self.box_weight * distance / len(truth),
        }


def _detections(scores: Tensor, boxes: Tensor, record: dict) -> Instances:
    height, width = record["height"], record["width"]
    found = Instances((height, width))
    probabilities = scores.softmax(-1)[:, :-1]
    found.scores, found.pred_classes = probabilities.max(-1)
    found.pred_boxes = Boxes(boxes * boxes.new_tensor([width, height, width, height]))
    return found
