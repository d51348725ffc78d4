"""Train or evaluate a model: ``swinv2 train`` and ``tools/train_net.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import config_changes
from swinv2_backbone.cli.errors import errors_as_messages, require_detectron2
from swinv2_backbone.cli.training_options import parser
from swinv2_backbone.recipes import config_path, recipe_names
from swinv2_backbone.source_digest import split_digest


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        if args.list:
            print("\n".join(recipe_names()))
            return
        check(args)
        args.config_file = str(config_path(args.config_file))
        require_detectron2()
        from swinv2_backbone.cli import train_net
    train_net.run(args)


def check(args: argparse.Namespace) -> None:
    """Raise for arguments that cannot work, before Detectron2 is imported, which takes seconds.

    Raises:
        FileNotFoundError: the config or the weights do not exist.
        ValueError: options contradict each other, the changes of the config are incomplete, or the
            digest of the weights is malformed.
    """
    if not args.config_file:
        raise ValueError("give a config: the name of a recipe (--list) or --config-file FILE")
    if args.fast_dev_run and args.resume:
        raise ValueError("--fast-dev-run always starts anew: omit --resume")
    if args.exported and not args.eval_only:
        raise ValueError(f"--exported {args.exported} goes with --eval-only")
    changes = config_changes(args.config_file, args.opts, args.imports)
    for key in ("MODEL.WEIGHTS", "train.init_checkpoint"):
        file, _ = split_digest(changes.get(key, ""))
        if file and "://" not in file and not Path(file).exists():
            raise FileNotFoundError(f"{key}: there is no file {file!r}")
