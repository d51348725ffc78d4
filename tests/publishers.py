"""Our weights in the checkpoint files of SwinV2's publishers.

Every publisher takes the native state of a classifier (backbone names without a prefix, and
`head.weight`, `head.bias`) and returns the object that `torch.load` returns for that publisher's
file with these weights: names, order of columns, buffers and wrapper included.  The files of timm,
Hugging Face and torchvision are made by their real models.  Those of Microsoft, SimMIM and
mmpretrain, which cannot be installed, are written from their layout, which was checked against
their sources.

Nothing here reads a checkpoint: this is the oracle of the readers.

Shapes: C_i channels, L x L map and M x M window of stage i; N = M * M tokens and nW = (L / M)^2
windows; p the pretrained window.
"""

import argparse
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from os import PathLike
from types import ModuleType
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import peers
import torch
from oracle import randomize
from peers import Features, State
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from transformers import Swinv2ForImageClassification

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.variants import VARIANTS, Variant

Publisher = Callable[..., dict]  # (state, name, image_size=None) -> the content of a file

# Our names -> theirs, like the tables of peers.py, but for a whole classifier.
MICROSOFT_NAMES = {
    r"^layers\.(\d+)\.downsample": lambda m: f"layers.{int(m[1]) - 1}.downsample",
    r"^norms\.res5": "norm",
}
SIMMIM_NAMES = MICROSOFT_NAMES | {
    r"cpb_mlp": "rpe_mlp",  # as in the files; later code uses cpb_mlp and renames on loading
    r"^": "encoder.",
}
MMPRETRAIN_NAMES = {
    r"^patch_embed\.proj": "patch_embed.projection",
    r"^layers": "stages",
    r"attn\.": "attn.w_msa.",
    r"mlp\.fc1": "ffn.layers.0.0",
    r"mlp\.fc2": "ffn.layers.1",
    r"^norms\.res5": "norm3",  # a block's extra norm is also a norm3, within the block
    r"^head": "head.fc",
    r"^(?!head\.)": "backbone.",
}


def variant_of(name: str | Variant) -> Variant:
    """Return a variant by its name, or the variant itself."""
    return VARIANTS[name] if isinstance(name, str) else name


def classifier(
    name: str | Variant, num_classes: int, out_features: tuple[str, ...] = ("res5",)
) -> SwinV2Classifier:
    """Build our classifier with initial weights."""
    variant = variant_of(name)
    backbone = SwinV2(
        variant.embed_dim,
        variant.depths,
        num_heads=variant.num_heads,
        window_size=variant.window_sizes,
        pretrained_window_sizes=variant.pretrained_window_sizes,
        out_features=out_features,
        extra_norm_every=variant.extra_norm_every,
    )
    return SwinV2Classifier(backbone, num_classes).eval()


def native_state(name: str | Variant, seed: int = 0, num_classes: int = 1000) -> dict[str, Tensor]:
    """Return random weights of a classifier, norms included, under our native names.

    The only output norm is that of res5, as in every publisher's file.  Logit scales are half of
    those by the oracle's `randomize`, so that float32 is accurate to 1e-5.

    Calls share their tensors, which must not be changed in place.
    """
    state, versions = _native_state(name, seed, num_classes)
    assert [value._version for value in state.values()] == versions, "changed in place"
    return dict(state)


@lru_cache(maxsize=4)
def _native_state(
    name: str | Variant, seed: int, num_classes: int
) -> tuple[dict[str, Tensor], list[int]]:
    """Make the state, and the version of each of its tensors."""
    model = classifier(name, num_classes)
    state = randomize(model.backbone, seed).state_dict()
    for key in state:
        if key.endswith("logit_scale"):
            state[key] = state[key] / 2
    head = randomize(model.head, seed).state_dict()
    made = dict(state) | {f"head.{key}": value for key, value in head.items()}
    return made, [value._version for value in made.values()]


def filled_classifier(state: State, name: str | Variant) -> SwinV2Classifier:
    """Build our classifier in eval mode with the weights of a native state."""
    model = classifier(name, len(state["head.bias"]))
    model.backbone.load_state_dict(headless(state))
    model.head.load_state_dict(head(state))
    return model


def headless(state: State) -> dict[str, Tensor]:
    """Return the state of the backbone."""
    return {key: value for key, value in state.items() if not key.startswith("head.")}


def head(state: State) -> dict[str, Tensor]:
    """Return the weight (classes, C_4) and bias (classes,) of the head."""
    return {key: state[f"head.{key}"] for key in ("weight", "bias")}


# --- Written from their layout ---------------------------------------------------------------


def microsoft(state: State, name: str | Variant, image_size: int | None = None) -> dict:
    """Microsoft/Swin-Transformer's file: merging ends a stage, and buffers are included."""
    renamed = peers.renamed(state, MICROSOFT_NAMES)
    return {"model": OrderedDict(renamed | microsoft_buffers(variant_of(name), image_size))}


def simmim(state: State, name: str | Variant, image_size: int | None = None) -> dict:
    """SimMIM's file: Microsoft's encoder, a mask token and a decoder, without a head."""
    variant = variant_of(name)
    buffers = microsoft_buffers(variant, image_size)
    model = peers.renamed(headless(state), SIMMIM_NAMES)
    model |= {f"encoder.{key}": value for key, value in buffers.items()}
    generator = torch.Generator().manual_seed(0)
    channels, pixels = 8 * variant.embed_dim, 3 * 32 * 32  # of a token of the last map
    model["encoder.mask_token"] = torch.randn(1, 1, variant.embed_dim, generator=generator)
    model["decoder.0.weight"] = torch.randn(pixels, channels, 1, 1, generator=generator) / 32
    model["decoder.0.bias"] = torch.randn(pixels, generator=generator)
    return {"model": OrderedDict(model)}


def mmpretrain(state: State, name: str | Variant, image_size: int | None = None) -> dict:
    """open-mmlab/mmpretrain's file, which does not depend on the image size."""
    variant = variant_of(name)
    renamed = peers.renamed(state, MMPRETRAIN_NAMES)
    for key in renamed:
        if key.endswith("downsample.reduction.weight"):
            renamed[key] = in_unfold_order(renamed[key])
    for i, depth in enumerate(variant.depths):
        window, pretrained = variant.window_sizes[i], variant.pretrained_window_sizes[i]
        for j in range(depth):
            prefix = f"backbone.stages.{i}.blocks.{j}.attn.w_msa"
            renamed |= position_buffers(prefix, window, pretrained)
    meta = {"mmpretrain_version": "1.2.0", "dataset_meta": {"classes": ["tench", "goldfish"]}}
    return {"meta": meta, "state_dict": OrderedDict(renamed)}


def in_unfold_order(weight: Tensor) -> Tensor:
    """(2C, 4C) -> (2C, 4C), columns (w, h, C) -> (C, h, w) with the neighbor in row h, column w.

    We concatenate the neighbors h0w0, h1w0, h0w1, h1w1; `nn.Unfold` yields for each channel the
    neighbors h0w0, h0w1, h1w0, h1w1.
    """
    return weight.unflatten(1, (2, 2, -1)).permute(0, 3, 2, 1).flatten(1)


def microsoft_buffers(variant: Variant, image_size: int | None = None) -> dict[str, Tensor]:
    """Return all buffers of Microsoft's model for an image size, by default the variant's.

    The model has one window for all stages and shrinks it, without a shift, to smaller maps.
    """
    buffers = {}
    for i, depth in enumerate(variant.depths):
        length = (image_size or variant.image_size) // 2 ** (i + 2)
        window = min(variant.window_sizes[0], length)
        for j in range(depth):
            prefix = f"layers.{i}.blocks.{j}"
            pretrained = variant.pretrained_window_sizes[i]
            buffers |= position_buffers(f"{prefix}.attn", window, pretrained)
            if j % 2 == 1 and window < length:
                buffers[f"{prefix}.attn_mask"] = shift_mask(length, window)
    return buffers


def position_buffers(prefix: str, window: int, pretrained: int) -> dict[str, Tensor]:
    """Return the two buffers of a block's attention."""
    return {
        f"{prefix}.relative_coords_table": coords_table(window, pretrained),
        f"{prefix}.relative_position_index": position_index(window),
    }


def coords_table(window: int, pretrained: int) -> Tensor:
    """(1, 2M - 1, 2M - 1, 2): t = sign(d) log2(1 + 8 |d| / (p - 1)) / 3, in float32 throughout."""
    d = torch.arange(1 - window, window, dtype=torch.float32) / (pretrained - 1)
    t = d.sign() * torch.log2(d.abs() * 8 + 1) / 3
    return torch.stack(torch.meshgrid(t, t, indexing="ij"), dim=-1)[None].contiguous()


def position_index(window: int) -> Tensor:
    """(N, N), (dh + M - 1) * (2M - 1) + (dw + M - 1) for the offset query - key (dh, dw)."""
    axis = torch.arange(window)
    rows, columns = axis.repeat_interleave(window), axis.repeat(window)  # (N,) each
    dh, dw = (x[:, None] - x[None, :] + window - 1 for x in (rows, columns))  # (N, N)
    return dh * (2 * window - 1) + dw


def shift_mask(length: int, window: int) -> Tensor:
    """(nW, N, N): 0 between neighbors before the roll by M // 2, otherwise -100."""
    axis = torch.arange(length)
    region = (axis >= length - window).int() + (axis >= length - window // 2).int()  # (L,)
    regions = 3 * region[:, None] + region[None, :]  # (L, L)
    count = length // window
    regions = regions.reshape(count, window, count, window).transpose(1, 2).flatten(0, 1)
    regions = regions.flatten(1)  # (nW, N)
    apart = regions[:, :, None] != regions[:, None, :]
    return torch.zeros(apart.shape).masked_fill(apart, -100.0)


# --- Taken from their real models ------------------------------------------------------------


def timm_classifier(state: State, name: str, image_size: int | None = None) -> nn.Module:
    """Build timm's model of that name with our weights: (B, 3, H, W) -> logits."""
    model = peers.timm_model(headless(state), name, size_of(name, image_size))
    model.reset_classifier(len(state["head.bias"]))
    model.head.fc.load_state_dict(head(state))
    return model.eval()


def hugging_face_classifier(state: State, name: str, image_size: int | None = None) -> nn.Module:
    """Build a Swinv2ForImageClassification with our weights."""
    backbone = peers.hugging_face_model(headless(state), name, size_of(name, image_size))
    backbone.config.num_labels = len(state["head.bias"])
    model = Swinv2ForImageClassification(backbone.config)
    model.swinv2.load_state_dict(backbone.state_dict())
    model.classifier.load_state_dict(head(state))
    return model.eval()


@torch.no_grad()
def torchvision_classifier(state: State, name: str, image_size: int | None = None) -> nn.Module:
    """Build torchvision's SwinTransformer of V2 parts with our weights, and a bias of the keys.

    That bias, the middle third of `qkv.bias`, is a parameter and in the file, but torchvision sets
    it to zero on every use: a reader must drop it.
    """
    model = peers.torchvision_model(headless(state), name, size_of(name, image_size))
    for key, bias in model.named_parameters():
        if key.endswith("qkv.bias"):
            bias.unflatten(0, (3, -1))[1].normal_(generator=torch.Generator().manual_seed(0))
    classes, channels = state["head.weight"].shape
    model.head = nn.Linear(channels, classes)
    model.head.load_state_dict(head(state))
    return model.eval()


def size_of(name: str, image_size: int | None) -> peers.Pair:
    """(H, W), by default the image size that the variant was trained at."""
    return (image_size or VARIANTS[name].image_size,) * 2


def timm_(state: State, name: str, image_size: int | None = None) -> dict:
    """timm's file: flat, with head.fc, without buffers."""
    return timm_classifier(state, name, image_size).state_dict()


def hugging_face(state: State, name: str, image_size: int | None = None) -> dict:
    """Hugging Face's file of a classifier: flat, the prefix `swinv2.` except for `classifier`."""
    return hugging_face_classifier(state, name, image_size).state_dict()


def torchvision(state: State, name: str, image_size: int | None = None) -> dict:
    """torchvision's file: flat, with buffers, and an unused third in every qkv.bias."""
    return torchvision_classifier(state, name, image_size).state_dict()


class PeerClassifier(NamedTuple):
    """A publisher's classifier that can be installed.

    Attributes:
        model: (state, name, image_size=None) -> the classifier with our weights.
        logits: (classifier, images) -> (B, classes).
        features: (classifier, images) -> the maps of the four stages.
    """

    model: Callable[..., nn.Module]
    logits: Callable[[nn.Module, Tensor], Tensor]
    features: Callable[[nn.Module, Tensor], Features]


PEER_CLASSIFIERS = {
    "timm": PeerClassifier(
        timm_classifier,
        lambda model, images: model(images),
        peers.timm_features,
    ),
    "hugging_face": PeerClassifier(
        hugging_face_classifier,
        lambda model, images: model(images).logits,
        lambda model, images: peers.hugging_face_features(model.swinv2, images),
    ),
    "torchvision": PeerClassifier(
        torchvision_classifier,
        lambda model, images: model(images),
        peers.torchvision_features,
    ),
}


def made_once(publisher: Publisher) -> Publisher:
    """Keep the last file of a publisher, instead of building its model anew for equal arguments."""
    last: list[tuple] = []  # the arguments, the content of the file, and the state

    @wraps(publisher)
    def content_of(state: State, name: str, image_size: int | None = None) -> dict:
        # Tensors are compared by identity.
        given = [name, image_size, *state, *map(id, state.values())]
        if not last or last[0][0] != given:
            content = publisher(state, name, image_size)
            last[:] = [(given, content, dict(state))]  # an id is of a tensor that lives
        return OrderedDict(last[0][1])

    return content_of


PUBLISHERS: dict[str, Publisher] = {
    "microsoft": microsoft,
    "timm": made_once(timm_),
    "hugging_face": made_once(hugging_face),
    "torchvision": made_once(torchvision),
    "mmpretrain": mmpretrain,
    "simmim": simmim,
}


def publishers_of(name: str | Variant) -> list[str]:
    """Return the publishers whose models can have the variant; real models need its name."""
    variant = variant_of(name)
    if variant.extra_norm_every:
        return ["mmpretrain"]
    found = ["microsoft", "mmpretrain", "simmim"]
    if isinstance(name, str):
        found += ["timm", "hugging_face"]
        if len(set(variant.window_sizes + variant.pretrained_window_sizes)) == 1:
            found.append("torchvision")  # one window for all stages, also the pretrained one
    return found


# --- What training saves besides weights -----------------------------------------------------

SCALER = {
    "scale": 65536.0,
    "growth_factor": 2.0,
    "backoff_factor": 0.5,
    "growth_interval": 2000,
    "_growth_tracker": 417,
}


class HistoryBuffer:
    """A stand-in for mmengine's class of logged values; `save` pickles it under mmengine's name.

    That name is in the file of every training.
    """

    def __init__(self):
        self.max_length = 1000000
        self._log_history = np.array([6.9, 2.7])
        self._count_history = np.array([1, 1])


HistoryBuffer.__module__ = "mmengine.logging.history_buffer"


def save(file: Mapping, path: str | PathLike) -> None:
    """Call `torch.save` as if mmengine were installed."""
    names = ["mmengine", "mmengine.logging", HistoryBuffer.__module__]
    modules = {name: ModuleType(name) for name in names}
    modules[HistoryBuffer.__module__].HistoryBuffer = HistoryBuffer
    with patch.dict(sys.modules, modules):
        torch.save(file, path)


def optimizer_of(state: State) -> torch.optim.Optimizer:
    """Return AdamW after a step on the vectors of a state (on all of it, files would be huge)."""
    vectors = [nn.Parameter(value.clone()) for value in state.values() if value.ndim == 1]
    for vector in vectors:
        vector.grad = torch.full_like(vector, 1e-3)
    optimizer = torch.optim.AdamW(vectors, lr=5e-4, weight_decay=0.05)
    optimizer.step()
    return optimizer


def microsoft_training_file(
    state: State, name: str | Variant, image_size: int | None = None
) -> dict:
    """Microsoft's file of a training, with a pickled yacs node."""
    file = microsoft(state, name, image_size)
    return file | microsoft_training(state, variant_of(name), image_size)


def simmim_training_file(state: State, name: str | Variant, image_size: int | None = None) -> dict:
    """SimMIM's file of a training."""
    file = simmim(state, name, image_size)
    return file | microsoft_training(state, variant_of(name), image_size)


def microsoft_training(state: State, variant: Variant, image_size: int | None) -> dict:
    """The entries beside the model; the accuracy is a numpy scalar, to test one more global."""
    optimizer = optimizer_of(state)
    scheduler = CosineLRScheduler(optimizer, t_initial=1000, t_in_epochs=False)
    return {
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "max_accuracy": np.float64(81.76),
        "scaler": SCALER,
        "epoch": 299,
        "config": microsoft_config(variant, image_size),
    }


def microsoft_config(variant: Variant, image_size: int | None = None) -> dict:
    """The frozen yacs node of Microsoft's training, with some of its entries."""
    from yacs.config import CfgNode  # comes with Detectron2

    swinv2 = {
        "EMBED_DIM": variant.embed_dim,
        "DEPTHS": list(variant.depths),
        "NUM_HEADS": list(variant.num_heads),
        "WINDOW_SIZE": variant.window_sizes[0],
        "PRETRAINED_WINDOW_SIZES": list(variant.pretrained_window_sizes),
    }
    config = CfgNode(
        {
            "BASE": [""],
            "DATA": {"DATASET": "imagenet", "IMG_SIZE": image_size or variant.image_size},
            "MODEL": {"TYPE": "swinv2", "NAME": "swinv2", "DROP_RATE": 0.0, "SWINV2": swinv2},
            "TRAIN": {"EPOCHS": 300, "OPTIMIZER": {"NAME": "adamw", "BETAS": (0.9, 0.999)}},
            "AUG": {"CUTMIX_MINMAX": None},
            "AMP_ENABLE": True,
            "OUTPUT": "output/swinv2/default",
        }
    )
    config.freeze()
    return config


def timm_training_file(state: State, name: str, image_size: int | None = None) -> dict:
    """The file of timm's `train.py`, with command-line arguments and averaged weights."""
    weights = timm_(state, name, image_size)
    return {
        "epoch": 299,
        "arch": name,
        "state_dict": weights,
        "optimizer": optimizer_of(state).state_dict(),
        "version": 2,
        "args": argparse.Namespace(model=name, lr=5e-4, mean=None, amp=True, model_kwargs={}),
        "amp_scaler": SCALER,
        "state_dict_ema": OrderedDict(weights),
        "metric": 81.76,
    }


def torchvision_training_file(state: State, name: str, image_size: int | None = None) -> dict:
    """The file of torchvision's reference training."""
    optimizer = optimizer_of(state)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=300)
    return {
        "model": torchvision(state, name, image_size),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "epoch": 299,
        "args": argparse.Namespace(model="swin_v2_t", lr=5e-4, auto_augment="ta_wide", amp=True),
        "scaler": SCALER,
    }


def mmpretrain_training_file(
    state: State, name: str | Variant, image_size: int | None = None
) -> dict:
    """The file of mmengine's runner; write it with `save`, not with `torch.save`."""
    file = mmpretrain(state, name, image_size)
    meta = {
        "cfg": "model = dict(type='ImageClassifier')\n",
        "seed": 0,
        "experiment_name": "swinv2_20240101_000000",
        "time": "20240101_000000",
        "mmengine_version": "0.10.4",
        "epoch": 300,
        "iter": 375300,
    }
    message_hub = {
        "log_scalars": OrderedDict({"train/loss": HistoryBuffer()}),
        "runtime_info": OrderedDict({"epoch": 299, "max_epochs": 300}),
        "resumed_keys": OrderedDict({"train/loss": True}),
    }
    return {
        "meta": file["meta"] | meta,
        "state_dict": file["state_dict"],
        "message_hub": message_hub,
        "optimizer": optimizer_of(state).state_dict(),
        "param_schedulers": [{"last_step": 375300, "by_epoch": False, "_last_value": [1e-5]}],
    }


TRAINING_FILES: dict[str, Publisher] = {  # Hugging Face saves weights separately
    "microsoft": microsoft_training_file,
    "timm": timm_training_file,
    "torchvision": torchvision_training_file,
    "mmpretrain": mmpretrain_training_file,
    "simmim": simmim_training_file,
}
