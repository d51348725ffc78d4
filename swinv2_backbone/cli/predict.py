#!/usr/bin/env python
"""Draw a trained model's predictions on images and videos, and write them down as JSON.

  tools/predict.py --config-file output/config.yaml --input photos --output drawn \\
      MODEL.WEIGHTS output/model_final.pth

The config may also be a LazyConfig (then: train.init_checkpoint=output/model_final.pth).  A model
for semantic segmentation also writes the class number of each pixel, photo.jpg_labels.png.
"""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from swinv2_backbone.d2.data.loading.images import read_image
from swinv2_backbone.d2.inference.predictor import Predictor, load_predictor

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
RESULTS = "detections.json"
LABELS = "_labels.png"


def find_inputs(given: list[str]) -> list[Path]:
    """The images and videos among files, folders and glob patterns, each once.

    Raises:
        ValueError: something given is not there, or neither image nor video.
    """
    found: dict[Path, None] = {}
    for entry in given:
        if Path(entry).is_dir():
            matches = sorted(
                p for p in Path(entry).iterdir() if p.suffix.lower() in IMAGES | VIDEOS
            )
        elif Path(entry).is_file():
            matches = [Path(entry)]
        else:
            matches = [Path(match) for match in sorted(glob.glob(entry, recursive=True))]
        if not matches:
            raise ValueError(
                f"--input {entry!r}: no image or video there (KEY VALUE "
                "pairs go last, after another option than --input)"
            )
        found.update(dict.fromkeys(matches))
    for path in found:
        if path.suffix.lower() not in IMAGES | VIDEOS:
            raise ValueError(
                f"--input {str(path)!r} is neither an image ({' '.join(sorted(IMAGES))})"
                f" nor a video ({' '.join(sorted(VIDEOS))})"
            )
    return list(found)


def plan_outputs(inputs: list[Path], folder: Path, overwrite: bool) -> dict[Path, Path]:
    """Input -> where its drawing goes; class numbers, if there are any, go beside it.

    Raises:
        ValueError: two inputs would be drawn into one file, or a file is already there.
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
    """With the ending of the picture, as a.jpg may lie beside a.png."""
    return target.with_name(target.name + LABELS)


def predict_image(predictor: Predictor, source: Path, target: Path) -> dict:
    picture = read_image(source, "BGR")
    found = predictor(picture)
    _write(target, predictor.draw(picture, found))
    if found.labels is not None and found.panoptic is None:
        depth = np.uint16 if found.labels.max() > 255 else np.uint8
        _write(label_file(target), found.labels.astype(depth))
    return {
        "file_name": str(source),
        "height": picture.shape[0],
        "width": picture.shape[1],
        **predictor.records(found),
    }


def _write(target: Path, picture: np.ndarray) -> None:
    if not cv2.imwrite(str(target), picture):
        raise OSError(f"cannot write {target}")


def predict_video(predictor: Predictor, source: Path, target: Path) -> dict:
    video = cv2.VideoCapture(str(source))
    if not video.isOpened():
        raise OSError(f"OpenCV cannot read the video {source}")
    frames, writer = [], None
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) or None
    try:
        for frame in tqdm(_frames(video), total=total, desc=source.name, unit="frame", leave=False):
            found = predictor(frame)
            drawn = np.ascontiguousarray(predictor.draw(frame, found))
            if writer is None:
                size, rate = (drawn.shape[1], drawn.shape[0]), video.get(cv2.CAP_PROP_FPS) or 25
                writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise OSError(f"OpenCV cannot write the video {target}")
            writer.write(drawn)
            frames.append({"frame": len(frames), **predictor.records(found)})
    finally:
        video.release()
        if writer is not None:
            writer.release()
    if not frames:
        raise OSError(f"the video {source} has no frames")
    return {
        "file_name": str(source),
        "height": frame.shape[0],
        "width": frame.shape[1],
        "frames": frames,
    }


def _frames(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        more, frame = video.read()
        if not more:
            return
        yield frame


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="images, videos, folders of them, or glob patterns",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--confidence", type=float, default=0.5, help="lowest score to show")
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="changes of config keys, at the end of the command",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    inputs = find_inputs(args.input)
    outputs = plan_outputs(inputs, args.output, args.overwrite)
    predictor = load_predictor(args.config_file, args.opts, args.confidence)
    args.output.mkdir(parents=True, exist_ok=True)
    results, failed = [], []
    for source, target in tqdm(outputs.items(), desc="predicting", unit="file"):
        predict = predict_video if source.suffix.lower() in VIDEOS else predict_image
        try:
            results.append(predict(predictor, source, target))
        except OSError as error:  # one broken file does not end the others
            failed.append(f"{source}: {error}")
    (args.output / RESULTS).write_text(json.dumps(results, indent=1))
    print(f"{len(results)} files drawn to {args.output}, detections in {args.output / RESULTS}")
    if failed:
        sys.exit(f"{len(failed)} files could not be read:\n" + "\n".join(failed))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
