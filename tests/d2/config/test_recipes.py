"""The zoo: every config exists in both systems, means the same in both, trains and predicts."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import CfgNode, instantiate
from detectron2.data import build_detection_test_loader
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from recipes import bases, header, hops, leaves
from small_configs import (
    CONFIGS,
    IMAGE_SIZE,
    STEMS,
    lazy_config,
    register_small_datasets,
    remove_small_datasets,
    yaml_config,
)
from torch import nn
from torch.overrides import TorchFunctionMode

from swinv2_backbone.d2.data.loading.from_config import train_loader_from_config
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.solver.optimizer import build_optimizer
from swinv2_backbone.d2.solver.schedule import build_lr_scheduler

FILES = [CONFIGS / f"{stem}.{system}" for stem in STEMS for system in ("yaml", "py")]
COMMON = sorted(CONFIGS.glob("common/*.py"))
# Of nn.Module itself: hooks, and what is compared on its own.
MODULE_OWN = set(vars(nn.Module())) - {"training", "_buffers"}


# ---- The files


@pytest.mark.parametrize("stem", STEMS)
def test_every_config_has_its_twin(stem):
    assert (CONFIGS / f"{stem}.yaml").is_file() and (CONFIGS / f"{stem}.py").is_file()


@pytest.mark.parametrize("stem", STEMS)
def test_every_config_is_in_the_documented_zoo(stem):
    assert f"`{stem}`" in (CONFIGS.parent / "docs" / "TRAINING.md").read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_header_says_the_command_the_recipe_and_what_is_published(file):
    tool = "train_net" if file.suffix == ".yaml" else "lazyconfig_train_net"
    command = rf"^tools/{tool}\.py --config-file configs/{re.escape(file.name)}( --num-gpus 8)?$"
    assert len(re.findall(command, header(file), re.MULTILINE)) == 1
    assert len(re.findall(r"^Recipe: (paper|derived|untrained)\. ", header(file), re.M)) == 1
    assert len(re.findall(r"^Published: \S", header(file), re.MULTILINE)) == 1


@pytest.mark.parametrize("stem", STEMS)
def test_headers_of_twins_say_the_same(stem):
    twins = [header(CONFIGS / f"{stem}.{system}") for system in ("yaml", "py")]
    with_command = [re.sub(r"tools/\S+ --config-file \S+", "", text).split() for text in twins]
    assert with_command[0] == with_command[1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_inheritance_has_at_most_two_hops(file):
    assert hops(file) <= 2


@pytest.mark.parametrize("file", list(filter(bases, FILES[::2])), ids=lambda file: file.name)
def test_a_yaml_says_only_what_differs_from_its_base(file):
    said = yaml.safe_load(file.read_text())
    before = leaves(yaml_config(Path(said.pop("_BASE_")).stem))
    assert {key: value for key, value in leaves(said).items() if before[key] == value} == {}


@pytest.mark.parametrize("file", [*FILES, *COMMON], ids=lambda file: file.name)
def test_configs_need_no_model_zoo_of_detectron2(file):
    assert "model_zoo" not in file.read_text()


def test_every_shared_part_is_used():
    assert set(COMMON) == {base for file in FILES for base in bases(file) if base in COMMON}


# ---- Twins, at full size


class ParametersOnMeta(TorchFunctionMode):
    """Parameters get a shape but no memory, so that large models are built in no time.

    ``torch.device("meta")`` would do that to anchors and pixel means too, whose values matter.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@cache
def twins(stem: str) -> tuple[CfgNode, nn.Module, DictConfig, nn.Module]:
    """A YAML config and its model, a LazyConfig and its model."""
    cfg, lazy = yaml_config(stem), lazy_config(stem)
    with ParametersOnMeta():
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
        return cfg, model, lazy, instantiate(lazy.model)


def described(value, path: str = "") -> dict:
    """Any value as path -> plain data: objects by class and attributes, so that they compare."""
    if isinstance(value, torch.Tensor):
        value = value.tolist() if value.device.type != "meta" else tuple(value.shape)
    if value is None or isinstance(value, bool | int | float | str):
        return {path: value}
    if isinstance(value, type) or callable(value) and hasattr(value, "__qualname__"):
        return {path: value.__qualname__}
    if isinstance(value, nn.Module):  # its attributes are compared under its own name
        return {path: type(value).__qualname__}
    if isinstance(value, Mapping):
        entries, found = value.items(), {}
    elif isinstance(value, Sequence):  # also tuples and ListConfigs, which are equal here
        entries, found = enumerate(value), {path: f"{len(value)} entries"}
    else:
        entries, found = vars(value).items(), {path: type(value).__qualname__}
    for key, entry in entries:
        found |= described(entry, f"{path}.{key}")
    return found


def attributes(model: nn.Module) -> dict:
    """Every attribute of every module, by its full name: thresholds, loss weights, anchors, ..."""
    found = {}
    for name, module in model.named_modules():
        own = {key: value for key, value in vars(module).items() if key not in MODULE_OWN}
        found |= described(own, name)
    return found


def differences(one: dict, other: dict) -> dict:
    """The entries that are not equal, so that a failure is readable."""
    return {
        key: (one.get(key, "absent"), other.get(key, "absent"))
        for key in {**one, **other}
        if one.get(key, "absent") != other.get(key, "absent")
    }


@pytest.mark.parametrize("stem", STEMS)
def test_twins_have_the_same_model(stem):
    _, model, _, twin = twins(stem)
    assert repr(twin) == repr(model)
    shapes, twin_shapes = (
        {name: (tuple(value.shape), value.dtype) for name, value in one.state_dict().items()}
        for one in (model, twin)
    )
    assert list(twin_shapes.items()) == list(shapes.items())
    assert differences(attributes(model), attributes(twin)) == {}


@pytest.mark.parametrize("stem", STEMS)
def test_twins_have_the_same_optimizer(stem):
    cfg, model, lazy, twin = twins(stem)
    lazy = lazy.copy()
    lazy.optimizer.params.model = twin
    one, other = build_optimizer(cfg, model), instantiate(lazy.optimizer)
    assert type(one) is type(other) and one.defaults == other.defaults
    groups, twin_groups = (
        [{key: value for key, value in group.items() if key != "params"} for group in groups]
        for groups in (one.param_groups, other.param_groups)
    )
    assert groups == twin_groups


@pytest.mark.parametrize("stem", STEMS)
def test_twins_have_the_same_learning_rates(stem):
    cfg, lazy = yaml_config(stem), lazy_config(stem)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    one = build_lr_scheduler(cfg, optimizer)._multiplier
    other = instantiate(lazy.lr_multiplier)
    last, warm = cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS
    moments = {0, 1, warm // 2, warm - 1, warm, warm + 1, last // 2, last - 1}
    if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        moments |= {step + shift for step in cfg.SOLVER.STEPS for shift in (-1, 0, 1)}
    rates = {at: one(at / last) for at in moments}
    assert {at: other(at / last) for at in moments} == pytest.approx(rates, rel=1e-9)
    assert min(rates.values()) < 0.011 and max(rates.values()) > 0.9


def yaml_settings(cfg: CfgNode) -> dict:
    solver, clip, tta = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS, cfg.TEST.AUG
    return {
        "batch": solver.IMS_PER_BATCH,
        "iterations": solver.MAX_ITER,
        "evaluation": cfg.TEST.EVAL_PERIOD,
        "checkpoint": solver.CHECKPOINT_PERIOD,
        "clip": (clip.CLIP_TYPE, clip.CLIP_VALUE, clip.NORM_TYPE) if clip.ENABLED else None,
        "amp": (solver.AMP.ENABLED, solver.AMP.DTYPE),
        "weights": (cfg.MODEL.WEIGHTS, cfg.MODEL.SWINV2.PARTIAL_WEIGHTS),
        "accumulate": solver.ACCUMULATE,
        "average": (solver.EMA.ENABLED, solver.EMA.DECAY),
        "best": cfg.TEST.BEST_METRIC,
        "output": os.path.normpath(cfg.OUTPUT_DIR),
        "seed": cfg.SEED,
        "augmented test": (tta.ENABLED, list(tta.MIN_SIZES), tta.MAX_SIZE, tta.FLIP),
        "workers": cfg.DATALOADER.NUM_WORKERS,
        "only images with objects": cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
    }


def lazy_settings(cfg: DictConfig) -> dict:
    train, tta, loader = cfg.train, cfg.train.test_aug, cfg.dataloader.train
    clip = train.clip
    return {
        "batch": loader.total_batch_size,
        "iterations": train.max_iter,
        "evaluation": train.eval_period,
        "checkpoint": train.checkpointer.period,
        "clip": clip and (clip.kind, clip.value, clip.norm_type),
        "amp": (train.amp.enabled, train.amp.dtype),
        "weights": (train.init_checkpoint, train.partial_weights),
        "accumulate": train.accumulate,
        "average": (train.ema.enabled, train.ema.decay),
        "best": train.best_metric,
        "output": os.path.normpath(train.output_dir),
        "seed": train.seed,
        "augmented test": (tta.enabled, list(tta.min_sizes), tta.max_size, tta.flip),
        "workers": loader.num_workers,
        "only images with objects": loader.dataset.get("filter_empty", True),
    }


@pytest.mark.parametrize("stem", STEMS)
def test_twins_have_the_same_settings(stem):
    assert differences(yaml_settings(yaml_config(stem)), lazy_settings(lazy_config(stem))) == {}


@pytest.mark.parametrize("stem", STEMS)
def test_twins_read_and_augment_images_alike(stem):
    cfg, loaders = yaml_config(stem), lazy_config(stem).dataloader
    for is_train, loader in ((True, loaders.train), (False, loaders.test)):
        one, other = DatasetMapper(cfg, is_train), instantiate(loader.mapper)
        assert differences(described(one), described(other)) == {}


def own_datasets(cfg: CfgNode) -> dict[str, dict]:
    """What ``DATASETS.CUSTOM`` makes a config register, as the arguments that do the same."""
    custom, found = cfg.DATASETS.CUSTOM, {}
    for split in ("TRAIN", "TEST"):
        node = custom[split]
        if node.JSON:
            found[split.lower()] = {
                "name": node.NAME,
                "json_file": node.JSON,
                "images": node.IMAGES,
                "format": node.FORMAT,
                "bands": None,
                "masks": cfg.MODEL.MASK_ON,
                "mask_format": cfg.INPUT.MASK_FORMAT,
                "output_dir": cfg.OUTPUT_DIR,
                "for_evaluation": split == "TEST",
                "images_outside": custom.IMAGES_OUTSIDE,
                "crowds": custom.CROWDS,
                "holes": custom.HOLES,
                "cache": custom.CACHE,
                "classes": None,  # given by ``prepare``
            }
        elif node.LABELS:
            found[split.lower()] = {
                "name": node.NAME,
                "images": node.IMAGES,
                "labels": node.LABELS,
                "names_file": custom.NAMES,
                "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
                "for_evaluation": split == "TEST",
                "bands": None,
            }
    return found


def arguments(call: DictConfig) -> dict:
    """What a call of a LazyConfig passes, defaults included."""
    given = {key: value for key, value in call.items() if key != "_target_"}
    bound = inspect.signature(call["_target_"]).bind(**given)
    bound.apply_defaults()
    return bound.arguments


@pytest.mark.parametrize("stem", STEMS)
def test_twins_have_the_same_datasets(stem):
    cfg, lazy = yaml_config(stem), lazy_config(stem)
    own = own_datasets(cfg)
    assert own == {split: arguments(call) for split, call in lazy.get("datasets", {}).items()}
    for split, names in (("train", cfg.DATASETS.TRAIN), ("test", cfg.DATASETS.TEST)):
        expected = own[split]["name"] if own else names[0]
        assert lazy.dataloader[split].dataset.names == expected
    evaluator = lazy.dataloader.evaluator
    assert evaluator.dataset_name == lazy.dataloader.test.dataset.names
    assert evaluator.output_folder == f"{lazy.train.output_dir}/inference"


# ---- What all configs share


@pytest.mark.parametrize("stem", STEMS)
def test_images_are_normalised_as_in_pre_training(stem):
    """RGB, and the mean and standard deviation of ImageNet in units of 0 to 255."""
    cfg = yaml_config(stem)
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    assert cfg.INPUT.FORMAT == "RGB"
    assert mean == pytest.approx([255 * x for x in (0.485, 0.456, 0.406)])
    assert std == pytest.approx([255 * x for x in (0.229, 0.224, 0.225)])


@pytest.mark.parametrize("stem", STEMS)
def test_weights_are_those_of_the_variant(stem):
    cfg = yaml_config(stem)
    weights, variant = cfg.MODEL.WEIGHTS, cfg.MODEL.SWINV2.VARIANT
    assert weights == (f"swinv2://{variant}" if variant else "")


# ---- Small, on a little data


@pytest.fixture(scope="module")
def small_datasets(tmp_path_factory):
    register_small_datasets(tmp_path_factory.mktemp("small"))
    yield
    remove_small_datasets()


def small_yaml(stem: str) -> tuple:
    """A small model, its optimizer, its training and its test images."""
    cfg = yaml_config(stem, small=True)
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    train = train_loader_from_config(cfg)
    test = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=DatasetMapper(cfg, False))
    return model, build_optimizer(cfg, model), train, test


def small_lazy(stem: str) -> tuple:
    cfg = lazy_config(stem, small=True)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    return model, optimizer, instantiate(cfg.dataloader.train), instantiate(cfg.dataloader.test)


@pytest.mark.parametrize("build", [small_yaml, small_lazy], ids=["yaml", "lazy"])
@pytest.mark.parametrize("stem", STEMS)
def test_small_model_takes_a_step_and_predicts(build, stem, small_datasets):
    torch.manual_seed(0)
    model, optimizer, train, test = build(stem)
    model.train()
    with EventStorage(0):
        losses = model(next(iter(train)))
    total = sum(losses.values())
    assert torch.isfinite(total), losses
    total.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []  # distributed training stops at the first
    optimizer.step()

    model.eval()
    with torch.no_grad():
        (output,) = model(next(iter(test)))
    sizes = output_sizes(output)
    assert sizes and set(sizes) == {IMAGE_SIZE}


def output_sizes(output: dict) -> list[tuple[int, int]]:
    """Height and width of everything that a model says about one image."""
    sizes = []
    if "sem_seg" in output:
        sizes.append(tuple(output["sem_seg"].shape[-2:]))
    if "panoptic_seg" in output:
        sizes.append(tuple(output["panoptic_seg"][0].shape))
    if "instances" in output:
        sizes.append(output["instances"].image_size)
        if output["instances"].has("pred_masks"):
            sizes.append(tuple(output["instances"].pred_masks.shape[-2:]))
    return sizes
