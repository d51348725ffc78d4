"""The records of datasets, selected for training or evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.build import print_instances_class_histogram

from swinv2_backbone.d2.data.storage.records import Records
from swinv2_backbone.d2.data.validation.report import counted


def get_records(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
) -> Sequence[dict]:
    """Return the records of datasets, as Detectron2's ``get_detection_dataset_dicts`` does.

    The records of a single dataset of :func:`register_coco` stay in columns of numbers, which need
    a tenth of the memory.

    Args:
        names: names of registered datasets.
        filter_empty: leave out images without objects other than crowds.
        min_keypoints: leave out images with fewer visible keypoints.
        proposal_files: files of proposals, one for each dataset.
    """
    names = [names] if isinstance(names, str) else list(names)
    records = DatasetCatalog.get(names[0]) if len(names) == 1 else None
    if not isinstance(records, Records) or min_keypoints or proposal_files:
        options: dict[str, Any] = {"min_keypoints": min_keypoints, "proposal_files": proposal_files}
        return get_detection_dataset_dicts(names, filter_empty, **options)
    if filter_empty:
        kept = records.select(records.object_counts() > 0)
        logging.getLogger(__name__).info(
            f"left out: {counted(len(records) - len(kept), 'image')} without objects; left: "
            f"{counted(len(kept), 'image')}"
        )
        records = kept
    if not len(records):
        raise ValueError(f"dataset {names[0]} has no image with objects")
    everything = chain.from_iterable(one["annotations"] for one in records.with_classes_only())
    classes = MetadataCatalog.get(names[0]).thing_classes
    print_instances_class_histogram([{"annotations": list(everything)}], classes)
    return records
