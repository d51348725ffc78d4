"""The backward of a SwinV2 block on one tile, and its parameters' gradients summed over tiles.

Legend: n tokens of a tile; C channels; nH heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swinv2_backbone.attention import MAX_LOGIT_SCALE
from swinv2_backbone.kernels.cpu.attention import tile_attention_backward
from swinv2_backbone.kernels.cpu.linear import by_blas, input_gradient, linear_gradients
from swinv2_backbone.kernels.cpu.pointwise import gelu_backward, native_for
from swinv2_backbone.kernels.cpu.tiled_block import Activations, TiledBlock
from swinv2_backbone.kernels.parameters import LAYER_NORM_EPS, BlockParameters
from swinv2_backbone.kernels.tiles import Tile
from swinv2_backbone.packing import Size
from swinv2_backbone.precision import accumulation_dtype


class Gradients:
    """The gradients of a block's parameters, summed over its tiles."""

    def __init__(self, block: TiledBlock):
        self.block = block
        p, tokens = block.parameters, block.num_tokens
        self.qkv, self.proj = input_gradient(p.qkv, tokens), input_gradient(p.proj, tokens)
        self.fc1, self.fc2 = input_gradient(p.fc1, tokens), input_gradient(p.fc2, tokens)
        self.scale = torch.zeros_like(block.scale)
        self.matrices: dict[Size, Tensor] = {}  # window size -> (T, nH, N, N), of the bias matrix
        self.sums: dict[str, Tensor] = {}  # parameter -> gradient

    def add_tile(self, grad: Tensor, x: Tensor, tile: Tile, saved: Activations) -> Tensor:
        """Return the gradient of a tile's input from that of its output, both (n, C)."""
        block = self.block
        middle = block.add_norm(x, saved.projected, 0, tile)  # between the two branches

        grad_mlp = self._norm(grad, saved.mlp, 1, tile)
        grad_hidden = self.fc2(grad_mlp)
        hidden, grad_hidden = gelu_backward(saved.hidden, grad_hidden)
        self._linear("fc2", grad_mlp, hidden)
        self._linear("fc1", grad_hidden, middle)
        grad = self.fc1.add_to(grad.clone(), grad_hidden)

        grad_projected = self._norm(grad, saved.projected, 0, tile)
        self._linear("proj", grad_projected, saved.attended)
        grad_qkv = tile_attention_backward(
            self.proj(grad_projected),
            saved.qkv,
            block.scale,
            block.bias,
            tile,
            self.scale,
            self.matrices,
        )
        self._linear("qkv", grad_qkv, x)
        return self.qkv.add_to(grad, grad_qkv)

    def table(self) -> Tensor:
        """Return the gradient of the position bias (nH, offsets of the window)."""
        return self.block.bias.gradient(self.matrices)

    def parameters(self, given: BlockParameters) -> BlockParameters:
        """Return the gradients of the parameters, in the dtypes of ``given``."""
        sums, channels = self.sums, len(given.q_bias)
        by_qkv_bias = sums.pop("qkv_bias")
        sums["q_bias"], sums["v_bias"] = by_qkv_bias[:channels], by_qkv_bias[2 * channels :]
        logit_scale = given.logit_scale.to(self.scale.dtype)
        by_logarithm = (self.scale * self.block.scale).view_as(logit_scale)
        sums["logit_scale"] = torch.where(logit_scale <= MAX_LOGIT_SCALE, by_logarithm, 0)
        gradients = BlockParameters(**sums)
        return BlockParameters(*(g.to(p.dtype) for g, p in zip(gradients, given)))

    def _linear(self, name: str, grad: Tensor, x: Tensor) -> None:
        """Add the gradients of a linear layer with input ``x``, from that of its output."""
        if not by_blas(grad):
            self._add(name, *linear_gradients(grad, x))
            return
        if name in self.sums:
            self.sums[name].addmm_(grad.mT, x)
        else:
            self.sums[name] = grad.mT @ x
        self._add_part(f"{name}_bias", grad.sum(dim=0))

    def _norm(self, grad: Tensor, branch: Tensor, which: int, tile: Tile) -> Tensor:
        """Return the gradient of a branch before its norm, from that of the sum."""
        block, (weight, bias) = self.block, self.block.norms[which]
        if library := native_for(grad):
            scales = block.drop_path[which][tile.tokens].to(grad.dtype) if block.drop_path else None
            found = library.add_norm_backward(grad, branch, weight, scales, LAYER_NORM_EPS)
        else:
            _, *stats = block.norm(branch, which)
            found = torch.ops.aten.native_layer_norm_backward(
                block.scaled(grad, which, tile), branch, branch.shape[-1:], *stats, weight, bias,
                [True, True, True],
            )  # fmt: skip
        self._add(f"norm{which + 1}", *found[1:])
        return found[0]

    def _add(self, name: str, grad_weight: Tensor, grad_bias: Tensor) -> None:
        """Add a tile's gradients to the sums of a layer; their memory may be reused."""
        self._add_part(name, grad_weight)
        self._add_part(f"{name}_bias", grad_bias)

    def _add_part(self, part: str, grad: Tensor) -> None:
        if part in self.sums:
            self.sums[part] += grad
        else:
            self.sums[part] = grad.to(accumulation_dtype(grad.dtype))
