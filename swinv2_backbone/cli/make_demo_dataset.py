"""Write the generated demo dataset and count its content.

tools/make_demo_dataset.py datasets/demo
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    from swinv2_backbone.d2.demo.dataset import SPLITS, generate_demo_dataset

    dataset = generate_demo_dataset(**vars(args))
    for annotation_file in (dataset.train_json, dataset.val_json):
        print(summarize(annotation_file))
    names = dataset.classes.read_text(encoding="utf-8").split()
    print(f"{dataset.train_labels}, {dataset.val_labels}: semantic labels, 0 to {len(names) - 1}")
    print(f"  {', '.join(names)} (names in {dataset.classes})")
    panoptic = [dataset.split(split).panoptic_json for split in SPLITS]
    print(f"{', '.join(map(str, panoptic))}: the same as COCO panoptic segments")


def summarize(annotation_file: Path) -> str:
    """Count the content of one split, in three lines; crowds are not objects of their class."""
    from swinv2_backbone.d2.data.validation.report import counted

    coco = json.loads(annotation_file.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in coco["categories"]}
    objects = [a for a in coco["annotations"] if not a["iscrowd"]]
    classes = Counter(names[a["category_id"]] for a in objects)
    polygons = sum(isinstance(a["segmentation"], list) for a in objects)
    empty = len(coco["images"]) - len({a["image_id"] for a in coco["annotations"]})
    crowds = len(coco["annotations"]) - len(objects)
    return "\n".join(
        [
            f"{annotation_file}: {counted(len(coco['images']), 'image')}, {empty} of them empty",
            f"  {counted(len(objects), 'object')}: "
            + ", ".join(f"{classes[name]} {name}" for name in names.values()),
            f"  {polygons} as polygons, {len(objects) - polygons} as RLE; "
            f"{counted(crowds, 'crowd')} (RLE)",
        ]
    )


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument("root", type=Path, metavar="ROOT", help="new, empty or earlier demo folder")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--num-train", type=int, default=1200, help="training images")
    found.add_argument("--num-val", type=int, default=200, help="validation images")
    found.add_argument("--image-size", type=int, default=128, help="typical side in pixels")
    return found
