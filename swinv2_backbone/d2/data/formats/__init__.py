"""Readers of the annotation formats that tools write, as COCO-format content.

Each reader keeps masks to the pixel and counts what it leaves out. ``FORMATS`` lists them.
"""

from swinv2_backbone.d2.data.formats.conversion import FORMATS, Converted, convert, format_of
from swinv2_backbone.d2.data.formats.dataset import Source
from swinv2_backbone.d2.data.formats.split import split_dataset

__all__ = ["FORMATS", "Converted", "Source", "convert", "format_of", "split_dataset"]
