"""The configs of ``configs/`` in both systems, as they are or shrunk; and a little data for them.

``yaml_config`` and ``lazy_config`` load a config by its stem.  With ``small=True`` every width,
depth, proposal count and image size is small, everything else stays as it is, and the datasets are
those of :func:`register_small_datasets`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from omegaconf import DictConfig

from swinv2_backbone.d2.config.lazy import load_lazy_config
from swinv2_backbone.d2.config.yacs import load_config

CONFIGS = Path(__file__).parent.parent / "configs"
STEMS = sorted({path.stem for path in CONFIGS.iterdir() if path.suffix in (".yaml", ".py")})
IMAGE_SIZE = (61, 83)
DATASETS = {  # META_ARCHITECTURE -> the small dataset
    "GeneralizedRCNN": "small_detection",
    "RetinaNet": "small_detection",
    "SemanticSegmentor": "small_semantic",
    "PanopticFPN": "small_panoptic",
    "MaskTransformer": "small_detection",
}
SMALL_SWINV2 = dict(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4)
SMALL = [
    *("MODEL.WEIGHTS", ""),
    *("MODEL.SWINV2.VARIANT", "None"),
    *("MODEL.SWINV2.EMBED_DIM", "16"),
    *("MODEL.SWINV2.DEPTHS", "(1, 1, 1, 1)"),
    *("MODEL.SWINV2.NUM_HEADS", "(1, 2, 4, 8)"),
    *("MODEL.SWINV2.WINDOW_SIZE", "4"),
    *("MODEL.FPN.OUT_CHANNELS", "32"),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "40"),
    *("MODEL.RPN.PRE_NMS_TOPK_TEST", "40"),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", "20"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", "20"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "64"),
    *("MODEL.ROI_BOX_HEAD.CONV_DIM", "32"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "32"),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "64"),
    *("MODEL.UPERNET.AUX_CONVS_DIM", "32"),
    *("MODEL.MASK_TRANSFORMER.CHANNELS", "32"),
    *("MODEL.MASK_TRANSFORMER.DECODER_LAYERS", "3"),
    *("MODEL.MASK_TRANSFORMER.POINTS", "64"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)"),
    *("INPUT.MAX_SIZE_TRAIN", "96"),
    *("INPUT.MIN_SIZE_TEST", "64"),
    *("INPUT.MAX_SIZE_TEST", "96"),
    *("INPUT.CROP.SIZE", "[48, 48]"),
    *("INPUT.LSJ.SIZE", "64"),
    *("DATALOADER.NUM_WORKERS", "0"),
    *("SOLVER.IMS_PER_BATCH", "2"),
]


def yaml_config(stem: str, small: bool = False) -> CfgNode:
    opts = ["MODEL.DEVICE", "cpu", *(SMALL if small else [])]
    cfg = load_config(str(CONFIGS / f"{stem}.yaml"), opts)
    if small:
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (DATASETS[cfg.MODEL.META_ARCHITECTURE],)
    return cfg


def lazy_config(stem: str, small: bool = False) -> DictConfig:
    cfg = load_lazy_config(str(CONFIGS / f"{stem}.py"), ["train.device=cpu"])
    if small:
        _shrink_backbone(cfg.model.backbone)
        _shrink_heads(cfg.model)
        _shrink_data(cfg.dataloader, DATASETS[cfg.model._target_.__name__])
    return cfg


def _shrink_backbone(backbone: DictConfig) -> None:
    fpn = "bottom_up" in backbone
    (backbone.bottom_up if fpn else backbone).update(variant=None, **SMALL_SWINV2)
    if fpn:
        backbone.out_channels = 32
        if "in_channels" in backbone.top_block:
            backbone.top_block.in_channels = 8 * SMALL_SWINV2["embed_dim"]


def _shrink_heads(model: DictConfig) -> None:
    if "task" in model:  # MaskTransformer
        model.update(channels=32, decoder_layers=3, points=64)
    if "proposal_generator" in model:
        model.proposal_generator.update(pre_nms_topk=[40, 40], post_nms_topk=[20, 20])
    if "roi_heads" in model:
        model.roi_heads.batch_size_per_image = 16
        for head in model.roi_heads.get("box_heads", [model.roi_heads.get("box_head")]):
            head.fc_dims = [64] * len(head.fc_dims)
            head.conv_dims = [32] * len(head.conv_dims)
        if "mask_head" in model.roi_heads:
            mask_head = model.roi_heads.mask_head
            mask_head.conv_dims = [32] * len(mask_head.conv_dims)
    # Not smaller: group norm with one channel a group fails on the 1 x 1 cell of pyramid pooling.
    for key, width in (("channels", 64), ("conv_dims", 64), ("aux_channels", 32)):
        if key in model.get("sem_seg_head", {}):
            model.sem_seg_head[key] = width


def _shrink_data(dataloader: DictConfig, dataset: str) -> None:
    for loader in (dataloader.train, dataloader.test):
        loader.dataset.names = dataset
        loader.num_workers = 0
        for step in loader.mapper.augmentations:
            for key, value in (
                ("short_edge_length", [64]),
                ("max_size", 96),
                ("crop_size", [48, 48] if "crop_type" in step else [64, 64]),
                ("target_height", 64),
                ("target_width", 64),
            ):
                if key in step:
                    step[key] = value
    dataloader.train.total_batch_size = 2


def register_small_datasets(folder: Path) -> None:
    """Two images with two objects each: with boxes and masks, with labels, and with all."""
    objects, labels = [], {}
    for number in range(2):
        name = str(folder / f"{number}.png")
        image, label = _draw(number)
        cv2.imwrite(name, image)
        cv2.imwrite(str(folder / f"label{number}.png"), label)
        record = {"file_name": name, "image_id": number}
        record |= {"height": IMAGE_SIZE[0], "width": IMAGE_SIZE[1]}
        objects.append(record | {"annotations": [_rectangle(5, 8, 0), _rectangle(30, 25, 1)]})
        labels[number] = {"sem_seg_file_name": str(folder / f"label{number}.png")}
    contents = {
        "small_detection": objects,
        "small_semantic": [
            {key: value for key, value in record.items() if key != "annotations"} | labels[number]
            for number, record in enumerate(objects)
        ],
        "small_panoptic": [record | labels[number] for number, record in enumerate(objects)],
    }
    for name, records in contents.items():
        DatasetCatalog.register(name, lambda records=records: records)
        MetadataCatalog.get(name).set(thing_classes=["a", "b"], stuff_classes=["x", "y", "z"])


def remove_small_datasets() -> None:
    for name in set(DATASETS.values()):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with two brighter rectangles, and its labels 0, 1, 2 and a stripe of 255."""
    image = np.random.default_rng(seed).integers(1, 120, (*IMAGE_SIZE, 3), dtype=np.uint8)
    label = np.zeros(IMAGE_SIZE, np.uint8)
    for value, (x, y) in enumerate([(5, 8), (30, 25)], start=1):
        image[y : y + 20, x : x + 24] += 100
        label[y : y + 20, x : x + 24] = value
    label[-3:] = 255
    return image, label


def _rectangle(x: int, y: int, category: int) -> dict:
    x2, y2 = x + 24, y + 20
    return {
        "bbox": [x, y, x2, y2],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category,
        "segmentation": [[x, y, x2, y, x2, y2, x, y2]],
    }
