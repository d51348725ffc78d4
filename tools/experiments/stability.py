"""Activations of wide models, and training at high learning rates (paper, figure 2).

The paper has two families: Swin V1 (norm before the branch, dot products, a table of biases) and
Swin V2 (norm after the branch, cosines, log-CPB).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.biases import set_bias
from experiments.classify import DEPTHS, NUM_HEADS, WINDOW, train
from experiments.pictures import SHAPES
from swinv2_backbone import SwinV2, SwinV2Classifier
from swinv2_backbone.attention import Attend, WindowAttention, window_attention
from swinv2_backbone.block import SwinV2Block
from swinv2_backbone.position_bias import bias_matrix, offsets_within
from swinv2_backbone.windows import Partition, window_layout

FAMILIES = ("v2", "v1")
HEAD_DIM = 32


class DotProductAttention(WindowAttention):
    """``softmax(q k / sqrt(d) + bias) v`` in windows."""

    def forward(
        self, tokens: Tensor, partition: Partition, attend: Attend = window_attention
    ) -> Tensor:
        """(T, C) -> (T, C)."""
        layout = window_layout(partition, tokens.device)
        table = self.cpb_mlp(partition.window)
        bias = bias_matrix(offsets_within(table, partition.window, layout.window))
        qkv = layout.to_windows(self.qkv(tokens) + self.qkv_bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias
        if (attn_mask := layout.attn_mask()) is not None:
            logits = logits.masked_fill(attn_mask[:, None], -math.inf)
        out = logits.softmax(dim=-1) @ v
        return self.proj(layout.to_tokens(out.transpose(1, 2).flatten(2)))


class PreNormBlock(SwinV2Block):
    """``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``: the norms start the branches."""

    def forward(self, x: Tensor, partition: Partition) -> Tensor:
        """(T, C) -> (T, C)."""
        x = x + self.attn(self.norm1(x), partition)
        return x + self.mlp(self.norm2(x))


def model(family: str, embed_dim: int) -> SwinV2Classifier:
    """Build a classifier with random weights."""
    scale = embed_dim // HEAD_DIM
    heads = [scale * number for number in NUM_HEADS]
    backbone = SwinV2(embed_dim, DEPTHS, num_heads=heads, window_size=WINDOW)
    if family == "v1":
        set_bias(backbone, "parameterized")
        for block in _blocks(backbone):
            block.__class__, block.attn.__class__ = PreNormBlock, DotProductAttention
            for norm in (block.norm1, block.norm2):
                nn.init.ones_(norm.weight)
    return SwinV2Classifier(backbone, len(SHAPES))


def run(
    folder: Path, *, family: str, embed_dim: int, lr: float, seed: int, images: int, steps: int
) -> dict:
    """Train a model; return losses, and the amplitude after each block before and after training.

    The amplitude is the root mean square of the main branch over one batch of pictures.
    """
    torch.manual_seed(seed)
    made = model(family, embed_dim)
    before = _amplitudes(made)
    losses = train(made, WINDOW, images=images, steps=steps, lr=lr, seed=seed, batch=8)
    last = losses[-(steps // 5) :]
    return {
        "loss": sum(last) / len(last),
        "losses": losses,
        "before": before,
        "after": _amplitudes(made),
    }


def _blocks(backbone: nn.Module) -> list[SwinV2Block]:
    return [module for module in backbone.modules() if isinstance(module, SwinV2Block)]


def _amplitudes(made: SwinV2Classifier) -> list[float]:
    found: list[float] = []

    def note(block: nn.Module, inputs: tuple, out: Tensor) -> None:
        found.append(out.double().square().mean().sqrt().item())

    hooks = [block.register_forward_hook(note) for block in _blocks(made)]
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.eval()(images)
    for hook in hooks:
        hook.remove()
    return found
