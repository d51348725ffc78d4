"""The readers of ``swinv2_backbone.images``, also for addresses that Detectron2 opens (s3://)."""

from functools import partial

from detectron2.utils.file_io import PathManager

from swinv2_backbone.images import reading

image_header = partial(reading.image_header, opener=PathManager.open)
image_size = partial(reading.image_size, opener=PathManager.open)
read_image = partial(reading.read_image, opener=PathManager.open)
read_labels = partial(reading.read_labels, opener=PathManager.open)
reads_plainly = partial(reading.reads_plainly, opener=PathManager.open)
