"""Swin Transformer V2 as a multi-scale backbone; ``swinv2_backbone.d2`` is for Detectron2.

The public names are imported on first use, so that a command can print its help or reject invalid
arguments without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swinv2_backbone.backbone import SwinV2
    from swinv2_backbone.build import build_backbone, build_classifier, model_for
    from swinv2_backbone.checkpoints import (
        Checkpoint,
        LoadReport,
        load_checkpoint,
        push_to_hub,
        read_checkpoint,
        save_checkpoint,
        save_pretrained,
    )
    from swinv2_backbone.classifier import SwinV2Classifier
    from swinv2_backbone.d2.inference.model import load
    from swinv2_backbone.variants import VARIANTS, Variant

__version__ = "0.2.0"

_MODULES = {
    "VARIANTS": "variants",
    "Checkpoint": "checkpoints",
    "LoadReport": "checkpoints",
    "SwinV2": "backbone",
    "SwinV2Classifier": "classifier",
    "Variant": "variants",
    "build_backbone": "build",
    "build_classifier": "build",
    "load": "d2.inference.model",
    "load_checkpoint": "checkpoints",
    "model_for": "build",
    "push_to_hub": "checkpoints",
    "read_checkpoint": "checkpoints",
    "save_checkpoint": "checkpoints",
    "save_pretrained": "checkpoints",
}

__all__ = [
    "VARIANTS",
    "Checkpoint",
    "LoadReport",
    "SwinV2",
    "SwinV2Classifier",
    "Variant",
    "build_backbone",
    "build_classifier",
    "load",
    "load_checkpoint",
    "model_for",
    "push_to_hub",
    "read_checkpoint",
    "save_checkpoint",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
