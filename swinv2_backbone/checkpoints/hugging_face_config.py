"""The config.json that Hugging Face transformers needs beside a model's weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from swinv2_backbone.checkpoints.architecture import built_architecture
from swinv2_backbone.checkpoints.target import find_backbone
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.layers import PATCH_SIZE


def hugging_face_config(model: nn.Module) -> dict[str, Any]:
    """Return the config.json of a backbone or a classifier.

    Raises:
        ValueError: Hugging Face's model does not support the windows of this model.
    """
    _, backbone = find_backbone(model)
    size = built_architecture(backbone)
    windows, pretrained = backbone.window_sizes, backbone.pretrained_window_sizes
    side = windows[-1][0] * PATCH_SIZE * 2 ** (len(windows) - 1)  # the last map is one window
    # Hugging Face has one square window, which shrinks to the map.
    maps = [side // PATCH_SIZE // 2**i for i in range(len(windows))]
    possible = tuple((min(windows[0][0], m),) * 2 for m in maps)
    square = all(h == w for h, w in (*windows, *pretrained))
    if windows != possible or not square:
        raise ValueError(
            f"Hugging Face's SwinV2 has one square window for all stages, not {windows} with the "
            f"pretrained windows {pretrained}: set another window first"
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
        config |= _classifier_config(model.head.out_features)
    return config


def _classifier_config(classes: int) -> dict[str, Any]:
    return {
        "architectures": ["Swinv2ForImageClassification"],
        "id2label": {str(i): f"LABEL_{i}" for i in range(classes)},
        "label2id": {f"LABEL_{i}": i for i in range(classes)},
    }
