"""The files of the demo dataset, and the claim of its generator to a folder.

Markers in the folder (demo.json, and demo.partial.json during writing) record which files belong to
the generator: only these are ever removed or overwritten.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.demo.scene import SPLITS


@dataclass(frozen=True)
class DemoSplit:
    """The files and folders of one split; the folders have image files of the same names.

    Label images are 8-bit gray: `labels` holds indices of the class names, `stuff` holds 0 for
    objects and 1 for background, as Detectron2's Panoptic FPN needs.
    """

    json: Path
    images: Path
    labels: Path
    stuff: Path
    panoptic: Path
    panoptic_json: Path

    @classmethod
    def below(cls, root: Path, split: str) -> DemoSplit:
        return cls(
            json=root / f"{split}.json",
            images=root / split,
            labels=root / f"{split}_labels",
            stuff=root / f"{split}_stuff",
            panoptic=root / f"{split}_panoptic",
            panoptic_json=root / f"{split}_panoptic.json",
        )


@dataclass(frozen=True)
class DemoDataset:
    """The files of a generated dataset: a COCO file, images and label images per split.

    `classes` is a text file of class names, one per line in the order of the labels. The other
    files of a split are in ``dataset.split("train")``.
    """

    root: Path
    train_json: Path
    train_images: Path
    train_labels: Path
    val_json: Path
    val_images: Path
    val_labels: Path
    classes: Path

    @classmethod
    def below(cls, root: Path) -> DemoDataset:
        paths = {
            f"{split}_{part}": getattr(DemoSplit.below(root, split), part)
            for split in SPLITS
            for part in ("json", "images", "labels")
        }
        return cls(root=root, classes=root / "classes.txt", **paths)

    def split(self, name: str) -> DemoSplit:
        if name not in SPLITS:
            raise ValueError(f"split {name!r} is not one of {', '.join(SPLITS)}")
        return DemoSplit.below(self.root, name)


@dataclass(frozen=True)
class Record:
    """The content of demo.json: the generator of the folder's files, and its parameters."""

    seed: int
    num_train: int
    num_val: int
    image_size: int
    generator: str = "swinv2_backbone.d2.data.demo"  # in folders on disk, so it never changes
    version: int = 2  # raised when the files change, so that old folders are written again

    def files(self) -> set[str]:
        """Return the paths, relative to the root, of all files that this version writes.

        Version 1 wrote fewer files; others of these names may belong to the user.
        """
        names = set() if self.version < 2 else {"classes.txt"}
        for split, count in zip(SPLITS, (self.num_train, self.num_val), strict=True):
            paths = asdict(DemoSplit.below(Path(), split))
            for part in ("json", "images") if self.version < 2 else paths:
                if paths[part].suffix:
                    names.add(str(paths[part]))
                else:
                    names |= {str(paths[part] / image_name(i)) for i in range(count)}
        return names


def image_name(index: int) -> str:
    return f"{index + 1:06d}.png"


def write_record(path: Path, record: Record) -> None:
    write_text(path, json.dumps(asdict(record), indent=2) + "\n")


def read_record(path: Path) -> Record | None:
    """Read the record at `path`; None if there is none of this generator."""
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    numbers = {key: value for key, value in asdict(record).items() if key != "generator"}
    whole = all(isinstance(value, int) for value in numbers.values())
    return record if whole and record.generator == Record.generator else None


def _is_taken(root: Path, name: Path) -> bool:
    """Return True if a file exists, or a file has the name of its folder."""
    folder = root / name.parent
    return (root / name).exists() or (folder.exists() and not folder.is_dir())


def claim(root: Path, wanted: Record) -> None:
    """Prepare `root` for writing: mark the files to be written, and remove earlier ones.

    Raises:
        ValueError: a file in the way is not the generator's; nothing has been changed.
    """
    markers = (root / "demo.json", root / "demo.partial.json")
    found = [read_record(marker) for marker in markers if marker.exists()]
    records = [record for record in found if record is not None]
    if len(records) < len(found) or (not found and root.is_dir() and any(root.iterdir())):
        raise ValueError(
            f"{root} holds files that the demo generator did not make, or an incomplete demo.json: "
            "delete it, or choose a new or empty folder"
        )
    # Names depend on the counts only, so the larger counts cover both old and new files.
    num_train = max(record.num_train for record in (wanted, *records))
    num_val = max(record.num_val for record in (wanted, *records))
    claimed = replace(wanted, num_train=num_train, num_val=num_val)
    ours: set[str] = set().union(*(record.files() for record in records))
    foreign = [name for name in sorted(claimed.files() - ours) if _is_taken(root, Path(name))]
    if foreign:
        raise ValueError(
            f"{root / foreign[0]} is not the demo generator's and would be overwritten: "
            "move it, or choose a new or empty folder"
        )
    root.mkdir(parents=True, exist_ok=True)
    write_record(markers[1], claimed)
    markers[0].unlink(missing_ok=True)
    for name in ours:
        (root / name).unlink(missing_ok=True)
