"""Config keys: ``add_swinv2_config`` for the backbone, ``load_config`` for our own tools."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from yaml import YAMLError

from swinv2_backbone.d2.data.loading.loader import MAX_BROKEN
from swinv2_backbone.d2.engine.parallel import SHARDING

# Keys that take one number or several: yacs would refuse to change the one for the other.
NUMBER_OR_SEVERAL = ("MODEL.SWINV2.WINDOW_SIZE", "MODEL.SWINV2.PRETRAINED_WINDOW_SIZES")


def add_swinv2_config(cfg: CfgNode) -> None:
    """Add the nodes ``MODEL.SWINV2`` and ``MODEL.UPERNET`` with their defaults to ``cfg``."""
    cfg.MODEL.SWINV2 = node = CfgNode()
    # A published architecture, a key of swinv2_backbone.VARIANTS ...
    node.VARIANT = None
    # ... or, without one, a size of one's own.
    node.EMBED_DIM = None
    node.DEPTHS = None
    node.NUM_HEADS = None
    # In tokens: 16, or (16, 16, 16, 8) one per stage, or ((12, 16), ...) (height, width) each.
    # None: the variant's.
    node.WINDOW_SIZE = None
    # The windows the weights were trained with, which normalise the position bias, in the same
    # forms.  None: the variant's; for a size of one's own, WINDOW_SIZE.
    node.PRETRAINED_WINDOW_SIZES = None
    node.DROP_PATH_RATE = 0.0
    # None: what the FPN takes (MODEL.FPN.IN_FEATURES); all four without an FPN.
    node.OUT_FEATURES = None
    # -1: nothing is frozen; 0: the patch embedding; k: also the first k stages.
    node.FROZEN_STAGES = -1
    node.ACTIVATION_CHECKPOINTING = False
    # How blocks are computed: "auto", the fastest way for the device; "reference", "strips" or
    # "triton".  The results are the same.
    node.KERNEL = "auto"
    # Load MODEL.WEIGHTS even though tensors of the backbone are missing or unknown.
    node.PARTIAL_WEIGHTS = False
    # Leave the zero padding of a batch out of the attention.
    node.MASK_PADDING = True

    # Of MODEL.SEM_SEG_HEAD.NAME UPerNetHead, beside what MODEL.SEM_SEG_HEAD says.
    cfg.MODEL.UPERNET = node = CfgNode()
    node.POOL_SCALES = (1, 2, 3, 6)
    node.DROPOUT = 0.1
    node.AUX_IN_FEATURE = "res4"  # None: no auxiliary head
    node.AUX_CONVS_DIM = 256
    node.AUX_LOSS_WEIGHT = 0.4


def add_training_config(cfg: CfgNode) -> None:
    """Add the keys of our trainer (optimizer, data, evaluation, own datasets) to ``cfg``."""
    solver = cfg.SOLVER
    solver.OPTIMIZER = "ADAMW"  # or "SGD"
    # lr of the backbone = BASE_LR * BACKBONE_LR_FACTOR, falling by LAYER_DECAY a block downwards.
    solver.BACKBONE_LR_FACTOR = 1.0
    solver.LAYER_DECAY = 1.0
    solver.WEIGHT_DECAY_BIAS = 0.0
    # LR_SCHEDULER_NAME "WarmupPolyLR": lr falls as (1 - iteration / MAX_ITER) ** POLY_POWER.
    solver.POLY_POWER = 1.0
    solver.AMP.DTYPE = "bfloat16"  # or "float16", on a GPU
    # CLIP_GRADIENTS.CLIP_TYPE "full_model": the norm of all gradients together.
    # One step of IMS_PER_BATCH images goes through the model in so many parts.
    solver.ACCUMULATE = 1
    # How several processes keep the training: "none", each of them everything; "optimizer", each a
    # part of the optimizer's state; "all", each a part of everything.
    solver.SHARDING = "none"
    # Steps that may be passed over because a loss or gradient is not finite.
    solver.MAX_NONFINITE_STEPS = 0
    # The share of the images to train on that may be broken; they are passed over.
    cfg.DATALOADER.MAX_BROKEN_IMAGES = MAX_BROKEN
    # An average of the weights, which is then what is evaluated and kept as the best.
    solver.EMA = CfgNode({"ENABLED": False, "DECAY": 0.9999})

    # Large-scale jitter, instead of MIN_SIZE_TRAIN and CROP: scaled so that the image would fit
    # into SIZE x SIZE pixels times a number from MIN_SCALE to MAX_SCALE, and cropped to SIZE.
    cfg.INPUT.LSJ = CfgNode({"ENABLED": False, "SIZE": 1024, "MIN_SCALE": 0.1, "MAX_SCALE": 2.0})
    # Semantic segmentation crops again where one class fills more than this share of a crop.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    cfg.INPUT.COLOR_AUG_SSD = False  # brightness, contrast, saturation and hue at random

    # E.g. "bbox/AP" or "sem_seg/mIoU": model_best.pth has the weights that reached the highest.
    cfg.TEST.BEST_METRIC = ""

    # Files of proposals (MODEL.LOAD_PROPOSALS) are pickles, which run code when they are read.
    cfg.DATASETS.UNSAFE_PROPOSAL_FILES = False

    cfg.DATASETS.CUSTOM = custom = CfgNode()
    for split, name in (("TRAIN", "custom_train"), ("TEST", "custom_test")):
        custom[split] = CfgNode()
        custom[split].NAME = name
        custom[split].JSON = ""  # a COCO-format file; DATASETS.TRAIN or TEST becomes (NAME,)
        custom[split].LABELS = ""  # or semantic: a folder of label PNGs named as the images
        custom[split].IMAGES = ""  # the folder its file names start from
    custom.IMAGES_OUTSIDE = False  # file names in JSON may lead out of IMAGES
    custom.NAMES = ""  # of LABELS: a text file, whose line i (from 0) is the class of value i
    custom.CLASSES = []  # filled from the JSON or NAMES, so that a saved config knows the names


def load_config(config_file: str = "", opts: Sequence[str] = ()) -> CfgNode:
    """A config from a file and overrides ``KEY VALUE ...``, checked but not frozen.

    Raises:
        ValueError: a key or value is unknown or not possible here.
    """
    cfg = get_cfg()
    add_swinv2_config(cfg)
    add_training_config(cfg)
    opts = [opt for opt in opts if opt != "--"]
    if len(opts) % 2:
        raise ValueError(f"overrides come in pairs KEY VALUE, got {' '.join(opts)}")
    try:
        if config_file:
            cfg.merge_from_file(config_file, allow_unsafe=False)
        for key, value in zip(opts[::2], opts[1::2]):
            if key in NUMBER_OR_SEVERAL:
                cfg.MODEL.SWINV2[key.rsplit(".", 1)[1]] = None
            cfg.merge_from_list([key, value])
    except YAMLError as error:
        raise ValueError(f"{config_file}: {error}") from error
    except (AssertionError, KeyError) as error:  # yacs's words for an unknown key
        raise ValueError(f"{error} (in {config_file or 'the config'}, {' '.join(opts)})") from error
    check_config(cfg)
    return cfg


def check_config(cfg: CfgNode) -> None:
    """Raise ValueError for what could not work, before any work starts."""
    _one_of(cfg.SOLVER.OPTIMIZER, ("ADAMW", "SGD"), "SOLVER.OPTIMIZER")
    _one_of(cfg.SOLVER.SHARDING, SHARDING, "SOLVER.SHARDING")
    if cfg.SOLVER.MAX_NONFINITE_STEPS < 0:
        raise ValueError(
            f"SOLVER.MAX_NONFINITE_STEPS must not be negative: {cfg.SOLVER.MAX_NONFINITE_STEPS}"
        )
    if not 0 <= cfg.DATALOADER.MAX_BROKEN_IMAGES < 1:
        raise ValueError(
            f"DATALOADER.MAX_BROKEN_IMAGES must be in [0, 1): {cfg.DATALOADER.MAX_BROKEN_IMAGES}"
        )
    _one_of(
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE,
        ("value", "norm", "full_model"),
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
    )
    amp = cfg.SOLVER.AMP
    check_precision(cfg.MODEL.DEVICE, amp.ENABLED, amp.DTYPE, "MODEL.DEVICE", "SOLVER.AMP.DTYPE")
    check_accumulation(cfg)
    ema = cfg.SOLVER.EMA
    if not 0 <= ema.DECAY < 1:
        raise ValueError(f"SOLVER.EMA.DECAY must be in [0, 1), got {ema.DECAY}")
    if ema.ENABLED and cfg.TEST.PRECISE_BN.ENABLED:
        raise ValueError(
            "TEST.PRECISE_BN measures the weights in training, not their average: set "
            "SOLVER.EMA.ENABLED False or TEST.PRECISE_BN.ENABLED False"
        )
    if cfg.MODEL.LOAD_PROPOSALS and not cfg.DATASETS.UNSAFE_PROPOSAL_FILES:
        raise ValueError(
            "MODEL.LOAD_PROPOSALS reads pickles, which run code: set it False, or, if you trust "
            "their source, DATASETS.UNSAFE_PROPOSAL_FILES True"
        )
    lsj = cfg.INPUT.LSJ
    if lsj.ENABLED and not (0 < lsj.MIN_SCALE <= lsj.MAX_SCALE and lsj.SIZE >= 1):
        raise ValueError(
            f"INPUT.LSJ: 0 < MIN_SCALE {lsj.MIN_SCALE} <= MAX_SCALE {lsj.MAX_SCALE} and "
            f"SIZE {lsj.SIZE} >= 1 must hold"
        )
    if lsj.ENABLED and cfg.INPUT.CROP.ENABLED:
        raise ValueError("INPUT.LSJ crops already: set INPUT.CROP.ENABLED False")
    if cfg.TEST.AUG.ENABLED:
        _one_of(
            cfg.MODEL.META_ARCHITECTURE,
            ("GeneralizedRCNN", "SemanticSegmentor"),
            "with TEST.AUG.ENABLED, MODEL.META_ARCHITECTURE",
        )
        if cfg.MODEL.KEYPOINT_ON:
            raise ValueError("TEST.AUG has no keypoints: set TEST.AUG.ENABLED False")
    if not 0 < cfg.SOLVER.LAYER_DECAY <= 1:
        raise ValueError(f"SOLVER.LAYER_DECAY must be in (0, 1], got {cfg.SOLVER.LAYER_DECAY}")


def check_accumulation(cfg: CfgNode) -> None:
    """Raise ValueError unless a step can be divided as ``SOLVER.ACCUMULATE`` says."""
    parts, batch = cfg.SOLVER.ACCUMULATE, cfg.SOLVER.IMS_PER_BATCH
    if parts < 1 or batch % parts:
        raise ValueError(f"SOLVER.ACCUMULATE {parts} must divide SOLVER.IMS_PER_BATCH {batch}")


def check_precision(device: str, amp: bool, dtype: str, device_key: str, dtype_key: str) -> None:
    """Raise ValueError for a device that is not there, or that cannot train in ``dtype``.

    Args:
        device_key, dtype_key: what the user calls them.
    """
    _one_of(dtype, ("bfloat16", "float16"), dtype_key)
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"{device_key} {device!r}: {error}") from error
    setting = " ".join if device_key.isupper() else "=".join  # of a yacs config, of a LazyConfig
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"{device_key} is {device!r}, but PyTorch finds no GPU; "
            f"to run on the CPU, add: {setting((device_key, 'cpu'))}"
        )
    if amp and kind == "cpu" and dtype == "float16":
        raise ValueError(
            f"{setting((dtype_key, dtype))} trains on a GPU only; "
            f"on the CPU, use {setting((dtype_key, 'bfloat16'))}"
        )


def _one_of(value: str, allowed: tuple[str, ...], key: str) -> None:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
