"""AP counts as many detections as the model returns, in both dialects."""

from __future__ import annotations

import pytest
from analysis_cases import TRUTH, write_coco
from detectron2.config import LazyCall as L
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from small_configs import lazy_config, register_small_datasets, yaml_config

from swinv2_backbone.d2.config.lazy import plan_from_lazy
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.config.rules import ConfigError, validate
from swinv2_backbone.d2.engine.trainer import Trainer

NAME = "small_detection"
STEMS = ("mask_rcnn_swinv2", "cascade_mask_rcnn_swinv2_tiny", "retinanet_swinv2_tiny")


@pytest.fixture(scope="module", autouse=True)
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    register_small_datasets(folder)
    metadata = MetadataCatalog.get(NAME)
    metadata.evaluator_type, metadata.json_file = "coco", str(write_coco(folder, TRUTH))
    yield
    del metadata.evaluator_type, metadata.json_file


def yacs_plan(stem: str, limit: int) -> TrainingPlan:
    cfg = yaml_config(stem, small=True)
    cfg.TEST.DETECTIONS_PER_IMAGE = limit
    return validate(Trainer.plan_of(cfg))


def lazy_plan(stem: str, limit: int, evaluator=None) -> TrainingPlan:
    cfg = lazy_config(stem, small=True)
    if stem == "retinanet_swinv2_tiny":
        cfg.model.max_detections_per_image = limit
    else:
        heads = cfg.model.roi_heads
        cascade = "box_predictors" in heads
        (heads.box_predictors[-1] if cascade else heads.box_predictor).test_topk_per_image = limit
    cfg.dataloader.evaluator = evaluator or cfg.dataloader.evaluator
    return validate(plan_from_lazy(cfg))


@pytest.mark.parametrize("build", [yacs_plan, lazy_plan])
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("limit, counted", [(300, 300), (100, 100), (50, 100)])
def test_the_evaluator_counts_what_the_model_returns(build, stem, limit, counted, tmp_path):
    evaluator = build(stem, limit).factories.evaluator(NAME, tmp_path)
    assert evaluator._max_dets_per_image == [1, 10, counted]


def test_detectron2s_own_evaluator_of_a_lazy_config_counts_them_too(tmp_path):
    own = L(COCOEvaluator)(dataset_name=NAME, output_dir=str(tmp_path))
    evaluator = lazy_plan(STEMS[0], 300, own).factories.evaluator(NAME, tmp_path)
    assert evaluator._max_dets_per_image == [1, 10, 300]
    own = L(COCOEvaluator)(dataset_name=NAME, output_dir=str(tmp_path), max_dets_per_image=200)
    evaluator = lazy_plan(STEMS[0], 300, own).factories.evaluator(NAME, tmp_path)
    assert evaluator._max_dets_per_image == [1, 10, 200]


@pytest.mark.parametrize("build", [yacs_plan, lazy_plan])
def test_no_limit_counts_all_and_is_not_for_retinanet(build, tmp_path):
    evaluator = build(STEMS[0], -1).factories.evaluator(NAME, tmp_path)
    assert evaluator._max_dets_per_image[-1] >= 100_000
    with pytest.raises(ConfigError, match="must be at least 1 for RetinaNet.* got -1"):
        build("retinanet_swinv2_tiny", -1)
