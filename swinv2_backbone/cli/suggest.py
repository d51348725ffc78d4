"""Suggest a recipe and settings for a dataset: image size, anchors, model, batch, learning rate.

tools/suggest.py fruit/train.json --images fruit/photos --memory 12GB
tools/suggest.py fruit/train.json --images fruit/photos --memory 12GB --gpus 4 \\
    --test fruit/val.json --output fruit.yaml

It reads the sizes of the objects in annotations of any format, and prints each setting with its
reason. --output writes a config to train with. See docs/TUNING.md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages

if TYPE_CHECKING:
    from swinv2_backbone.d2.suggestion import ObjectSizes, Suggestion

RECIPES = ("mask_rcnn_swinv2", "mask_rcnn_swinv2_small", "mask_rcnn_swinv2_base")
SIZES = ((512, 864), (800, 1333), (1280, 2144))  # of the table, in pixels
UNITS = {"GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    if args.table:
        print(memory_table())
        return
    check(args)
    memory = args.memory or memory_of_gpu()

    from swinv2_backbone.d2.suggestion import read_objects, suggest, suggest_for_cpu

    objects = read_objects(args.dataset, args.images, args.format)
    if memory is None:
        found = suggest_for_cpu(objects)
    else:
        found = suggest(objects, memory, args.gpus, args.batch)
    print(described(objects))
    for reason in found.reasons:
        print(f"- {reason.setting}\n    {reason.why}")
    text = config_text(found, args)
    if args.output is None:
        print(f"\n{text}")
        return
    from swinv2_backbone.checkpoints.durable import write_text

    write_text(args.output, text)
    print(f"\nwritten {args.output}; to train: swinv2 train {args.output}")


def check(args: argparse.Namespace) -> None:
    """Raise ValueError or OSError for arguments that cannot work."""
    if not args.dataset:
        raise ValueError("give DATASET, a file or folder of annotations, or --table")
    for given in filter(None, (args.dataset, args.test)):
        if not Path(given).exists():
            raise FileNotFoundError(f"there is no file or folder {given!r}")
    if args.gpus < 1 or args.batch < 1:
        raise ValueError(f"--gpus and --batch must be positive, got {args.gpus} and {args.batch}")
    if args.output is None:
        return
    if args.output.suffix not in (".yaml", ".yml"):
        raise ValueError(f"--output {str(args.output)!r}: a config ends in .yaml")
    if not args.output.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {args.output.absolute().parent}")
    if args.output.exists() and not args.overwrite:
        raise ValueError(f"{args.output} exists: choose another --output, or give --overwrite")


def memory_size(text: str) -> float:
    """Parse a size such as 12GB, 11.5 GiB or 24000MiB."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*", text)
    if not match or match[2].upper() not in UNITS or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 12GB or 11.5GiB")
    return float(match[1]) * UNITS[match[2].upper()]


def memory_of_gpu() -> float | None:
    """Return the memory of the GPU here; None if there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory)


def memory_table() -> str:
    """Return the GiB of one GPU for recipes and sizes, without and with checkpointing."""
    from swinv2_backbone.d2.suggestion.suggest import recipe_memory
    from swinv2_backbone.training_memory import GIB

    lines = [
        "| recipe | image | 1 image | 2 images | 1, checkpointing | 2, checkpointing |",
        "|---|---|---|---|---|---|",
    ]
    for recipe in RECIPES:
        for size in SIZES:
            cells = [
                f"{recipe_memory(recipe, size, checkpointing).total(images) / GIB:.1f}"
                for checkpointing in (False, True)
                for images in (1, 2)
            ]
            lines.append(f"| `{recipe}` | {size[0]}x{size[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def described(objects: ObjectSizes) -> str:
    """Describe a dataset in a line or two."""
    import numpy as np

    small, middle, large = np.quantile(np.sqrt(objects.boxes.prod(axis=1)), (0.1, 0.5, 0.9))
    height, width = np.median(objects.images, axis=0)
    lines = [
        f"{len(objects)} objects of {len(objects.names)} classes in {len(objects.images)} images, "
        f"typically {width:.0f} x {height:.0f} pixels",
        f"sides of the objects in the files: {small:.0f} (10 % are smaller), {middle:.0f} "
        f"(median), {large:.0f} (90 %) pixels",
    ]
    if objects.skipped:
        lines.append(f"{objects.skipped} annotations without a box in a listed image are left out")
    return "\n".join(lines)


def config_text(found: Suggestion, args: argparse.Namespace) -> str:
    """Return a config file with the settings, and with the dataset's files."""
    import yaml

    settings: dict[str, Any] = {
        f"DATASETS.CUSTOM.{split}.{key}": value
        for split, file in (("TRAIN", args.dataset), ("TEST", args.test))
        if file
        for key, value in (("JSON", file), ("IMAGES", args.images))
        if value
    }
    if args.format != "auto":
        settings |= {
            f"DATASETS.CUSTOM.{split}.FORMAT": args.format
            for split, file in (("TRAIN", args.dataset), ("TEST", args.test))
            if file
        }
    settings |= found.settings
    if not args.test:  # the recipe may have a test set
        settings |= {"DATASETS.TEST": [], "DATASETS.CUSTOM.TEST.JSON": "", "TEST.EVAL_PERIOD": 0}
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    lines = [f"# {reason.setting}: {reason.why}" for reason in found.reasons]
    body = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=96)
    return "\n".join([*lines, f"_BASE_: {found.recipe}.yaml", body])


def parser() -> argparse.ArgumentParser:
    from swinv2_backbone.cli.convert_dataset import FORMATS

    found = new_parser(__doc__)
    add = found.add_argument
    text = "training annotations: a file or folder of any format"
    add("dataset", nargs="?", metavar="DATASET", help=text)
    add("--table", action="store_true", help="print the memory of recipes and image sizes")
    add("--images", default="", metavar="DIR", help="default: where the format has them")
    add("--format", default="auto", choices=FORMATS, help="default: detected")
    add(
        "--memory",
        type=memory_size,
        metavar="SIZE",
        help="of each GPU; default: this machine's, or its CPU",
    )
    add("--gpus", type=int, default=1, metavar="N")
    add("--batch", type=int, default=16, metavar="N", help="images a step, over all GPUs")
    add("--test", default="", metavar="FILE", help="test annotations, for the config")
    add("--output", type=Path, metavar="FILE", help="write a config (.yaml) instead of printing it")
    add("--overwrite", action="store_true")
    return found
