"""A whole SwinV2 block on a CPU, computed tile by tile.

Attention, projection, norms, MLP and residuals of a token depend only on its window, so a block is
computed for one tile of windows at a time, from input to output while the tile is in the cache.
The block is one operator, ``torch.ops.swinv2.tiled_block``, with its own backward, which goes over
the tiles again.  It is opaque to torch.compile and serves images of all sizes.

Legend: T tokens of the whole batch, packed; C channels; nH heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.kernels.cpu.gradients import Gradients
from swinv2_backbone.kernels.cpu.tiled_block import Activations, TiledBlock
from swinv2_backbone.kernels.operator import Operator
from swinv2_backbone.kernels.parameters import BlockParameters
from swinv2_backbone.packing import flat_sizes, sizes_of
from swinv2_backbone.precision import compute_dtype
from swinv2_backbone.windows import Partition

# Size of the hidden layer of the MLP, the widest tensor of a tile, in the dtype of attention.
# Larger tiles need more memory, which matters in inference, but less time in Python, which matters
# in training.
INFERENCE_BYTES = 4 * 2**20
TRAINING_BYTES = 16 * 2**20


class Arguments(NamedTuple):
    """The arguments of ``torch.ops.swinv2.tiled_block``."""

    x: Tensor  # (T, C)
    parameters: list[Tensor]  # BlockParameters; converted to the dtype of x
    table: Tensor  # (nH, offsets of the window), the position bias
    drop_path: list[Tensor]  # empty, or the drop path scales of both branches, (T, 1) each
    sizes: list[int]  # height and width of each map in turn
    window: list[int]  # (Mh, Mw)
    shifted: bool
    square_small_maps: bool
    save_activations: bool  # False: the backward recomputes them from x


def tiled_block(
    x: Tensor,
    parameters: BlockParameters,
    table: Tensor,
    drop_path: Sequence[Tensor],
    partition: Partition,
    *,
    save_activations: bool,
) -> Tensor:
    """Compute a SwinV2 block up to its ``norm3``, (T, C) -> (T, C).

    Args:
        x: the packed tokens.
        parameters: parameters of the block.
        table: (nH, offsets of the window), the position bias.
        drop_path: empty, or the per-token drop path scales of both branches, (T, 1) each.
        partition: the windows.
        save_activations: save the activations for the backward pass, which otherwise recomputes
            them tile by tile.
    """
    # Autocast has no effect inside an operator, so cast here; like autocast, leave float64 alone.
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters, table))
    arguments = Arguments(
        x,
        list(parameters),
        table,
        list(drop_path),
        flat_sizes(partition.sizes),
        list(partition.window),
        partition.shifted,
        partition.square_small_maps,
        learning and save_activations,
    )
    return OPERATOR(arguments)[0]


def _block(a: Arguments, hidden_bytes: int) -> TiledBlock:
    window = (a.window[0], a.window[1])
    partition = Partition(sizes_of(a.sizes), window, a.shifted, a.square_small_maps)
    parameters, dtype = BlockParameters(*a.parameters), compute_dtype(a.x.dtype)
    return TiledBlock(parameters, a.table, a.drop_path, partition, hidden_bytes, dtype)


def _forward(a: Arguments) -> list[Tensor]:
    """Return the block's output (T, C) and, if they are saved, its activations."""
    block = _block(a, TRAINING_BYTES if a.save_activations else INFERENCE_BYTES)
    with torch.autocast(a.x.device.type, enabled=False):  # the caller has chosen the dtypes
        if len(block.tiles) == 1 and a.save_activations:  # its results need not be copied
            result, activations = block.with_activations(a.x.to(block.dtype), *block.tiles)
            return [each.to(a.x.dtype) for each in (result, *activations)]
        out = torch.empty_like(a.x)
        saved = _empty_activations(a) if a.save_activations else ()
        for tile in block.tiles:
            own = tile.tokens
            x = a.x[own].to(block.dtype)
            if saved:
                out[own], activations = block.with_activations(x, tile)
                for whole, part in zip(saved, activations):
                    whole[own] = part
            else:
                out[own] = block(x, tile)
        return [out, *saved]


def _backward(grad: Tensor, saved: Sequence[Tensor], a: Arguments) -> list[Tensor]:
    """Return the gradients of ``x``, the parameters and the table."""
    block = _block(a, TRAINING_BYTES)
    gradients, grad_x = Gradients(block), torch.empty_like(a.x)
    with torch.autocast(a.x.device.type, enabled=False):
        for tile in block.tiles:
            own = tile.tokens
            x, of_out = a.x[own].to(block.dtype), grad[own].to(block.dtype)
            if saved:
                activations = Activations(*(whole[own].to(block.dtype) for whole in saved))
            else:
                _, activations = block.with_activations(x, tile)
            grad_x[own] = gradients.add_tile(of_out, x, tile, activations)
        grad_table = gradients.table()
    return [grad_x, *gradients.parameters(BlockParameters(*a.parameters)), grad_table]


def _empty_activations(a: Arguments) -> Activations:
    (tokens, channels), hidden = a.x.shape, BlockParameters(*a.parameters).fc1.shape[0]
    widths = (3 * channels, channels, channels, hidden, channels)  # in the order of the fields
    return Activations(*(a.x.new_empty(tokens, width) for width in widths))


def _empty_results(a: Arguments) -> list[Tensor]:
    return [torch.empty_like(a.x), *(_empty_activations(a) if a.save_activations else ())]


def _empty_gradients(grad: Tensor, a: Arguments) -> list[Tensor]:
    return [torch.empty_like(each) for each in (a.x, *a.parameters, a.table)]


OPERATOR = Operator(
    "tiled_block",
    Arguments,
    learned=("x", "parameters", "table"),
    forward=_forward,
    backward=_backward,
    empty_results=_empty_results,
    empty_gradients=_empty_gradients,
)
