"""The true sizes of a batch's images, handed from a meta-architecture to its backbone.

Detectron2 pads the images of a batch with zeros to a common size and passes the padded tensor alone
to the backbone. Here, the sizes are attached to that tensor, so that they need not be recovered
from the zeros, which a pixel may equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

from detectron2.modeling import GeneralizedRCNN, ProposalNetwork, SemanticSegmentor
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import ImageList
from torch import Tensor, nn

from swinv2_backbone.packing import Size

# Detectron2's methods that pass the tensor of an ImageList to the backbone.
PREPROCESSING = (GeneralizedRCNN.preprocess_image, DenseDetector.preprocess_image)
FORWARD = (SemanticSegmentor.forward, ProposalNetwork.forward)
_ATTRIBUTE = "_swinv2_image_sizes"


def attach_sizes(images: Tensor, sizes: Sequence[Sequence[Any]]) -> Tensor:
    """Attach the true (height, width) of each image to a padded batch, and return the batch."""
    setattr(images, _ATTRIBUTE, [(int(height), int(width)) for height, width in sizes])
    return images


def attached_sizes(images: Tensor) -> list[Size] | None:
    """Return the sizes that are attached to a batch, or None."""
    return getattr(images, _ATTRIBUTE, None)


def can_hand_over_sizes(model: type) -> bool:
    """Return True for a meta-architecture that batches images by Detectron2's own code, or ours."""
    if getattr(model, "attaches_sizes", False):
        return True
    batches = getattr(model, "preprocess_image", None)
    return batches in PREPROCESSING or getattr(model, "forward", None) in FORWARD


def hand_over_sizes(model: nn.Module) -> None:
    """Make a model attach the true sizes to every batch for its backbone.

    Args:
        model: an instance of a class that :func:`can_hand_over_sizes`. Its class is not changed.
    """
    if getattr(model, "attaches_sizes", False):  # MaskTransformer
        return
    if hasattr(model, "preprocess_image"):
        # A bound method, because copy.deepcopy binds it to the copy of the model.
        setattr(model, "preprocess_image", MethodType(_preprocess_image, model))  # noqa: B010
        return
    sizes, backbone = _SizesOfInputs(), model.get_submodule("backbone")
    model.register_forward_pre_hook(sizes.take, with_kwargs=True)
    backbone.register_forward_pre_hook(sizes.attach)
    model.register_forward_hook(sizes.forget, always_call=True)


def _preprocess_image(model: Any, batched_inputs: list[dict]) -> ImageList:
    images = type(model).preprocess_image(model, batched_inputs)
    attach_sizes(images.tensor, images.image_sizes)
    return images


class _SizesOfInputs:
    """Hooks for a model that batches its images in ``forward``, where no method can be wrapped."""

    def __init__(self) -> None:
        self.sizes: list[Size] | None = None

    def take(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        (inputs,) = (*args, *kwargs.values())
        self.sizes = [tuple(one["image"].shape[-2:]) for one in inputs]

    def attach(self, backbone: nn.Module, args: tuple) -> None:
        if self.sizes is not None:
            attach_sizes(args[0], self.sizes)

    def forget(self, model: nn.Module, args: tuple, output: Any) -> None:
        self.sizes = None
