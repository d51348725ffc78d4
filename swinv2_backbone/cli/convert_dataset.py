"""Convert annotations of other tools to COCO's format, and divide them into training and test set.

tools/convert_dataset.py yolo/data.yaml --subset train --output fruit.json
tools/convert_dataset.py labels --images photos --output fruit.json --split 0.2

These formats are detected: COCO, YOLO, Pascal VOC (XML or masks), LabelMe, CVAT, Label Studio, COCO
panoptic, Roboflow's folder, and folders of instance masks. The result is checked as in a training,
and masks are kept to the pixel. With --split, --output fruit.json becomes fruit_train.json and
fruit_val.json. The source is never changed. Training also reads these formats directly, without
this command (docs/DATASETS.md).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages

MARK = "converted_from"  # the first key of our files
FORMATS = (
    "auto",
    "coco",
    "roboflow",
    "yolo",
    "voc",
    "voc_from_one",
    "voc_from_zero",
    "voc_masks",
    "labelme",
    "cvat",
    "label_studio",
    "instances",
    "panoptic",
)


def main(argv: Sequence[str] | None = None) -> None:
    found = parser()
    args = found.parse_args(argv)
    if args.split is None and (args.group_by or args.seed):
        found.error("--seed and --group-by go with --split")
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    from swinv2_backbone.d2.data.formats.conversion import convert
    from swinv2_backbone.d2.data.formats.dataset import Source
    from swinv2_backbone.d2.data.formats.split import split_dataset

    targets = _targets(args)
    converted = convert(Source(args.source, args.images, args.subset), args.format)
    print(f"{args.source} is read as {converted.format}, images in {converted.images}")
    if report := converted.report():
        print(report)
    content = _checked(converted.content, str(converted.images), args)
    parts = [content]
    if args.split is not None:
        parts = list(split_dataset(content, args.split, args.seed, args.group_by))
    for target, part in zip(targets, parts):
        _write({MARK: str(args.source)} | part, target)
    print(_counts([target.name for target in targets], parts, args.group_by))
    print(_settings(targets, str(converted.images), content))


def _targets(args: argparse.Namespace) -> list[Path]:
    """Return the files to write.

    Raises:
        ValueError: one exists and may not be replaced.
    """
    output: Path = args.output
    targets = [output]
    if args.split is not None:
        targets = [output.with_name(f"{output.stem}_{part}.json") for part in ("train", "val")]
    for target in targets:
        if not target.exists():
            continue
        if not args.overwrite:
            raise ValueError(f"{target} exists: choose another --output, or give --overwrite")
        start = f'{{"{MARK}": '
        with target.open(encoding="utf-8", errors="replace") as file:
            if file.read(len(start)) not in (start, ""):
                raise ValueError(f"{target} was not written by this command: it is not replaced")
    return targets


def _checked(content: dict, images: str, args: argparse.Namespace) -> dict:
    """Check and repair the content as a training does, and print the report.

    Raises:
        ValueError: it has faults without an obvious remedy.
    """
    from swinv2_backbone.d2.data.validation.coco import check_coco

    entries = content["annotations"]
    objects = [one for one in entries if isinstance(one, dict) and not one.get("iscrowd")]
    content, report = check_coco(
        content,
        str(args.source),
        images,
        masks=bool(objects) and all(one.get("segmentation") for one in objects),
        mask_format="bitmask",
        for_evaluation=True,
        crowds=args.crowds,
        holes=args.holes,
    )
    report.raise_errors()
    if report.repaired or report.notes:
        print(report)
    return content


def _write(content: dict, target: Path) -> None:
    from swinv2_backbone.checkpoints.durable import write_text

    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, json.dumps(content))


def _counts(names: list[str], parts: list[dict], group_by: str) -> str:
    """Return a table of images, groups and objects per class, with a column per file."""
    from swinv2_backbone.d2.data.formats.split import counts_by_class, groups_of

    columns = [counts_by_class(part) for part in parts]
    rows = [("", *names)]
    rows += [("images", *(str(len(part["images"])) for part in parts))]
    if group_by:
        rows += [("groups", *(str(len(groups_of(part, group_by))) for part in parts))]
    rows += [(name, *(str(column[name]) for column in columns)) for name in columns[0]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def _settings(targets: list[Path], images: str, content: dict) -> str:
    """Return the keys that train on the files."""
    objects = [one for one in content["annotations"] if not one.get("iscrowd")]
    bitmask = any(isinstance(one.get("segmentation"), dict) for one in objects)
    boxes = not all(one.get("segmentation") for one in objects)
    keys = [
        f"DATASETS.CUSTOM.{split}.JSON {target} DATASETS.CUSTOM.{split}.IMAGES {images}"
        for split, target in zip(("TRAIN", "TEST"), targets)
    ]
    keys.append(f"MODEL.ROI_HEADS.NUM_CLASSES {len(content['categories'])}")
    keys += ["MODEL.MASK_ON False"] if boxes else ["INPUT.MASK_FORMAT bitmask"] if bitmask else []
    return "to train: " + " ".join(keys)


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument("source", type=Path, metavar="SOURCE", help="file or folder of annotations")
    found.add_argument("--output", type=Path, required=True, metavar="FILE", help="COCO file")
    found.add_argument(
        "--images", type=Path, metavar="DIR", help="default: where the format has it"
    )
    found.add_argument("--format", default="auto", choices=FORMATS, help="default: detected")
    found.add_argument(
        "--subset", default="", metavar="NAME", help="list of images to read, such as train"
    )
    found.add_argument("--split", type=float, metavar="SHARE", help="fraction of test images")
    found.add_argument("--seed", type=int, default=0, help="seed of the split")
    found.add_argument(
        "--group-by",
        default="",
        metavar="REGEX",
        help="keep images together: 'folder', or a regular expression whose match in the file name "
        "is the group",
    )
    found.add_argument(
        "--crowds",
        default="check",
        choices=("check", "ignore", "objects"),
        help="as DATASETS.CUSTOM.CROWDS",
    )
    found.add_argument(
        "--holes", default="fill", choices=("fill", "subtract"), help="as DATASETS.CUSTOM.HOLES"
    )
    found.add_argument("--overwrite", action="store_true", help="replace earlier outputs")
    return found
