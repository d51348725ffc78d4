"""Predictions on many files: images and videos are drawn, detections are written as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from swinv2_backbone.d2.inference.inputs import RESULTS, is_video, label_file
from swinv2_backbone.d2.inference.predictor import Predictor

FRAME_RATE = 25  # of a video that does not state its own
# Files that cannot be read, drawn or written, or are too large for the memory.
FAILURES = (OSError, ValueError, RuntimeError, MemoryError, cv2.error)


def predict_files(
    predictor: Predictor, outputs: dict[Path, Path], folder: Path
) -> tuple[list[dict], list[str]]:
    """Draw every input, and write the records of those drawn, even if the loop is interrupted.

    Returns:
        The records, and a message for each input that failed.
    """
    results, failed = [], []
    try:
        for source, target in tqdm(outputs.items(), desc="predicting", unit="file"):
            predict = predict_video if is_video(source) else predict_image
            try:
                results.append(predict(predictor, source, target))
            except FAILURES as error:  # one file does not stop the others
                failed.append(f"{source}: {type(error).__name__}: {error}")
    finally:
        (folder / RESULTS).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return results, failed


def predict_image(predictor: Predictor, source: Path, target: Path) -> dict:
    """Draw the predictions on an image, write its class numbers, and return its record."""
    picture = predictor.read(source)
    found = predictor(picture)
    _write(target, predictor.draw(picture, found))
    if found.labels is not None and found.panoptic is None:
        depth = np.uint16 if found.labels.max() > 255 else np.uint8
        _write(label_file(target), found.labels.astype(depth))
    return {**_record(source, picture), **predictor.records(found)}


def predict_video(predictor: Predictor, source: Path, target: Path) -> dict:
    """Draw the predictions on every frame of a video, and return its record."""
    video = cv2.VideoCapture(str(source))
    if not video.isOpened():
        raise OSError(f"OpenCV cannot read the video {source}")
    frames: list[dict] = []
    writer = None
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) or None
    try:
        for frame in tqdm(_frames(video), total=total, desc=source.name, unit="frame", leave=False):
            found = predictor(frame)
            drawn = np.ascontiguousarray(predictor.draw(frame, found))
            if writer is None:
                writer = _video_writer(target, drawn, video.get(cv2.CAP_PROP_FPS) or FRAME_RATE)
            writer.write(drawn)
            frames.append({"frame": len(frames), **predictor.records(found)})
    finally:
        video.release()
        if writer is not None:
            writer.release()
    if not frames:
        raise OSError(f"the video {source} has no frames")
    return {**_record(source, frame), "frames": frames}


def _frames(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        more, frame = video.read()
        if not more:
            return
        yield frame


def _video_writer(target: Path, first: np.ndarray, rate: float) -> cv2.VideoWriter:
    size = (first.shape[1], first.shape[0])
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write the video {target}")
    return writer


def _record(source: Path, picture: np.ndarray) -> dict:
    return {"file_name": str(source), "height": picture.shape[0], "width": picture.shape[1]}


def _write(target: Path, picture: np.ndarray) -> None:
    if not cv2.imwrite(str(target), picture):
        raise OSError(f"cannot write {target}")
