"""Predictions on many files: images and videos are drawn, detections are written as JSON."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.data.storage.pictures import write_picture
from swinv2_backbone.d2.inference.inputs import RESULTS, is_video, label_file
from swinv2_backbone.d2.inference.pipeline import FAILURES, Pipeline
from swinv2_backbone.d2.inference.prediction import Prediction

FRAME_RATE = 25  # of a video that does not state its own


def predict_files(
    pipeline: Pipeline, outputs: dict[Path, Path], folder: Path
) -> tuple[list[dict], list[str]]:
    """Draw every input, and write the records of those drawn, even if the loop is interrupted.

    Returns:
        The records, in the order of the inputs, and a message for each input that failed.
    """
    records: dict[Path, dict] = {}
    failed = []
    try:
        with tqdm(total=len(outputs), desc="predicting", unit="file") as bar:
            for source, failure in _outcomes(pipeline, outputs, records):
                bar.update()
                if failure:
                    failed.append(f"{source}: {type(failure).__name__}: {failure}")
    finally:
        results = [records[source] for source in outputs if source in records]
        write_text(folder / RESULTS, json.dumps(results, indent=1))
    return results, failed


def _outcomes(
    pipeline: Pipeline, outputs: dict[Path, Path], records: dict[Path, dict]
) -> Iterator[tuple[Path, Exception | None]]:
    """Predict every input, add its record, and yield it with its error, if any."""
    predictor = pipeline.predictor

    def finish(source: Path, picture: np.ndarray, found: Prediction) -> None:
        write_picture(outputs[source], predictor.draw(picture, found))
        if found.labels is not None and found.panoptic is None:
            depth = np.uint16 if found.labels.max() > 255 else np.uint8
            write_picture(label_file(outputs[source]), found.labels.astype(depth))
        records[source] = {**_record(source, picture), **predictor.records(found)}

    for video, sources in itertools.groupby(outputs, is_video):
        if not video:
            # Closed at once, so that the files that threads still write are in the records.
            with contextlib.closing(pipeline.run(sources, predictor.read, finish)) as stream:
                yield from stream
            continue
        for source in sources:
            try:
                records[source] = predict_video(pipeline, source, outputs[source])
                yield source, None
            except FAILURES as error:  # one file does not stop the others
                yield source, error


def predict_video(pipeline: Pipeline, source: Path, target: Path) -> dict:
    """Draw the predictions on every frame of a video, and return its record."""
    predictor, video = pipeline.predictor, cv2.VideoCapture(str(source))
    if not video.isOpened():
        raise OSError(f"OpenCV cannot read the video {source}")
    rate = video.get(cv2.CAP_PROP_FPS) or FRAME_RATE
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) or None
    size: dict[str, int] = {}

    def read(number: int) -> np.ndarray | None:
        more, frame = video.read()
        return frame if more else None

    def finish(number: int, frame: np.ndarray, found: Prediction) -> tuple[np.ndarray, dict]:
        size.update(_size(frame))
        drawn = np.ascontiguousarray(predictor.draw(frame, found))
        return drawn, {"frame": number, **predictor.records(found)}

    frames: list[dict] = []
    writer = None
    stream = pipeline.run(itertools.count(), read, finish, readers=1)
    try:
        with contextlib.closing(stream):
            bar = tqdm(stream, total=total, desc=source.name, unit="frame", leave=False)
            for _, outcome in bar:
                if isinstance(outcome, Exception):
                    raise outcome
                drawn, record = outcome
                if writer is None:
                    writer = _video_writer(target, drawn, rate)
                writer.write(drawn)
                frames.append(record)
    finally:
        video.release()
        if writer is not None:
            writer.release()
    if not frames:
        raise OSError(f"the video {source} has no frames")
    return {"file_name": str(source), **size, "frames": frames}


def _video_writer(target: Path, first: np.ndarray, rate: float) -> cv2.VideoWriter:
    size = (first.shape[1], first.shape[0])
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write the video {target}")
    return writer


def _record(source: Path, picture: np.ndarray) -> dict:
    return {"file_name": str(source), **_size(picture)}


def _size(picture: np.ndarray) -> dict[str, int]:
    return {"height": picture.shape[0], "width": picture.shape[1]}
