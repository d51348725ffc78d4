"""From the records of a dataset to batches: images are read, augmented, checked and loaded."""

from swinv2_backbone.d2.data.loading.bands import read_bands
from swinv2_backbone.d2.data.loading.draws import BrokenImagesError
from swinv2_backbone.d2.data.loading.from_config import train_loader_from_config
from swinv2_backbone.d2.data.loading.images import image_size, read_image, read_labels
from swinv2_backbone.d2.data.loading.loader import TrainLoader, build_train_loader
from swinv2_backbone.d2.data.loading.mapper import ColorAugmentation, DatasetMapper
from swinv2_backbone.d2.data.loading.selection import get_records

__all__ = [
    "BrokenImagesError",
    "ColorAugmentation",
    "DatasetMapper",
    "TrainLoader",
    "build_train_loader",
    "get_records",
    "image_size",
    "read_bands",
    "read_image",
    "read_labels",
    "train_loader_from_config",
]
