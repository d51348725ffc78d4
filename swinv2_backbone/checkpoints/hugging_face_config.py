"""The config.json that Hugging Face transformers needs beside a model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from swinv2_backbone.checkpoints.architecture import built_architecture
from swinv2_backbone.checkpoints.target import find_backbone
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.layers import PATCH_SIZE


def hugging_face_config(model: nn.Module, class_names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the config.json of a backbone or a classifier.

    Args:
        class_names: the names of the classes; default: ``LABEL_0``, ``LABEL_1``, ...

    Raises:
        ValueError: Hugging Face's model does not support the windows of this model.
    """
    _, backbone = find_backbone(model)
    size = built_architecture(backbone)
    windows, pretrained = backbone.window_sizes, backbone.pretrained_window_sizes
    side = windows[-1][0] * PATCH_SIZE * 2 ** (len(windows) - 1)  # the last map is one window
    # Hugging Face has one square window, which shrinks to the map, and attends padding.
    maps = [side // PATCH_SIZE // 2**i for i in range(len(windows))]
    possible = tuple((min(windows[0][0], m),) * 2 for m in maps)
    square = all(h == w for h, w in (*windows, *pretrained))
    if windows != possible or not square or any(m % w for m, (w, _) in zip(maps, windows)):
        raise ValueError(
            f"Hugging Face's SwinV2 has one square window for all stages, of which the maps of "
            f"{side} pixels are multiples, not {windows} with the pretrained windows {pretrained}: "
            "set another window first"
        )
    config = {
        "model_type": "swinv2",
        "architectures": ["Swinv2Model"],
        "image_size": side,
        "patch_size": PATCH_SIZE,
        "num_channels": backbone.in_channels,
        "embed_dim": size.embed_dim,
        "depths": list(size.depths),
        "num_heads": list(size.num_heads),
        "window_size": windows[0][0],
        "pretrained_window_sizes": [p for p, _ in pretrained],
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_absolute_embeddings": False,
        "encoder_stride": 32,
    }
    if isinstance(model, SwinV2Classifier):
        classes = model.head.out_features
        config |= _classifier_config(class_names or [f"LABEL_{i}" for i in range(classes)])
    return config


def _classifier_config(names: Sequence[str]) -> dict[str, Any]:
    return {
        "architectures": ["Swinv2ForImageClassification"],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
