"""Predictions and annotations drawn on their image.

Legend: images are (H, W, 3) uint8 in BGR order, as in OpenCV.
"""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.utils.colormap import colormap
from detectron2.utils.visualizer import Visualizer

from swinv2_backbone.d2.inference.prediction import Classes, Prediction

LINE_HEIGHT = 400  # pixels; a smaller image is enlarged before it is drawn on
GRAY, WHITE = [128, 128, 128], (255, 255, 255)


class Artist:
    """An artist that always uses the same names and colors, so that drawings can be compared.

    Args:
        classes: names to write beside objects and regions.
    """

    def __init__(self, classes: Classes):
        # A Metadata without a name belongs to no catalog, so that nothing is registered.
        self.metadata = Metadata(
            thing_classes=list(classes.things),
            stuff_classes=list(classes.stuff),
            stuff_colors=_colors(len(classes.stuff)),
        )

    def draw(self, image: np.ndarray, found: Prediction) -> np.ndarray:
        """Draw a prediction with names and scores on a copy of the image, enlarged if small."""
        canvas = self._canvas(image)
        if found.panoptic is not None:
            canvas.draw_panoptic_seg(*found.panoptic)
        elif found.instances is not None:
            canvas.draw_instance_predictions(found.instances)
        elif found.labels is not None:
            canvas.draw_sem_seg(found.labels, alpha=0.5)
        return canvas.output.get_image()[:, :, ::-1]

    def draw_truth(self, image: np.ndarray, record: dict) -> np.ndarray:
        """Draw the annotations of a Detectron2 dataset's record on a copy of its image."""
        return self._canvas(image).draw_dataset_dict(record).get_image()[:, :, ::-1]

    def _canvas(self, image: np.ndarray) -> Visualizer:
        scale = max(LINE_HEIGHT / image.shape[0], 1.0)
        return Visualizer(image[:, :, ::-1], self.metadata, scale=scale)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Concatenate two images side by side, with a white line to the right of each."""
    height = max(left.shape[0], right.shape[0])
    padded = [
        cv2.copyMakeBorder(one, 0, height - one.shape[0], 0, 8, cv2.BORDER_CONSTANT, value=WHITE)
        for one in (left, right)
    ]
    return np.concatenate(padded, axis=1)


def _colors(count: int) -> list[list[int]]:
    """Return ``count`` RGB colors; the first, which is often the background, is gray."""
    palette = colormap(rgb=True, maximum=255).tolist()
    return [GRAY, *(palette[i % len(palette)] for i in range(count - 1))][:count]
