"""torchvision: stem, stages and merging in one sequence; one bias for q, k and v."""

from __future__ import annotations

import torch

from swinv2_backbone.checkpoints.layouts.layout import Layout, Tensors, same


def split_bias(tensors: Tensors) -> Tensors:
    """Split ``attn.qkv.bias`` (3D,) into ``q_bias`` and ``v_bias`` (D,); k's third is unused."""
    out = dict(tensors)
    for name, value in tensors.items():
        if name.endswith("attn.qkv.bias") and value.ndim == 1 and len(value) % 3 == 0:
            q_bias, _, v_bias = out.pop(name).chunk(3)
            out[name.replace("qkv.bias", "q_bias")] = q_bias.clone()
            out[name.replace("qkv.bias", "v_bias")] = v_bias.clone()
    return out


def join_bias(tensors: Tensors) -> Tensors:
    """Invert :func:`split_bias`, with zeros for k."""
    out = dict(tensors)
    for name in tensors:
        if name.endswith("attn.q_bias"):
            q_bias, v_bias = out.pop(name), out.pop(name.replace("q_bias", "v_bias"))
            joined = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
            out[name.replace("q_bias", "qkv.bias")] = joined
    return out


TORCHVISION = Layout(
    name="torchvision",
    stem={"patch_embed.proj": "features.0.0", "patch_embed.norm": "features.0.2"},
    downsample="features.{even}",
    blocks="features.{odd}",
    in_block={
        **same("attn.logit_scale", "attn.cpb_mlp", "attn.qkv", "attn.proj", "norm1", "norm2"),
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    },
    norms={"norms.res5": "norm"},
    head="head",
    small_map_rule="per_axis",
    to_ours=split_bias,
    from_ours=join_bias,
)
