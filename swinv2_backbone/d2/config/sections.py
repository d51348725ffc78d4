"""The sections of a training plan: each option once, with its keys, default, check and meaning.

To add an option, declare it here and use it where it takes effect. Everything else follows from
the declaration: the keys that are added to a config, its translation, the checks, and the tables
in docs/.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from swinv2_backbone.backbone import SMALL_MAP_RULES
from swinv2_backbone.checkpoints.stem import STEM_RULES
from swinv2_backbone.d2.config.options import (
    Option,
    anything,
    either,
    factor,
    flag,
    integer,
    not_negative,
    number,
    one_of,
    only,
    option,
    optional,
    options_of,
    positive,
    sequence,
    share,
    text,
)
from swinv2_backbone.d2.data.formats.conversion import NAMES as FORMAT_NAMES
from swinv2_backbone.d2.data.loading.loader import MAX_BROKEN
from swinv2_backbone.d2.data.loading.mask_targets import TASKS
from swinv2_backbone.d2.data.validation.annotations import HOLE_MODES
from swinv2_backbone.d2.data.validation.crowds import CROWD_MODES
from swinv2_backbone.d2.solver.clipping import CLIPPING

SHARDING = ("none", "optimizer", "all")
WINDOWS = optional(either(integer(1), sequence(either(integer(1), sequence(integer(1), least=2)))))
_TRAIN, _TEST = "dataloader.train.mapper.augmentations", "dataloader.test.mapper.augmentations"
# In a LazyConfig, an augmentation is identified by its class in the list.
RESIZE, TEST_RESIZE = f"{_TRAIN}[ResizeShortestEdge]", f"{_TEST}[ResizeShortestEdge]"
JITTER, CROP = f"{_TRAIN}[ResizeScale]", f"{_TRAIN}[RandomCrop]"
COLOR, FLIP = f"{_TRAIN}[ColorAugmentation]", f"{_TRAIN}[RandomFlip]"


def _backbone(default: Any, name: str, check: Callable[[Any], str], doc: str) -> Any:
    return option(default, f"MODEL.SWINV2.{name.upper()}", f"{{backbone}}.{name}", check, doc)


# One option takes two or three lines: keys and default, then its meaning.
# fmt: off
@dataclass(frozen=True)
class Backbone:
    """SwinV2."""

    variant: str | None = _backbone(None, "variant", optional(text),
        "Name or seed name of a published architecture ([Sizes of the models](MODELS.md)).")
    embed_dim: int | None = _backbone(None, "embed_dim", optional(integer(1)),
        "Channels of the first stage, for a custom size.")
    depths: tuple | None = _backbone(None, "depths", optional(sequence(integer(1))),
        "Number of blocks per stage, for a custom size.")
    num_heads: tuple | None = _backbone(None, "num_heads", optional(sequence(integer(1))),
        "Number of attention heads per stage, for a custom size.")
    window_size: Any = _backbone(None, "window_size", WINDOWS,
        "Window size in tokens: `16`, `(16, 16, 16, 8)` per stage, or `((12, 16), ...)` as "
        "(height, width) per stage. None: the window of the variant.")
    pretrained_window_sizes: Any = _backbone(None, "pretrained_window_sizes", WINDOWS,
        "Windows of pre-training, which normalize the position bias. None: taken from the variant "
        "or the weights.")
    small_map_rule: str = _backbone("per_axis", "small_map_rule", one_of(*SMALL_MAP_RULES),
        "Windows of a feature map whose shorter side is one window or less: `per_axis`, or "
        "`square`, Microsoft's rule ([Small maps](WINDOWS.md#small-maps)).")
    drop_path_rate: float = _backbone(0.0, "drop_path_rate", share,
        "Drop path rate of the last block; it rises linearly from 0.")
    out_features: tuple | None = _backbone(None, "out_features", optional(sequence(text)),
        "Features to return. None: the features that the FPN or head uses. Stages after the last "
        "feature are not built.")
    frozen_stages: int = _backbone(-1, "frozen_stages", integer(-1),
        "Parts to freeze: -1: nothing; 0: the patch embedding; k: also the first k stages.")
    in_channels: int = option(3, "", "{backbone}.in_channels", integer(1),
        "Number of bands of the images; in YAML, that of `PIXEL_MEAN`.")
    activation_checkpointing: bool = _backbone(False, "activation_checkpointing", flag,
        "Recompute activations in the backward pass: less memory, more time.")
    kernel: str = _backbone("auto", "kernel", text,
        "Implementation of the blocks; all give the same result "
        "([Which kernel runs](SPEED.md#which-kernel-runs)).")
    mask_padding: bool = _backbone(True, "mask_padding", flag,
        "Exclude the padding of a batch from attention. A meta-architecture that is not "
        "Detectron2's requires a `PIXEL_MEAN` that no pixel equals.")


@dataclass(frozen=True)
class UPerNet:
    """UPerNet's head."""

    pool_scales: tuple = option((1, 2, 3, 6), "MODEL.UPERNET.POOL_SCALES",
        "model.sem_seg_head.pool_scales", sequence(integer(1), least=1),
        "Grid sizes of the pyramid pooling module.")
    dropout: float = option(0.1, "MODEL.UPERNET.DROPOUT", "model.sem_seg_head.dropout", share,
        "Fraction of channels dropped before each classifier.")
    aux_in_feature: str | None = option("res4", "MODEL.UPERNET.AUX_IN_FEATURE",
        "model.sem_seg_head.aux_in_feature", optional(text),
        "Input feature of the auxiliary classifier in training; None: no auxiliary classifier.")
    aux_channels: int = option(256, "MODEL.UPERNET.AUX_CONVS_DIM",
        "model.sem_seg_head.aux_channels", integer(1),
        "Channels of the auxiliary classifier.")
    aux_loss_weight: float = option(0.4, "MODEL.UPERNET.AUX_LOSS_WEIGHT",
        "model.sem_seg_head.aux_loss_weight", not_negative,
        "Weight of the auxiliary loss.")


@dataclass(frozen=True)
class MaskTransformer:
    """MaskTransformer's decoders."""

    num_queries: int = option(100, "MODEL.MASK_TRANSFORMER.NUM_QUERIES", "model.num_queries",
        integer(1),
        "Number of queries, each of which predicts a mask; an image with more objects loses some.")
    channels: int = option(256, "MODEL.MASK_TRANSFORMER.CHANNELS", "model.channels", integer(1),
        "Channels of both decoders, a multiple of 32.")
    num_heads: int = option(8, "MODEL.MASK_TRANSFORMER.NUM_HEADS", "model.num_heads", integer(1),
        "Attention heads of both decoders.")
    encoder_layers: int = option(6, "MODEL.MASK_TRANSFORMER.ENCODER_LAYERS",
        "model.encoder_layers", integer(0),
        "Layers of deformable attention in the pixel decoder.")
    decoder_layers: int = option(9, "MODEL.MASK_TRANSFORMER.DECODER_LAYERS",
        "model.decoder_layers", integer(1),
        "Layers of masked attention in the transformer decoder.")
    points: int = option(112 * 112, "MODEL.MASK_TRANSFORMER.POINTS", "model.points", integer(1),
        "Number of points on which the masks are matched and their losses computed.")


@dataclass(frozen=True)
class Model:
    """The model around the backbone."""

    architecture: str = option("GeneralizedRCNN", "MODEL.META_ARCHITECTURE", "model", text,
        "Meta-architecture.")
    pixel_mean: tuple = option((103.53, 116.28, 123.675), "MODEL.PIXEL_MEAN", "model.pixel_mean",
        sequence(number("a number", lambda value: True), least=1),
        "Mean of each channel or band, in the unit of the pixels.")
    pixel_std: tuple = option((1.0, 1.0, 1.0), "MODEL.PIXEL_STD", "model.pixel_std",
        sequence(positive, least=1),
        "Standard deviation of each channel or band.")
    masks: bool = option(False, "MODEL.MASK_ON", "model.roi_heads.mask_head", flag,
        "Whether the model predicts instance masks.")
    keypoints: bool = option(False, "MODEL.KEYPOINT_ON", "model.roi_heads.keypoint_head", flag,
        "Whether the model predicts keypoints.")
    load_proposals: bool = option(False, "MODEL.LOAD_PROPOSALS", "", flag,
        "Read proposals from files.")
    thing_classes: int | None = option(None, "{things}", "{things}", optional(integer(1)),
        "Number of object classes.")
    stuff_classes: int | None = option(None, "{stuff}", "{stuff}", optional(integer(1)),
        "Number of semantic segmentation classes.")


@dataclass(frozen=True)
class Optimizer:
    """Optimizer and parameter groups."""

    name: str = option("ADAMW", "SOLVER.OPTIMIZER", "optimizer", text,
        "`ADAMW` or `SGD`; in a LazyConfig, any optimizer class.")
    lr: float = option(0.001, "SOLVER.BASE_LR", "optimizer.params.lr", positive,
        "Learning rate of the heads' weights.")
    weight_decay: float = option(0.0001, "SOLVER.WEIGHT_DECAY", "optimizer.params.weight_decay",
        not_negative,
        "Weight decay; always 0 for `logit_scale` and the position-bias MLP.")
    weight_decay_norm: float = option(0.0, "SOLVER.WEIGHT_DECAY_NORM",
        "optimizer.params.weight_decay_norm", not_negative,
        "Weight decay of norms.")
    weight_decay_bias: float | None = option(0.0, "SOLVER.WEIGHT_DECAY_BIAS",
        "optimizer.params.weight_decay_bias", optional(not_negative),
        "Weight decay of biases; None (YAML only): the same as for weights.")
    weight_decay_embed: float = option(0.0, "SOLVER.WEIGHT_DECAY_EMBED",
        "optimizer.params.weight_decay_embed", not_negative,
        "Weight decay of embeddings (`nn.Embedding`), such as the queries of a decoder.")
    bias_lr_factor: float = option(1.0, "SOLVER.BIAS_LR_FACTOR", "optimizer.params.bias_lr_factor",
        positive,
        "Multiplier for the learning rate of biases.")
    backbone_lr_factor: float = option(1.0, "SOLVER.BACKBONE_LR_FACTOR",
        "optimizer.params.backbone_lr_factor", not_negative,
        "Multiplier for the learning rate of the backbone.")
    layer_decay: float = option(1.0, "SOLVER.LAYER_DECAY", "optimizer.params.layer_decay", factor,
        "Multiplier for the learning rate of each block, relative to the block above it.")
    momentum: float = option(0.9, "SOLVER.MOMENTUM", "optimizer.momentum", share,
        "Momentum of SGD.")
    nesterov: bool = option(False, "SOLVER.NESTEROV", "optimizer.nesterov", flag,
        "Nesterov momentum of SGD.")


@dataclass(frozen=True)
class Schedule:
    """Length and learning-rate schedule."""

    max_iter: int = option(40000, "SOLVER.MAX_ITER", "train.max_iter", integer(1),
        "Number of iterations; each is one optimizer step.", lazy_default=90000)
    name: str = option("WarmupMultiStepLR", "SOLVER.LR_SCHEDULER_NAME", "lr_multiplier.scheduler",
        text,
        "One of `WarmupMultiStepLR`, `WarmupCosineLR`, `WarmupPolyLR`; in a LazyConfig, any "
        "scheduler.")
    steps: tuple = option((30000,), "SOLVER.STEPS", "lr_multiplier.scheduler.milestones",
        sequence(integer(1)),
        "Iterations at which the learning rate is multiplied by `GAMMA`.")
    gamma: float = option(0.1, "SOLVER.GAMMA", "lr_multiplier.scheduler.values[1]", positive,
        "Multiplier for the learning rate at each of `STEPS`.")
    poly_power: float = option(1.0, "SOLVER.POLY_POWER", "lr_multiplier.scheduler.power", positive,
        "Power of `WarmupPolyLR`: (1 - iteration / max_iter) ** power.")
    warmup_iters: int = option(1000, "SOLVER.WARMUP_ITERS", "lr_multiplier.warmup_length",
        integer(0),
        "Warm-up iterations; in a LazyConfig, as a fraction of all iterations.")
    warmup_factor: float = option(0.001, "SOLVER.WARMUP_FACTOR", "lr_multiplier.warmup_factor",
        not_negative,
        "Learning rate at the first iteration, relative to that after the warm-up.")
    warmup_method: str = option("linear", "SOLVER.WARMUP_METHOD", "lr_multiplier.warmup_method",
        one_of("linear", "constant"),
        "`linear` or `constant`.")


@dataclass(frozen=True)
class Precision:
    """Device and mixed precision."""

    device: str = option("cuda", "MODEL.DEVICE", "train.device", text,
        "Device to train and evaluate on.")
    amp: bool = option(False, "SOLVER.AMP.ENABLED", "train.amp.enabled", flag,
        "Mixed precision.")
    amp_dtype: str = option("bfloat16", "SOLVER.AMP.DTYPE", "train.amp.dtype",
        one_of("bfloat16", "float16"),
        "`bfloat16`, or `float16` (GPU only).")


@dataclass(frozen=True)
class Clipping:
    """Gradient clipping."""

    enabled: bool = option(False, "SOLVER.CLIP_GRADIENTS.ENABLED", "train.clip", flag,
        "Clip gradients; in a LazyConfig, `train.clip` is None or a dict of the three options "
        "below.")
    kind: str = option("value", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "train.clip.kind",
        one_of(*CLIPPING),
        "`full_model`: clip the norm of all gradients together; `norm`: the norm of each "
        "parameter's gradient; `value`: each element.")
    value: float = option(1.0, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "train.clip.value", positive,
        "Largest norm or value.")
    norm_type: float = option(2.0, "SOLVER.CLIP_GRADIENTS.NORM_TYPE", "train.clip.norm_type",
        number("a number above 0", lambda value: value > 0),
        "Order of the norm.")


@dataclass(frozen=True)
class Step:
    """Optimizer step."""

    batch_size: int = option(16, "SOLVER.IMS_PER_BATCH", "dataloader.train.total_batch_size",
        integer(1),
        "Images per step, in total over all processes.")
    accumulate: int = option(1, "SOLVER.ACCUMULATE", "train.accumulate", integer(1),
        "Number of parts into which the images of a step are divided: less memory, same recipe.")
    ema: bool = option(False, "SOLVER.EMA.ENABLED", "train.ema.enabled", flag,
        "Keep an exponential moving average of the weights, and evaluate it.")
    ema_decay: float = option(0.9999, "SOLVER.EMA.DECAY", "train.ema.decay", share,
        "Decay of the average.")
    sharding: str = option("none", "SOLVER.SHARDING", "train.sharding", one_of(*SHARDING),
        "Training state that is sharded among the processes: `none`, `optimizer` or `all`.")
    broadcast_buffers: bool = option(False, "SOLVER.DDP.BROADCAST_BUFFERS",
        "train.ddp.broadcast_buffers", flag,
        "Argument of DistributedDataParallel.")
    find_unused_parameters: bool = option(False, "SOLVER.DDP.FIND_UNUSED_PARAMETERS",
        "train.ddp.find_unused_parameters", flag,
        "Argument of DistributedDataParallel, for heads that leave parameters unused.")
    max_nonfinite: int = option(0, "SOLVER.MAX_NONFINITE_STEPS", "train.max_nonfinite_steps",
        integer(0),
        "Maximum number of steps to skip because a loss or gradient is not finite.")


@dataclass(frozen=True)
class Data:
    """Datasets and data loading."""

    train: tuple = option((), "DATASETS.TRAIN", "dataloader.train.dataset.names", sequence(text),
        "Names of the datasets to train on.")
    test: tuple = option((), "DATASETS.TEST", "dataloader.test.dataset.names", sequence(text),
        "Names of the datasets to test on.")
    num_workers: int = option(4, "DATALOADER.NUM_WORKERS", "dataloader.train.num_workers",
        integer(0),
        "Data loading workers per training process.")
    filter_empty: bool = option(True, "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
        "dataloader.train.dataset.filter_empty", flag,
        "Exclude images without annotations from training.")
    mask_targets: str = option("none", "INPUT.MASK_TARGETS", "dataloader.train.mapper.mask_targets",
        one_of("none", *TASKS),
        "Targets of a mask classification model ([Other projects](PROJECTS.md)): `instance`, "
        "`semantic` or `panoptic`, a mask for each object, class or segment; `none`: Detectron2's "
        "targets.")
    max_broken: float = option(MAX_BROKEN, "DATALOADER.MAX_BROKEN_IMAGES",
        "dataloader.train.max_broken", share,
        "Fraction of the images that may be broken; they are skipped and logged.")
    samples_picture: bool = option(False, "DATALOADER.SAMPLES_PICTURE", "train.samples_picture",
        flag,
        "Write a picture of nine augmented training images with their labels, "
        "`train_samples.jpg`, before the first iteration; `--fast-dev-run` always does.")
    unsafe_proposals: bool = option(False, "DATASETS.UNSAFE_PROPOSAL_FILES", "", flag,
        "Allow proposal files, which are pickles and can run code when they are read.")
    train_name: str = option("custom_train", "DATASETS.CUSTOM.TRAIN.NAME", "datasets.train.name",
        text,
        "Name under which your training set is registered.")
    train_json: str = option("", "DATASETS.CUSTOM.TRAIN.JSON", "datasets.train.json_file", text,
        "COCO-format file of your training set, or a file or folder of another format; its name "
        "replaces `DATASETS.TRAIN`.")
    train_labels: str = option("", "DATASETS.CUSTOM.TRAIN.LABELS", "datasets.train.labels", text,
        "Alternatively, a folder of semantic label images, named like the images.")
    train_images: str = option("", "DATASETS.CUSTOM.TRAIN.IMAGES", "datasets.train.images", text,
        "Folder that the file names are relative to; empty: where the format has it.")
    train_format: str = option("auto", "DATASETS.CUSTOM.TRAIN.FORMAT", "datasets.train.format",
        one_of(*FORMAT_NAMES),
        "Format of the annotations ([list](DATASETS.md#other-formats)); `auto`: detected.")
    test_name: str = option("custom_test", "DATASETS.CUSTOM.TEST.NAME", "datasets.test.name", text,
        "Name under which your test set is registered.")
    test_json: str = option("", "DATASETS.CUSTOM.TEST.JSON", "datasets.test.json_file", text,
        "The same for your test set; its name replaces `DATASETS.TEST`.")
    test_labels: str = option("", "DATASETS.CUSTOM.TEST.LABELS", "datasets.test.labels", text,
        "Alternatively, a folder of semantic label images, named like the images.")
    test_images: str = option("", "DATASETS.CUSTOM.TEST.IMAGES", "datasets.test.images", text,
        "Folder that the file names are relative to; empty: where the format has it.")
    test_format: str = option("auto", "DATASETS.CUSTOM.TEST.FORMAT", "datasets.test.format",
        one_of(*FORMAT_NAMES),
        "Format of the annotations ([list](DATASETS.md#other-formats)); `auto`: detected.")
    class_names_file: str = option("", "DATASETS.CUSTOM.NAMES", "datasets.train.names_file", text,
        "For semantic labels: a text file whose line i, counted from 0, is the name of class i.")
    images_outside: bool = option(False, "DATASETS.CUSTOM.IMAGES_OUTSIDE",
        "datasets.train.images_outside", flag,
        "Allow file names in the JSON that point outside `IMAGES`.")
    crowds: str = option("check", "DATASETS.CUSTOM.CROWDS", "datasets.train.crowds",
        one_of(*CROWD_MODES),
        "Meaning of `iscrowd` 1 in the JSON. `check`: a crowd as in COCO, neither trained on nor "
        "scored; an implausible share of them is an error. `ignore`: the same without this error. "
        "`objects`: single objects, with bitmaps as masks.")
    holes: str = option("fill", "DATASETS.CUSTOM.HOLES", "datasets.train.holes",
        one_of(*HOLE_MODES),
        "Meaning of a polygon inside another one of the same object. `fill`: a part, as in COCO. "
        "`subtract`: a hole, with bitmaps as masks.")
    cache: str = option("", "DATASETS.CUSTOM.CACHE", "datasets.train.cache", text,
        "Folder that keeps the results of checks of 1,000 images and more, for later runs on "
        "unchanged files. Empty: `OUTPUT_DIR/datasets/cache`.")
    class_names: tuple | None = option((), "DATASETS.CUSTOM.CLASSES", "datasets.test.classes",
        optional(sequence(text)),
        "Names of the model's classes, which a test set is matched with; by default those of the "
        "training set, saved with the config.")


@dataclass(frozen=True)
class Augmentation:
    """Image sizes and augmentation."""

    image_format: str = option("BGR", "INPUT.FORMAT", "dataloader.train.mapper.image_format", text,
        "Channel order, `RGB` or `BGR`: use `RGB` for SwinV2. Or `BANDS`: all bands of TIFF files "
        "and NumPy arrays, as many as `PIXEL_MEAN` has numbers ([Your data](DATASETS.md)).")
    display_bands: tuple = option((), "INPUT.DISPLAY_BANDS", "train.display_bands",
        either(only(()), sequence(integer(0), least=3)),
        "With `BANDS`, the three bands that are drawn as red, green and blue, counted from 0; "
        "empty: the first three.")
    min_size: tuple = option((800,), "INPUT.MIN_SIZE_TRAIN", f"{RESIZE}.short_edge_length",
        sequence(integer(0)),
        "Lengths of the shorter side in training, in pixels; one is sampled per image.")
    max_size: int = option(1333, "INPUT.MAX_SIZE_TRAIN", f"{RESIZE}.max_size", integer(1),
        "Maximum length of the longer side in training.")
    sample_style: str = option("choice", "INPUT.MIN_SIZE_TRAIN_SAMPLING", f"{RESIZE}.sample_style",
        one_of("choice", "range"),
        "`choice`: one of the lengths; `range`: any length between two.")
    flip: str = option("horizontal", "INPUT.RANDOM_FLIP", FLIP,
        one_of("horizontal", "vertical", "none"),
        "Random flip.")
    lsj: bool = option(False, "INPUT.LSJ.ENABLED", JITTER, flag,
        "Large-scale jitter, instead of the sizes above and `CROP`.")
    lsj_size: int = option(1024, "INPUT.LSJ.SIZE", f"{JITTER}.target_height", integer(1),
        "Side of the crop of large-scale jitter, in pixels.")
    lsj_min_scale: float = option(0.1, "INPUT.LSJ.MIN_SCALE", f"{JITTER}.min_scale", positive,
        "Smallest scale; at 1 the image just fits into the crop.")
    lsj_max_scale: float = option(2.0, "INPUT.LSJ.MAX_SCALE", f"{JITTER}.max_scale", positive,
        "Largest scale.")
    crop: bool = option(False, "INPUT.CROP.ENABLED", CROP, flag,
        "Random crop: after resizing for semantic segmentation, before resizing for detection.")
    crop_type: str = option("relative_range", "INPUT.CROP.TYPE", f"{CROP}.crop_type",
        one_of("relative", "relative_range", "absolute", "absolute_range"),
        "Meaning of `INPUT.CROP.SIZE`, as in Detectron2.")
    crop_size: tuple = option((0.9, 0.9), "INPUT.CROP.SIZE", f"{CROP}.crop_size",
        sequence(positive, least=2),
        "Height and width of the crop.")
    crop_single_category: float = option(1.0, "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA",
        f"{CROP}.single_category_max_area",
        factor,
        "In semantic segmentation, draw the crop again if one class fills more than this fraction.")
    color: bool = option(False, "INPUT.COLOR_AUG_SSD", COLOR, flag,
        "Random brightness, contrast, saturation and hue.")
    test_min_size: int = option(800, "INPUT.MIN_SIZE_TEST", f"{TEST_RESIZE}.short_edge_length",
        integer(0),
        "Length of the shorter side in testing; 0: no resizing.")
    test_max_size: int = option(1333, "INPUT.MAX_SIZE_TEST", f"{TEST_RESIZE}.max_size", integer(1),
        "Maximum length of the longer side in testing.")


@dataclass(frozen=True)
class Evaluation:
    """Evaluation."""

    period: int = option(0, "TEST.EVAL_PERIOD", "train.eval_period", integer(0),
        "Iterations between evaluations; 0: only at the end.", lazy_default=5000)
    best_metric: str = option("", "TEST.BEST_METRIC", "train.best_metric", text,
        "Metric such as `bbox/AP` or `sem_seg/mIoU`; `model_best.pth` has the weights with its "
        "highest value.")
    early_stopping_metric: str = option("", "TEST.EARLY_STOPPING.METRIC",
        "train.early_stopping.metric", text,
        "Metric, named as above; training ends when it stops improving.")
    early_stopping_patience: int = option(5, "TEST.EARLY_STOPPING.PATIENCE",
        "train.early_stopping.patience", integer(1),
        "Evaluations without improvement after which training ends.")
    detections_per_image: int = option(100, "TEST.DETECTIONS_PER_IMAGE", "{detections}",
        either(integer(1), only(-1)),
        "Maximum number of detections per image, which AP counts too (at least COCO's 100); -1: no "
        "maximum.")
    proposals_per_image: int = option(1000, "{proposals}", "{proposals}", integer(1),
        "Maximum number of proposals per image in testing.")
    augmented: bool = option(False, "TEST.AUG.ENABLED", "train.test_aug.enabled", flag,
        "Test-time augmentation, at the end of training and with `--eval-only`.")
    augmented_min_sizes: tuple = option((400, 500, 600, 700, 800, 900, 1000, 1100, 1200),
        "TEST.AUG.MIN_SIZES", "train.test_aug.min_sizes", sequence(integer(1), least=1),
        "Lengths of the shorter side in test-time augmentation.")
    augmented_max_size: int = option(4000, "TEST.AUG.MAX_SIZE", "train.test_aug.max_size",
        integer(1),
        "Maximum length of the longer side in test-time augmentation.")
    augmented_flip: bool = option(True, "TEST.AUG.FLIP", "train.test_aug.flip", flag,
        "Whether test-time augmentation adds horizontal flips.")
    precise_bn: bool = option(False, "TEST.PRECISE_BN.ENABLED", "train.precise_bn.enabled", flag,
        "Recompute the batch norm statistics before each evaluation.")
    precise_bn_iters: int = option(200, "TEST.PRECISE_BN.NUM_ITER", "train.precise_bn.num_iter",
        integer(1),
        "Number of batches for the batch norm statistics.")
    expected_results: tuple = option((), "TEST.EXPECTED_RESULTS", "train.expected_results",
        sequence(anything),
        "Expected results, in the format of Detectron2's `verify_results`.")


@dataclass(frozen=True)
class Run:
    """Weights, files and limits of a run."""

    output_dir: str = option("./output", "OUTPUT_DIR", "train.output_dir", text,
        "Folder for checkpoints, logs and results.")
    weights: str = option("", "MODEL.WEIGHTS", "train.init_checkpoint", text,
        "File of any layout, `swinv2://NAME` or `hf://org/name`; empty: random weights.")
    imports: tuple = option((), "IMPORTS", "", sequence(text),
        "Written by `--import`: code of other projects that the config needs "
        "([Other projects](PROJECTS.md)).")
    partial_weights: bool = option(False, "MODEL.SWINV2.PARTIAL_WEIGHTS", "train.partial_weights",
        flag,
        "Load the weights even if tensors of the backbone are missing or unexpected.")
    stem: str | None = option(None, "MODEL.SWINV2.STEM", "train.stem",
        optional(one_of(*STEM_RULES)),
        "Rule for weights of another number of bands: `repeat`, `mean` or `zero` "
        "([Bands](BANDS.md#weights-for-other-bands)); None: such weights are refused.")
    checkpoint_period: int = option(5000, "SOLVER.CHECKPOINT_PERIOD", "train.checkpointer.period",
        integer(1),
        "Iterations between checkpoints.")
    checkpoints_kept: int | None = option(None, "SOLVER.CHECKPOINTS_KEPT",
        "train.checkpointer.max_to_keep", optional(integer(1)),
        "Number of latest checkpoints to keep, besides the final one; None: all.")
    log_period: int = option(20, "SOLVER.LOG_PERIOD", "train.log_period", integer(1),
        "Iterations between log lines.")
    trackers: tuple = option((), "TRACKING.TRACKERS", "train.tracking.trackers",
        sequence(one_of("wandb", "mlflow")),
        "Experiment trackers that log the run: `wandb`, `mlflow` "
        "([Experiment trackers](TRAINING.md#experiment-trackers)).")
    tracking_project: str = option("swinv2", "TRACKING.PROJECT", "train.tracking.project", text,
        "Name of the trackers' project (MLflow: experiment).")
    tracking_name: str = option("", "TRACKING.NAME", "train.tracking.name", text,
        "Name of the run in the trackers; empty: they choose one.")
    time_limit: float | None = option(None, "SOLVER.TIME_LIMIT", "train.time_limit",
        optional(positive),
        "Minutes after which a run saves, evaluates and ends; `--resume` continues it. None: no "
        "limit.")
    seed: int = option(-1, "SEED", "train.seed", integer(-1),
        "Seed of all random generators; -1: a new seed for each run.")
    cudnn_benchmark: bool = option(False, "CUDNN_BENCHMARK", "train.cudnn_benchmark", flag,
        "Whether cuDNN benchmarks its algorithms and selects the fastest.")
# fmt: on


SECTIONS: dict[str, type] = {
    "backbone": Backbone,
    "upernet": UPerNet,
    "mask_transformer": MaskTransformer,
    "model": Model,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "precision": Precision,
    "clipping": Clipping,
    "step": Step,
    "data": Data,
    "augmentation": Augmentation,
    "evaluation": Evaluation,
    "run": Run,
}
OPTIONS: dict[str, Option] = {
    each.name: each for name, section in SECTIONS.items() for each in options_of(section, name)
}


def sections_from(values: Mapping[str, Any]) -> dict[str, Any]:
    """Build the sections of a plan from the values of options by their dotted names."""
    return {
        name: section(
            **{
                each.name: values[f"{name}.{each.name}"]
                for each in dataclasses.fields(section)
                if f"{name}.{each.name}" in values
            }
        )
        for name, section in SECTIONS.items()
    }
