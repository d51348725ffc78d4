"""Train or evaluate a model with a SwinV2 backbone.  The flags are Detectron2's own:

tools/train_net.py --config-file configs/mask_rcnn_swinv2.yaml --num-gpus 8 [KEY VALUE ...]
tools/train_net.py --config-file ... --fast-dev-run    # a trial run of a minute
tools/train_net.py --config-file ... --resume
tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/model_final.pth
tools/train_net.py --config-file ... --eval-only --exported detector.onnx    # docs/EXPORT.md

A config is a YAML file or a LazyConfig (.py), whose overrides are key=value. A LazyConfig is Python
code that is executed: use only files that you trust.
"""

from __future__ import annotations

import argparse
import os
import sys

from swinv2_backbone.cli.arguments import add_config_changes, add_imports, new_parser


def parser() -> argparse.ArgumentParser:
    """Return Detectron2's ``default_argument_parser``, made without Detectron2, and our options."""
    found = new_parser(__doc__)
    add = found.add_argument
    add("--config-file", default="", metavar="FILE", help="a recipe's name, or a file")
    add("--list", action="store_true", help="list the recipes")
    add("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    add("--eval-only", action="store_true", help="evaluate, do not train")
    add(
        "--fast-dev-run",
        action="store_true",
        help="trial run: a few iterations and evaluations of everything, in the subfolder "
        "fast_dev_run of the output folder",
    )
    add("--exported", metavar="FILE", help="evaluate a file of tools/export_model.py on the CPU")
    add_processes(found)
    add_imports(found)
    add_config_changes(found)
    return found


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add Detectron2's options of processes and machines."""
    add = parser.add_argument
    add("--num-gpus", type=int, default=1, metavar="N", help="processes on each machine")
    add("--num-machines", type=int, default=1, metavar="N")
    add("--machine-rank", type=int, default=0, metavar="N", help="number of this machine")
    add(
        "--dist-url",
        default=default_url(),
        metavar="URL",
        help="where several machines meet, tcp://HOST:PORT",
    )


def default_url() -> str:
    """Return Detectron2's default, which has a port for each user (a test compares)."""
    user = os.getuid() if sys.platform != "win32" else 1
    return f"tcp://127.0.0.1:{2**15 + 2**14 + hash(user) % 2**14}"
