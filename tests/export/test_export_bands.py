"""Exportable parts of models for images of nine bands, with a mean that pixels can equal."""

import pytest
import torch
from oracle import randomize
from small_configs import yaml_config

from swinv2_backbone.d2 import build_model
from swinv2_backbone.d2.export.model import exportable_part
from swinv2_backbone.export.check import compare

N = 9
PARTS = [
    ("mask_rcnn_swinv2", "backbone"),
    ("mask_rcnn_swinv2", "backbone+fpn"),
    ("upernet_swinv2_tiny_ade20k", "semantic"),
]


@pytest.mark.parametrize(("stem", "what"), PARTS)
def test_a_part_of_nine_bands_equals_the_model_also_on_black_images(stem, what):
    cfg = yaml_config(stem, small=True)
    cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = "BANDS", [0.0] * N, [200.0] * N
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    backbone = getattr(model.backbone, "bottom_up", model.backbone)
    randomize(backbone.swinv2, seed=0)
    part = exportable_part(model, what, cfg.INPUT.FORMAT)
    assert part.image_format == "BANDS" and len(part.mean) == part.backbone.in_channels == N
    batches = [torch.zeros(1, N, 45, 70), 500 * torch.rand(2, N, 77, 103)]
    for one in compare(part.model, part.expected, batches):
        assert one.is_small and one.largest > 0, one
