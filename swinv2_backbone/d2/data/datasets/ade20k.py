"""ADE20K for Detectron2: its labels prepared, and checked before a training starts.

In the label images of the scene parsing benchmark 0 is "other" and 1 to 150 are the classes.
Detectron2 reads them from a second folder, where the classes are 0 to 149 and "other" is 255:

    ADEChallengeData2016/images/{training,validation}/*.jpg
    ADEChallengeData2016/annotations/{training,validation}/*.png              as downloaded
    ADEChallengeData2016/annotations_detectron2/{training,validation}/*.png   made by `prepare`

Label images are (H, W) uint8.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from PIL import Image
from tqdm import tqdm

FOLDER = "ADEChallengeData2016"
SPLITS = ("training", "validation")
CLASSES = 150
IGNORED = 255
DATASETS = ("ade20k_sem_seg_train", "ade20k_sem_seg_val")  # Detectron2's own
COMPARED = 100  # files of a split whose values are compared before all are kept
SAMPLED = 20  # files of a split that are looked into before a training
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"
GREY, INDEXED = 0, 3  # PNG's colour types that store one number a pixel


@dataclass(frozen=True)
class Prepared:
    """How many label files were written, and how many were there already."""

    made: int
    kept: int


def prepare(root: str | Path, *, workers: int | None = None, overwrite: bool = False) -> Prepared:
    """Write `annotations_detectron2`: every label minus one, so that 0 ("other") becomes 255.

    Files that are there already are kept, so that an interrupted run goes on; each file appears
    in one step, whole. All that are kept must have the size of their source and be complete; of a
    sample the values are compared too.

    Args:
        root: the folder ADEChallengeData2016, or one that holds it.
        workers: threads; None is one a CPU, at most 8.
        overwrite: make all files anew, also those that are there.

    Raises:
        ValueError: a folder is missing, a file that is there does not fit (found before anything
            is written), or a source is no 8 bit label image or has labels above 150.
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
    """The ADE20K folder that `root` is or holds."""
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
    """Raise ValueError unless files that are there are what would be written."""
    checks = ((_compare_sizes, pairs), (_compare_values, _spread(pairs, COMPARED)))
    for compare, some in checks:
        for problem in filter(None, pool.map(compare, some)):
            raise ValueError(f"{problem}; move it away, or use --overwrite to make all files anew")


def _compare_sizes(pair: tuple[Path, Path]) -> str:
    """What is wrong with the target by its first and last bytes, or ""."""
    source, target = pair
    size = _png_size(source)
    try:
        if _png_size(target) != size:
            return f"{target} has not the size of {source}"
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _compare_values(pair: tuple[Path, Path]) -> str:
    """What is wrong with the target's labels, or ""."""
    source, target = pair
    expected = _shift(source)
    try:
        same = np.array_equal(_read(target), expected)
    except ValueError as error:
        return str(error)
    return "" if same else f"{target} is not {source} minus one"


def _convert(pair: tuple[Path, Path]) -> None:
    source, target = pair
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    labels = Image.fromarray(_shift(source))
    try:
        labels.save(temporary, format="PNG")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _shift(source: Path) -> np.ndarray:
    """The labels of a source as Detectron2 wants them."""
    labels = _read(source)
    if labels.max() > CLASSES:
        raise ValueError(
            f"{source} has the label {labels.max()}, but ADE20K's are 0 to {CLASSES}; "
            f"unpack it again from {FOLDER}.zip"
        )
    return labels - np.uint8(1)  # 0 becomes 255


def _read(path: Path) -> np.ndarray:
    """A label image as stored; a palette, which only colours the display, is left out."""
    _png_size(path)
    try:
        with Image.open(path) as image:
            return np.array(image)
    except (OSError, SyntaxError) as error:  # Pillow raises either for damaged data
        raise ValueError(f"{path} cannot be read: {error}") from error


def _png_size(path: Path) -> tuple[int, int]:
    """Width and height, of a complete PNG file of 8 bit labels."""
    with open(path, "rb") as file:
        head = file.read(26)
        file.seek(-min(12, os.fstat(file.fileno()).st_size), os.SEEK_END)
        tail = file.read()
    if len(head) < 26 or not head.startswith(PNG_START) or tail != PNG_END:
        raise ValueError(f"{path} is no PNG file, or only part of one")
    bits, colours = head[24], head[25]
    # Pillow would scale labels of fewer bits, without a word.
    if bits != 8 or colours not in (GREY, INDEXED):
        raise ValueError(
            f"{path} is not an 8 bit label image ({bits} bits, PNG's colour type {colours}); "
            f"take the annotations of {FOLDER}.zip"
        )
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _spread(items: Sequence, count: int) -> list:
    """At most `count` of the items, from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def check_ade20k(names: Iterable[str]) -> None:
    """Raise ValueError if one of Detectron2's ADE20K datasets could not be trained or tested on.

    Args:
        names: of datasets, as in `DATASETS.TRAIN`; those that are not ADE20K's are passed over.

    Raises:
        ValueError: images or prepared labels are missing, or the labels are not prepared.
    """
    for name in names:
        if name in DATASETS:
            metadata = MetadataCatalog.get(name)
            _check_split(name, Path(metadata.image_root), Path(metadata.sem_seg_root))


def _check_split(name: str, images: Path, labels: Path) -> None:
    stems = _stems(images, ".jpg")
    if not stems:
        raise ValueError(
            f"dataset {name}: there are no .jpg images in {images}; set the environment variable "
            f"DETECTRON2_DATASETS to the folder that holds {FOLDER}"
        )
    root = labels.parent.parent
    missing = sorted(stems - _stems(labels, ".png"))
    if missing:
        raise ValueError(
            f"dataset {name}: {len(missing)} of {len(stems)} images have no label file in "
            f"{labels}, the first: {missing[0]}.png; run tools/prepare_ade20k.py {root}"
        )
    files = [labels / f"{stem}.png" for stem in _spread(sorted(stems), SAMPLED)]
    if _are_unprepared(files, root / "annotations" / labels.name):
        raise ValueError(
            f"dataset {name}: the labels in {labels} are not the prepared ones, 0 to "
            f"{CLASSES - 1} and {IGNORED}; run tools/prepare_ade20k.py --overwrite {root}"
        )


def _stems(folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        return set()
    return {name[: -len(suffix)] for name in os.listdir(folder) if name.endswith(suffix)}


def _are_unprepared(files: Sequence[Path], sources: Path) -> bool:
    """Whether label files are still, or again, as they were downloaded to the folder `sources`."""
    labels = [_read(file) for file in files]
    counts = sum(np.bincount(label.ravel(), minlength=256) for label in labels)
    if counts[CLASSES:IGNORED].any():
        return True
    if counts[IGNORED]:
        return False
    # Prepared labels have 255 wherever there is no class. A few images may have none such.
    return len(files) == SAMPLED or any(
        (sources / file.name).is_file() and np.array_equal(label, _read(sources / file.name))
        for file, label in zip(files, labels)
    )
