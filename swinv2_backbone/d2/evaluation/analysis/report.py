"""The report of a run: pictures in a folder, and numbers in its results.json."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from matplotlib.figure import Figure
from tqdm import tqdm

from swinv2_backbone.checkpoints.durable import unfinished, write_text
from swinv2_backbone.d2.data.storage.pictures import write_picture
from swinv2_backbone.d2.evaluation.analysis.average_precision import average_precisions, evaluate
from swinv2_backbone.d2.evaluation.analysis.confusion import Confusion, object_confusion
from swinv2_backbone.d2.evaluation.analysis.detections import Detections, load_detections
from swinv2_backbone.d2.evaluation.analysis.errors import KINDS, find_errors
from swinv2_backbone.d2.evaluation.analysis.heat_map import draw_confusion
from swinv2_backbone.d2.evaluation.analysis.matching import Matches, match_images, worst_images
from swinv2_backbone.d2.evaluation.analysis.pictures import draw_detections, draw_segmentation
from swinv2_backbone.d2.evaluation.analysis.precision_recall import draw_precision_recall
from swinv2_backbone.d2.evaluation.analysis.run import Run
from swinv2_backbone.d2.evaluation.analysis.segmentation import (
    Segmentation,
    class_iou,
    compare_segmentation,
    mean_iou,
    only_predicted_classes,
)
from swinv2_backbone.d2.evaluation.analysis.sheets import draw_sheet, worst_errors
from swinv2_backbone.d2.evaluation.analysis.tables import (
    confusion_text,
    errors_text,
    iou_text,
    precision_text,
)
from swinv2_backbone.d2.evaluation.analysis.training_curves import draw_training, read_metrics

RESULTS = "results.json"
CONFUSION, PIXELS, TRAINING = "confusion.png", "pixel_confusion.png", "training.png"
SHEETS = {kind: f"errors_{kind.replace(' ', '_')}.png" for kind in KINDS}
CURVES = {task: f"precision_recall_{task}.png" for task in ("bbox", "segm")}
WORST = "worst"  # folder of the pictures of single images, worst_*.png


@dataclass(frozen=True)
class Settings:
    """Thresholds for the comparison of objects.

    Attributes:
        iou: lowest IoU of boxes at which a detection matches an object.
        confidence: detections with a lower score are dropped (except for AP, which needs all).
        worst: number of images to draw.

    Raises:
        ValueError: a number is out of range.
    """

    iou: float = 0.5
    confidence: float = 0.5
    worst: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise ValueError(f"--iou must be in (0, 1], got {self.iou}")
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"--confidence must be in [0, 1], got {self.confidence}")
        if self.worst < 0:
            raise ValueError(f"--worst must be 0 or more, got {self.worst}")


class Report:
    """A report that is written to a folder; its tables are collected in ``texts``.

    Args:
        folder: folder for the report; it must be new or empty unless ``overwrite`` is set.
        overwrite: replace the files of an earlier report.

    Raises:
        ValueError: ``folder`` is not empty, or not a folder.
    """

    def __init__(self, folder: Path, overwrite: bool = False):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--output {str(folder)!r} is a file")
        if folder.is_dir() and any(folder.iterdir()) and not overwrite:
            raise ValueError(
                f"--output {str(folder)!r} is not empty; choose another folder or add --overwrite"
            )
        self.folder = folder
        self.texts: list[str] = []

    def write(self, run: Run, settings: Settings) -> dict:
        """Analyze all predictions of ``run``; return the content of results.json."""
        # All input is checked before anything is written.
        series = read_metrics(run.metrics) if run.metrics else {}
        detections = segmentation = None
        if "detection" in run.predictions:
            detections = load_detections(run.dataset, run.predictions["detection"])
        if "semantic" in run.predictions:
            segmentation = compare_segmentation(run.dataset, run.predictions["semantic"])
        self._make_folder()
        results: dict = {"config_file": run.config_file, "dataset": run.dataset}
        if detections is not None:
            results["detection"] = self._detection(run, detections, settings)
        if segmentation is not None:
            results["semantic"] = self._semantic(run, segmentation, settings)
        self._training(run, series)
        text = json.dumps(_without_nan(results), indent=1)
        write_text(self.folder / RESULTS, text + "\n")
        return results

    def _make_folder(self) -> None:
        """Create the folder, and remove the files of an earlier report, which could be stale."""
        worst = self.folder / WORST
        worst.mkdir(parents=True, exist_ok=True)
        names = (RESULTS, CONFUSION, PIXELS, TRAINING, *CURVES.values(), *SHEETS.values())
        for earlier in (*(self.folder / name for name in names), *worst.glob("worst_*.png")):
            earlier.unlink(missing_ok=True)

    def _detection(self, run: Run, detections: Detections, settings: Settings) -> dict:
        results: dict = {"predictions": str(run.files["detection"])}
        results |= {"detections_per_image": run.max_detections, "AP": {}}
        for task in detections.tasks:
            evaluation = evaluate(detections, task, run.max_detections)
            table = average_precisions(evaluation, detections)
            results["AP"][task] = table
            self.texts.append(f"{task} on {run.dataset}\n{precision_text(table)}")
            title = f"{task} on {run.dataset}"
            figure = draw_precision_recall(evaluation, list(table["classes"]), title)
            self._save(figure, CURVES[task])
        matches = match_images(detections, settings.iou, settings.confidence)
        confusion = object_confusion(matches.values(), detections.classes, detections.index)
        title = f"objects, box IoU >= {settings.iou}, confidence >= {settings.confidence}"
        results |= {"iou": settings.iou, "confidence": settings.confidence}
        results["confusion"] = self._confusion(confusion, title, CONFUSION)
        results["errors"] = self._errors(run, detections, settings.confidence)
        results["worst"] = self._worst_detections(run, detections, matches, settings.worst)
        return results

    def _errors(self, run: Run, detections: Detections, confidence: float) -> dict:
        """Report the kinds of errors, and draw the worst of each."""
        costs = find_errors(detections, run.max_detections).costs()
        confident = find_errors(detections, run.max_detections, confidence)
        names = {key: detections.classes[place] for key, place in detections.index.items()}
        files = _files(run)
        table: dict[str, dict] = {}
        for kind, file in SHEETS.items():
            shown = worst_errors(confident, kind)
            count = len(confident.of_kind(kind))
            table[kind] = {"AP50_lost": costs[kind], "count": count, "picture": None}
            if shown:
                drawn = draw_sheet(shown, names, files, run.read_picture)
                table[kind]["picture"] = self._write(drawn, file)
        title = f"Errors by kind; counted from a confidence of {confidence} on"
        self.texts.append(f"{title}\n{errors_text(table)}")
        return table

    def _semantic(self, run: Run, compared: Segmentation, settings: Settings) -> dict:
        counts, classes = compared.confusion.counts, compared.confusion.rows
        mean, by_class = mean_iou(counts), dict(zip(classes, class_iou(counts).tolist()))
        only_predicted = [classes[place] for place in only_predicted_classes(counts)]
        text = iou_text(by_class, mean, only_predicted)
        self.texts.append(f"IoU on {run.dataset}\n{text}")
        return {
            "predictions": str(run.files["semantic"]),
            "mIoU": mean,
            "IoU": by_class,
            "only_predicted": only_predicted,
            "confusion": self._confusion(compared.confusion, "pixels", PIXELS),
            "worst": self._worst_segmentations(run, compared, settings.worst),
        }

    def _worst_segmentations(self, run: Run, compared: Segmentation, count: int) -> list[dict]:
        worst = []
        for rank, place in enumerate(tqdm(compared.worst(count), "drawing"), 1):
            image, score = compared.images[place], compared.scores[place]
            classes = list(compared.confusion.rows)
            drawn = draw_segmentation(image, classes, score, run.read_picture)
            picture = self._save_picture(drawn, f"semantic_{rank:03d}", image.file_name)
            worst.append({"file_name": image.file_name, "mIoU": score, "picture": picture})
        return worst

    def _worst_detections(
        self, run: Run, detections: Detections, matches: dict[int, Matches], count: int
    ) -> list[dict]:
        files = _files(run)
        worst = []
        for rank, image in enumerate(tqdm(worst_images(matches, files, count), "drawing"), 1):
            one = matches[image]
            drawn = draw_detections(files[image], one, detections, run.read_picture)
            errors = {
                "missed": len(one.missed),
                "false": len(one.false),
                "wrong_class": len(one.confused),
            }
            picture = self._save_picture(drawn, f"{rank:03d}", files[image])
            worst.append({"file_name": files[image], **errors, "picture": picture})
        return worst

    def _confusion(self, table: Confusion, title: str, file_name: str) -> dict:
        self.texts.append(f"Confusion: {title}\n{confusion_text(table)}")
        self._save(draw_confusion(table, title), file_name)
        return {"rows": table.rows, "columns": table.columns, "counts": table.counts.tolist()}

    def _training(self, run: Run, series: dict) -> None:
        figure = draw_training(series)
        if figure is None:
            where = run.metrics or "there is no metrics.json in OUTPUT_DIR"
            self.texts.append(f"No training curves: nothing to draw ({where}).")
        else:
            self._save(figure, TRAINING)

    def _save(self, figure: Figure, name: str) -> None:
        with unfinished(self.folder / name) as part:
            figure.savefig(part, dpi=100)

    def _save_picture(self, drawn: np.ndarray, rank: str, file_name: str) -> str:
        """Write an RGB picture; return its name within the folder."""
        return self._write(drawn, f"{WORST}/worst_{rank}_{Path(file_name).stem}.png")

    def _write(self, drawn: np.ndarray, name: str) -> str:
        write_picture(self.folder / name, drawn[:, :, ::-1])
        return name


def _files(run: Run) -> dict[int, str]:
    """Return the file names of the images by their ids."""
    return {one["image_id"]: one["file_name"] for one in DatasetCatalog.get(run.dataset)}


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
