"""A whole SwinV2 block, strip by strip: as fast as its matrix products, in the memory of a strip.

Attention, projection, norms, MLP and residuals of a token depend on its window alone, so that a
block can be computed for a strip of windows at a time, from beginning to end while everything is in
the cache.  The block is one operator, ``torch.ops.swinv2.strip_block``, with a backward of its own
that goes over the strips again: opaque to torch.compile, and the same for images of all sizes.

Legend: T tokens of the whole batch, packed; n tokens of a strip; C channels; nH heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.kernels.choose import LAYER_NORM_EPS
from swinv2_backbone.kernels.cpu.attention import (
    RectangleBias,
    strip_attention,
    strip_attention_backward,
)
from swinv2_backbone.kernels.cpu.linear import PreparedLinear, accumulation_dtype, linear_gradients
from swinv2_backbone.kernels.parameters import LINEAR, BlockWeights, table_of, weights_of
from swinv2_backbone.kernels.tiles import Strip, strips
from swinv2_backbone.windows import Partition, Size

# Of the hidden layer of the MLP, the widest of a strip's tensors, if it were in the dtype that
# attention is computed in.  Larger strips need more memory, which counts in inference, and less
# time in Python, which counts in training.
INFERENCE_BYTES = 4 * 2**20
TRAINING_BYTES = 16 * 2**20


class Activations(NamedTuple):
    """What the backward of a block needs, beside its input: (n, C) each but for two."""

    qkv: Tensor  # (n, 3C)
    attended: Tensor
    projected: Tensor
    hidden: Tensor  # (n, 4C), before GELU
    mlp: Tensor


class _Block:
    """A block in one forward or backward: its weights made ready, its strips."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        scale: Tensor,
        table: Tensor,
        keep: Sequence[Tensor],
        partition: Partition,
        hidden_bytes: int,
        dtype: torch.dtype,
    ):
        self.weights = weights = BlockWeights(*(w.to(dtype) for w in weights))
        tokens = sum(h * w for h, w in partition.sizes)
        self.scale = scale.view(-1, 1)
        self.bias = RectangleBias(table, partition.window)
        self.keep = keep  # () or two (T, 1): the factors of drop path
        self.qkv = PreparedLinear(weights.qkv, weights.qkv_bias, tokens)
        self.proj = PreparedLinear(weights.proj, weights.proj_bias, tokens)
        self.fc1 = PreparedLinear(weights.fc1, weights.fc1_bias, tokens)
        self.fc2 = PreparedLinear(weights.fc2, weights.fc2_bias, tokens)
        most_tokens = hidden_bytes // (len(weights.fc1) * self.scale.element_size())
        self.strips = strips(partition.sizes, partition.window, partition.shifted, most_tokens)

    def __call__(self, x: Tensor, strip: Strip) -> Tensor:
        """(n, C) -> (n, C)."""
        attended = strip_attention(self.qkv(x), self.scale, self.bias, strip)
        x = self.add(x, self.norm(self.proj(attended), "norm1")[0], 0, strip)
        return self.add(x, self.norm(self.fc2(self.fc1.gelu(x)), "norm2")[0], 1, strip)

    def with_activations(self, x: Tensor, strip: Strip) -> tuple[Tensor, Activations]:
        """(n, C) -> (n, C), and what was met on the way."""
        qkv = self.qkv(x)
        attended = strip_attention(qkv, self.scale, self.bias, strip)
        projected = self.proj(attended)
        x = self.add(x, self.norm(projected, "norm1")[0], 0, strip)
        hidden = self.fc1(x)
        mlp = self.fc2(F.gelu(hidden))
        x = self.add(x, self.norm(mlp, "norm2")[0], 1, strip)
        return x, Activations(qkv, attended, projected, hidden, mlp)

    def norm(self, x: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """The norm of (n, C), its mean and its reciprocal standard deviation."""
        weight, bias = (getattr(self.weights, part) for part in (name, f"{name}_bias"))
        return torch.native_layer_norm(x, x.shape[-1:], weight, bias, LAYER_NORM_EPS)

    def add(self, x: Tensor, branch: Tensor, which: int, strip: Strip) -> Tensor:
        """x + drop path of a branch, whose memory is used again."""
        return self.kept(branch, which, strip).add_(x)

    def kept(self, x: Tensor, which: int, strip: Strip) -> Tensor:
        """Drop path of a branch: of its output, and of the gradient of its output."""
        return x * self.keep[which][strip.tokens] if self.keep else x


class _Gradients:
    """The gradients of a block's parameters, added up over its strips."""

    def __init__(self, block: _Block):
        self.weights: dict[str, Tensor] = {}
        # dx = dy @ weight: a linear layer with the weight transposed.
        tokens = block.qkv.tokens
        self.back = {
            name: PreparedLinear(getattr(block.weights, name).mT, None, tokens) for name in LINEAR
        }
        self.scale = torch.zeros_like(block.scale)
        self.matrices: dict[Size, Tensor] = {}  # of the position bias
        self.block = block

    def add_strip(self, grad: Tensor, x: Tensor, strip: Strip, met: Activations) -> Tensor:
        """The gradient of a strip's input, from that of its output; (n, C) both."""
        block = self.block
        norm1, *stats1 = block.norm(met.projected, "norm1")
        _, *stats2 = block.norm(met.mlp, "norm2")
        middle = block.add(x, norm1, 0, strip)  # between the two branches

        grad_mlp = self._norm("norm2", block.kept(grad, 1, strip), met.mlp, stats2)
        grad_hidden = torch.ops.aten.gelu_backward(
            self._linear("fc2", grad_mlp, F.gelu(met.hidden)), met.hidden
        )
        grad = self._linear("fc1", grad_hidden, middle).add_(grad)
        grad_projected = self._norm("norm1", block.kept(grad, 0, strip), met.projected, stats1)
        grad_attended = self._linear("proj", grad_projected, met.attended)
        grad_qkv = strip_attention_backward(
            grad_attended, met.qkv, block.scale, block.bias, strip, self.scale, self.matrices
        )
        return self._linear("qkv", grad_qkv, x).add_(grad)

    def _linear(self, name: str, grad: Tensor, x: Tensor) -> Tensor:
        """The gradient of the input ``x`` of a linear layer, from that of its output."""
        self._add(name, *linear_gradients(grad, x))
        return self.back[name](grad)

    def _norm(self, name: str, grad: Tensor, x: Tensor, stats: Sequence[Tensor]) -> Tensor:
        """The gradient of the input ``x`` of a norm, from that of its output."""
        weight, bias = (getattr(self.block.weights, part) for part in (name, f"{name}_bias"))
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
            grad, x, x.shape[-1:], *stats, weight, bias, [True, True, True]
        )
        self._add(name, grad_weight, grad_bias)
        return grad_x

    def _add(self, name: str, grad_weight: Tensor, grad_bias: Tensor) -> None:
        """Add a strip's gradients, which nobody else uses, to those of a layer."""
        for part, grad in ((name, grad_weight), (f"{name}_bias", grad_bias)):
            if part in self.weights:
                self.weights[part] += grad
            else:
                self.weights[part] = grad.to(accumulation_dtype(grad.dtype))


def block_in_strips(
    block: nn.Module, x: Tensor, partition: Partition, keep_activations: bool
) -> Tensor:
    """(T, C) -> (T, C), what the modules of a ``SwinV2Block`` give up to its ``norm3``.

    ``keep_activations``: for the backward pass; else it computes them again, strip by strip.
    """
    attn, weights = block.attn, weights_of(block)
    # Autocast does not look into an operator; it leaves float64 alone.
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    keep = [block.drop_path.factors(x, partition.sizes) for _ in range(2)]
    scale, table = attn.scale, table_of(attn.cpb_mlp, partition.window, keep_activations)
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights, scale, table))
    out, *_ = torch.ops.swinv2.strip_block(
        x,
        weights,
        scale,
        table,
        [] if keep[0] is None else keep,
        [length for size in partition.sizes for length in size],
        partition.window,
        partition.shifted,
        learning and keep_activations,
    )
    return out


def _partition(sizes: Sequence[int], window: Sequence[int], shifted: bool) -> Partition:
    return Partition(tuple(zip(sizes[::2], sizes[1::2])), tuple(window), shifted)


# Defined by its schema, as torch.library.custom_op imports the whole compiler at the first call.
torch.library.define(
    "swinv2::strip_block",
    "(Tensor x, Tensor[] weights, Tensor scale, Tensor table, Tensor[] keep, SymInt[] sizes, "
    "SymInt[] window, bool shifted, bool keep_activations) -> Tensor[]",
)
torch.library.define(
    "swinv2::strip_block_backward",
    "(Tensor grad, Tensor x, Tensor[] kept, Tensor[] weights, Tensor scale, Tensor table, "
    "Tensor[] keep, SymInt[] sizes, SymInt[] window, bool shifted) -> Tensor[]",
)


@torch.library.impl("swinv2::strip_block", "default")
def _forward(
    x: Tensor,
    weights: Sequence[Tensor],
    scale: Tensor,
    table: Tensor,
    keep: Sequence[Tensor],
    sizes: Sequence[int],
    window: Sequence[int],
    shifted: bool,
    keep_activations: bool,
) -> list[Tensor]:
    """The block's output (T, C) and, if they are kept for the backward, its activations.

    Args:
        x: (T, C).
        weights: those of :class:`BlockWeights`; they are used in the dtype of ``x``.
        scale: (nH, 1, 1), the exponential of the clamped ``logit_scale``.
        table: (nH, offsets of the window), the position bias.
        keep: nothing, or what the two branches of every token are multiplied by, (T, 1) each.
        sizes: height and width of every map, one after the other.
        window: (Mh, Mw).
        shifted: whether the windows are shifted.
        keep_activations: False: the backward computes them again, from ``x``.
    """
    partition = _partition(sizes, window, shifted)
    hidden_bytes = TRAINING_BYTES if keep_activations else INFERENCE_BYTES
    block = _Block(weights, scale, table, keep, partition, hidden_bytes, x.dtype)
    out = torch.empty_like(x)
    kept = _buffers(x, len(block.weights.fc1)) if keep_activations else ()
    with torch.autocast(x.device.type, enabled=False):  # dtypes are settled by the caller
        for strip in block.strips:
            own = strip.tokens
            if keep_activations:
                out[own], activations = block.with_activations(x[own], strip)
                for whole, part in zip(kept, activations):
                    whole[own] = part
            else:
                out[own] = block(x[own], strip)
    return [out, *kept]


def _buffers(x: Tensor, hidden: int) -> Activations:
    tokens, channels = x.shape
    widths = Activations(3 * channels, channels, channels, hidden, channels)
    return Activations(*(x.new_empty(tokens, width) for width in widths))


@torch.library.impl("swinv2::strip_block_backward", "default")
def _backward(
    grad: Tensor,
    x: Tensor,
    kept: Sequence[Tensor],
    weights: Sequence[Tensor],
    scale: Tensor,
    table: Tensor,
    keep: Sequence[Tensor],
    sizes: Sequence[int],
    window: Sequence[int],
    shifted: bool,
) -> list[Tensor]:
    """The gradients of ``x``, ``scale``, ``table`` and ``weights`` of :func:`_forward`.

    ``kept`` are the activations, or nothing.
    """
    partition = _partition(sizes, window, shifted)
    block = _Block(weights, scale, table, keep, partition, TRAINING_BYTES, x.dtype)
    sums, grad_x = _Gradients(block), torch.empty_like(x)
    with torch.autocast(x.device.type, enabled=False):
        for strip in block.strips:
            own = strip.tokens
            if kept:
                activations = Activations(*(whole[own] for whole in kept))
            else:
                _, activations = block.with_activations(x[own], strip)
            grad_x[own] = sums.add_strip(grad[own], x[own], strip, activations)
        grad_table = block.bias.gradient(sums.matrices)
    totals = (sums.weights[name] for name in BlockWeights._fields)
    grad_weights = [total.to(w.dtype) for total, w in zip(totals, weights)]
    return [grad_x, sums.scale.view_as(scale), grad_table, *grad_weights]


@torch.library.register_fake("swinv2::strip_block")
def _(x, weights, scale, table, keep, sizes, window, shifted, keep_activations):
    hidden = BlockWeights(*weights).fc1.shape[0]
    return [torch.empty_like(x), *(_buffers(x, hidden) if keep_activations else ())]


@torch.library.register_fake("swinv2::strip_block_backward")
def _(grad, x, kept, weights, scale, table, keep, sizes, window, shifted):
    return [torch.empty_like(each) for each in (x, scale, table, *weights)]


def _save_for_backward(ctx, inputs, output):
    x, weights, scale, table, keep, *ctx.partition, _ = inputs
    ctx.lengths = len(weights), len(keep)
    ctx.save_for_backward(x, scale, table, *weights, *keep, *output[1:])
    ctx.set_materialize_grads(False)  # of the activations, which nobody else uses


def _differentiate(ctx, grads):
    x, scale, table, *rest = ctx.saved_tensors
    num_weights, num_keep = ctx.lengths
    weights, keep = rest[:num_weights], rest[num_weights : num_weights + num_keep]
    kept = rest[num_weights + num_keep :]
    if grads[0] is None:
        return None, [None] * num_weights, None, None, [None] * num_keep, None, None, None, None
    grad_x, grad_scale, grad_table, *grad_weights = torch.ops.swinv2.strip_block_backward(
        grads[0].contiguous(), x, kept, weights, scale, table, keep, *ctx.partition
    )
    return grad_x, grad_weights, grad_scale, grad_table, [None] * num_keep, None, None, None, None


def _refuse(ctx, grads):
    raise RuntimeError(
        "blocks in strips have no second derivative: build the model with kernel='reference'"
    )


torch.library.register_autograd(
    "swinv2::strip_block", _differentiate, setup_context=_save_for_backward
)
torch.library.register_autograd("swinv2::strip_block_backward", _refuse)
