"""The picture of the first training images that a plan asks for."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from detectron2.data import MetadataCatalog

from swinv2_backbone.d2.config.plan import TrainingPlan
from swinv2_backbone.d2.data.loading.loader import TrainLoader
from swinv2_backbone.d2.data.loading.samples import Names, write_samples

FILE = "train_samples.jpg"  # in the output folder


def draw_samples(plan: TrainingPlan, loader: Iterable) -> None:
    """Write the picture of the next training images, or log why there is none."""
    logger, path = logging.getLogger(__name__), Path(plan.run.output_dir, FILE)
    if not isinstance(loader, TrainLoader):
        logger.info(f"{path} is not written: the training loader is not build_train_loader's")
        return
    known = MetadataCatalog.get(plan.data.train[0]).as_dict() if plan.data.train else {}
    names = Names(
        things=known.get("thing_classes") or (),
        stuff=known.get("stuff_classes") or (),
        ignored=known.get("ignore_label", 255),
        image_format=plan.augmentation.image_format,
        display_bands=plan.augmentation.display_bands,
    )
    try:
        write_samples(loader, names, path)
    except ValueError as error:  # of a mapper of the user's own
        logger.warning(f"{path} is not written: {error}")
        return
    logger.info(f"The next training images with their labels are drawn in {path}")
