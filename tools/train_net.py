#!/usr/bin/env python
"""Train or evaluate a model with a SwinV2 backbone.  The flags are Detectron2's own:

tools/train_net.py --config-file configs/mask_rcnn_swinv2.yaml --num-gpus 8 [KEY VALUE ...]
tools/train_net.py --config-file ... --fast-dev-run    # everything once, in a minute
tools/train_net.py --config-file ... --resume
tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth
"""

from __future__ import annotations

import argparse
import logging
import sys

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from swinv2_backbone.checkpoints.fetch import check_source
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.custom import check_selected_classes, register_custom_datasets
from swinv2_backbone.d2.data.datasets.selected import check_datasets
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.launch import launch
from swinv2_backbone.d2.engine.rehearsal import rehearsal_folder, shorten
from swinv2_backbone.d2.engine.summary import summarise_config
from swinv2_backbone.d2.engine.trainer import Trainer
from swinv2_backbone.d2.evaluation.evaluators import check_evaluation


def setup(args: argparse.Namespace) -> CfgNode:
    cfg = load_config(args.config_file, args.opts)
    if args.fast_dev_run:
        cfg.OUTPUT_DIR = rehearsal_folder(cfg.OUTPUT_DIR)
    # Before the data is looked at, so that what is mended there is in the log.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="swinv2_backbone")
    if args.eval_only:
        register_custom_datasets(cfg, ("TEST",))
        if not cfg.MODEL.WEIGHTS and not args.resume:
            raise ValueError("nothing to evaluate: give MODEL.WEIGHTS output/model_final.pth")
    else:
        register_custom_datasets(cfg)
        if not cfg.DATASETS.TRAIN:
            raise ValueError("nothing to train on: give DATASETS.CUSTOM.TRAIN.JSON")
        if args.fast_dev_run and args.resume:
            raise ValueError("--fast-dev-run always starts anew: leave out --resume")
    used = [*cfg.DATASETS.TEST, *(() if args.eval_only else cfg.DATASETS.TRAIN)]
    check_datasets(used)
    check_selected_classes(cfg, used)
    best = "" if args.eval_only else cfg.TEST.BEST_METRIC
    check_evaluation(cfg.DATASETS.TEST, best, masks=cfg.MODEL.MASK_ON)
    check_source(cfg.MODEL.WEIGHTS)
    if args.fast_dev_run:
        shorten(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def load_for_evaluation(cfg: CfgNode, resume: bool) -> nn.Module:
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    checkpointer.require_complete()
    if comm.is_main_process():
        summary = summarise_config(cfg, model, checkpointer)
        logging.getLogger("swinv2_backbone").info(f"\n{summary}")
    return model


def evaluate(cfg: CfgNode, model: nn.Module) -> dict:
    results = Trainer.evaluate(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def parser() -> argparse.ArgumentParser:
    found = default_argument_parser(epilog=__doc__)
    found.add_argument(
        "--fast-dev-run",
        action="store_true",
        help="a rehearsal: a few iterations and one evaluation of everything, in OUTPUT_DIR/"
        "fast_dev_run",
    )
    return found


def main(args: argparse.Namespace) -> dict | None:
    try:
        cfg = setup(args)
        if args.eval_only:
            model = load_for_evaluation(cfg, args.resume)
        else:
            trainer = Trainer(cfg)
            trainer.resume_or_load(resume=args.resume)
    except (OSError, ValueError) as error:  # something the user can mend, so no traceback
        sys.exit(f"{type(error).__name__}: {error}")
    return evaluate(cfg, model) if args.eval_only else trainer.train()


if __name__ == "__main__":
    launch(main, parser().parse_args())
