"""The Detectron2 plugin: backbones, two ways to use them, and the parts of a training around them.

Importing this package registers, in Detectron2's registries:

- the backbones ``build_swinv2_backbone``, ``build_swinv2_fpn_backbone`` and
  ``build_retinanet_swinv2_fpn_backbone``;
- the head ``UPerNetHead`` for semantic segmentation;
- the meta-architecture ``MaskTransformer`` for instance and semantic segmentation.

Call ``add_swinv2_config(cfg)`` before merging a config that selects one of them.
"""

from importlib import import_module
from typing import Any

from swinv2_backbone.d2.config.yacs import add_swinv2_config
from swinv2_backbone.d2.modeling import (
    D2SwinV2,
    MaskTransformer,
    UPerNetHead,
    build_model,
    build_retinanet_swinv2_fpn_backbone,
    build_swinv2_backbone,
    build_swinv2_fpn_backbone,
    feature_shapes,
    with_native_roi_align,
    with_true_sizes,
)

SwinV2 = D2SwinV2  # the earlier name, for existing LazyConfigs

# Public names imported on first use: a training needs them, a model does not.
_LAZY = {
    "Checkpointer": "swinv2_backbone.d2.engine.checkpoint",
    "ColorAugmentation": "swinv2_backbone.d2.data.loading.mapper",
    "ConfigError": "swinv2_backbone.d2.config.rules",
    "DatasetMapper": "swinv2_backbone.d2.data.loading.mapper",
    "Model": "swinv2_backbone.d2.inference.model",
    "Predictor": "swinv2_backbone.d2.inference.predictor",
    "Recipe": "swinv2_backbone.d2.pretraining.recipe",
    "Result": "swinv2_backbone.d2.inference.result",
    "Trainer": "swinv2_backbone.d2.engine.trainer",
    "Training": "swinv2_backbone.d2.engine.training",
    "TrainingPlan": "swinv2_backbone.d2.config.plan",
    "build_evaluator": "swinv2_backbone.d2.evaluation.evaluators",
    "build_train_loader": "swinv2_backbone.d2.data.loading.loader",
    "build_trainer": "swinv2_backbone.d2.engine.trainer",
    "evaluate_plan": "swinv2_backbone.d2.engine.training",
    "find_images": "swinv2_backbone.d2.pretraining.masked",
    "generate_demo_dataset": "swinv2_backbone.d2.demo.dataset",
    "get_config": "swinv2_backbone.d2.config.get_config",
    "get_records": "swinv2_backbone.d2.data.loading.selection",
    "group_options": "swinv2_backbone.d2.solver.optimizer",
    "launch": "swinv2_backbone.d2.engine.launch",
    "load_config": "swinv2_backbone.d2.config.yacs",
    "load_lazy_config": "swinv2_backbone.d2.config.lazy",
    "load_plan": "swinv2_backbone.d2.engine.trainer",
    "load_predictor": "swinv2_backbone.d2.inference.predictor",
    "parameter_groups": "swinv2_backbone.d2.solver.optimizer",
    "plan_from_lazy": "swinv2_backbone.d2.config.lazy",
    "plan_from_yacs": "swinv2_backbone.d2.config.yacs",
    "prepare": "swinv2_backbone.d2.engine.prepare",
    "pretrain": "swinv2_backbone.d2.pretraining.simmim",
    "read_bands": "swinv2_backbone.d2.data.loading.bands",
    "register_coco": "swinv2_backbone.d2.data.datasets.coco",
    "register_custom_datasets": "swinv2_backbone.d2.data.datasets.custom",
    "register_demo_panoptic": "swinv2_backbone.d2.demo.panoptic",
    "register_semantic": "swinv2_backbone.d2.data.datasets.semantic",
    "train_loader_from_config": "swinv2_backbone.d2.data.loading.from_config",
}

__all__ = [
    "D2SwinV2",
    "MaskTransformer",
    "SwinV2",
    "UPerNetHead",
    "add_swinv2_config",
    "build_model",
    "build_retinanet_swinv2_fpn_backbone",
    "build_swinv2_backbone",
    "build_swinv2_fpn_backbone",
    "feature_shapes",
    "with_native_roi_align",
    "with_true_sizes",
    *_LAZY,
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
