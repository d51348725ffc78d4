"""Image files of every common kind, read with Pillow into arrays, or refused with the remedy.

Training, its checks, prediction, classification and pre-training read the same kinds.
"""

from swinv2_backbone.images.reading import image_size, read_image, read_labels

__all__ = ["image_size", "read_image", "read_labels"]
