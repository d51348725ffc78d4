"""The results of a large run as one COCO file, and another try for its failed images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pycocotools import mask as coco_mask

from swinv2_backbone.checkpoints.durable import durable
from swinv2_backbone.checkpoints.records import read_record
from swinv2_backbone.d2.inference.scale.run_record import RECORD, Run, find_run
from swinv2_backbone.d2.inference.scale.settings import LOST, MODEL
from swinv2_backbone.d2.inference.scale.shards import read_whole_shard

KINDS = ("detections", "segments", "regions")  # lists of a record, of which each is an annotation


def merge(folder: Path, target: Path) -> tuple[int, list[str]]:
    """Write the results of a complete run as one COCO dataset whose annotations have scores.

    Image ids are those of the run's records. Category ids count from 1, the classes of objects
    first. The key ``failed`` lists the records of the images that failed. Memory does not grow with
    the number of images.

    Returns:
        The number of images, and a message for each image that failed.

    Raises:
        ValueError: there is no run in the folder, or it is not complete.
        OSError: the file cannot be written.
    """
    run = _complete_run(folder)
    classes = read_record(folder / MODEL, LOST)["classes"]
    numbers = {name: number for number, name in enumerate(classes, 1)}
    failed = [one for one in _records(run) if "error" in one]
    sound = ("file_name", "height", "width")
    images = ({"id": one["image_id"], **{key: one[key] for key in sound}} for one in _sound(run))
    with durable(target) as file:
        file.write(b'{"images": [')
        _write_items(file, images)
        file.write(b'],\n"annotations": [')
        _write_items(file, _annotations(run, numbers))
        categories = [{"id": number, "name": name} for name, number in numbers.items()]
        rest = json.dumps({"categories": categories, "failed": failed})
        file.write(b"],\n" + rest[1:].encode())
    return run.count, [f"{one['file_name']}: {one['error']}" for one in failed]


def remove_failed(folder: Path) -> int:
    """Remove the results of shards with failed images, which a continued run predicts again.

    Returns:
        The number of images that failed.
    """
    run, failed = _run(folder), 0
    missing = set(run.missing())
    for shard in range(run.shards):
        if shard not in missing:
            errors = sum("error" in one for one in read_whole_shard(run, shard))
            failed += errors
            if errors:
                run.file(shard).unlink()
    return failed


def _run(folder: Path) -> Run:
    if run := find_run(folder):
        return run
    raise ValueError(f"{folder} has no {RECORD}: it is not the folder of `swinv2 predict --shards`")


def _complete_run(folder: Path) -> Run:
    run = _run(folder)
    if missing := run.missing():
        raise ValueError(
            f"the results of {len(missing)} of {run.shards} shards are missing in {folder}: "
            "continue the run by its command"
        )
    return run


def _records(run: Run) -> Iterator[dict[str, Any]]:
    for shard in range(run.shards):
        yield from read_whole_shard(run, shard)


def _sound(run: Run) -> Iterator[dict[str, Any]]:
    return (one for one in _records(run) if "error" not in one)


def _annotations(run: Run, numbers: dict[str, int]) -> Iterator[dict[str, Any]]:
    count = 0
    for record in _sound(run):
        for found in (one for kind in KINDS for one in record.get(kind, ())):
            count += 1
            yield {
                "id": count,
                "image_id": record["image_id"],
                "category_id": numbers[found["category"]],
                **_shape(found),
                **({"score": found["score"]} if "score" in found else {}),
                "iscrowd": 0,
            }


def _shape(found: dict[str, Any]) -> dict[str, Any]:
    """Return the box, the area in pixels and, if there is one, the mask of an annotation."""
    mask = found.get("segmentation")
    box = found["bbox"] if "bbox" in found else coco_mask.toBbox(mask).tolist()
    area = float(coco_mask.area(mask)) if mask else box[2] * box[3]
    return {"bbox": box, "area": area, **({"segmentation": mask} if mask else {})}


def _write_items(file: IO[bytes], items: Iterator[dict[str, Any]]) -> None:
    for number, item in enumerate(items):
        file.write((b",\n" if number else b"\n") + json.dumps(item).encode())
