"""LazyConfigs: their keys, loaded and checked; what ``config.py`` is for yacs.

A LazyConfig has ``model``, ``dataloader.{train,test,evaluator}``, ``optimizer`` and
``lr_multiplier``, as Detectron2's own have, and ``train``, of which ``TRAIN`` has the keys and
defaults.  ``datasets.{train,test}`` may register own datasets (``register_coco``,
``register_semantic``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import LazyConfig
from detectron2.data import MetadataCatalog
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from swinv2_backbone.d2.config.yacs import check_precision
from swinv2_backbone.d2.data.datasets.selected import check_same_classes
from swinv2_backbone.d2.engine.parallel import SHARDING
from swinv2_backbone.d2.solver.clipping import CLIPPING

TRAIN = {
    "output_dir": "output",
    "init_checkpoint": "",  # of any layout; see docs/CHECKPOINTS.md
    "partial_weights": False,
    "max_iter": 90000,
    "amp": {"enabled": False, "dtype": "bfloat16"},
    "clip": None,  # or {"kind": "full_model", "value": 1.0, "norm_type": 2.0}; see step.py
    "accumulate": 1,  # a step's total_batch_size images go through the model in so many parts
    "sharding": "none",  # or "optimizer" or "all"; see parallel.py
    "max_nonfinite_steps": 0,  # to be passed over
    "ema": {"enabled": False, "decay": 0.9999},
    "best_metric": "",
    "checkpointer": {"period": 5000, "max_to_keep": 100},
    "eval_period": 5000,
    "log_period": 20,
    "test_aug": {
        "enabled": False,
        "min_sizes": [400, 500, 600, 700, 800, 900, 1000, 1100, 1200],
        "max_size": 4000,
        "flip": True,
    },
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": False},
    "device": "cuda",
    "seed": -1,
    "cudnn_benchmark": False,
}
PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def load_lazy_config(config_file: str, opts: Sequence[str] = ()) -> DictConfig:
    """A LazyConfig from a .py file and overrides ``key=value``, checked, its ``train`` complete.

    Raises:
        ValueError: a part is missing, or a key or value is unknown or not possible here.
    """
    if not Path(config_file).is_file():
        raise ValueError(f"--config-file {config_file!r} is not there")
    opts = [opt for opt in opts if opt != "--"]
    wrong = [opt for opt in opts if "=" not in opt]
    if wrong:
        raise ValueError(f"overrides of a LazyConfig are key=value, got {' '.join(wrong)}")
    cfg = LazyConfig.load(str(config_file))
    absent = [part for part in PARTS if part not in cfg]
    if absent:
        raise ValueError(f"{config_file} has no {', '.join(absent)}")
    _check_keys(cfg.train, TRAIN, "train")
    cfg.train = OmegaConf.merge(OmegaConf.create(TRAIN), cfg.train)
    _check_overrides(cfg, opts)
    try:
        cfg = LazyConfig.apply_overrides(cfg, opts)
    except (HydraException, OmegaConfBaseException, KeyError) as error:
        raise ValueError(f"{error} (in {config_file}, {' '.join(opts)})") from error
    _check_keys(cfg.train, TRAIN, "train")
    _check_values(cfg)
    return cfg


def train_datasets(cfg: DictConfig) -> list[str]:
    """The names of the datasets to train on."""
    return _names(cfg.dataloader.train.dataset.names)


def test_datasets(cfg: DictConfig) -> list[str]:
    """The names of the datasets to test on."""
    return _names(cfg.dataloader.test.dataset.names)


def _names(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def target_name(node: DictConfig) -> str:
    """The name of what a LazyCall calls, without its module."""
    target = node._target_
    return target.rpartition(".")[2] if isinstance(target, str) else target.__name__


def check_class_counts(cfg: DictConfig, datasets: Sequence[str]) -> None:
    """Raise ValueError unless the heads have as many classes as the datasets."""
    model = cfg.model
    for part, key, names in (
        (model.get("roi_heads"), "model.roi_heads.num_classes", "thing_classes"),
        (model if "roi_heads" not in model else None, "model.num_classes", "thing_classes"),
        (model.get("sem_seg_head"), "model.sem_seg_head.num_classes", "stuff_classes"),
    ):
        if part is None or "num_classes" not in part:
            continue
        check_same_classes(datasets, names)
        for dataset in datasets:
            classes = MetadataCatalog.get(dataset).get(names)
            if classes and len(classes) != part.num_classes:
                raise ValueError(
                    f"{key} is {part.num_classes}, but {dataset} has {len(classes)} classes: "
                    f"set {key}={len(classes)}"
                )


def _check_overrides(cfg: DictConfig, opts: Sequence[str]) -> None:
    """Raise ValueError for an override of something that the config does not have.

    The last part of a name may be new: an argument that was left at its default.
    """
    for opt in opts:
        parent = opt.split("=")[0].lstrip("+~").rpartition(".")[0]
        name = parent or opt.split("=")[0].lstrip("+~")
        if OmegaConf.select(cfg, name) is None:
            raise ValueError(f"{opt}: the config has no {name}")


def _check_keys(given: DictConfig, known: dict, where: str) -> None:
    """Raise ValueError for a key that nothing would read."""
    if not isinstance(given, DictConfig):
        raise ValueError(f"{where} is {given!r}, not a dict of {', '.join(known)}")
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{where}.{key} is no key: there are {', '.join(known)}")
        if isinstance(known[key], dict):
            _check_keys(value, known[key], f"{where}.{key}")


def _check_values(cfg: DictConfig) -> None:
    train, batch = cfg.train, cfg.dataloader.train.total_batch_size
    check_precision(
        train.device, train.amp.enabled, train.amp.dtype, "train.device", "train.amp.dtype"
    )
    if train.accumulate < 1 or batch % train.accumulate:
        raise ValueError(
            f"train.accumulate {train.accumulate} must divide "
            f"dataloader.train.total_batch_size {batch}"
        )
    if train.sharding not in SHARDING:
        raise ValueError(
            f"train.sharding must be one of {', '.join(SHARDING)}, got {train.sharding!r}"
        )
    if train.max_nonfinite_steps < 0:
        raise ValueError(
            f"train.max_nonfinite_steps must not be negative: {train.max_nonfinite_steps}"
        )
    if not 0 <= train.ema.decay < 1:
        raise ValueError(f"train.ema.decay must be in [0, 1), got {train.ema.decay}")
    if train.clip is not None:
        _check_keys(train.clip, dict.fromkeys(("kind", "value", "norm_type")), "train.clip")
        if train.clip.get("kind") not in CLIPPING or "value" not in train.clip:
            raise ValueError(
                f"train.clip needs a kind, one of {', '.join(CLIPPING)}, and a value; got "
                f"{dict(train.clip)}"
            )
    architecture = target_name(cfg.model)
    if train.test_aug.enabled and architecture not in ("GeneralizedRCNN", "SemanticSegmentor"):
        raise ValueError(
            f"train.test_aug is for GeneralizedRCNN and SemanticSegmentor, not for {architecture}"
        )
