"""A finished training or evaluation: its config, test dataset and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from swinv2_backbone.checkpoints.records import read_record
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.custom import register_custom_datasets
from swinv2_backbone.d2.data.loading.bands import read_picture
from swinv2_backbone.d2.evaluation.evaluators import COCO_DETECTIONS, counted_detections

# The files that Detectron2's evaluators write to OUTPUT_DIR/inference, and the keys of an entry.
FILES = {"detection": "coco_instances_results.json", "semantic": "sem_seg_predictions.json"}
KEYS = {
    "detection": ("image_id", "category_id", "bbox", "score"),
    "semantic": ("file_name", "category_id", "segmentation"),
}
# evaluator_type of a dataset -> kinds of predictions on it.
KINDS = {
    "coco": ("detection",),
    "sem_seg": ("semantic",),
    "coco_panoptic_seg": ("detection", "semantic"),
}
# The model is not run here, so that a config for a GPU can be analyzed on any machine.
ON_THE_CPU = ("MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False")


@dataclass(frozen=True)
class Run:
    """The run to analyze.

    Attributes:
        config_file: the config file, as given.
        dataset: the name of a registered test dataset.
        files: "detection" or "semantic" -> file, for each kind of predictions that exists.
        predictions: the same keys -> the entries of the file.
        metrics: the metrics.json of the run; None if there is none.
        max_detections: detections per image and class that AP counts.
        image_format, display_bands: of the config, for the pictures.
    """

    config_file: str
    dataset: str
    files: dict[str, Path]
    predictions: dict[str, list[dict]]
    metrics: Path | None
    max_detections: int = COCO_DETECTIONS
    image_format: str = "RGB"
    display_bands: Sequence[int] = ()

    def read_picture(self, file_name: str) -> np.ndarray:
        """Read an image to draw on, (H, W, 3) uint8 RGB."""
        return read_picture(file_name, self.image_format, self.display_bands)


def open_run(
    config_file: str,
    opts: Sequence[str] = (),
    dataset: str | None = None,
    predictions: Path | None = None,
    imports: Sequence[str] = (),
) -> Run:
    """Read a run's config and predictions, and register its test datasets.

    Args:
        config_file: usually OUTPUT_DIR/config.yaml.
        opts: changes to the config, ``KEY VALUE ...``.
        dataset: one of ``DATASETS.TEST``; None: the first.
        predictions: a file in the format of one of Detectron2's evaluators; None: the files in
            OUTPUT_DIR/inference.
        imports: other projects' code that the config needs; see :func:`load_config`.

    Raises:
        ValueError: a file is missing or does not match; the message gives the remedy.
    """
    cfg = load_config(config_file, [*opts, *ON_THE_CPU], imports)
    cfg = register_custom_datasets(cfg, ("TEST",))
    name = _choose_dataset(cfg, dataset, predictions is not None)
    kinds = _kinds_of(name)
    if predictions is None:
        files = _find_files(cfg, kinds, config_file)
        entries = {kind: _read_entries(file) for kind, file in files.items()}
    else:
        given = _read_entries(predictions)
        kind = _kind_of_entries(given, kinds)
        files, entries = {kind: predictions}, {kind: given}
    for kind, file in files.items():
        _check_entries(entries[kind], file, kind)
    metrics = Path(cfg.OUTPUT_DIR, "metrics.json")
    return Run(
        config_file,
        name,
        files,
        entries,
        metrics if metrics.is_file() else None,
        counted_detections(cfg.TEST.DETECTIONS_PER_IMAGE),
        cfg.INPUT.FORMAT,
        cfg.INPUT.DISPLAY_BANDS,
    )


def _choose_dataset(cfg: CfgNode, wanted: str | None, predictions_given: bool) -> str:
    names = list(cfg.DATASETS.TEST)
    if not names:
        raise ValueError("DATASETS.TEST is empty: give DATASETS.CUSTOM.TEST.JSON or DATASETS.TEST")
    if wanted is not None and wanted not in names:
        raise ValueError(f"--dataset {wanted!r} is not in DATASETS.TEST ({', '.join(names)})")
    name = wanted or names[0]
    if name != names[-1] and not predictions_given:
        # Every dataset is evaluated into the same folder, where only the last one's files remain.
        raise ValueError(
            f"DATASETS.TEST is {', '.join(names)}: OUTPUT_DIR/inference holds the predictions "
            f"on {names[-1]!r}, which was evaluated last, not on {name!r}; choose "
            f"--dataset {names[-1]}, or give the file with --predictions"
        )
    if name not in DatasetCatalog:
        raise ValueError(f"the dataset {name!r} of DATASETS.TEST is not registered")
    return name


def _kinds_of(name: str) -> tuple[str, ...]:
    DatasetCatalog.get(name)  # fills in the metadata
    kind = MetadataCatalog.get(name).get("evaluator_type")
    if kind not in KINDS:
        raise ValueError(
            f"the dataset {name!r} has the evaluator_type {kind!r}, which cannot be analyzed: it "
            f"must be one of {', '.join(KINDS)}"
        )
    return KINDS[kind]


def _find_files(cfg: CfgNode, kinds: tuple[str, ...], config_file: str) -> dict[str, Path]:
    places = {kind: Path(cfg.OUTPUT_DIR, "inference", FILES[kind]) for kind in kinds}
    found = {kind: file for kind, file in places.items() if file.is_file()}
    if not found:
        raise ValueError(
            f"no predictions: {' and '.join(map(str, places.values()))} not found. They are "
            f"written by: swinv2 eval {config_file} "
            f"MODEL.WEIGHTS {Path(cfg.OUTPUT_DIR, 'model_final.pth')}. If they are elsewhere, "
            "give --predictions FILE or OUTPUT_DIR FOLDER"
        )
    return found


def _read_entries(file: Path) -> list[dict]:
    try:
        entries = read_record(file, "write it again with swinv2 eval")
    except OSError as error:
        raise ValueError(f"the predictions {file} cannot be read: {error.strerror}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"the predictions {file} are not a list of objects")
    return entries


def _kind_of_entries(entries: list[dict], kinds: tuple[str, ...]) -> str:
    """Return the kind of predictions in a file; for an empty one, the first of the dataset."""
    fitting = [kind for kind in kinds if entries and all(key in entries[0] for key in KEYS[kind])]
    return (fitting or kinds)[0]


def _check_entries(entries: list[dict], file: Path, kind: str) -> None:
    for number, entry in enumerate(entries):
        absent = [key for key in KEYS[kind] if key not in entry]
        if absent:
            raise ValueError(
                f"entry {number} of {file} has no {', '.join(absent)}: "
                f"these are not {kind} predictions as Detectron2 writes them ({FILES[kind]})"
            )
