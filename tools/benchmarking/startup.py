"""Time from a COCO-format file to records for the loader, against Detectron2's bare loading.

Detectron2 parses the file and serializes its records. Ours also checks every annotation and the
header of every image file; a second start takes the kept result. Each run is a process of its own,
so that its peak memory is its own; the two take turns.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (612, 612), (333, 500), (500, 375))
CLASSES = 80
OBJECTS = 7.3  # per image, as in COCO
LINKS = 1000  # names for one file of pixels, of which only the header is read
KINDS = ("detectron2", "ours", "ours, unchanged files")


def generate(folder: Path, images: int, seed: int = 0) -> None:
    """Write ``train.json`` and ``images/`` with polygons and sizes much like COCO's.

    Many names are links to one file. An existing set of the same size is kept.
    """
    done = folder / f"{images}.done"
    if done.exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    entries: list[dict] = []
    annotations: list[dict] = []
    for number in range(images):
        height, width = SIZES[number % len(SIZES)]
        name = f"{number:012d}.jpg"
        _link_picture(folder, name, number, height, width)
        key = 3 * number + 9  # ids have gaps
        entries.append({"id": key, "file_name": name, "height": height, "width": width})
        for _ in range(int(rng.poisson(OBJECTS))):
            annotations.append(_annotation(rng, len(annotations) + 1, key, height, width))
    rng.shuffle(annotations)
    classes = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
    content = {"images": entries, "annotations": annotations, "categories": classes}
    with (folder / "train.json").open("w", encoding="utf-8") as file:
        json.dump(content, file)
    done.touch()


def compare(folder: Path, images: int, rounds: int) -> str:
    """Return a table of medians over ``rounds`` turns."""
    generate(folder, images)
    found: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        shutil.rmtree(folder / "output", ignore_errors=True)
        for kind in KINDS:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarking.startup", kind]
            tools = Path(__file__).resolve().parents[1]
            printed = subprocess.run(
                [*command, str(folder.absolute())],
                cwd=tools,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tools), *sys.path])},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            found[kind].append(json.loads(printed.splitlines()[-1]))
    first = found[KINDS[0]]
    lines = [f"{images} images, median of {rounds}", "| | seconds | ratio | peak MB | ratio |"]
    lines.append("|---|---|---|---|---|")
    for kind, runs in found.items():
        row = [kind]
        for key, form in (("seconds", ".1f"), ("peak", ".0f")):
            ratio = median(run[key] / other[key] for run, other in zip(runs, first))
            row += [f"{median(run[key] for run in runs):{form}}", f"{ratio:.2f}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def run(kind: str, folder: Path) -> dict[str, float]:
    """Load the set once, in this process; return seconds and the peak of memory in MB."""
    from detectron2.data import DatasetCatalog, DatasetFromList
    from detectron2.data.datasets import load_coco_json

    from swinv2_backbone.d2 import build_train_loader, register_coco

    file, images = str(folder / "train.json"), str(folder / "images")
    start = time.perf_counter()
    if kind == KINDS[0]:
        DatasetFromList(load_coco_json(file, images, "startup"), copy=False)
    else:
        register_coco("startup", file, images, output_dir=str(folder / "output"))
        build_train_loader(DatasetCatalog.get("startup"), mapper=dict, total_batch_size=1)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak": peak}


def _link_picture(folder: Path, name: str, number: int, height: int, width: int) -> None:
    pixels = folder / f"{width}x{height}_{number // LINKS}.jpg"
    if not pixels.exists():
        Image.new("RGB", (width, height), (number % 256, 90, 90)).save(pixels)
    target = folder / "images" / name
    if not target.exists():
        os.link(pixels, target)


def _annotation(rng: np.random.Generator, number: int, image: int, height: int, width: int) -> dict:
    """Draw a polygon of 8 to 34 corners on a circle within a random box."""
    w, h = rng.uniform(8, width / 2), rng.uniform(8, height / 2)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(8, 35)))
    radius = rng.uniform(0.6, 1, len(angle))
    px = np.round(x + w / 2 * (1 + radius * np.cos(angle)), 2)
    py = np.round(y + h / 2 * (1 + radius * np.sin(angle)), 2)
    area = abs(np.dot(px, np.roll(py, 1)) - np.dot(py, np.roll(px, 1))) / 2
    box = [px.min(), py.min(), np.ptp(px), np.ptp(py)]
    return {
        "id": number,
        "image_id": image,
        "category_id": int(rng.integers(1, CLASSES + 1)),
        "iscrowd": 0,
        "area": round(float(area), 4),
        "bbox": [round(float(value), 2) for value in box],
        "segmentation": [np.stack([px, py], 1).ravel().tolist()],
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]))))
