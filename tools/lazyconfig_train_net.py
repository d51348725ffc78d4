#!/usr/bin/env python
"""Train or evaluate a model with a SwinV2 backbone by a LazyConfig.  Detectron2's own flags:

tools/lazyconfig_train_net.py --config-file configs/mask_rcnn_swinv2.py --num-gpus 8 [key=value ...]
tools/lazyconfig_train_net.py --config-file ... --fast-dev-run    # everything once, in a minute
tools/lazyconfig_train_net.py --config-file ... --resume
tools/lazyconfig_train_net.py --config-file ... --eval-only train.init_checkpoint=output/model.pth

A LazyConfig is Python that is run: only use files that you trust.
"""

from __future__ import annotations

import argparse
import sys

from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from swinv2_backbone.d2.config.lazy import load_lazy_config
from swinv2_backbone.d2.engine import lazy
from swinv2_backbone.d2.engine.launch import launch
from swinv2_backbone.d2.engine.rehearsal import rehearsal_folder


def main(args: argparse.Namespace) -> dict:
    try:
        cfg = load_lazy_config(args.config_file, args.opts)
        if args.fast_dev_run:
            cfg.train.output_dir = rehearsal_folder(cfg.train.output_dir)
        # Before the data is looked at, so that what is mended there is in the log.
        setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="swinv2_backbone")
        lazy.prepare(cfg, args.eval_only, args.resume, args.fast_dev_run)
        default_setup(cfg, args)
        if args.eval_only:
            model = lazy.load_for_evaluation(cfg, args.resume)
        else:
            trainer = lazy.LazyTrainer(cfg, args.resume)
    except (OSError, ValueError) as error:  # something the user can mend, so no traceback
        sys.exit(f"{type(error).__name__}: {error}")
    return lazy.evaluate(cfg, model, augmented=True) if args.eval_only else trainer.train()


def parser() -> argparse.ArgumentParser:
    found = default_argument_parser(epilog=__doc__)
    found.add_argument(
        "--fast-dev-run",
        action="store_true",
        help="a rehearsal: a few iterations and one evaluation of everything, in train.output_dir/"
        "fast_dev_run",
    )
    return found


if __name__ == "__main__":
    launch(main, parser().parse_args())
