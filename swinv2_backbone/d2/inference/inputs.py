"""The files to predict on, their output files, and the files that are skipped."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import NamedTuple

from swinv2_backbone.d2.data.loading.bands import BAND_SUFFIXES
from swinv2_backbone.d2.data.loading.images import image_size
from swinv2_backbone.images.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES, described

RESULTS = "detections.json"
LABELS = "_labels.png"
# Drawings keep the suffix of their image, or become PNG files.
DRAWN = (".bmp", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Inputs(NamedTuple):
    """The files to predict on, and the skipped files of folders and patterns."""

    files: list[Path]
    passed_over: list[Path]


def find_inputs(given: list[str], bands: bool = False) -> Inputs:
    """Find the images and videos among files, folders and glob patterns, each once.

    Args:
        bands: find images of the format "BANDS" instead.

    Raises:
        ValueError: an entry does not exist, has no image or video, or is a file of another kind.
    """
    suffixes = BAND_SUFFIXES if bands else IMAGE_SUFFIXES + VIDEO_SUFFIXES
    files: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for entry in given:
        path = Path(entry)
        if path.is_file():
            if path.suffix.lower() not in suffixes:
                _require_image(path, bands)
            files[path] = None
            continue
        found = list(path.iterdir()) if path.is_dir() else _matching(entry)
        taken = [p for p in sorted(found) if _is_input(p, suffixes)]
        left = [p for p in sorted(found) if not _is_input(p, suffixes)]
        if not taken:
            raise ValueError(
                f"--input {entry!r}: no image or video there (KEY VALUE pairs go last, after "
                "another option than --input)" + "".join(f"\n{line}" for line in described(left))
            )
        files.update(dict.fromkeys(taken))
        others.update(dict.fromkeys(left))
    return Inputs(list(files), [path for path in others if path not in files])


def plan_outputs(inputs: list[Path], folder: Path, overwrite: bool) -> dict[Path, Path]:
    """Map each input to the file of its drawing; class numbers, if any, are written beside it.

    Raises:
        ValueError: two inputs would be drawn into one file, or an output file exists.
    """
    outputs: dict[Path, Path] = {}
    for path in inputs:
        target = folder / _drawing(path)
        if target in outputs.values():
            raise ValueError(
                f"two inputs are drawn into {target.name!r}; give them different output folders"
            )
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


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _drawing(path: Path) -> str:
    if is_video(path):
        return path.stem + ".mp4"
    return path.name if path.suffix.lower() in DRAWN else path.name + ".png"


def _matching(pattern: str) -> list[Path]:
    return [Path(match) for match in glob.glob(pattern, recursive=True)]


def _is_input(path: Path, suffixes: tuple[str, ...]) -> bool:
    hidden = path.name.startswith(".")  # such as ._photo.jpg, which macOS writes beside a photo.jpg
    return path.suffix.lower() in suffixes and not hidden and not path.is_dir()


def _require_image(path: Path, bands: bool) -> None:
    """Raise ValueError unless a file with an unknown suffix is an image."""
    if bands:
        raise ValueError(
            f"--input {str(path)!r} has no bands: INPUT.FORMAT BANDS (image_format) reads "
            f"{' '.join(BAND_SUFFIXES)}"
        )
    try:
        image_size(path)
    except OSError as error:
        raise ValueError(
            f"--input {str(path)!r} is neither an image ({' '.join(IMAGE_SUFFIXES)}) nor a video "
            f"({' '.join(VIDEO_SUFFIXES)}): {error}"
        ) from error
