"""Predictions on many files: images and videos are drawn, detections are written as JSON."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from swinv2_backbone.d2.inference.predictor import Predictor

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
RESULTS = "detections.json"
LABELS = "_labels.png"
FRAME_RATE = 25  # of a video that does not state its own


def find_inputs(given: list[str]) -> list[Path]:
    """Return the images and videos among files, folders and glob patterns, each once.

    Raises:
        ValueError: An entry does not exist, or is neither an image nor a video.
    """
    found: dict[Path, None] = {}
    for entry in given:
        matches = _matches(entry)
        if not matches:
            raise ValueError(
                f"--input {entry!r}: no image or video there (KEY VALUE pairs go last, after "
                "another option than --input)"
            )
        found.update(dict.fromkeys(matches))
    for path in found:
        if path.suffix.lower() not in IMAGES | VIDEOS:
            raise ValueError(
                f"--input {str(path)!r} is neither an image ({' '.join(sorted(IMAGES))})"
                f" nor a video ({' '.join(sorted(VIDEOS))})"
            )
    return list(found)


def _matches(entry: str) -> list[Path]:
    path = Path(entry)
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES | VIDEOS)
    if path.is_file():
        return [path]
    return [Path(match) for match in sorted(glob.glob(entry, recursive=True))]


def plan_outputs(inputs: list[Path], folder: Path, overwrite: bool) -> dict[Path, Path]:
    """Map each input to the file of its drawing; class numbers, if any, are written beside it.

    Raises:
        ValueError: Two inputs would be drawn into one file, or an output file exists.
    """
    outputs: dict[Path, Path] = {}
    for path in inputs:
        name = path.stem + ".mp4" if path.suffix.lower() in VIDEOS else path.name
        target = folder / name
        if target in outputs.values():
            raise ValueError(f"two inputs are called {name!r}; draw them into different folders")
        if target.resolve() == path.resolve():
            raise ValueError(f"--output {str(folder)!r} is the folder of the input {str(path)!r}")
        outputs[path] = target
    labels = [label_file(target) for target in outputs.values()]
    if mixed := set(labels) & set(outputs.values()):
        raise ValueError(
            f"the input {mixed.pop().name!r} has the name of a result of this command: rename it"
        )
    there = [str(p) for p in (*outputs.values(), *labels, folder / RESULTS) if p.exists()]
    if there and not overwrite:
        raise ValueError(
            f"{len(there)} output files exist, the first: {there[0]!r}; choose another "
            "folder or add --overwrite"
        )
    return outputs


def label_file(target: Path) -> Path:
    """Return the file of class numbers; it keeps the suffix, as a.jpg may lie beside a.png."""
    return target.with_name(target.name + LABELS)


def predict_files(predictor: Predictor, outputs: dict[Path, Path]) -> tuple[list[dict], list[str]]:
    """Draw every input; return the records of all, and a message for each that cannot be read."""
    results, failed = [], []
    for source, target in tqdm(outputs.items(), desc="predicting", unit="file"):
        predict = predict_video if source.suffix.lower() in VIDEOS else predict_image
        try:
            results.append(predict(predictor, source, target))
        except OSError as error:  # one broken file does not stop the others
            failed.append(f"{source}: {error}")
    return results, failed


def write_results(folder: Path, results: list[dict]) -> Path:
    path = folder / RESULTS
    path.write_text(json.dumps(results, indent=1))
    return path


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
