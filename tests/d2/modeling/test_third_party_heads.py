"""Heads of ``detectron2.projects`` on the features of SwinV2."""

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.projects.point_rend import add_pointrend_config
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from swinv2_backbone.d2 import add_swinv2_config

SIZE = (64, 96)


def config() -> CfgNode:
    cfg = get_cfg()
    add_swinv2_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.280, 103.530]
    cfg.MODEL.SWINV2.EMBED_DIM = 16
    cfg.MODEL.SWINV2.DEPTHS = (1, 1, 1, 1)
    cfg.MODEL.SWINV2.NUM_HEADS = (1, 2, 4, 8)
    cfg.MODEL.SWINV2.WINDOW_SIZE = 4
    return cfg


def deeplab() -> CfgNode:
    """DeepLabV3+ on res2 and res5; res3 and res4 are not returned and have no norm."""
    cfg = config()
    add_deeplab_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.BACKBONE.NAME = "build_swinv2_backbone"
    cfg.MODEL.SWINV2.OUT_FEATURES = ["res2", "res5"]
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME = "DeepLabV3PlusHead"
    head.IN_FEATURES, head.PROJECT_FEATURES, head.PROJECT_CHANNELS = ["res2", "res5"], ["res2"], [8]
    head.NUM_CLASSES, head.CONVS_DIM, head.ASPP_CHANNELS, head.NORM = 3, 32, 32, "BN"
    return cfg


def point_rend() -> CfgNode:
    """Mask R-CNN with PointRend's masks, under an FPN."""
    cfg = config()
    add_pointrend_config(cfg)
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.BACKBONE.NAME = "build_swinv2_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    heads = cfg.MODEL.ROI_HEADS
    heads.NAME, heads.IN_FEATURES, heads.NUM_CLASSES = "PointRendROIHeads", ["p2", "p3"], 3
    heads.SCORE_THRESH_TEST = 0.0
    box, mask, point = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.POINT_HEAD
    box.NAME, box.NUM_FC, box.FC_DIM = "FastRCNNConvFCHead", 1, 32
    mask.NAME, mask.FC_DIM, mask.POINT_HEAD_ON = "PointRendMaskHead", 32, True
    mask.POOLER_TYPE, mask.CONV_DIM = "", 16  # PointRend samples points of the FPN instead
    point.FC_DIM, point.NUM_CLASSES = 32, 3
    return cfg


def batch(count: int = 2) -> list[dict]:
    torch.manual_seed(0)
    instances = Instances(SIZE)
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]]))
    instances.gt_classes = torch.tensor([1])
    masks = torch.zeros(1, *SIZE, dtype=torch.bool)
    masks[:, 8:40, 8:40] = True
    instances.gt_masks = BitMasks(masks)
    return [
        {
            "image": torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8),
            "sem_seg": torch.randint(0, 3, SIZE),
            "instances": instances,
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("cfg", [deeplab(), point_rend()], ids=["DeepLabV3+", "PointRend"])
def test_third_party_heads_train_every_weight_and_predict_at_the_images_size(cfg):
    torch.manual_seed(0)
    model = build_model(cfg)
    with EventStorage():  # PointRend writes to it
        losses = model(batch())
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    with torch.no_grad():
        (found,) = model.eval()(batch(1))
    if "sem_seg" in found:
        assert found["sem_seg"].shape == (3, *SIZE)
    else:
        assert found["instances"].pred_masks.shape[1:] == SIZE and len(found["instances"]) > 0
