"""Pictures that OpenCV encodes, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from swinv2_backbone.checkpoints.durable import durable


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write gray (H, W) or BGR (H, W, 3) pixels in the format of the suffix.

    Raises:
        OSError: OpenCV cannot encode them, or the file cannot be written.
    """
    try:
        whole, encoded = cv2.imencode(path.suffix, pixels)
    except cv2.error as error:  # there is no such format
        raise OSError(f"cannot write {path}: {error}") from error
    if not whole:
        raise OSError(f"cannot write {path}")
    with durable(path) as file:
        file.write(encoded.tobytes())
