"""Train or evaluate a model with a SwinV2 backbone.  The flags are Detectron2's own:

tools/train_net.py --config-file configs/mask_rcnn_swinv2.yaml --num-gpus 8 [KEY VALUE ...]
tools/train_net.py --config-file ... --fast-dev-run    # a trial run of a minute
tools/train_net.py --config-file ... --resume
tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth

A config is a YAML file or a LazyConfig (.py), whose overrides are key=value. A LazyConfig is Python
code that is executed: use only files that you trust.
"""

from __future__ import annotations

import argparse
import sys

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from swinv2_backbone.cli.arguments import add_imports
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.engine.launch import launch
from swinv2_backbone.d2.engine.prepare import prepare
from swinv2_backbone.d2.engine.rehearsal import rehearsal_folder
from swinv2_backbone.d2.engine.step_report import NonFiniteError
from swinv2_backbone.d2.engine.trainer import build_trainer, load_plan
from swinv2_backbone.d2.engine.training import evaluate_plan, load_for_evaluation


def parser() -> argparse.ArgumentParser:
    found = default_argument_parser(epilog=__doc__)
    add_imports(found)
    found.add_argument(
        "--fast-dev-run",
        action="store_true",
        help="trial run: a few iterations and evaluations of everything, in the subfolder "
        "fast_dev_run of the output folder",
    )
    return found


def main(args: argparse.Namespace) -> dict | None:
    """Train or evaluate in this process; return the last results."""
    try:
        plan = setup(args)
        if args.eval_only:
            model = load_for_evaluation(plan, args.resume)
        else:
            trainer = build_trainer(plan)
            trainer.resume_or_load(resume=args.resume)
    except (OSError, ValueError) as error:  # the user can fix it, so no traceback
        sys.exit(f"{type(error).__name__}: {error}")
    try:
        results = evaluate_plan(plan, model) if args.eval_only else trainer.train()
    except NonFiniteError as error:
        allowed = plan.setting(error.option, plan[error.option])
        raise NonFiniteError(f"{error} ({allowed})") from error
    verify(plan, results)
    return results


def setup(args: argparse.Namespace) -> TrainingPlan:
    """Load the config, check the data, and set up logs and seeds."""
    plan = load_plan(args.config_file, args.opts, args.imports)
    if args.fast_dev_run:
        plan = plan.replaced({"run.output_dir": rehearsal_folder(plan.run.output_dir)})
    # Before the data is checked, so that repairs are logged.
    rank = comm.get_rank()
    setup_logger(plan.run.output_dir, distributed_rank=rank, name="swinv2_backbone")
    plan = prepare(plan, eval_only=args.eval_only, resume=args.resume, rehearse=args.fast_dev_run)
    default_setup(plan.config, args)
    return plan


def verify(plan: TrainingPlan, results: dict | None) -> None:
    """Exit if the results differ from those that the config expects."""
    expected = list(plan.evaluation.expected_results)
    if expected and results and comm.is_main_process():
        verify_results(CfgNode({"TEST": {"EXPECTED_RESULTS": expected}}), results)


def run() -> None:
    """Start the processes that the command line asks for."""
    launch(main, parser().parse_args())
