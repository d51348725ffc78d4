"""The results of one shard of images as a file of JSON Lines or Parquet, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.checkpoints.durable import durable
from swinv2_backbone.d2.inference.prediction import Prediction
from swinv2_backbone.d2.inference.predictor import Predictor
from swinv2_backbone.d2.inference.scale.run_record import Run
from swinv2_backbone.d2.inference.scale.sources import EXTRA
from swinv2_backbone.d2.inference.tiling.labels import regions

FORMATS = ("jsonl", "parquet")


def record_of(predictor: Predictor, found: Prediction) -> dict[str, Any]:
    """Convert a prediction to plain data with its maps of pixels as run-length encodings.

    To :meth:`Predictor.records` it adds the image's height and width, the ``segmentation`` of each
    panoptic segment, or the ``regions`` of a semantic model: category and segmentation of each
    class that occurs.
    """
    height, width = _size_of(found)
    record = {"height": height, "width": width, **predictor.records(found)}
    if found.panoptic is not None:
        numbers = found.panoptic[0].numpy()
        for segment in record["segments"]:
            mask = np.asfortranarray(numbers == segment["id"], np.uint8)
            segment["segmentation"] = _as_text(coco_mask.encode(mask))
    elif found.labels is not None:
        names = predictor.classes.stuff
        record["regions"] = [
            {"category": names[number], "segmentation": _as_text(rle)}
            for number, rle in regions(found.labels).items()
        ]
    return record


def write_shard(run: Run, shard: int, records: list[dict[str, Any]]) -> None:
    """Write the records of a shard, unless another process has written the same meanwhile.

    Raises:
        OSError: the file cannot be written.
    """
    path = run.file(shard)
    write = _write_jsonl if run.suffix == "jsonl" else _write_parquet
    try:
        write(path, records)
    except OSError:
        if not path.exists():
            raise


def read_shard(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a shard."""
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            yield from map(json.loads, file)
        return
    from pyarrow.parquet import read_table

    for record in read_table(path).to_pylist():
        yield _without_nulls(record)


def read_whole_shard(run: Run, shard: int) -> list[dict[str, Any]]:
    """Return the records of a shard.

    Raises:
        ValueError: it has not one for each image, as after an interrupted copy.
    """
    path, expected = run.file(shard), run.size(shard)
    try:
        records = list(read_shard(path))
        fault = f"{len(records)} of {expected} records"
    except ValueError as error:
        records, fault = [], str(error)
    if len(records) != expected:
        raise ValueError(
            f"{path} is incomplete or damaged ({fault}): delete it, and repeat the command of the "
            "prediction, which predicts its images again"
        )
    return records


def require_format(suffix: str) -> None:
    """Raise ImportError if a format of results needs a library that is not installed."""
    if suffix == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ImportError(f"--format parquet needs pyarrow: {EXTRA}") from error


def _size_of(found: Prediction) -> tuple[int, int]:
    if found.instances is not None:
        return found.instances.image_size
    labels = found.labels if found.panoptic is None else found.panoptic[0]
    assert labels is not None  # a model has one of the three outputs
    return int(labels.shape[0]), int(labels.shape[1])


def _as_text(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    with durable(path) as file:
        for record in records:
            file.write(json.dumps(record).encode() + b"\n")


def _write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    mask = pyarrow.struct([("size", pyarrow.list_(pyarrow.int32())), ("counts", pyarrow.string())])
    named = [("category", pyarrow.string()), ("segmentation", mask)]
    box = [("score", pyarrow.float64()), ("bbox", pyarrow.list_(pyarrow.float64()))]
    segment = [("id", pyarrow.int32()), ("isthing", pyarrow.bool_()), ("area", pyarrow.float64())]
    fields = {
        "image_id": pyarrow.int64(),
        "file_name": pyarrow.string(),
        "height": pyarrow.int32(),
        "width": pyarrow.int32(),
        "error": pyarrow.string(),
        "detections": pyarrow.list_(pyarrow.struct([*named, *box])),
        "segments": pyarrow.list_(pyarrow.struct([*named, box[0], *segment])),
        "regions": pyarrow.list_(pyarrow.struct(named)),
        "classes": pyarrow.map_(pyarrow.string(), pyarrow.float64()),
    }
    rows = [
        {**one, "classes": list(one["classes"].items())} if "classes" in one else one
        for one in records
    ]
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields.items()))
    buffer = pyarrow.BufferOutputStream()
    write_table(table, buffer)
    with durable(path) as file:
        file.write(buffer.getvalue().to_pybytes())


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):  # a map
            return dict(value)
        return [_without_nulls(one) for one in value]
    return value
