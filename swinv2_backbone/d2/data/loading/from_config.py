"""The training loader that a YAML config describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from detectron2.config import CfgNode
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler

from swinv2_backbone.d2.data.loading.loader import MakeSampler, TrainLoader, every_image
from swinv2_backbone.d2.data.loading.mapper import DatasetMapper
from swinv2_backbone.d2.data.loading.selection import get_records
from swinv2_backbone.d2.data.storage.records import Records


def train_loader_from_config(
    cfg: CfgNode, mapper: Callable[[dict], dict] | None = None
) -> TrainLoader:
    """Build the loader that ``cfg`` describes in DATASETS.TRAIN, DATALOADER, INPUT and SOLVER."""
    node, keypoints = cfg.DATALOADER, cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    records = get_records(
        cfg.DATASETS.TRAIN,
        filter_empty=node.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=keypoints if cfg.MODEL.KEYPOINT_ON else 0,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    return TrainLoader(
        records,
        mapper or DatasetMapper(cfg, is_train=True),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.ACCUMULATE,
        make_sampler=_sampler(cfg, records),
        aspect_ratio_grouping=node.ASPECT_RATIO_GROUPING,
        num_workers=node.NUM_WORKERS,
        max_broken=node.MAX_BROKEN_IMAGES,
    )


def _sampler(cfg: CfgNode, records: Sequence[dict]) -> MakeSampler:
    node, size = cfg.DATALOADER, len(records)
    if node.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            _classes_of(records), node.REPEAT_THRESHOLD
        )
        return lambda seed: RepeatFactorTrainingSampler(factors, seed=seed)
    if node.SAMPLER_TRAIN == "RandomSubsetTrainingSampler":
        return lambda seed: RandomSubsetTrainingSampler(
            size, node.RANDOM_SUBSET_RATIO, seed_shuffle=seed, seed_subset=seed
        )
    if node.SAMPLER_TRAIN != "TrainingSampler":
        raise ValueError(
            f"DATALOADER.SAMPLER_TRAIN {node.SAMPLER_TRAIN!r} is unknown: it must be "
            "TrainingSampler, RepeatFactorTrainingSampler or RandomSubsetTrainingSampler"
        )
    return every_image(size)


def _classes_of(records: Sequence[dict]) -> list[dict]:
    """Return records of which only the classes of annotations are needed."""
    return list(records.with_classes_only() if isinstance(records, Records) else records)
