"""Other implementations of SwinV2 with our weights, as backbones of four normalized maps.

A detector takes four normalized maps in NCHW; no peer has norms for the first three.  All peers get
our norms, so every candidate does the same work: stages, four LayerNorms, four permutations.

Shapes: B images; C channels and (h, w) map of a stage.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarking.settings import Setting
from swinv2_backbone import SwinV2
from swinv2_backbone.backbone import FEATURES
from swinv2_backbone.checkpoints.convert import to_layout

# (model of a peer, images) -> maps (B, h, w, C), before any norm.  Peers are not typed.
Stages = Callable[[Any, Tensor], list[Tensor]]


@dataclass(frozen=True)
class Peer:
    """Another implementation.

    Attributes:
        module: The module that must be installed; None for a file of the user.
        layout: The naming of its weights, see ``checkpoints.convert.TARGETS``.
        build: (setting, checkpointing, path of the file or None) -> the model, with any weights.
        stages: Runs the model, see ``Stages``.
        checkpoints: Whether it has activation checkpointing.
        unfit: Returns why it does not apply to a setting, or None.
    """

    module: str | None
    layout: str
    build: Callable[[Setting, bool, Path | None], nn.Module]
    stages: Stages
    checkpoints: bool = True
    unfit: Callable[[Setting], str | None] = lambda setting: None


class PeerBackbone(nn.Module):
    """A peer's model with our output norms: images -> {"res2": ..., "res5": ...}."""

    def __init__(self, model: nn.Module, stages: Stages, norms: nn.ModuleDict):
        super().__init__()
        self.model, self.norms = model, copy.deepcopy(norms)
        self.stages = stages

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.stages(self.model, images)
        return {
            name: self.norms[name](one).permute(0, 3, 1, 2).contiguous()
            for name, one in zip(FEATURES, maps)
        }


def build_peer(
    peer: Peer, setting: Setting, weights: SwinV2, checkpointing: bool, path: Path | None
) -> PeerBackbone:
    """Build the peer's model for a setting with our weights.

    Raises:
        ValueError: The layout lacks some of its parameters.
    """
    model = peer.build(setting, checkpointing, path)
    tensors, _ = to_layout(weights, peer.layout)
    missing = {name for name, _ in model.named_parameters()} - set(tensors)
    if missing:
        raise ValueError(
            f"there are no weights for {len(missing)} parameters: {sorted(missing)[0]}"
        )
    own = model.state_dict()
    # A peer that shrinks a window to its map keeps its own tables for it; all else is ours.
    fitting = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    return PeerBackbone(model, peer.stages, weights.norms)


def _shape(setting: Setting) -> dict:
    """Return the arguments that timm, Hugging Face and Microsoft share."""
    variant = setting.variant
    return {
        "img_size": setting.size,
        "embed_dim": variant.embed_dim,
        "depths": variant.depths,
        "num_heads": variant.num_heads,
        "window_size": setting.window,
        "pretrained_window_sizes": variant.pretrained_window_sizes,
        "num_classes": 0,
        "drop_path_rate": 0.0,
    }


def _timm(setting: Setting, checkpointing: bool, path: Path | None) -> nn.Module:
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    model = SwinTransformerV2(**_shape(setting))
    model.set_grad_checkpointing(checkpointing)
    return model


def _timm_stages(model: Any, images: Tensor) -> list[Tensor]:
    x, maps = model.patch_embed(images), []
    for layer in model.layers:
        x = layer(x)
        maps.append(x)
    return maps


def _hugging_face(setting: Setting, checkpointing: bool, path: Path | None) -> nn.Module:
    from transformers import Swinv2Config, Swinv2Model

    shape = _shape(setting)
    config = Swinv2Config(image_size=shape.pop("img_size"), **shape)
    model = Swinv2Model(config, add_pooling_layer=False)
    if checkpointing:
        # Releases of transformers for Python 3.10 have only the old name; newer ones deprecate it.
        old_name = model.gradient_checkpointing_enable
        getattr(model, "activation_checkpointing_enable", old_name)()
    return model


def _hugging_face_stages(model: Any, images: Tensor) -> list[Tensor]:
    (x, size), maps = model.embeddings(images), []
    for layer in model.encoder.layers:
        x, before_merging, sizes = layer(x, size)
        maps.append(before_merging.unflatten(1, size))
        size = sizes[2:]
    return maps


def _torchvision(setting: Setting, checkpointing: bool, path: Path | None) -> nn.Module:
    from torchvision.models import swin_transformer as vision

    model = vision.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=setting.variant.embed_dim,
        depths=list(setting.variant.depths),
        num_heads=list(setting.variant.num_heads),
        window_size=[setting.window, setting.window],
        stochastic_depth_prob=0.0,
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
        block=vision.SwinTransformerBlockV2,
        downsample_layer=vision.PatchMergingV2,
    )
    model.head = nn.Identity()
    return model


def _torchvision_stages(model: Any, images: Tensor) -> list[Tensor]:
    x, maps = images, []
    for index, layer in enumerate(model.features):  # stem, stage, merge, stage, merge, ...
        x = layer(x)
        if index % 2 == 1:
            maps.append(x)
    return maps


def _torchvision_unfit(setting: Setting) -> str | None:
    smallest = min(setting.maps[-1])
    if smallest < setting.window:
        return f"its one window of {setting.window} is larger than the last map ({smallest})"
    return None


def _microsoft(setting: Setting, checkpointing: bool, path: Path | None) -> nn.Module:
    assert path is not None, "parse() requires it"
    spec = importlib.util.spec_from_file_location("microsoft_swin_transformer_v2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.SwinTransformerV2(**_shape(setting))


def _microsoft_stages(model: Any, images: Tensor) -> list[Tensor]:
    x, maps = model.patch_embed(images), []
    for layer in model.layers:
        for block in layer.blocks:
            x = block(x)
        maps.append(x.unflatten(1, layer.input_resolution))
        x = x if layer.downsample is None else layer.downsample(x)
    return maps


def _microsoft_unfit(setting: Setting) -> str | None:
    if any(length % (4 * 2**3) for length in setting.size):
        return "it takes no map of odd height or width"
    for h, w in setting.maps:
        window = min(h, w, setting.window)
        if h % window or w % window:
            return f"it does not pad, and {h}x{w} is not whole windows of {window}"
    return None


PEERS = {
    "timm": Peer("timm", "timm", _timm, _timm_stages),
    "huggingface": Peer("transformers", "huggingface", _hugging_face, _hugging_face_stages),
    "torchvision": Peer(
        "torchvision",
        "torchvision",
        _torchvision,
        _torchvision_stages,
        checkpoints=False,
        unfit=_torchvision_unfit,
    ),
    "microsoft": Peer(
        None,
        "microsoft",
        _microsoft,
        _microsoft_stages,
        checkpoints=False,  # part of a forward that also merges, which would hide the stage's map
        unfit=_microsoft_unfit,
    ),
}


def is_installed(peer: Peer) -> bool:
    return peer.module is None or importlib.util.find_spec(peer.module) is not None
