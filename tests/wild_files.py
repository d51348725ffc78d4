"""Kinds of weight files that people have, each written by its library's own saver where it has one.

Every kind is a small model with random weights, built at a window as its publisher builds it; its
writer returns the file and the publisher's own features of an image.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import peers
import timm
import torch
from models import pictures
from oracle import randomize, reference_features
from publishers import PUBLISHERS, native_state
from timm.utils import CheckpointSaver
from torch import Tensor, nn
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)
from transformers import (
    Swinv2Backbone,
    Swinv2Config,
    Swinv2Model,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from swinv2_backbone import SwinV2, Variant, save_checkpoint
from swinv2_backbone.backbone import FEATURES

SIZE = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}
TIMM_NAME = "swinv2_tiny_window8_256"  # whose default window is not the one that is built

Maps = dict[str, Tensor]  # (1, C_i, h, w) of each stage, res5 after the final norm if there is one


class Written(NamedTuple):
    """A file, and its publisher's features of ``image``."""

    path: Path
    image: Tensor
    maps: Maps


class Kind(NamedTuple):
    """A kind of file, as docs/CHECKPOINTS.md names it: (folder, window, image side) -> a file."""

    file: str
    write: Callable[[Path, int, int], Written]


def ours(window: int, **options: Any) -> SwinV2:
    """Build our model for that window."""
    return SwinV2(window_size=window, **SIZE | options).eval()


def expected(written: Written, has_norm: bool) -> Maps:
    """Return the publisher's features after our output norms, which are new without a norm."""
    return {
        name: theirs if name == "res5" and has_norm else fresh_norm(theirs)
        for name, theirs in written.maps.items()
    }


def fresh_norm(maps: Tensor) -> Tensor:
    """Apply a newly initialized LayerNorm to (B, C, h, w)."""
    return nn.functional.layer_norm(maps.permute(0, 2, 3, 1), maps.shape[1:2]).permute(0, 3, 1, 2)


@torch.no_grad()
def random_weights(model: nn.Module) -> nn.Module:
    """Randomize every parameter, norms included; logit scales as in `publishers.native_state`."""
    randomize(model, 0)
    for name, parameter in model.named_parameters():
        if name.endswith("logit_scale"):
            parameter /= 2
    return model.eval()


def _maps(found: peers.Features) -> Maps:
    return dict(zip(FEATURES, [*found.stages[:3], found.normed]))


# --- timm ------------------------------------------------------------------------------------


def timm_arguments(window: int, side: int) -> dict[str, Any]:
    return {"img_size": side, "window_size": window, **SIZE}


def timm_model(window: int, side: int, **options: Any) -> nn.Module:
    arguments = timm_arguments(window, side) | options
    return random_weights(timm.create_model(TIMM_NAME, num_classes=3, **arguments))


@torch.no_grad()
def of_timm(model: nn.Module, path: Path, side: int) -> Written:
    image = pictures(1, 3, side, side)
    return Written(path, image, _maps(peers.timm_features(model, image)))


def timm_saver(
    folder: Path, window: int, side: int, args: argparse.Namespace | None = None
) -> Written:
    """timm's CheckpointSaver, as its train.py uses it."""
    model = timm_model(window, side)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saver = CheckpointSaver(model, optimizer, args, checkpoint_dir=folder, recovery_dir=folder)
    saver.save_checkpoint(0, metric=1.0)
    return of_timm(model, folder / "model_best.pth.tar", side)


def timm_with_args(folder: Path, window: int, side: int) -> Written:
    arguments = timm_arguments(window, side)
    args = argparse.Namespace(model=TIMM_NAME, img_size=None, lr=0.1, model_kwargs=arguments)
    return timm_saver(folder, window, side, args)


def timm_folder(folder: Path, window: int, side: int) -> Written:
    model = timm_model(window, side)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return of_timm(model, folder / "model.safetensors", side)


def timm_state(folder: Path, window: int, side: int) -> Written:
    model, path = timm_model(window, side), folder / f"{TIMM_NAME}.pth"
    torch.save(model.state_dict(), path)
    return of_timm(model, path, side)


@torch.no_grad()
def features_only(model: nn.Module, path: Path, side: int) -> Written:
    image = pictures(1, 3, side, side)
    maps = [stage.permute(0, 3, 1, 2) for stage in model(image)]
    return Written(path, image, dict(zip(FEATURES, maps)))


def timm_features_only(folder: Path, window: int, side: int) -> Written:
    arguments = timm_arguments(window, side)
    model = random_weights(timm.create_model(TIMM_NAME, features_only=True, **arguments))
    torch.save(model.state_dict(), folder / "features.pth")
    return features_only(model, folder / "features.pth", side)


def smp_folder(folder: Path, window: int, side: int) -> Written:
    """The file and config.json of segmentation_models_pytorch's save_pretrained."""
    arguments = timm_arguments(window, side)
    model = random_weights(timm.create_model(TIMM_NAME, features_only=True, **arguments))
    content = {f"encoder.model.{key}": value for key, value in model.state_dict().items()}
    content["decoder.blocks.0.conv1.0.weight"] = torch.zeros(4, 4, 3, 3)
    torch.save(content, folder / "pytorch_model.bin")
    config = {"_model_class": "Unet", "encoder_name": f"tu-{TIMM_NAME}", "classes": 2, **arguments}
    (folder / "config.json").write_text(json.dumps(config))
    return features_only(model, folder / "pytorch_model.bin", side)


def lightning(
    folder: Path, window: int, side: int, hyper_parameters: dict[str, Any] | None = None
) -> Written:
    """The file of Lightning's Trainer for a module with timm's model in `self.model`."""
    model = timm_model(window, side)
    content = {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
        "loops": {},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "x.ckpt"}},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"model": TIMM_NAME, "lr": 0.1, **(hyper_parameters or {})},
    }
    torch.save(content, folder / "last.ckpt")
    return of_timm(model, folder / "last.ckpt", side)


def lightning_with_windows(folder: Path, window: int, side: int) -> Written:
    return lightning(folder, window, side, timm_arguments(window, side))


# --- Hugging Face ----------------------------------------------------------------------------


def hugging_face_config(window: int, side: int, **options: Any) -> Swinv2Config:
    out = [f"stage{i}" for i in range(1, 5)]
    size = {"window_size": window, "image_size": side, "out_features": out, **SIZE}
    return Swinv2Config(**size | options)


@torch.no_grad()
def hugging_face_model(folder: Path, window: int, side: int, **options: Any) -> Written:
    config = hugging_face_config(window, side, **options)
    model = random_weights(Swinv2Model(config, add_pooling_layer=False))
    model.save_pretrained(folder)
    image = pictures(1, 3, side, side)
    return Written(folder, image, _maps(peers.hugging_face_features(model, image)))


def hugging_face_state(folder: Path, window: int, side: int) -> Written:
    written = hugging_face_model(folder / "elsewhere", window, side)
    path = folder / "swinv2_tiny_window8_256.safetensors"
    (folder / "elsewhere" / "model.safetensors").rename(path)
    return written._replace(path=path)


@torch.no_grad()
def hugging_face_backbone(folder: Path, window: int, side: int) -> Written:
    model = random_weights(Swinv2Backbone(hugging_face_config(window, side)))
    model.save_pretrained(folder)
    image = pictures(1, 3, side, side)
    return Written(folder, image, dict(zip(FEATURES, model(image).feature_maps)))


@torch.no_grad()
def upernet(folder: Path, window: int, side: int) -> Written:
    config = UperNetConfig(
        backbone_config=hugging_face_config(window, side),
        hidden_size=8,
        use_auxiliary_head=False,
        num_labels=2,
    )
    model = random_weights(UperNetForSemanticSegmentation(config))
    model.save_pretrained(folder)
    image = pictures(1, 3, side, side)
    return Written(folder, image, dict(zip(FEATURES, model.backbone(image).feature_maps)))


def mask2former(folder: Path, window: int, side: int) -> Written:
    """The names and the config of Mask2Former, which needs scipy, around a real backbone."""
    written = hugging_face_backbone(folder, window, side)
    config = json.loads((folder / "config.json").read_text())
    content = Swinv2Backbone.from_pretrained(folder).state_dict()
    prefix = "model.pixel_level_module.encoder."
    content = {prefix + key: value for key, value in content.items()}
    content["class_predictor.weight"] = torch.zeros(3, 8)
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    outer = {"model_type": "mask2former", "backbone_config": config, "image_size": 640}
    (folder / "config.json").write_text(json.dumps(outer))
    return written


# --- torchvision, Microsoft, mmpretrain, SimMIM, ours ----------------------------------------


def torchvision_model(window: int) -> nn.Module:
    model = SwinTransformer(
        patch_size=[4, 4],
        embed_dim=SIZE["embed_dim"],
        depths=list(SIZE["depths"]),
        num_heads=list(SIZE["num_heads"]),
        window_size=[window, window],
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
        num_classes=3,
    )
    return random_weights(model)


@torch.no_grad()
def torchvision_state(folder: Path, window: int, side: int, place: str = "") -> Written:
    model, path, image = torchvision_model(window), folder / "x.pth", pictures(1, 3, side, side)
    torch.save({f"{place}{key}": value for key, value in model.state_dict().items()}, path)
    return Written(path, image, _maps(peers.torchvision_features(model, image)))


def satlas(folder: Path, window: int, side: int) -> Written:
    """Satlas's names: torchvision's model in two wrappers, with an FPN beside it."""
    written = torchvision_state(folder, window, side, "backbone.backbone.")
    content = torch.load(written.path)
    content["intermediates.0.fpn.inner_blocks.0.0.weight"] = torch.zeros(8, 16, 1, 1)
    torch.save(content, written.path)
    return written


def by_table(publisher: str, folder: Path, window: int, side: int) -> Written:
    """Write the file of a publisher that cannot be installed; the features are the oracle's.

    The model is trained at a window that is larger than its pretrained window.
    """
    side = min(side, 4 * window + 8)  # the oracle compares all pairs of tokens
    windows, pretrained = (window,) * 4, (window - 1, window - 1, window - 2, window // 2)
    variant = Variant(*SIZE.values(), windows, pretrained, 32 * window)
    state = native_state(variant, num_classes=3)
    torch.save(PUBLISHERS[publisher](state, variant), folder / f"{publisher}.pth")
    maps = oracle_maps(state, windows, pretrained, side)
    return Written(folder / f"{publisher}.pth", pictures(1, 3, side, side), maps)


def own_file(folder: Path, window: int, side: int) -> Written:
    pretrained = (window - 1, window - 1, window - 2, window // 2)
    model = random_weights(ours(window, pretrained_window_sizes=pretrained, out_features=["res5"]))
    side = min(side, 4 * window + 8)
    save_checkpoint(model, folder / "ours.safetensors")
    maps = oracle_maps(model.state_dict(), (window,) * 4, pretrained, side)
    return Written(folder / "ours.safetensors", pictures(1, 3, side, side), maps)


def oracle_maps(
    state: dict[str, Tensor], windows: tuple[int, ...], pretrained: tuple[int, ...], side: int
) -> Maps:
    images = pictures(1, 3, side, side)
    found = reference_features(
        state,
        images,
        depths=SIZE["depths"],
        window_sizes=windows,
        pretrained_window_sizes=pretrained,
    )
    return {"res5": found["res5"].float()}


def without_biases(write: Callable[..., Written], folder: Path, window: int, side: int) -> Written:
    return write(folder, window, side, qkv_bias=False)


def hugging_face_timm(folder: Path, window: int, side: int, **options: Any) -> Written:
    """The folder of transformers' TimmWrapperModel."""
    model = timm_model(window, side, **options)
    content = {f"timm_model.{key}": value for key, value in model.state_dict().items()}
    torch.save(content, folder / "pytorch_model.bin")
    arguments = timm_arguments(window, side) | options
    config = {"model_type": "timm_wrapper", "architecture": TIMM_NAME, "model_args": arguments}
    (folder / "config.json").write_text(json.dumps(config))
    return of_timm(model, folder, side)


KINDS = (
    Kind("timm: `model_best.pth.tar` of its train.py, with `args`", timm_with_args),
    Kind("timm: `CheckpointSaver` without `args`", timm_saver),
    Kind("timm: folder of `save_for_hf` or `push_to_hf_hub`", timm_folder),
    Kind("timm: `state_dict()` alone, whatever the file is called", timm_state),
    Kind("timm: `features_only=True`, `state_dict()` alone", timm_features_only),
    Kind("segmentation_models_pytorch: folder of `save_pretrained`", smp_folder),
    Kind("Lightning: `.ckpt` with `window_size` and `img_size`", lightning_with_windows),
    Kind("Lightning: `.ckpt` without them", lightning),
    Kind("Hugging Face: folder of a model or classifier", hugging_face_model),
    Kind("Hugging Face: folder of a `Swinv2Backbone`", hugging_face_backbone),
    Kind("Hugging Face: folder of UperNet", upernet),
    Kind("Hugging Face: folder of Mask2Former, MaskFormer, OneFormer", mask2former),
    Kind("Hugging Face: the weights alone, without `config.json`", hugging_face_state),
    Kind("Hugging Face: folder of a `TimmWrapperModel`", hugging_face_timm),
    Kind(
        "Hugging Face or timm: `qkv_bias=False`, with their config.json",
        partial(without_biases, hugging_face_model),
    ),
    Kind("torchvision: `state_dict()`", torchvision_state),
    Kind("Satlas, torchgeo, satlaspretrain_models", satlas),
    Kind("Microsoft", partial(by_table, "microsoft")),
    Kind("mmpretrain, mmdetection, mmsegmentation", partial(by_table, "mmpretrain")),
    Kind("SimMIM", partial(by_table, "simmim")),
    Kind("this package's", own_file),
)

# Models that shrink their window to a smaller map, which then normalizes the bias.
SHRINKING = [
    kind
    for kind in KINDS
    if kind.write in (timm_with_args, timm_folder, smp_folder, hugging_face_model, upernet)
]
