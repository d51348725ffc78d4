"""Training and evaluation in one process, as ``cli/train.py`` starts it; needs Detectron2."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from torch import nn

from swinv2_backbone.cli.errors import errors_as_messages
from swinv2_backbone.cli.training_options import parser
from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.engine.endings import errors_in_a_sentence, setup_sentence
from swinv2_backbone.d2.engine.last_checkpoint import FINAL
from swinv2_backbone.d2.engine.launch import LaunchError, launch
from swinv2_backbone.d2.engine.lock import locked
from swinv2_backbone.d2.engine.log_files import open_logs
from swinv2_backbone.d2.engine.prepare import prepare
from swinv2_backbone.d2.engine.rehearsal import rehearsal_folder
from swinv2_backbone.d2.engine.setup import set_up
from swinv2_backbone.d2.engine.shared_errors import is_printed_here
from swinv2_backbone.d2.engine.signals import ending_by_signals
from swinv2_backbone.d2.engine.step_report import NonFiniteError
from swinv2_backbone.d2.engine.trainer import build_trainer, load_plan
from swinv2_backbone.d2.engine.training import evaluate_plan, load_for_evaluation


def main(args: argparse.Namespace) -> dict | None:
    """Train or evaluate in this process; return the last results.

    A training holds the lock of its output folder; evaluations may run beside it.
    """
    with errors_as_messages():
        plan = read_plan(args)
    folder = plan.run.output_dir
    with contextlib.ExitStack() as owned:
        owned.enter_context(errors_in_a_sentence(folder, training=not args.eval_only))
        try:
            if not args.eval_only:
                owned.enter_context(locked(folder))
            plan = setup(plan, args)
            if args.exported:
                from swinv2_backbone.d2.export.evaluate import load_exported

                image_format = plan.augmentation.image_format
                model: nn.Module = load_exported(Path(args.exported), image_format)
            elif args.eval_only:
                model = load_for_evaluation(plan, args.resume)
            else:
                trainer = build_trainer(plan)
                trainer.resume_or_load(resume=args.resume)
        except (OSError, ValueError) as error:  # the user can fix it, so no traceback
            sys.exit(setup_sentence(error, folder) if is_printed_here(error) else 1)
        try:
            augmented = not args.exported  # a file has no test-time augmentation
            results = evaluate_plan(plan, model, augmented) if args.eval_only else trainer.train()
        except NonFiniteError as error:
            allowed = plan.setting(error.option, plan[error.option])
            error.args = (f"{error} ({allowed})",)
            raise
    verify(plan, results)
    return results


def read_plan(args: argparse.Namespace) -> TrainingPlan:
    """Load the config, and apply the changes of the command line."""
    plan = load_plan(args.config_file, args.opts, args.imports)
    if args.exported:
        plan = plan.replaced({"run.weights": args.exported})
    if args.fast_dev_run:
        plan = plan.replaced({"run.output_dir": rehearsal_folder(plan.run.output_dir)})
    return plan


def setup(plan: TrainingPlan, args: argparse.Namespace) -> TrainingPlan:
    """Check the data, and set up logs and seeds."""
    # Before the data is checked, so that repairs are logged.
    open_logs(plan.run.output_dir)
    if not (args.eval_only or args.resume) and Path(plan.run.output_dir, FINAL).is_file():
        logging.getLogger(__name__).warning(
            f"{plan.run.output_dir} has a finished training, whose {FINAL} this one will replace; "
            "to keep it, choose another output folder, or continue it with --resume"
        )
    plan = prepare(plan, eval_only=args.eval_only, resume=args.resume, rehearse=args.fast_dev_run)
    set_up(plan.config, args)
    return plan


def verify(plan: TrainingPlan, results: dict | None) -> None:
    """Exit if the results differ from those that the config expects."""
    expected = list(plan.evaluation.expected_results)
    if expected and results and comm.is_main_process():
        verify_results(CfgNode({"TEST": {"EXPECTED_RESULTS": expected}}), results)


def run(args: argparse.Namespace | None = None) -> None:
    """Start the processes that the command line asks for."""
    with ending_by_signals():
        try:
            launch(main, args or parser().parse_args())
        except LaunchError as error:
            sys.exit(f"ValueError: {error}")
