#!/usr/bin/env python
"""Write the generated demo dataset and say what is in it.

For example: python tools/make_demo_dataset.py datasets/demo
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from swinv2_backbone.d2.demo.dataset import SPLITS, generate_demo_dataset


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, metavar="ROOT", help="new, empty or earlier demo folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-train", type=int, default=1200, help="training images")
    parser.add_argument("--num-val", type=int, default=200, help="validation images")
    parser.add_argument("--image-size", type=int, default=128, help="typical side in pixels")
    return parser.parse_args(argv)


def summarise(annotation_file: Path) -> str:
    """Counts of one split in three lines; crowds are not counted as objects of their class."""
    coco = json.loads(annotation_file.read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    objects = [a for a in coco["annotations"] if not a["iscrowd"]]
    classes = Counter(names[a["category_id"]] for a in objects)
    polygons = sum(isinstance(a["segmentation"], list) for a in objects)
    empty = len(coco["images"]) - len({a["image_id"] for a in coco["annotations"]})
    crowds = len(coco["annotations"]) - len(objects)
    return "\n".join(
        [
            f"{annotation_file}: {len(coco['images'])} images, {empty} of them empty",
            f"  {len(objects)} objects: "
            + ", ".join(f"{classes[name]} {name}" for name in names.values()),
            f"  {polygons} as polygons, {len(objects) - polygons} as RLE; {crowds} crowds (RLE)",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    dataset = generate_demo_dataset(**vars(parse_arguments(argv)))
    for annotation_file in (dataset.train_json, dataset.val_json):
        print(summarise(annotation_file))
    names = dataset.classes.read_text().split()
    print(f"{dataset.train_labels}, {dataset.val_labels}: semantic labels, 0 to {len(names) - 1}")
    print(f"  {', '.join(names)} (names in {dataset.classes})")
    panoptic = [dataset.split(split).panoptic_json for split in SPLITS]
    print(f"{', '.join(map(str, panoptic))}: the same as COCO panoptic segments")


if __name__ == "__main__":
    main()
