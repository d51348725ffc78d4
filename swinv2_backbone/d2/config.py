"""Config keys: ``add_swinv2_config`` for the backbone, ``load_config`` for our own tools."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg

# Keys that take one number or several: yacs would refuse to change the one for the other.
NUMBER_OR_SEVERAL = ("MODEL.SWINV2.WINDOW_SIZE", "MODEL.SWINV2.PRETRAINED_WINDOW_SIZES")


def add_swinv2_config(cfg: CfgNode) -> None:
    """Add the node ``MODEL.SWINV2`` with its defaults to ``cfg``."""
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
    # Load MODEL.WEIGHTS even though tensors of the backbone are missing or unknown.
    node.PARTIAL_WEIGHTS = False
    # Leave the zero padding of a batch out of the attention.
    node.MASK_PADDING = True


def add_training_config(cfg: CfgNode) -> None:
    """Add the keys of our trainer (optimizer, schedule, precision, own datasets) to ``cfg``."""
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

    cfg.DATASETS.CUSTOM = custom = CfgNode()
    for split, name in (("TRAIN", "custom_train"), ("TEST", "custom_test")):
        custom[split] = CfgNode()
        custom[split].NAME = name
        custom[split].JSON = ""  # a COCO-format file; DATASETS.TRAIN or TEST becomes (NAME,)
        custom[split].IMAGES = ""  # the folder its file names start from
    custom.CLASSES = []  # filled from the JSON, so that a saved config knows the names


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
            cfg.merge_from_file(config_file)
        for key, value in zip(opts[::2], opts[1::2]):
            if key in NUMBER_OR_SEVERAL:
                cfg.MODEL.SWINV2[key.rsplit(".", 1)[1]] = None
            cfg.merge_from_list([key, value])
    except (AssertionError, KeyError) as error:  # yacs's words for an unknown key
        raise ValueError(f"{error} (in {config_file or 'the config'}, {' '.join(opts)})") from error
    check_config(cfg)
    return cfg


def check_config(cfg: CfgNode) -> None:
    """Raise ValueError for what could not work, before any work starts."""
    _one_of(cfg.SOLVER.OPTIMIZER, ("ADAMW", "SGD"), "SOLVER.OPTIMIZER")
    _one_of(cfg.SOLVER.AMP.DTYPE, ("bfloat16", "float16"), "SOLVER.AMP.DTYPE")
    _one_of(
        cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE,
        ("value", "norm", "full_model"),
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
    )
    try:
        device = torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise ValueError(f"MODEL.DEVICE {cfg.MODEL.DEVICE!r}: {error}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but PyTorch finds no GPU; "
            "to run on the CPU, add: MODEL.DEVICE cpu"
        )
    if cfg.SOLVER.AMP.ENABLED and device.type == "cpu" and cfg.SOLVER.AMP.DTYPE == "float16":
        raise ValueError(
            "SOLVER.AMP.DTYPE float16 trains on a GPU only; on the CPU, "
            "use SOLVER.AMP.DTYPE bfloat16"
        )
    if not 0 < cfg.SOLVER.LAYER_DECAY <= 1:
        raise ValueError(f"SOLVER.LAYER_DECAY must be in (0, 1], got {cfg.SOLVER.LAYER_DECAY}")


def _one_of(value: str, allowed: tuple[str, ...], key: str) -> None:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
