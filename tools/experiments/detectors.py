"""A small Mask R-CNN on the demo dataset, from the backbone of a classifier."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.utils.env import seed_all_rng
from torch import nn
from torch.utils.data import DataLoader

from experiments import masked
from experiments.biases import set_bias
from experiments.classify import WINDOW
from experiments.padding import attend_padding
from experiments.transfer import pretrained_backbone
from swinv2_backbone import SwinV2, load_checkpoint
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.custom import register_custom_datasets
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.demo.dataset import generate_demo_dataset
from swinv2_backbone.d2.engine.trainer import Trainer

CONFIG = Path(__file__).parents[2] / "configs" / "mask_rcnn_swinv2_demo.yaml"
SIDE = 96  # pixels, typical; sides are 0.75 to 1.25 of it
TOGETHER = 8  # images of a batch that is padded to its largest
SCRATCH, SIMMIM = "scratch", "simmim"


def make_dataset(folder: Path, *, train: int, test: int) -> dict:
    generate_demo_dataset(folder / "demo", num_train=train, num_val=test, image_size=SIDE)
    return {}


def detect(
    folder: Path,
    *,
    start: str,
    seed: int,
    window: int,
    iterations: int,
    pretrained_window: int = WINDOW,
    attended: bool = False,
    frozen: bool = False,
) -> dict:
    """Train and test a detector; return box and mask AP, also of images tested in batches.

    Args:
        start: The bias of the classifier that it starts from; or ``SIMMIM`` (log-CPB, weights of a
            pre-training without labels), or ``SCRATCH``.
        pretrained_window: The window that normalizes the position bias.
        attended: Attend to the padding of windows and batches as if it were image.
        frozen: Train only the FPN and the heads.
    """

    def prepare(backbone: SwinV2) -> None:
        backbone.set_pretrained_window_sizes(WINDOW)
        if start == SIMMIM:
            load_checkpoint(backbone, masked.weights_file(folder, seed))
        elif start != SCRATCH:
            set_bias(backbone, start)
            backbone.load_state_dict(pretrained_backbone(folder, start, seed))
        backbone.set_pretrained_window_sizes(pretrained_window)
        if attended:
            attend_padding(backbone)
        backbone.requires_grad_(not frozen)

    for name in ("detectron2", "fvcore", "swinv2_backbone"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with TemporaryDirectory() as output, redirect_stdout(StringIO()):
        cfg = _config(folder, output, seed, window, iterations, attended)
        model = _train(cfg, prepare)
        alone, together = _evaluate(cfg, model, batch=1), _evaluate(cfg, model, batch=TOGETHER)
    return {
        "box_ap": alone["bbox"]["AP"],
        "mask_ap": alone["segm"]["AP"],
        "box_ap_together": together["bbox"]["AP"],
    }


def _config(
    folder: Path, output: str, seed: int, window: int, iterations: int, attended: bool
) -> CfgNode:
    cfg = load_config(str(CONFIG), ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", output])
    cfg.SEED, cfg.MODEL.SWINV2.WINDOW_SIZE = seed, window
    cfg.MODEL.SWINV2.MASK_PADDING = not attended
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (SIDE,), SIDE
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = SIDE * 3 // 2
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.CHECKPOINT_PERIOD = iterations
    cfg.SOLVER.WARMUP_ITERS = iterations // 10
    for split, short in (("TRAIN", "train"), ("TEST", "val")):
        node = cfg.DATASETS.CUSTOM[split]
        node.JSON, node.IMAGES = str(folder / f"demo/{short}.json"), str(folder / f"demo/{short}")
    return register_custom_datasets(cfg)


def _train(cfg: CfgNode, prepare: Callable[[SwinV2], None]) -> nn.Module:
    class Prepared(Trainer):
        @classmethod
        def build_model(cls, cfg: CfgNode) -> nn.Module:
            """Prepare the backbone before the optimizer holds its parameters."""
            model = super().build_model(cfg)
            prepare(model.backbone.bottom_up.swinv2)
            return model

    cfg = cfg.clone()
    cfg.DATASETS.TEST = ()  # tested below, in two ways
    seed_all_rng(cfg.SEED)
    trainer = Prepared(cfg)
    trainer.train()
    return trainer.model


def _evaluate(cfg: CfgNode, model: nn.Module, batch: int) -> dict:
    name = cfg.DATASETS.TEST[0]
    mapper = DatasetMapper(cfg, is_train=False)
    images = build_detection_test_loader(cfg, name, mapper=mapper).dataset
    # Detectron2 0.6 tests one image at a time.
    loader = DataLoader(images, batch_size=batch, collate_fn=list)
    return inference_on_dataset(model, loader, COCOEvaluator(name, output_dir=None))
