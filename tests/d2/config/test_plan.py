"""The plan of a training: the same from both dialects, and checked once."""

from __future__ import annotations

import copy
import dataclasses
import re
from functools import cache, partial

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    PolynomialDecayParamScheduler,
)
from omegaconf import DictConfig, OmegaConf
from small_configs import CONFIGS, STEMS
from torch import optim

from swinv2_backbone.d2.config.lazy import load_lazy_config, plan_from_lazy, train_defaults
from swinv2_backbone.d2.config.options import plain
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.config.rules import ConfigError, validate
from swinv2_backbone.d2.config.sections import OPTIONS, SECTIONS
from swinv2_backbone.d2.config.tables import options_pages
from swinv2_backbone.d2.config.yacs import load_config, plan_from_yacs
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.data.datasets.semantic import register_semantic
from swinv2_backbone.d2.data.loading.mapper import ColorAugmentation

DETECTOR, SEGMENTOR = "mask_rcnn_swinv2", "upernet_swinv2_tiny_ade20k"
MASKS = "mask_transformer_swinv2_tiny"
WITHOUT_LAZY = {"model.load_proposals", "data.unsafe_proposals", "run.imports"}
# Follow from other keys: the architecture's nodes, and the data.
DERIVED = {"model.architecture", "model.masks", "model.keypoints", "model.stuff_classes"}
DERIVED |= {"data.class_names", "backbone.in_channels"}


@cache
def yaml_plan(stem: str, *opts: str) -> TrainingPlan:
    opts = ("MODEL.DEVICE", "cpu", *opts)
    return plan_from_yacs(load_config(str(CONFIGS / f"{stem}.yaml"), opts))


def lazy_config(stem: str, *opts: str) -> DictConfig:
    return load_lazy_config(str(CONFIGS / f"{stem}.py"), ["train.device=cpu", *opts])


@cache
def lazy_plan(stem: str, *opts: str) -> TrainingPlan:
    return plan_from_lazy(lazy_config(stem, *opts))


@pytest.mark.parametrize("stem", STEMS)
def test_twins_are_the_same_plan(stem):
    one, other = yaml_plan(stem).effective(), lazy_plan(stem).effective()
    assert {k: (one[k], other.get(k)) for k in one if one[k] != other.get(k)} == {}
    assert yaml_plan(stem) == lazy_plan(stem)


# ---- Every option, with a value that is not its default. Of a LazyConfig that is written by a
# call (an augmentation, a schedule), a function changes the config.

VALUES = {
    "backbone.variant": "swinv2_small_window8_256",
    "backbone.embed_dim": 48,
    "backbone.depths": (2, 2, 4, 2),
    "backbone.num_heads": (3, 6, 12, 12),
    "backbone.window_size": (8, 8, 8, 4),
    "backbone.pretrained_window_sizes": 12,
    "backbone.small_map_rule": "square",
    "backbone.drop_path_rate": 0.35,
    "backbone.out_features": ("res4", "res5"),
    "backbone.frozen_stages": 2,
    "backbone.activation_checkpointing": True,
    "backbone.kernel": "reference",
    "backbone.mask_padding": False,
    "upernet.pool_scales": (1, 2),
    "upernet.dropout": 0.25,
    "upernet.aux_in_feature": "res3",
    "upernet.aux_channels": 99,
    "upernet.aux_loss_weight": 0.7,
    "mask_transformer.num_queries": 7,
    "mask_transformer.channels": 96,
    "mask_transformer.num_heads": 4,
    "mask_transformer.encoder_layers": 2,
    "mask_transformer.decoder_layers": 5,
    "mask_transformer.points": 99,
    "model.thing_classes": 7,
    "model.pixel_mean": (1.5, 2.5, 3.5),
    "model.pixel_std": (2.0, 3.0, 4.0),
    "optimizer.name": "SGD",
    "optimizer.lr": 0.0123,
    "optimizer.weight_decay": 0.011,
    "optimizer.weight_decay_norm": 0.012,
    "optimizer.weight_decay_bias": 0.013,
    "optimizer.weight_decay_embed": 0.014,
    "optimizer.bias_lr_factor": 2.5,
    "optimizer.backbone_lr_factor": 0.5,
    "optimizer.layer_decay": 0.75,
    "optimizer.momentum": 0.8,
    "optimizer.nesterov": True,
    "schedule.max_iter": 12345,
    "schedule.name": "WarmupCosineLR",
    "schedule.steps": (111, 222),
    "schedule.gamma": 0.2,
    "schedule.poly_power": 0.9,
    "schedule.warmup_iters": 555,
    "schedule.warmup_factor": 0.25,
    "schedule.warmup_method": "constant",
    "precision.device": "cpu:0",
    "precision.amp": False,
    "precision.amp_dtype": "float16",
    "clipping.enabled": False,
    "clipping.kind": "norm",
    "clipping.value": 0.5,
    "clipping.norm_type": 1.0,
    "step.batch_size": 24,
    "step.accumulate": 4,
    "step.ema": True,
    "step.ema_decay": 0.99,
    "step.sharding": "optimizer",
    "step.broadcast_buffers": True,
    "step.find_unused_parameters": True,
    "step.max_nonfinite": 3,
    "data.train": ("coco_2017_val",),
    "data.test": ("coco_2017_train",),
    "data.num_workers": 7,
    "data.filter_empty": False,
    "data.mask_targets": "instance",
    "data.max_broken": 0.2,
    "data.samples_picture": True,
    "data.train_name": "mine",
    "data.train_json": "a.json",
    "data.train_labels": "labels",
    "data.train_images": "images",
    "data.train_format": "yolo",
    "data.test_name": "mine too",
    "data.test_json": "b.json",
    "data.test_labels": "labels too",
    "data.test_images": "images too",
    "data.test_format": "voc",
    "data.class_names_file": "names.txt",
    "data.images_outside": True,
    "data.crowds": "objects",
    "data.holes": "subtract",
    "data.cache": "cache",
    "augmentation.image_format": "BGR",
    "augmentation.display_bands": (2, 0, 1),
    "augmentation.min_size": (100, 200),
    "augmentation.max_size": 999,
    "augmentation.sample_style": "range",
    "augmentation.flip": "vertical",
    "augmentation.lsj": True,
    "augmentation.lsj_size": 640,
    "augmentation.lsj_min_scale": 0.5,
    "augmentation.lsj_max_scale": 1.5,
    "augmentation.crop": True,
    "augmentation.crop_type": "relative",
    "augmentation.crop_size": (0.5, 0.75),
    "augmentation.crop_single_category": 0.6,
    "augmentation.color": True,
    "augmentation.test_min_size": 640,
    "augmentation.test_max_size": 998,
    "evaluation.period": 77,
    "evaluation.best_metric": "segm/AP",
    "evaluation.early_stopping_metric": "bbox/AP50",
    "evaluation.early_stopping_patience": 9,
    "evaluation.detections_per_image": 300,
    "evaluation.proposals_per_image": 500,
    "evaluation.augmented": True,
    "evaluation.augmented_min_sizes": (320, 640),
    "evaluation.augmented_max_size": 997,
    "evaluation.augmented_flip": False,
    "evaluation.precise_bn": True,
    "evaluation.precise_bn_iters": 11,
    "evaluation.expected_results": (("bbox", "AP", 40.0, 0.5),),
    "run.output_dir": "elsewhere",
    "run.weights": "weights.pth",
    "run.partial_weights": True,
    "run.stem": "repeat",
    "run.checkpoint_period": 66,
    "run.checkpoints_kept": 3,
    "run.log_period": 13,
    "run.trackers": ("wandb", "mlflow"),
    "run.tracking_project": "shapes",
    "run.tracking_name": "window 16",
    "run.time_limit": 90.5,
    "run.seed": 17,
    "run.cudnn_benchmark": True,
}
CROP = {"type": "relative_range", "size": (0.9, 0.9)}


def _resize(cfg: DictConfig, split: str = "train", **changes) -> None:
    cfg.dataloader[split].mapper.augmentations[0].update(changes)


def _jitter(cfg: DictConfig, low=0.1, high=2.0, size=1024) -> None:
    call = L(T.ResizeScale)(min_scale=low, max_scale=high, target_height=size, target_width=size)
    cfg.dataloader.train.mapper.augmentations[0] = call


def _crop(cfg: DictConfig, type="relative_range", size=(0.9, 0.9), most=1.0) -> None:
    call = L(T.RandomCrop_CategoryAreaConstraint)(
        crop_type=type, crop_size=list(size), single_category_max_area=most
    )
    cfg.dataloader.train.mapper.augmentations.append(call)


def _coco(split: str, **arguments) -> callable:
    def change(cfg: DictConfig) -> None:
        default = {"name": f"custom_{split}", "json_file": "", "images": "", "output_dir": ""}
        cfg.datasets = {split: L(register_coco)(**{**default, **arguments})}

    return change


def _semantic(split: str, **arguments) -> callable:
    def change(cfg: DictConfig) -> None:
        default = {"name": f"custom_{split}", "images": "", "labels": "", "names_file": ""}
        cfg.datasets = {split: L(register_semantic)(**{**default, **arguments})}

    return change


def _selected(cfg: DictConfig, train: str = "", test: str = "") -> None:
    cfg.dataloader.train.dataset.names = [train] if train else []
    cfg.dataloader.test.dataset.names = [test] if test else []


def _sgd(cfg: DictConfig, **arguments) -> None:
    params = cfg.optimizer.params
    cfg.optimizer = L(optim.SGD)(params=params, lr="${.params.lr}", **arguments)


LENGTH = 266400  # iterations of the detector's recipe
# Option -> how to write its value of VALUES in a LazyConfig, and what YAML must say beside it.
BY_CALL = {
    "optimizer.name": (lambda c: _sgd(c, momentum=0.9), ""),
    "optimizer.momentum": (lambda c: _sgd(c, momentum=0.8), "SOLVER.OPTIMIZER SGD"),
    "optimizer.nesterov": (
        lambda c: _sgd(c, momentum=0.9, nesterov=True),
        "SOLVER.OPTIMIZER SGD",
    ),
    "schedule.max_iter": (
        lambda c: (
            c.train.update(max_iter=12345),
            c.lr_multiplier.update(warmup_length=1000 / 12345),
        ),
        "",
    ),
    "schedule.name": (
        lambda c: c.lr_multiplier.update(
            scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0)
        ),
        "",
    ),
    "schedule.steps": (
        lambda c: c.lr_multiplier.scheduler.update(milestones=[111, 222]),
        "",
    ),
    "schedule.gamma": (
        lambda c: c.lr_multiplier.update(
            scheduler=L(MultiStepParamScheduler)(
                values=[1.0, 0.2, 0.04], milestones=[199800, 244200], num_updates=LENGTH
            )
        ),
        "",
    ),
    "schedule.poly_power": (
        lambda c: c.lr_multiplier.update(
            scheduler=L(PolynomialDecayParamScheduler)(base_value=1.0, power=0.9)
        ),
        "SOLVER.LR_SCHEDULER_NAME WarmupPolyLR",
    ),
    "schedule.warmup_iters": (lambda c: c.lr_multiplier.update(warmup_length=555 / LENGTH), ""),
    "clipping.enabled": (lambda c: c.train.update(clip=None), ""),
    "data.train": (lambda c: _selected(c, "coco_2017_val", "coco_2017_val"), ""),
    "data.test": (lambda c: _selected(c, "coco_2017_train", "coco_2017_train"), ""),
    "data.filter_empty": (lambda c: c.dataloader.train.dataset.update(filter_empty=False), ""),
    "data.train_name": (_coco("train", name="mine"), ""),
    "data.train_json": (
        lambda c: (_coco("train", json_file="a.json")(c), _selected(c, "custom_train")),
        "",
    ),
    "data.train_labels": (
        lambda c: (_semantic("train", labels="labels")(c), _selected(c, "custom_train")),
        "",
    ),
    "data.train_images": (_coco("train", images="images"), ""),
    "data.test_name": (_coco("test", name="mine too"), ""),
    "data.test_json": (
        lambda c: (_coco("test", json_file="b.json")(c), _selected(c, "", "custom_test")),
        "",
    ),
    "data.test_labels": (
        lambda c: (_semantic("test", labels="labels too")(c), _selected(c, "", "custom_test")),
        "",
    ),
    "data.test_images": (_coco("test", images="images too"), ""),
    "data.class_names_file": (_semantic("train", names_file="names.txt"), ""),
    "data.images_outside": (_coco("train", images_outside=True), ""),
    "data.crowds": (_coco("train", crowds="objects"), ""),
    "data.holes": (_coco("train", holes="subtract"), ""),
    "data.cache": (_coco("train", cache="cache"), ""),
    "augmentation.min_size": (lambda c: _resize(c, short_edge_length=[100, 200]), ""),
    "augmentation.max_size": (lambda c: _resize(c, max_size=999), ""),
    "augmentation.sample_style": (lambda c: _resize(c, sample_style="range"), ""),
    "augmentation.flip": (
        lambda c: c.dataloader.train.mapper.augmentations[1].update(
            horizontal=False, vertical=True
        ),
        "",
    ),
    "augmentation.lsj": (_jitter, ""),
    "augmentation.lsj_size": (lambda c: _jitter(c, size=640), "INPUT.LSJ.ENABLED True"),
    "augmentation.lsj_min_scale": (lambda c: _jitter(c, low=0.5), "INPUT.LSJ.ENABLED True"),
    "augmentation.lsj_max_scale": (lambda c: _jitter(c, high=1.5), "INPUT.LSJ.ENABLED True"),
    "augmentation.crop": (_crop, ""),
    "augmentation.crop_type": (
        lambda c: _crop(c, type="relative"),
        "INPUT.CROP.ENABLED True",
    ),
    "augmentation.crop_size": (
        lambda c: _crop(c, size=(0.5, 0.75)),
        "INPUT.CROP.ENABLED True",
    ),
    "augmentation.crop_single_category": (
        lambda c: _crop(c, most=0.6),
        "INPUT.CROP.ENABLED True",
    ),
    "augmentation.color": (
        lambda c: c.dataloader.train.mapper.augmentations.append(
            L(ColorAugmentation)(image_format="RGB")
        ),
        "",
    ),
    "augmentation.test_min_size": (lambda c: _resize(c, "test", short_edge_length=640), ""),
    "augmentation.test_max_size": (lambda c: _resize(c, "test", max_size=998), ""),
}
# Options that change others with them in the plan of a YAML.
TOGETHER = {"data.train": ["data.test"], "data.test": ["data.train"]}
WRITABLE = [name for name in OPTIONS if name not in WITHOUT_LAZY | DERIVED]


def stem_of(name: str) -> str:
    """The recipe in which an option takes effect."""
    if name.startswith("mask_transformer."):
        return MASKS
    return SEGMENTOR if name.startswith("upernet.") else DETECTOR


def test_every_option_has_a_value_here_that_is_not_its_default():
    assert set(VALUES) == set(WRITABLE)
    plans = {stem: yaml_plan(stem) for stem in (DETECTOR, SEGMENTOR, MASKS)}
    assert [name for name in VALUES if plans[stem_of(name)][name] == VALUES[name]] == []


def as_list(value):
    return [as_list(entry) for entry in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", WRITABLE)
def test_an_option_means_the_same_in_both_dialects(name):
    stem, value = stem_of(name), VALUES[name]
    before = yaml_plan(stem)
    change, beside = BY_CALL.get(name, (None, ""))
    opts = beside.split()
    for each in (name, *TOGETHER.get(name, [])):
        opts += [before.key(each), value if isinstance(value, str) else repr(value)]
    config = before.config.clone()
    config.defrost()
    if name == "backbone.window_size":  # yacs keeps the type of a value
        config.MODEL.SWINV2.WINDOW_SIZE = None
    config.merge_from_list(opts)
    cfg = lazy_config(stem)
    if change is None:
        OmegaConf.update(cfg, lazy_plan(stem).key(name), as_list(value), force_add=True)
    else:
        change(cfg)
    one, other = plan_from_yacs(config), plan_from_lazy(cfg)
    assert one[name] == other[name] == value
    assert one == other
    assert one != before


# ---- Checks

WRONG = {
    "a text": "a text",
    "None": None,
    "-5": -5,
    "2.5": 2.5,
    "0": 0,
    "True": True,
    "(1,)": (1,),
}
# Of options whose check takes any text, a number is wrong; of those in text form, see below.


def wrong_values(name: str) -> list:
    return [value for value in WRONG.values() if OPTIONS[name].check(value)]


def test_every_check_refuses_something():
    free = {"evaluation.expected_results"}  # Detectron2's, of any kind inside
    assert [name for name in OPTIONS if len(wrong_values(name)) < 2 and name not in free] == []


@pytest.mark.parametrize("dialect", ["yacs", "lazy"])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_invalid_value_is_refused_with_the_key_of_the_dialect(name, dialect):
    plan = (yaml_plan if dialect == "yacs" else lazy_plan)(stem_of(name))
    key = plan.key(name)
    section, _, last = name.partition(".")
    for value in wrong_values(name):
        changed = dataclasses.replace(getattr(plan, section), **{last: value})
        faulty = dataclasses.replace(plan, **{section: changed})
        if not key:  # this dialect has no such option
            continue
        with pytest.raises(ConfigError) as error:
            validate(faulty)
        assert any(fault.startswith(f"{key} must be ") for fault in error.value.faults), key
        assert any(f"got {value!r}" in fault for fault in error.value.faults)


@pytest.mark.parametrize("name", [n for n in WRITABLE if n not in BY_CALL])
def test_an_invalid_value_in_a_config_is_refused_with_its_key(name):
    stem = stem_of(name)
    for dialect in ("yacs", "lazy"):
        key = (yaml_plan if dialect == "yacs" else lazy_plan)(stem).key(name)
        value = wrong_values(name)[0]
        with pytest.raises(ConfigError, match=re.escape(key)):
            if dialect == "yacs":
                yaml_plan(stem, key, repr(value))
            else:
                written = "null" if value is None else as_list(value)
                lazy_plan(stem, f"++{key}={written}")


def test_all_faults_are_told_at_once_in_the_dialect_of_the_config():
    yaml = ["SOLVER.OPTIMIZER", "ADAM", "SOLVER.ACCUMULATE", "3", "MODEL.SWINV2.WINDOW_SIZ", "8"]
    with pytest.raises(ConfigError) as error:
        yaml_plan(DETECTOR, *yaml, "SOLVER.EMA.DECAY", "1.5")
    assert len(error.value.faults) == 4
    text = str(error.value)
    for words in (
        "MODEL.SWINV2.WINDOW_SIZ: did you mean WINDOW_SIZE?",
        "SOLVER.OPTIMIZER must be one of ADAMW, SGD, got 'ADAM'",
        "SOLVER.ACCUMULATE 3 must divide SOLVER.IMS_PER_BATCH 16",
        "SOLVER.EMA.DECAY must be in [0, 1), got 1.5",
    ):
        assert words in text, words
    lazy = ["train.accumulate=3", "train.emma.decay=1", "train.ema.decay=1.5"]
    with pytest.raises(ConfigError) as error:
        lazy_plan(DETECTOR, *lazy, "model.backbone.bottom_up.window_siz=8")
    text = str(error.value)
    for words in (
        "model.backbone.bottom_up.window_siz: did you mean window_size?",
        "train.emma.decay=1: the config has no train.emma; did you mean ema?",
        "train.accumulate 3 must divide dataloader.train.total_batch_size 16",
        "train.ema.decay must be in [0, 1), got 1.5",
    ):
        assert words in text, words
    assert not any(key in text for key in ("SOLVER", "TEST.", "MODEL."))


def test_a_misspelt_key_in_a_file_is_told_with_the_nearest(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("MODEL:\n  SWINV2:\n    DROP_PATH: 0.3\nSOLVR:\n  BASE_LR: 1\n")
    with pytest.raises(ConfigError) as error:
        load_config(str(file), ["MODEL.DEVICE", "cpu"])
    text = str(error.value)
    assert "MODEL.SWINV2.DROP_PATH: did you mean DROP_PATH_RATE?" in text
    assert "SOLVR: did you mean SOLVER?" in text and str(file) in text


def test_a_number_may_be_written_without_its_decimal_point(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("SOLVER:\n  WEIGHT_DECAY: 0\n  CLIP_GRADIENTS: {CLIP_VALUE: 3}\n")
    cfg = load_config(str(file), ["MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "1"])
    values = (cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE, cfg.SOLVER.BASE_LR)
    assert values == (0.0, 3.0, 1.0) and all(isinstance(value, float) for value in values)


@pytest.mark.parametrize("version", ["VERSION: 1\n", ""])
def test_a_file_of_the_first_version_is_upgraded(version, tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text(f"{version}MODEL:\n  WEIGHT: my.pth\nTEST:\n  AUG_ON: False\n")
    assert load_config(str(file), ["MODEL.DEVICE", "cpu"]).MODEL.WEIGHTS == "my.pth"


def test_a_config_without_our_keys_is_refused():
    with pytest.raises(ConfigError, match="start from load_config"):
        plan_from_yacs(get_cfg())


def test_a_call_of_something_without_a_name_is_read():
    cfg = lazy_config(DETECTOR)
    cfg.optimizer._target_ = partial(optim.AdamW, eps=1e-5)
    assert plan_from_lazy(cfg).optimizer.name == "partial"


def test_the_learning_rate_of_other_parameter_groups_is_that_of_the_optimizer():
    cfg = lazy_config(DETECTOR)
    params = L(get_default_optimizer_params)(base_lr="${..lr}")
    cfg.optimizer = L(optim.AdamW)(params=params, lr=0.3, weight_decay=0.2)
    plan = plan_from_lazy(cfg)
    assert (plan.optimizer.lr, plan.optimizer.weight_decay) == (0.3, 0.2)


def test_a_tag_that_would_run_code_is_refused_with_the_remedy(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("SEED: !!python/object/apply:eval ['1 + 1']\n")
    with pytest.raises(ConfigError, match="not read: write the value instead"):
        load_config(str(file), ["MODEL.DEVICE", "cpu"])


def test_an_override_of_a_node_is_told_its_keys():
    with pytest.raises(ConfigError, match="SOLVER.EMA 1: SOLVER.EMA has keys of its own, ENABLED"):
        load_config("", ["MODEL.DEVICE", "cpu", "SOLVER.EMA", "1"])


# Rules between options: what is set in YAML and in a LazyConfig, and the start of each message.
RULES = {
    "float16 on a CPU": (
        "SOLVER.AMP.ENABLED True SOLVER.AMP.DTYPE float16",
        "train.amp.enabled=true train.amp.dtype=float16",
        ("SOLVER.AMP.DTYPE float16 requires a GPU", "train.amp.dtype=float16 requires a GPU"),
    ),
    "an impossible device": (
        "MODEL.DEVICE toaster",
        "train.device=toaster",
        ("MODEL.DEVICE 'toaster'", "train.device 'toaster'"),
    ),
    "sharded average": (
        "SOLVER.SHARDING all SOLVER.EMA.ENABLED True",
        "train.sharding=all train.ema.enabled=true",
        (
            'SOLVER.SHARDING "all" does not support the average',
            'train.sharding "all" does not support the average',
        ),
    ),
    "precise batch norm of an average": (
        "TEST.PRECISE_BN.ENABLED True SOLVER.EMA.ENABLED True",
        "train.precise_bn.enabled=true train.ema.enabled=true",
        (
            "TEST.PRECISE_BN.ENABLED updates the trained model",
            "train.precise_bn.enabled updates the trained model",
        ),
    ),
    "scales of jitter": (
        "INPUT.LSJ.ENABLED True INPUT.LSJ.MIN_SCALE 3.0",
        "",
        ("INPUT.LSJ.MIN_SCALE 3.0 must not exceed INPUT.LSJ.MAX_SCALE 2.0", ""),
    ),
    "two crops": (
        "INPUT.LSJ.ENABLED True INPUT.CROP.ENABLED True",
        "",
        ("INPUT.LSJ.ENABLED already crops", ""),
    ),
    "a range of one length": (
        "INPUT.MIN_SIZE_TRAIN_SAMPLING range INPUT.MIN_SIZE_TRAIN (640,)",
        "dataloader.train.mapper.augmentations.0.sample_style=range "
        "dataloader.train.mapper.augmentations.0.short_edge_length=[640]",
        (
            "INPUT.MIN_SIZE_TRAIN must be (shortest, longest) with INPUT.MIN_SIZE_TRAIN_SAMPLING",
            "augmentations[ResizeShortestEdge].short_edge_length must be (shortest, longest) with",
        ),
    ),
    "no length": (
        "INPUT.MIN_SIZE_TRAIN ()",
        "dataloader.train.mapper.augmentations.0.short_edge_length=[]",
        (
            "INPUT.MIN_SIZE_TRAIN must have at least one length",
            "augmentations[ResizeShortestEdge].short_edge_length must have at least one length",
        ),
    ),
    "a relative crop in pixels": (
        "INPUT.CROP.ENABLED True INPUT.CROP.SIZE (512,512)",
        "",
        ("INPUT.CROP.SIZE must be at most 1 with INPUT.CROP.TYPE relative_range", ""),
    ),
    "an absolute crop in fractions": (
        "INPUT.CROP.ENABLED True INPUT.CROP.TYPE absolute",
        "",
        ("INPUT.CROP.SIZE must be whole pixels with INPUT.CROP.TYPE absolute", ""),
    ),
    "early stopping without evaluations": (
        "TEST.EARLY_STOPPING.METRIC bbox/AP TEST.EVAL_PERIOD 0",
        "train.early_stopping.metric=bbox/AP train.eval_period=0",
        (
            "TEST.EARLY_STOPPING.METRIC needs evaluations before the end: set TEST.EVAL_PERIOD",
            "train.early_stopping.metric needs evaluations before the end: set train.eval_period",
        ),
    ),
    "early stopping with evaluations at the end": (
        "TEST.EARLY_STOPPING.METRIC bbox/AP SOLVER.MAX_ITER 50 TEST.EVAL_PERIOD 50",
        "train.early_stopping.metric=bbox/AP train.max_iter=50 train.eval_period=50",
        (
            "TEST.EVAL_PERIOD to at least 1 and less than SOLVER.MAX_ITER 50, got 50",
            "train.eval_period to at least 1 and less than train.max_iter 50, got 50",
        ),
    ),
    "proposals": ("MODEL.LOAD_PROPOSALS True", "", ("MODEL.LOAD_PROPOSALS reads pickles", "")),
    "augmented keypoints": (
        "TEST.AUG.ENABLED True MODEL.KEYPOINT_ON True",
        "",
        ("TEST.AUG.ENABLED does not support keypoints", ""),
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_between_options_is_told_in_both_dialects(rule):
    yaml, lazy, (yaml_words, lazy_words) = RULES[rule]
    with pytest.raises(ConfigError, match=re.escape(yaml_words)):
        yaml_plan(DETECTOR, *yaml.split())
    if lazy:
        with pytest.raises(ConfigError, match=re.escape(lazy_words)):
            lazy_plan(DETECTOR, *lazy.split())


UNREADABLE = {
    "lr_multiplier.warmup_length=null": "lr_multiplier.warmup_length must be a number",
    "lr_multiplier.warmup_length=-1": "lr_multiplier.warmup_length must be a number",
    "train.max_iter=null": "train.max_iter must be an integer, at least 1, got None",
    "train.max_iter=soon": "train.max_iter must be an integer, at least 1, got 'soon'",
    "dataloader.test.mapper.augmentations.0.short_edge_length=[]": "must be an integer",
    "dataloader.test.mapper.augmentations.0.short_edge_length=null": "got None",
    "dataloader.test.mapper.augmentations.0.short_edge_length=1.5": "got 1.5",
    "model=null": "model must be a LazyCall, got None",
    "optimizer=null": "optimizer must be a LazyCall, got None",
    "lr_multiplier=null": "lr_multiplier must be a LazyCall, got None",
    "lr_multiplier.scheduler=null": "lr_multiplier.scheduler must be a LazyCall, got None",
    "dataloader=null": "dataloader must be a dict",
    "train.output_dir='${nowhere}'": "train.output_dir: Interpolation key 'nowhere' not found",
    "optimizer.lr=0.5": "optimizer.lr 0.5 has no effect",
    "+optimizer.weight_decay=0.5": "set optimizer.params.weight_decay=0.5",
}


@pytest.mark.parametrize("override", UNREADABLE)
def test_what_cannot_be_read_in_a_lazy_config_is_a_fault(override):
    with pytest.raises(ConfigError, match=re.escape(UNREADABLE[override])):
        lazy_plan(DETECTOR, override, "train.emma=1")


def test_test_time_augmentation_of_another_architecture_is_refused_in_both_dialects():
    with pytest.raises(
        ConfigError, match="TEST.AUG.ENABLED supports .*META_ARCHITECTURE RetinaNet"
    ):
        yaml_plan("retinanet_swinv2_tiny", "TEST.AUG.ENABLED", "True")
    with pytest.raises(ConfigError, match="train.test_aug.enabled supports .*model RetinaNet"):
        lazy_plan("retinanet_swinv2_tiny", "train.test_aug.enabled=true")


# ---- Keys, defaults, and the user's own objects


def test_defaults_of_keys_that_detectron2_has_are_its_own():
    cfg, ours = get_cfg(), {"SOLVER.WEIGHT_DECAY_BIAS"}  # biases have no weight decay here
    for option in OPTIONS.values():
        node = cfg
        for part in option.yacs.split("."):
            node = node.get(part) if isinstance(node, dict) and part in node else None
        if node is not None and option.yacs not in ours:
            assert plain(node) == option.default, option.yacs


def test_a_lazy_config_has_the_defaults_of_the_options():
    assert load_lazy_config(str(CONFIGS / f"{DETECTOR}.py"), ["train.device=cpu"]).train.keys() == (
        train_defaults().keys()
    )


def test_no_key_stands_for_two_options():
    for dialect in ("yacs", "lazy"):
        keys = [getattr(option, dialect) for option in OPTIONS.values()]
        assert sorted(k for k in keys if k and keys.count(k) > 1) == []


def test_every_field_of_the_plan_is_a_documented_option():
    for option in OPTIONS.values():
        assert option.doc.endswith((".", ").")) and option.doc[0].isupper() or option.doc[0] in "`0"
    assert len(OPTIONS) == sum(len(dataclasses.fields(section)) for section in SECTIONS.values())


def test_a_config_is_never_changed():
    cfg, lazy = load_config("", ["MODEL.DEVICE", "cpu"]), lazy_config(DETECTOR)
    text, copied = cfg.dump(), copy.deepcopy(OmegaConf.to_container(lazy))
    for plan in (plan_from_yacs(cfg), plan_from_lazy(lazy)):
        other = plan.replaced({"schedule.max_iter": 3, "data.test": ("a", "b")})
        assert other.schedule.max_iter == 3 and other.data.test == ("a", "b")
        assert plan.schedule.max_iter != 3
    assert cfg.dump() == text and not cfg.is_frozen()
    assert OmegaConf.to_container(lazy) == copied


def test_the_pages_of_options_are_generated_and_have_every_section():
    pages = options_pages()
    for name, text in pages.items():
        page = CONFIGS.parent / "docs" / name
        assert page.read_text(encoding="utf-8") == text, "run tools/option_tables.py"
    assert sum(text.count("\n## ") for text in pages.values()) == len(SECTIONS)
