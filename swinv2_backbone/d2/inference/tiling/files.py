"""Large pictures in files, predicted by tiles, drawn reduced, and written as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.data.storage.pictures import write_picture
from swinv2_backbone.d2.inference.inputs import RESULTS, label_file
from swinv2_backbone.d2.inference.pipeline import FAILURES
from swinv2_backbone.d2.inference.predictor import Predictor
from swinv2_backbone.d2.inference.tiling.geometry import Tile, Tiling
from swinv2_backbone.d2.inference.tiling.predict import predict_tiled, require_joinable
from swinv2_backbone.d2.inference.tiling.preview import Preview


def predict_large_files(
    predictor: Predictor, tiling: Tiling, outputs: dict[Path, Path], folder: Path
) -> tuple[list[dict], list[str]]:
    """Predict and draw every picture, and write the records, even if the loop is interrupted.

    Args:
        outputs: pictures, and the files of their drawings.

    Returns:
        The records, and a message for each picture that failed.
    """
    require_joinable(predictor)
    records, failed = [], []
    try:
        for source, target in tqdm(outputs.items(), desc="predicting", unit="file"):
            try:
                records.append(predict_large_file(predictor, tiling, source, target))
            except FAILURES as error:  # one picture does not stop the others
                failed.append(f"{source}: {type(error).__name__}: {error}")
    finally:
        write_text(folder / RESULTS, json.dumps(records, indent=1))
    return records, failed


def predict_large_file(predictor: Predictor, tiling: Tiling, source: Path, target: Path) -> dict:
    """Draw the predictions on a reduced picture, write its class numbers, and return its record."""
    preview, sizes = Preview(), set()

    def seen(tile: Tile, pixels: np.ndarray, size: tuple[int, int]) -> None:
        preview.add(tile, pixels, size)
        sizes.add(size)

    found = predict_tiled(predictor, source, tiling, progress=True, seen=seen)
    height, width = sizes.pop()
    write_picture(target, preview.draw(predictor, found))
    if found.labels is not None:
        write_picture(label_file(target), found.labels)
    return {
        "file_name": str(source),
        "height": height,
        "width": width,
        **predictor.records(found),
    }
