"""Test-time augmentation: compared with a plain average, and invariant to flips."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from torch import nn

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.evaluation.tta import (
    SemanticSegmentorWithTTA,
    Versions,
    with_augmentation,
)

BACKBONE = [
    *("MODEL.DEVICE", "cpu", "MODEL.SWINV2.EMBED_DIM", "16", "MODEL.SWINV2.WINDOW_SIZE", "4"),
    *("MODEL.SWINV2.DEPTHS", "(1, 1, 1, 1)", "MODEL.SWINV2.NUM_HEADS", "(1, 2, 4, 8)"),
    *("MODEL.PIXEL_MEAN", "[123.675, 116.280, 103.530]"),
]
SEMANTIC = [
    *BACKBONE,
    *("MODEL.META_ARCHITECTURE", "SemanticSegmentor"),
    *("MODEL.BACKBONE.NAME", "build_swinv2_backbone", "MODEL.SEM_SEG_HEAD.NAME", "UPerNetHead"),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res2', 'res3', 'res4', 'res5']"),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "64", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"),
]
FPN = [
    *BACKBONE,
    *("MODEL.BACKBONE.NAME", "build_swinv2_fpn_backbone", "MODEL.FPN.OUT_CHANNELS", "16"),
    *("MODEL.FPN.IN_FEATURES", "['res2', 'res3', 'res4', 'res5']"),
    *("MODEL.ROI_HEADS.IN_FEATURES", "['p2', 'p3']", "MODEL.RPN.IN_FEATURES", "['p2', 'p3']"),
    *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", "1"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [32]]"),
]


def build(*opts: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(load_config("", opts)).eval()


class Brightness(nn.Module):
    """A segmentor whose logits are the image: (left half, right half) of its brightness."""

    def forward(self, inputs: list[dict]) -> list[dict]:
        (one,) = inputs
        image = one["image"].float().mean(0)
        side = torch.linspace(0, 1, image.shape[1]).expand_as(image)
        logits = torch.stack((image * (1 - side), image * side))
        size = (one["height"], one["width"])
        resized = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
        return [{"sem_seg": resized}]


def test_logits_are_averaged_over_sizes():
    image = torch.full((3, 20, 30), 7, dtype=torch.uint8)
    one = {"image": image, "height": 41, "width": 59}
    model = SemanticSegmentorWithTTA(Brightness(), (10, 25, 40), 100, flip=False)
    sides = ((10, 15), (25, 38), (40, 60))
    expected = sum(
        Brightness()([{**one, "image": torch.full((3, *side), 7)}])[0]["sem_seg"] for side in sides
    )
    torch.testing.assert_close(model([one])[0]["sem_seg"], expected / 3)


def test_a_flipped_answer_is_turned_back():
    image = torch.full((3, 20, 30), 7, dtype=torch.uint8)
    one = {"image": image, "height": 20, "width": 30}
    model = SemanticSegmentorWithTTA(Brightness(), (20,), 100, flip=True)
    straight = Brightness()([one])[0]["sem_seg"]
    # The image is the same when flipped, so the flipped answer is the straight one, turned back.
    expected = (straight + straight.flip(-1)) / 2
    torch.testing.assert_close(model([one])[0]["sem_seg"], expected)


@pytest.mark.parametrize("size", [(64, 64), (53, 70), (31, 97)])
def test_the_answer_to_a_flipped_image_is_the_flipped_answer_at_any_size(size):
    model = with_augmentation(build(*SEMANTIC), (size[0],), 200, flip=True)
    torch.manual_seed(1)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad():
        straight, flipped = (
            model([{"image": one, "height": size[0], "width": size[1]}])[0]["sem_seg"]
            for one in (image, image.flip(-1))
        )
    assert straight.shape == (3, *size)
    torch.testing.assert_close(flipped.flip(-1), straight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads", ["StandardROIHeads", "CascadeROIHeads"])
@pytest.mark.parametrize("masks", ["True", "False"])
def test_boxes_are_merged_by_the_models_own_settings(heads, masks):
    opts = [
        *FPN,
        *("MODEL.ROI_HEADS.NAME", heads, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
        *("MODEL.ROI_HEADS.NUM_CLASSES", "4", "MODEL.ROI_HEADS.NMS_THRESH_TEST", "0.37"),
        *("TEST.DETECTIONS_PER_IMAGE", "13", "MODEL.MASK_ON", masks),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
    ]
    model = with_augmentation(build(*opts), (48, 64), 100, flip=True)
    cfg = load_config("", opts)
    for key in ("MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.ROI_HEADS.NMS_THRESH_TEST"):
        name = key.rpartition(".")[2]
        assert model.cfg.MODEL.ROI_HEADS[name] == cfg.MODEL.ROI_HEADS[name]
    assert model.cfg.TEST.DETECTIONS_PER_IMAGE == 13
    assert cfg.MODEL.MASK_ON == model.cfg.MODEL.MASK_ON
    image = torch.randint(0, 256, (3, 50, 60), dtype=torch.uint8)
    with torch.no_grad():
        found = model([{"image": image, "height": 50, "width": 60}])[0]["instances"]
    assert 0 < len(found) <= 13 and found.image_size == (50, 60)
    assert found.has("pred_masks") == (masks == "True")


@pytest.mark.parametrize("architecture", ["RetinaNet", "PanopticFPN"])
def test_models_without_augmentation_are_refused_before_any_work(architecture):
    opts = [*FPN, "MODEL.META_ARCHITECTURE", architecture]
    with pytest.raises(ValueError, match=f"TEST.AUG.ENABLED supports .*, not .*{architecture}"):
        load_config("", [*opts, "TEST.AUG.ENABLED", "True"])
    if architecture == "RetinaNet":
        with pytest.raises(ValueError, match="not for RetinaNet"):
            with_augmentation(
                build(*opts, "MODEL.RETINANET.IN_FEATURES", "['p2', 'p3']"), (64,), 100, False
            )


def test_versions_of_bands_are_resized_as_those_of_colors():
    image = torch.randint(0, 256, (3, 120, 150), dtype=torch.uint8)
    colors, bands = (
        Versions((31, 300), 1000, flip=True)({"image": one, "height": 120, "width": 150})
        for one in (image, image.float())
    )
    for one, other in zip(colors, bands, strict=True):
        torch.testing.assert_close(other["image"], one["image"].float(), atol=1.01, rtol=0)
