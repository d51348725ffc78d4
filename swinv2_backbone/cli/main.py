"""``swinv2 COMMAND``: all commands in one; ``python -m swinv2_backbone`` is the same.

The commands are those of ``tools/``, with the same options, and a shorter form: a recipe's name or
the output folder of a training takes the place of ``--config-file`` and ``MODEL.WEIGHTS``.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from swinv2_backbone import __version__
from swinv2_backbone.cli import arguments, words
from swinv2_backbone.cli.errors import errors_as_messages, interrupted, require_detectron2


class Command(NamedTuple):
    """A command: the module with its ``main(argv)``, and what its help shows.

    ``rewrite`` turns the short form into options; ``needs_detectron2`` is False where the command,
    or some use of it, works without.
    """

    module: str
    summary: str
    usage: str
    rewrite: Callable[[Sequence[str]], list[str]] = list
    needs_detectron2: bool = True


COMMANDS = {
    "train": Command(
        "train",
        "train a model by a recipe or a config",
        "CONFIG [--num-gpus N] [--resume] [KEY VALUE ...]",
        words.of_training,
    ),
    "eval": Command(
        "evaluate",
        "evaluate a trained model",
        "OUTPUT_FOLDER|CONFIG [--num-gpus N] [KEY VALUE ...]",
        words.of_evaluation,
    ),
    "predict": Command(
        "predict",
        "draw predictions on images and videos, and write them as JSON",
        "OUTPUT_FOLDER|CONFIG IMAGE|FOLDER ... --output DIR [KEY VALUE ...]",
        words.of_prediction,
    ),
    "merge-predictions": Command(
        "merge_predictions",
        "merge predictions in shards into one COCO file",
        "SHARDS FILE",
    ),
    "analyze": Command(
        "analyze",
        "report what a training got right and wrong, or what a model costs",
        "results OUTPUT_FOLDER ... | model NAME ...",
        needs_detectron2=False,
    ),
    "export": Command(
        "export_model",
        "write a model as a file for another runtime: ONNX, OpenVINO, ...",
        "OUTPUT_FOLDER|CONFIG|MODEL --what WHAT --format FORMAT --output FILE",
        words.of_export,
        needs_detectron2=False,
    ),
    "convert": Command(
        "convert_checkpoint",
        "convert weights between layouts",
        "SRC DST [--to LAYOUT] [--check]",
        needs_detectron2=False,
    ),
    "convert-dataset": Command(
        "convert_dataset",
        "convert annotations of other tools to COCO's format",
        "SOURCE --output FILE [--split SHARE]",
    ),
    "suggest": Command(
        "suggest",
        "suggest a recipe and settings for a dataset",
        "DATASET --memory SIZE [--output FILE]",
    ),
    "classify": Command(
        "classify",
        "classify images, or measure accuracy",
        "IMAGE ... --model NAME [--weights FILE]",
        needs_detectron2=False,
    ),
    "pretrain": Command(
        "pretrain_simmim",
        "pre-train a model on images without labels",
        "--images FOLDER --output FOLDER --variant NAME --epochs N",
    ),
    "demo": Command(
        "demo",
        "make a dataset, train on it, evaluate and draw, within minutes",
        "[--semantic] [KEY VALUE ...]",
    ),
    "make-demo-dataset": Command(
        "make_demo_dataset", "write the dataset of the demo", "FOLDER [--num-train N]"
    ),
    "prepare-ade20k": Command(
        "prepare_ade20k",
        "prepare ADE20K's labels for Detectron2",
        "FOLDER",
    ),
    "info": Command(
        "info",
        "print versions, devices and kernels, for a bug report",
        "[--json]",
        needs_detectron2=False,
    ),
    "install-detectron2": Command(
        "install_detectron2",
        "install Detectron2, which PyPI does not have under its own name",
        "[--source auto|official|sdist]",
        needs_detectron2=False,
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    try:
        run(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader ended, as in ``swinv2 info | head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        interrupted()


def run(argv: Sequence[str] | None) -> None:
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
    elif name in ("-V", "--version"):
        print(f"swinv2_backbone {__version__}")
    elif name not in COMMANDS:
        sys.exit(unknown(name))
    else:
        start(name, rest)


def start(name: str, argv: Sequence[str]) -> None:
    """Run a command with its words."""
    command = COMMANDS[name]
    arguments.shown = arguments.Shown(f"swinv2 {name}", command.usage, script_names())
    module = import_module(f"swinv2_backbone.cli.{command.module}")
    asks_for_help = not {"-h", "--help"}.isdisjoint(argv)
    if asks_for_help:
        module.main(["--help"] if command.rewrite is not list else argv)
        return
    with errors_as_messages():
        rewritten = command.rewrite(argv)
        if command.needs_detectron2 and "--list" not in argv:
            require_detectron2()
    module.main(rewritten)


def script_names() -> dict[str, str]:
    """Return the scripts of ``tools/`` and the commands that take their place in help texts."""
    found = {f"tools/{command.module}.py": f"swinv2 {name}" for name, command in COMMANDS.items()}
    return found | {
        "tools/train_net.py": "swinv2 train",
        "tools/lazyconfig_train_net.py": "swinv2 train",
        "tools/analyze_results.py": "swinv2 analyze results",
        "tools/analyze_model.py": "swinv2 analyze model",
    }


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: swinv2 COMMAND ...",
            "",
            "Swin Transformer V2 for Detectron2.",
            "",
            *lines,
            "",
            "swinv2 COMMAND --help has the options of a command, swinv2 --version the version.",
        ]
    )


def unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f": did you mean {near[0]}?" if near else ""
    return f"there is no command {name!r}{hint} (swinv2 --help lists them)"
