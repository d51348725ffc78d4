"""SimMIM pre-training of a backbone on unlabeled images, in the engine's training loop."""

from swinv2_backbone.d2.pretraining.masked import find_images
from swinv2_backbone.d2.pretraining.recipe import Recipe
from swinv2_backbone.d2.pretraining.simmim import Pretraining, pretrain

__all__ = ["Pretraining", "Recipe", "find_images", "pretrain"]
