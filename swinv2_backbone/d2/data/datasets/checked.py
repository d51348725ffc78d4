"""A COCO-format file that is checked once: its records, classes and repaired copy, kept in a cache.

One process of each machine checks; the others, and later runs, map the kept result into memory.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from detectron2.utils import comm

from swinv2_backbone.checkpoints.durable import durable
from swinv2_backbone.d2.data.datasets.classes import match_categories
from swinv2_backbone.d2.data.storage.cache import Cache, Entry, digest, stamps
from swinv2_backbone.d2.data.storage.json_lists import JsonLists, NotJsonError
from swinv2_backbone.d2.data.storage.records import Images, load_arrays, record_arrays
from swinv2_backbone.d2.data.validation.coco import CheckedCoco, check_source
from swinv2_backbone.d2.data.validation.source import PARTS, open_coco

# The first key of a repaired copy, which tells our files from those of the user.
MARK = "mended_copy_of"
CACHE = Path("datasets", "cache")  # in the output folder
KEPT_FROM = 1000  # images, or ten times as many annotations; smaller files are checked at once
TRIAL_RUNS = "fast_dev_run"  # folder in the output folder, whose cache they share


@dataclass
class CheckedFile:
    """A checked file, as Detectron2 needs it.

    Attributes:
        json_file: the file, or its repaired copy.
        arrays: columns of its records.
        categories: (id, name) in the order of the ids.
        told: report of repairs and notes; "" if there are none.
        repaired: True if ``json_file`` is a repaired copy.
    """

    json_file: str
    arrays: dict[str, np.ndarray]
    categories: list[tuple[int, str]]
    told: str
    repaired: bool


def cache_folder(cache: str, output_dir: str | None) -> Path | None:
    """Return the folder for results of checks; None if no folder is known.

    Args:
        cache: folder that the user chose, or "".
        output_dir: output folder of the run. A trial run shares the cache of the real one.
    """
    if cache:
        return Path(cache)
    if not output_dir:
        return None
    folder = Path(output_dir)
    return (folder.parent if folder.name == TRIAL_RUNS else folder) / CACHE


def checked_file(
    name: str,
    json_file: str,
    images: str,
    *,
    output_dir: str | None,
    cache: str,
    classes: Sequence[str] | None,
    **options: Any,
) -> CheckedFile:
    """Check a file, or take the result of an earlier check if no file has changed since.

    Args:
        name: name of its repaired copy, ``output_dir/datasets/NAME.json``.
        classes: class names of the model, with which the categories are matched.
        options: options of ``check_source``.
        name, json_file, images, output_dir, cache: as for :func:`register_coco`.

    Raises:
        ValueError: the file cannot be used; the message lists every fault.
    """
    folder = cache_folder(cache, output_dir)
    classes = None if classes is None else list(classes)
    settings = options | {"classes": classes, "images": os.path.abspath(images), "name": name}
    settings |= {"output_dir": output_dir and os.path.abspath(output_dir)}
    kept = Cache(folder, json_file, settings) if folder else None

    def load() -> CheckedFile | None:
        return _loaded(kept.load(images)) if kept else None

    def check() -> CheckedFile:
        found = _checked(name, json_file, images, output_dir, classes, options)
        large = max(10 * len(found.arrays["sizes"]), len(found.arrays["box"])) >= 10 * KEPT_FROM
        if kept and large and kept.save(_entry(found)):
            found.arrays = load_arrays(kept.entry)  # memory that other processes share
        return found

    found = _once_per_machine(load, check) if kept else check()
    if found.told and comm.is_main_process():
        level = logging.WARNING if found.repaired else logging.INFO
        logging.getLogger(__name__).log(level, found.told)
    return found


def _once_per_machine(
    load: Callable[[], CheckedFile | None], check: Callable[[], CheckedFile]
) -> CheckedFile:
    """Check in one process of each machine; the others load the result that it kept."""
    found, error = None, ""
    if comm.get_local_rank() == 0:
        try:
            found = load() or check()
        except ValueError as raised:
            error = str(raised)
    if errors := [text for text in comm.all_gather(error) if text]:
        raise ValueError(errors[0])
    return found or load() or check()


def _checked(
    name: str,
    json_file: str,
    images: str,
    output_dir: str | None,
    classes: Sequence[str] | None,
    options: dict[str, Any],
) -> CheckedFile:
    source = open_coco(json_file)
    try:
        found = check_source(source, json_file, images, **options)
        categories, ids = _matched(found, classes)
        found.report.raise_errors()
        told, copy = str(found.report), json_file
        if found.report.repaired:
            try:
                copy = _copied(source, found, categories, ids, name, json_file, output_dir)
            except OSError as error:
                raise ValueError(
                    f"{told}\nThe copy cannot be written, choose another OUTPUT_DIR "
                    f"(output_dir): {error}"
                ) from error
            told += f"\nThe copy is {copy}"
        elif not found.report.notes:
            told = ""
    except NotJsonError as error:
        raise ValueError(
            f"JSON {json_file!r} is not JSON, or incomplete: {error}. Copy or write it again"
        ) from error
    ordered = sorted((entry["id"], entry["name"]) for entry in categories)
    arrays = _arrays(found, [key for key, _ in ordered], ids)
    arrays["stamps"] = stamps(images, _names_in_order(found.images))
    return CheckedFile(copy, arrays, ordered, told, bool(found.report.repaired))


def _matched(
    found: CheckedCoco, classes: Sequence[str] | None
) -> tuple[list[dict], dict[int, int]]:
    """Return the categories with the classes of the model, and the ids that changed."""
    if classes is None:
        return found.categories, {}
    used = found.annotations.used_categories()
    return match_categories(found.categories, used, list(classes), found.report)


def _arrays(
    found: CheckedCoco, category_ids: Sequence[int], replaced: dict[int, int]
) -> dict[str, np.ndarray]:
    """Return the columns of the records, with classes in the order of the model's outputs."""
    sizes = [(entry["height"], entry["width"]) for entry in found.images]
    images = Images(
        [entry["id"] for entry in found.images],
        [entry["file_name"] for entry in found.images],
        np.array(sizes, np.int64).reshape(-1, 2),
    )
    arrays = record_arrays(images, found.annotations.parts)
    place = {key: row for row, key in enumerate(category_ids)}
    rows = [place.get(replaced.get(key, key), -1) for key in found.annotations.category_rows]
    arrays["category"] = np.array(rows, np.int32)[arrays["category"]]
    return arrays


def _names_in_order(images: Sequence[dict]) -> list[str]:
    return [entry["file_name"] for entry in sorted(images, key=lambda entry: entry["id"])]


def _copied(
    source: JsonLists,
    found: CheckedCoco,
    categories: list[dict],
    ids: dict[int, int],
    name: str,
    json_file: str,
    output_dir: str | None,
) -> str:
    """Write the repaired copy; return its path."""
    if output_dir is None:
        raise ValueError(
            f"{found.report}\n"
            "No copy was written: give its folder as output_dir (datasets.*.output_dir)"
        )
    target = Path(output_dir, "datasets", f"{name}.json")
    start = f'{{"{MARK}": '
    if target.exists():
        with target.open(encoding="utf-8", errors="replace") as file:
            if file.read(len(start)) not in (start, ""):
                raise ValueError(
                    f"{target} is in the way of the repaired copy of {json_file}: move it, or "
                    "choose another OUTPUT_DIR (output_dir)"
                )
    annotations = (
        one | {"category_id": ids[one["category_id"]]} if one["category_id"] in ids else one
        for one in found.annotations
    )
    lists = {"images": found.images, "categories": categories, "annotations": annotations}
    target.parent.mkdir(parents=True, exist_ok=True)
    with durable(target) as file:
        others = {key: source[key] for key in source.lists if key not in PARTS}
        values = {MARK: json_file} | dict(source.values) | others
        file.write(json.dumps(values).encode()[:-1])
        for key, entries in lists.items():
            file.write(f', "{key}": ['.encode())
            for number, entry in enumerate(entries):
                file.write((b", " if number else b"") + _text(entry))
            file.write(b"]")
        file.write(b"}")
    return str(target)


def _text(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(value).encode()


def _entry(found: CheckedFile) -> Entry:
    values = {
        "json_file": found.json_file,
        "copy": digest(Path(found.json_file)) if found.repaired else "",
        "categories": found.categories,
        "told": found.told,
    }
    return Entry(found.arrays, values)


def _loaded(entry: Entry | None) -> CheckedFile | None:
    """Return a kept result; None if there is none, or its repaired copy is gone or changed."""
    if entry is None:
        return None
    try:
        values, copy = entry.values, entry.values["copy"]
        if copy and digest(Path(values["json_file"])) != copy:
            return None
        categories = [(key, name) for key, name in values["categories"]]
        found = values["json_file"], entry.arrays, categories, values["told"], bool(copy)
    except (OSError, LookupError, TypeError, ValueError):
        return None
    return CheckedFile(*found)
