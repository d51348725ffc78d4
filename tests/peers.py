"""Our weights in other people's SwinV2: timm, Hugging Face transformers and torchvision.

Each peer has two functions: `<peer>_model` builds its model of a variant with exactly the weights
of one of our state dicts, `<peer>_features` runs it. Nothing is downloaded. A peer's maths is right
only where nothing is padded (all of them attend to padding), and timm's and Hugging Face's only at
the image size the model is built for (they settle windows and shifts there, once and for all).

Shapes: B images; C_i channels and h_i, w_i map of stage i; Mh, Mw window.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)
from transformers import Swinv2Config, Swinv2Model

from swinv2_backbone import VARIANTS

State = Mapping[str, Tensor]
Pair = tuple[int, int]


class Features(NamedTuple):
    """A peer's features of a batch of images, in NCHW."""

    stages: list[Tensor]  # the four stages' outputs, before any output norm: (B, C_i, h_i, w_i)
    normed: Tensor  # the last of them after the peer's own final norm


class Peer(NamedTuple):
    """A foreign implementation: model(state, name, image size), features(model, images)."""

    model: Callable[[State, str, Pair], nn.Module]
    features: Callable[[nn.Module, Tensor], Features]


# Ours -> theirs: pieces of parameter names, replaced in this order; what is not here is the same.
# Our stages start with their merge, and so do timm's; Hugging Face's end with that of the next
# stage; torchvision's stem, stages and merges are one sequence: stem 0, stage 1, merge 2, stage 3.
TIMM_NAMES = {
    r"^norms\.res5": "norm",
}
HUGGING_FACE_NAMES = {
    r"^patch_embed\.proj": "embeddings.patch_embeddings.projection",
    r"^patch_embed\.norm": "embeddings.norm",
    r"^layers\.(\d+)\.downsample": lambda m: f"encoder.layers.{int(m[1]) - 1}.downsample",
    r"^layers": "encoder.layers",
    r"attn\.proj": "attention.output.dense",
    r"attn\.cpb_mlp": "attention.self.continuous_position_bias_mlp",
    r"attn\.": "attention.self.",
    r"q_bias": "query.bias",
    r"v_bias": "value.bias",
    r"norm1": "layernorm_before",  # it comes after the attention all the same
    r"norm2": "layernorm_after",
    r"mlp\.fc1": "intermediate.dense",
    r"mlp\.fc2": "output.dense",
    r"^norms\.res5": "layernorm",
}
TORCHVISION_NAMES = {
    r"^patch_embed\.proj": "features.0.0",
    r"^patch_embed\.norm": "features.0.2",
    r"^layers\.(\d+)\.downsample": lambda m: f"features.{2 * int(m[1])}",
    r"^layers\.(\d+)\.blocks": lambda m: f"features.{2 * int(m[1]) + 1}",
    r"mlp\.fc1": "mlp.0",
    r"mlp\.fc2": "mlp.3",
    r"^norms\.res5": "norm",
}


def renamed(
    state: State, names: Mapping[str, str | Callable[[re.Match], str]]
) -> dict[str, Tensor]:
    """Rename the state as a peer does, without the norms of res2 to res4, which no peer has."""
    theirs = {}
    for key, value in state.items():
        if re.match(r"norms\.res[234]\.", key):
            continue
        for ours, their in names.items():
            key = re.sub(ours, their, key)
        theirs[key] = value
    return theirs


def filled(model: nn.Module, state: State) -> nn.Module:
    """Load all parameters of the model from the state, with none left; set eval mode."""
    parameters = {name for name, _ in model.named_parameters()}
    assert parameters == set(state), f"not in both: {sorted(parameters ^ set(state))}"
    model.load_state_dict(state, strict=False)  # not strict: the model keeps its own buffers
    return model.eval()


def timm_model(state: State, name: str, image_size: Pair) -> nn.Module:
    """Build timm's model of that name, with timm's own table of windows and heads."""
    model = timm.create_model(name, pretrained=False, num_classes=0, img_size=image_size)
    return filled(model, renamed(state, TIMM_NAMES))


def timm_features(model: nn.Module, images: Tensor) -> Features:
    normed, stages = model.forward_intermediates(images)
    return Features(stages, normed.permute(0, 3, 1, 2))


def hugging_face_model(state: State, name: str, image_size: Pair) -> nn.Module:
    """Build Swinv2Model, which has one window for all stages and clips it to the map."""
    variant = VARIANTS[name]
    config = Swinv2Config(
        image_size=image_size,
        embed_dim=variant.embed_dim,
        depths=variant.depths,
        num_heads=variant.num_heads,
        window_size=variant.window_sizes[0],
        pretrained_window_sizes=variant.pretrained_window_sizes,
    )
    theirs = {}
    for key, value in renamed(state, HUGGING_FACE_NAMES).items():
        if key.endswith("qkv.weight"):
            for part, weight in zip(("query", "key", "value"), value.chunk(3), strict=True):
                theirs[key.replace("qkv", part)] = weight
        else:
            theirs[key] = value
    return filled(Swinv2Model(config, add_pooling_layer=False), theirs)


def hugging_face_features(model: nn.Module, images: Tensor) -> Features:
    embedded, size = model.embeddings(images)
    out = model.encoder(
        embedded,
        size,
        output_hidden_states=True,
        output_hidden_states_before_downsampling=True,
        return_dict=True,
    )
    _, *stages = out.reshaped_hidden_states  # the first is the patch embedding
    normed = model.layernorm(out.last_hidden_state)  # (B, h * w, C)
    return Features(stages, normed.transpose(1, 2).reshape(stages[-1].shape))


def torchvision_model(state: State, name: str, image_size: Pair) -> nn.Module:
    """Build torchvision's SwinTransformer with the V2 parts, as in its swin_v2_t, _s and _b.

    It has one window for all stages, never shrinks it, and normalizes the bias by it.
    """
    variant = VARIANTS[name]
    window = variant.window_sizes[0]
    assert set(variant.window_sizes + variant.pretrained_window_sizes) == {window}
    assert all(length % (32 * window) == 0 for length in image_size), "torchvision would pad"
    model = SwinTransformer(
        patch_size=[4, 4],
        embed_dim=variant.embed_dim,
        depths=list(variant.depths),
        num_heads=list(variant.num_heads),
        window_size=[window, window],
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    )
    model.head = nn.Identity()
    theirs = renamed(state, TORCHVISION_NAMES)
    for key in [key for key in theirs if key.endswith("q_bias")]:
        q_bias, v_bias = theirs.pop(key), theirs.pop(key.replace("q_bias", "v_bias"))
        qkv_bias = torch.cat((q_bias, torch.zeros_like(q_bias), v_bias))
        theirs[key.replace("q_bias", "qkv.bias")] = qkv_bias
    return filled(model, theirs)


def torchvision_features(model: nn.Module, images: Tensor) -> Features:
    stages, x = [], images
    for index, layer in enumerate(model.features):  # stem, stage, merge, stage, merge, ...
        x = layer(x)
        if index % 2 == 1:
            stages.append(x.permute(0, 3, 1, 2))
    return Features(stages, model.norm(x).permute(0, 3, 1, 2))


def in_float64(model: nn.Module) -> nn.Module:
    """Convert a peer's model to float64, and compute its tables of log-spaced offsets again."""
    model = model.double()
    for module in model.modules():
        if hasattr(module, "relative_coords_table"):
            table = module.relative_coords_table
            table.copy_(exact_offsets(table))
    return model


def exact_offsets(table: Tensor) -> Tensor:
    """Return t of every offset, (1, 2 Mh - 1, 2 Mw - 1, 2), without the rounding of float32.

    The pretrained window p of each axis is read from the peer's table: the offset 1 stands there as
    t = log2(1 + 8 / (p - 1)) / log2(8).
    """
    _, rows, columns, _ = table.shape
    one = table[0, rows // 2 + 1, columns // 2 + 1]  # (2,)
    intervals = (8 / (8**one - 1)).round()  # p - 1
    axes = [torch.arange(length).to(table) - length // 2 for length in (rows, columns)]
    offsets = 8 * torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1) / intervals
    exact = offsets.sign() * torch.log2(1 + offsets.abs()) / 3
    assert (exact - table).abs().max() < 1e-6, "not a table of log-spaced offsets"
    return exact


PEERS = {
    "timm": Peer(timm_model, timm_features),
    "hugging_face": Peer(hugging_face_model, hugging_face_features),
    "torchvision": Peer(torchvision_model, torchvision_features),
}
