"""A generated dataset of shapes, on which every kind of model trains in minutes.

``pictures`` is left out: it imports the predictor, which the dataset does not need.
"""

from swinv2_backbone.d2.demo.dataset import generate_demo_dataset
from swinv2_backbone.d2.demo.folder import DemoDataset, DemoSplit
from swinv2_backbone.d2.demo.panoptic import register_demo_panoptic

__all__ = ["DemoDataset", "DemoSplit", "generate_demo_dataset", "register_demo_panoptic"]
