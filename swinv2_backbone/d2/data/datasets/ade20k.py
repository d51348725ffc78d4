"""The label images of ADE20K, converted to the values that Detectron2 expects.

    ADEChallengeData2016/images/{training,validation}/*.jpg
    ADEChallengeData2016/annotations/{training,validation}/*.png              as downloaded
    ADEChallengeData2016/annotations_detectron2/{training,validation}/*.png   made by `prepare`

Label images are (H, W) uint8.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from swinv2_backbone.checkpoints.durable import unfinished
from swinv2_backbone.d2.data.validation.ade20k import (
    CLASSES,
    FOLDER,
    evenly_spaced,
    png_size,
    read_label_image,
)

SPLITS = ("training", "validation")
COMPARED = 100  # files of a split whose values are compared before all are kept


@dataclass(frozen=True)
class Prepared:
    """The numbers of label files that were written, and that already existed."""

    made: int
    kept: int


def prepare(root: str | Path, *, workers: int | None = None, overwrite: bool = False) -> Prepared:
    """Write `annotations_detectron2`: every label minus one, so that 0 ("other") becomes 255.

    Existing files are kept, so that an interrupted run can be completed; each file is written
    atomically. Kept files must be complete and have the size of their source; for a sample the
    values are compared too.

    Args:
        root: the folder ADEChallengeData2016, or one that holds it.
        workers: threads; None: one per CPU, at most 8.
        overwrite: write all files again, including existing ones.

    Raises:
        ValueError: a folder is missing, an existing file does not match its source (found before
            anything is written), or a source is not an 8-bit label image or has labels above 150.
    """
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    root = _find(Path(root))
    sources = {split: _label_files(root / "annotations" / split) for split in SPLITS}
    todo, count = [], sum(map(len, sources.values()))
    with ThreadPoolExecutor(workers) as pool:
        for split, files in sources.items():
            folder = _target_folder(root, split)
            pairs = [(source, folder / source.name) for source in files]
            kept = [] if overwrite else [pair for pair in pairs if os.path.lexists(pair[1])]
            _check_kept(pool, kept)
            todo += sorted(set(pairs) - set(kept))
        for folder in {target.parent for _, target in todo}:
            folder.mkdir(parents=True, exist_ok=True)
        list(tqdm(pool.map(_convert, todo), total=len(todo), unit="file"))
    return Prepared(made=len(todo), kept=count - len(todo))


def _find(root: Path) -> Path:
    """Return the ADE20K folder that `root` is or holds."""
    for folder in (root, root / FOLDER):
        if (folder / "annotations").is_dir():
            return folder
    raise ValueError(
        f"neither {root / 'annotations'} nor {root / FOLDER / 'annotations'} is a folder; ADE20K "
        f"is the scene parsing (SceneParsing) benchmark's {FOLDER}.zip, unpacked"
    )


def _label_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.png"))
    if not files:
        raise ValueError(
            f"there are no .png files in {folder}; unpack all of {FOLDER}.zip, which has "
            f"annotations/{' and annotations/'.join(SPLITS)}"
        )
    return files


def _target_folder(root: Path, split: str) -> Path:
    source, target = (root / name / split for name in ("annotations", "annotations_detectron2"))
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the folder {source} itself: remove that link")
    return target


def _check_kept(pool: ThreadPoolExecutor, pairs: Sequence[tuple[Path, Path]]) -> None:
    """Raise ValueError unless existing files are what would be written."""
    checks = ((_compare_sizes, pairs), (_compare_values, evenly_spaced(pairs, COMPARED)))
    for compare, some in checks:
        for problem in filter(None, pool.map(compare, some)):
            raise ValueError(
                f"{problem}; move it away, or use --overwrite to write all files again"
            )


def _compare_sizes(pair: tuple[Path, Path]) -> str:
    """Return the fault in the target's first or last bytes, or ""."""
    source, target = pair
    size = png_size(source)
    try:
        if png_size(target) != size:
            return f"{target} does not have the size of {source}"
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _compare_values(pair: tuple[Path, Path]) -> str:
    """Return the fault in the target's labels, or ""."""
    source, target = pair
    expected = _shift(source)
    try:
        same = np.array_equal(read_label_image(target), expected)
    except ValueError as error:
        return str(error)
    return "" if same else f"{target} is not {source} minus one"


def _convert(pair: tuple[Path, Path]) -> None:
    source, target = pair
    labels = Image.fromarray(_shift(source))
    with unfinished(target) as part:
        labels.save(part, format="PNG")


def _shift(source: Path) -> np.ndarray:
    """Read the labels of a source and convert them for Detectron2."""
    labels = read_label_image(source)
    if labels.max() > CLASSES:
        raise ValueError(
            f"{source} has the label {labels.max()}, but ADE20K's are 0 to {CLASSES}; "
            f"unpack it again from {FOLDER}.zip"
        )
    return labels - np.uint8(1)  # 0 becomes 255
