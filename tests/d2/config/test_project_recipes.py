"""The recipes for other projects: complete, documented, and right in every key of ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from project_stand_ins import stand_ins
from recipes import bases, header, hops, leaves
from small_configs import CONFIGS

from swinv2_backbone.d2.config.lazy import load_lazy_config, plan_from_lazy
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.config.yacs import load_config, plan_from_yacs
from swinv2_backbone.d2.data.loading.mask_targets import TASKS
from swinv2_backbone.d2.engine.advice import advice
from swinv2_backbone.d2.engine.prepare import class_faults
from swinv2_backbone.variants import VARIANTS

FOLDER = CONFIGS / "projects"
YAML, LAZY = sorted(FOLDER.glob("*.yaml")), sorted(FOLDER.glob("*.py"))
FILES = [*YAML, *LAZY]
IMPORT = r" --import ([\w.]+:\w+)"

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
each_yaml = pytest.mark.parametrize("file", YAML, ids=lambda file: file.name)


@pytest.fixture(autouse=True)
def projects():
    with stand_ins():
        yield


def imports_of(file: Path) -> list[str]:
    """The imports of the command in the header."""
    return re.findall(IMPORT, header(file))


def load_yaml(file: Path):
    return load_config(str(file), ["MODEL.DEVICE", "cpu"], imports_of(file))


def plan_of(file: Path) -> TrainingPlan:
    if file.suffix == ".yaml":
        return plan_from_yacs(load_yaml(file))
    return plan_from_lazy(load_lazy_config(str(file), ["train.device=cpu"]))


def size_of(file: Path) -> str:
    """The last word of the name."""
    return file.stem.rpartition("_")[2]


def test_every_project_and_task_has_three_sizes_and_a_demo():
    sizes = {}
    for file in FILES:
        task = re.sub(r"(_swinv2)?_[a-z]+$", "", file.stem)
        sizes.setdefault(task, set()).add(size_of(file))
    tasks = {f"mask2former_{task}" for task in ("instance", "semantic", "panoptic")}
    assert sizes.keys() == tasks | {"maskdino", "dino"}
    assert all(found == {"tiny", "base", "large", "demo"} for found in sizes.values()), sizes


@each_file
def test_header_says_the_command_the_recipe_and_what_is_published(file):
    tool = "train_net" if file.suffix == ".yaml" else "lazyconfig_train_net"
    path = re.escape(f"configs/projects/{file.name}")
    command = rf"^tools/{tool}\.py({IMPORT})*? --config-file {path}( --num-gpus 8)?$"
    assert len(re.findall(command, header(file), re.MULTILINE)) == 1
    assert len(re.findall(r"^Recipe: (derived|untrained)\. ", header(file), re.M)) == 1
    assert len(re.findall(r"^Published: \S", header(file), re.MULTILINE)) == 1


@each_file
def test_recipe_is_documented(file):
    stem = re.sub("(tiny|base|large)$", "{tiny,base,large}", file.stem)
    assert f"`{stem}`" in (CONFIGS.parent / "docs/PROJECTS.md").read_text()


@each_file
def test_inheritance_has_at_most_two_hops(file):
    assert hops(file) <= 2


@each_file
def test_recipe_is_valid(file):
    """Keys of ours exist and have valid values; keys of a project are those that it has."""
    plan = plan_of(file)
    assert plan.places["backbone"] and plan.data.train and plan.data.test


@pytest.mark.parametrize("file", list(filter(bases, YAML)), ids=lambda file: file.name)
def test_a_yaml_says_only_what_differs_from_its_base(file):
    said = yaml.safe_load(file.read_text())
    before = leaves(load_yaml(FOLDER / said.pop("_BASE_")))
    del before["MODEL.DEVICE"]
    again = {key for key, value in leaves(said).items() if before.get(key) == value}
    assert again == set()


@each_file
def test_weights_are_those_of_the_variant_and_images_are_normalized_for_them(file):
    plan = plan_of(file)
    variant = plan.backbone.variant
    assert plan.run.weights == (f"swinv2://{variant}" if variant else "")
    assert (variant is None) == (size_of(file) == "demo")
    if variant is not None:
        assert variant in VARIANTS and size_of(file) in variant
    assert plan.augmentation.image_format == "RGB"
    assert plan.model.pixel_mean == pytest.approx([255 * x for x in (0.485, 0.456, 0.406)])
    assert plan.model.pixel_std == pytest.approx([255 * x for x in (0.229, 0.224, 0.225)])


@each_yaml
def test_targets_suit_the_task_and_the_dataset(file):
    cfg = load_yaml(file)
    dino = cfg.MODEL.META_ARCHITECTURE == "MaskDINO"
    node = cfg.MODEL.MaskDINO if dino else cfg.MODEL.MASK_FORMER
    task = "instance" if dino else file.stem.split("_")[1]
    assert task == cfg.INPUT.MASK_TARGETS
    asked = {name for name in TASKS if node.TEST[f"{name.upper()}_ON"]}
    assert task in asked and (task == "panoptic" or asked == {task})
    known = {"coco_2017_train": 80, "ade20k_sem_seg_train": 150, "coco_2017_train_panoptic": 133}
    if size_of(file) != "demo":
        assert known[cfg.DATASETS.TRAIN[0]] == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    assert cfg.TEST.DETECTIONS_PER_IMAGE <= (
        node.NUM_OBJECT_QUERIES * cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    )


@each_yaml
def test_number_of_classes_is_compared_with_the_dataset(file):
    """Otherwise the model trains, and the evaluation fails at its first wrong class."""
    plan = plan_of(file)
    counted = "thing_classes" if plan.data.mask_targets == "instance" else "stuff_classes"
    metadata = MetadataCatalog.get("of_two_classes")
    metadata.set(thing_classes=["a", "b"], stuff_classes=["a", "b"])
    (fault,) = class_faults(plan, ["of_two_classes"])
    assert plan.key(f"model.{counted}") == "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
    assert "has 2 classes (a, b); set MODEL.SEM_SEG_HEAD.NUM_CLASSES 2" in fault


@each_yaml
def test_a_model_without_its_targets_is_warned_of(file):
    """Detectron2's targets would end in an AttributeError at the first iteration."""
    texts = advice(plan_of(file), {})
    assert not any("is trained on masks" in text for text in texts)
    cfg = load_yaml(file)
    cfg.INPUT.MASK_TARGETS = "none"
    text = advice(plan_from_yacs(cfg), {})[0]
    name = cfg.MODEL.META_ARCHITECTURE
    assert f"{name} is trained on masks: set INPUT.MASK_TARGETS to its task, one of " in text


@pytest.mark.parametrize("file", LAZY, ids=lambda file: file.name)
def test_neck_of_dino_takes_the_features_of_the_backbone(file):
    cfg = load_lazy_config(str(file), ["train.device=cpu"])
    assert cfg.model.device == "cpu"
    shapes = instantiate(cfg.model.neck.input_shapes)
    dim = cfg.model.backbone.get("embed_dim") or VARIANTS[cfg.model.backbone.variant].embed_dim
    for stage, name in enumerate(cfg.model.neck.in_features, start=1):
        assert name in cfg.model.backbone.out_features
        assert (shapes[name].channels, shapes[name].stride) == (dim * 2**stage, 4 * 2**stage)


def test_a_recipe_leaves_the_model_of_detrex_as_it_is():
    first = load_lazy_config(str(FOLDER / "dino_swinv2_tiny.py"), ["train.device=cpu"])
    load_lazy_config(str(FOLDER / "dino_demo.py"))
    again = load_lazy_config(str(FOLDER / "dino_swinv2_tiny.py"), ["train.device=cpu"])
    assert first == again and again.model.embed_dim == 256
