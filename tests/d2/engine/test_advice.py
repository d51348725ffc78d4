"""Warnings before a run: dense images, and sizes far from those of training."""

from __future__ import annotations

import pytest
from small_configs import CONFIGS, STEMS, lazy_config

from swinv2_backbone.d2.config.lazy import load_lazy_config, plan_from_lazy
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.config.yacs import load_config, plan_from_yacs
from swinv2_backbone.d2.engine import advice as module
from swinv2_backbone.d2.engine.advice import advice


@pytest.fixture(autouse=True)
def with_bfloat16(monkeypatch):
    """Use a processor that has products of bfloat16."""
    monkeypatch.setattr(module, "supports_bf16", lambda: True)


FAR_SIZES = {"mask_rcnn_swinv2_demo"}  # 128 pixels, but the default sizes of 400 to 1200


def plan_of(stem: str, *opts: str, lazy: bool = False) -> TrainingPlan:
    if lazy:
        return plan_from_lazy(load_lazy_config(f"{CONFIGS}/{stem}.py", ["train.device=cpu", *opts]))
    return plan_from_yacs(load_config(f"{CONFIGS}/{stem}.yaml", ["MODEL.DEVICE", "cpu", *opts]))


@pytest.mark.parametrize("lazy", [False, True], ids=["yacs", "lazy"])
@pytest.mark.parametrize("stem", STEMS)
def test_no_recipe_is_warned_of_as_it_is_or_augmented(stem, lazy):
    sparse = {"coco": [0, 7, 93]}  # no image of COCO has more
    plan = plan_of(stem, lazy=lazy)
    assert advice(plan, sparse) == []
    on = plan.setting("evaluation.augmented", True)
    if plan.model.architecture not in ("GeneralizedRCNN", "SemanticSegmentor"):
        return
    augmented = plan_of(stem, *([on] if lazy else on.split()), lazy=lazy)
    assert len(advice(augmented, sparse)) == (stem in FAR_SIZES)


STREET = {  # a recipe for 180 pixels that keeps the demo's sizes
    False: [*("INPUT.MIN_SIZE_TRAIN", "[180]", "INPUT.MIN_SIZE_TEST", "180")],
    True: [
        "dataloader.train.mapper.augmentations.0.short_edge_length=[180]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=180",
    ],
}


@pytest.mark.parametrize("lazy", [False, True], ids=["yacs", "lazy"])
def test_sizes_of_augmentation_far_from_those_of_training_are_warned_of(lazy):
    (text,) = advice(plan_of("upernet_swinv2_demo", *STREET[lazy], lazy=lazy), {})
    key = "train.test_aug.min_sizes" if lazy else "TEST.AUG.MIN_SIZES"
    assert text.startswith(f"{key} [96, 112, 128]: ")
    assert "training (180 pixels)" in text
    assert text.endswith(f"set {key}{'=' if lazy else ' '}[144,180,216]")
    remedy = text.rsplit("set ", 1)[1]
    opts = [remedy] if lazy else remedy.split()
    assert advice(plan_of("upernet_swinv2_demo", *STREET[lazy], *opts, lazy=lazy), {}) == []


@pytest.mark.parametrize("sizes, warned", [("[112]", 0), ("[56,112,224]", 0), ("[50,112]", 1)])
def test_one_near_size_is_enough_unless_another_is_far(sizes, warned):
    plan = plan_of("upernet_swinv2_demo", "TEST.AUG.MIN_SIZES", sizes)
    assert len(advice(plan, {})) == warned


def test_a_test_size_far_from_training_is_warned_of():
    (text,) = advice(plan_of("mask_rcnn_swinv2", "INPUT.MIN_SIZE_TRAIN", "[180]"), {})
    assert text.startswith("INPUT.MIN_SIZE_TEST 800: ")
    assert text.endswith("set INPUT.MIN_SIZE_TEST 180")
    for more in (["INPUT.MIN_SIZE_TEST", "0"], ["INPUT.CROP.ENABLED", "True"]):
        opts = ["INPUT.MIN_SIZE_TRAIN", "[180]", *more]
        assert advice(plan_of("mask_rcnn_swinv2", *opts), {}) == []


def test_images_that_a_lazy_config_does_not_resize_have_no_far_size():
    cfg = lazy_config("upernet_swinv2_demo")
    del cfg.dataloader.train.mapper.augmentations[0]
    assert advice(plan_from_lazy(cfg), {}) == []


DENSE = {"sparse": [3, 100], "dense": [3, 120, 312]}


@pytest.mark.parametrize("lazy", [False, True], ids=["yacs", "lazy"])
@pytest.mark.parametrize(
    "stem", ["mask_rcnn_swinv2", "cascade_mask_rcnn_swinv2_tiny", "retinanet_swinv2_tiny"]
)
def test_a_set_denser_than_the_limit_is_warned_of_with_counts_and_a_remedy(stem, lazy):
    plan = plan_of(stem, lazy=lazy)
    (text,) = advice(plan, DENSE)
    assert text.startswith("dense: 2 of 3 images have more than 100 objects (at most 312)")
    remedy = text.rsplit("set ", 1)[1]
    assert remedy == plan.setting("evaluation.detections_per_image", 400)
    opts = [remedy] if lazy else remedy.split()
    assert advice(plan_of(stem, *opts, lazy=lazy), DENSE) == []


@pytest.mark.parametrize("lazy", [False, True], ids=["yacs", "lazy"])
def test_too_few_proposals_are_warned_of_too(lazy):
    plan = plan_of("mask_rcnn_swinv2_demo", lazy=lazy)
    (text,) = advice(plan, DENSE)  # 100 proposals
    detections, proposals = "evaluation.detections_per_image", "evaluation.proposals_per_image"
    for option, value in ((detections, 400), (proposals, 800)):
        assert plan.setting(option, value) in text
    opts = text.rsplit("set ", 1)[1].split()
    assert advice(plan_of("mask_rcnn_swinv2_demo", *opts, lazy=lazy), DENSE) == []
    opts = opts[: 1 if lazy else 2]
    (text,) = advice(plan_of("mask_rcnn_swinv2_demo", *opts, lazy=lazy), DENSE)
    assert plan.setting(detections, 400) not in text


def test_a_model_without_a_limit_has_none():
    plan = plan_of("mask_rcnn_swinv2", "TEST.DETECTIONS_PER_IMAGE", "-1")
    assert advice(plan, DENSE) == []
    (text,) = advice(plan, {"dense": [2000]})
    assert text.endswith("set MODEL.RPN.POST_NMS_TOPK_TEST 4800")


@pytest.mark.parametrize("lazy", [False, True], ids=["yacs", "lazy"])
def test_mixed_precision_on_a_processor_without_bfloat16_is_warned_of(lazy, monkeypatch):
    plan = plan_of("mask_rcnn_swinv2", lazy=lazy)
    assert plan.precision.amp and advice(plan, {}) == []
    monkeypatch.setattr(module, "supports_bf16", lambda: False)
    (text,) = advice(plan, {})
    remedy = plan.setting("precision.amp", False)
    assert text.endswith(f"set {remedy}")
    opts = [remedy] if lazy else remedy.split()
    assert advice(plan_of("mask_rcnn_swinv2", *opts, lazy=lazy), {}) == []


@pytest.mark.parametrize("lazy", [False, True], ids=["yacs", "lazy"])
def test_a_rate_with_which_adamw_diverges_is_warned_of(lazy):
    for rate, warned in (("1.0", 0), ("1e12", 1)):
        opts = [f"optimizer.params.lr={rate}"] if lazy else ["SOLVER.BASE_LR", rate]
        plan = plan_of("mask_rcnn_swinv2", *opts, lazy=lazy)
        texts = advice(plan, {})
        assert len(texts) == warned
        assert all(text.startswith(f"{plan.key('optimizer.lr')} 1e+12: ") for text in texts)
    if not lazy:
        plan = plan_of("mask_rcnn_swinv2", "SOLVER.BASE_LR", "2.0", "SOLVER.OPTIMIZER", "SGD")
        assert advice(plan, {}) == []
