"""The Detectron2 meta-architecture that a registered class is, or extends."""

from __future__ import annotations

from detectron2.modeling import (
    META_ARCH_REGISTRY,
    GeneralizedRCNN,
    PanopticFPN,
    RetinaNet,
    SemanticSegmentor,
)

KNOWN = {  # subclasses before their bases
    "PanopticFPN": PanopticFPN,
    "GeneralizedRCNN": GeneralizedRCNN,
    "RetinaNet": RetinaNet,
    "SemanticSegmentor": SemanticSegmentor,
}


def kind_of(architecture: str) -> str:
    """Return the key of ``KNOWN`` whose config keys a meta-architecture reads.

    One of another project that extends none of them has keys of its own: then the result is "".
    """
    if architecture in KNOWN or architecture not in META_ARCH_REGISTRY:
        return architecture if architecture in KNOWN else ""
    found = META_ARCH_REGISTRY.get(architecture)
    if not isinstance(found, type):  # a function that builds the model
        return ""
    return next((name for name, known in KNOWN.items() if issubclass(found, known)), "")
