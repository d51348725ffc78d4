"""Hugging Face transformers: separate query, key and value; merging ends a stage."""

from __future__ import annotations

import torch

from swinv2_backbone.checkpoints.layouts.layout import Layout, Tensors


def join_qkv(tensors: Tensors) -> Tensors:
    """Join ``attn.{q,k,v}.weight`` (D, D) into ``attn.qkv.weight`` (3D, D); rename the biases.

    If one of the three is missing, or their shapes or dtypes differ, they are left unchanged, under
    names that match no tensor of a SwinV2.
    """
    out = dict(tensors)
    for name in tensors:
        if name.endswith("attn.q.weight"):
            parts = [name.replace("attn.q.", f"attn.{part}.") for part in "qkv"]
            kinds = {(out[p].shape, out[p].dtype) if p in out else None for p in parts}
            if len(kinds) == 1 and out[name].ndim == 2:
                joined = torch.cat([out.pop(part) for part in parts])
                out[name.replace("attn.q.", "attn.qkv.")] = joined
        elif name.endswith(("attn.q.bias", "attn.v.bias")):
            out[name.removesuffix(".bias") + "_bias"] = out.pop(name)
    return out


def split_qkv(tensors: Tensors) -> Tensors:
    """Invert :func:`join_qkv`."""
    out = dict(tensors)
    for name in tensors:
        if name.endswith("attn.qkv.weight"):
            for part, weight in zip("qkv", out.pop(name).chunk(3)):
                out[name.replace("attn.qkv.", f"attn.{part}.")] = weight.clone()
        elif name.endswith(("attn.q_bias", "attn.v_bias")):
            out[name.removesuffix("_bias") + ".bias"] = out.pop(name)
    return out


HUGGING_FACE = Layout(
    name="Hugging Face",
    root="swinv2.",
    stem={
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "patch_embed.norm": "embeddings.norm",
    },
    downsample="encoder.layers.{before}.downsample",
    blocks="encoder.layers.{i}.blocks",
    in_block={
        "attn.logit_scale": "attention.self.logit_scale",
        "attn.cpb_mlp": "attention.self.continuous_position_bias_mlp",
        "attn.q": "attention.self.query",
        "attn.k": "attention.self.key",
        "attn.v": "attention.self.value",
        "attn.proj": "attention.output.dense",
        "norm1": "layernorm_before",  # applied after the attention despite its name
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
        "norm2": "layernorm_after",
    },
    norms={"norms.res5": "layernorm"},
    head="classifier",
    to_ours=join_qkv,
    from_ours=split_qkv,
)
