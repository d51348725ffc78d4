"""A slow, plainly correct UPerNet in float64, written from the paper (arXiv 1807.10221).

As in semantic segmentation with Swin, it has a pyramid pooling module on res5, a feature pyramid,
and an auxiliary FCN head on res4. It shares no code with the package: it takes plain dicts of
tensors and computes every convolution, norm, pooling and resizing from its definition. There is no
dropout. Everything is differentiable.

Shapes: B images; C channels of a feature; D channels of the head; K classes; H, W a map's size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Layer = Mapping[str, Tensor]

NORM_EPS = 1e-5
IGNORED_LABEL = 255


def upernet(
    features: Mapping[str, Tensor],
    weights: Mapping[str, Layer],
    *,
    groups: int | None,
    bins: Sequence[int] = (1, 2, 3, 6),
) -> tuple[Tensor, Tensor]:
    """{"resN": (B, C_N, H_N, W_N)} -> logits (B, K, H_2, W_2), auxiliary logits (B, K, H_4, W_4).

    Args:
        features: res2, res3, res4 and res5; of any sizes.
        weights: "ppm.0" ... (one for each bin), "bottleneck", "lateral.res2" ... "lateral.res4",
            "fpn.res2" ... "fpn.res4", "fusion" and "aux", each with the `weight` (O, I, k, k) of
            its convolution and the `norm_weight` (O,) and `norm_bias` (O,) of its norm;
            "predictor" and "aux_predictor", each with `weight` (K, I, 1, 1) and `bias` (K,).
        groups: number of groups of the group norms. None: batch norms, by the `running_mean` and
            `running_var` (O,) of a layer that holds them (eval), else by the batch's (training).
        bins: the pyramid pooling module averages over s x s cells, for each s.
    """
    features = {name: x.double() for name, x in features.items()}
    weights = {name: {k: v.double() for k, v in layer.items()} for name, layer in weights.items()}

    pyramid = [features["res5"]]
    for i, s in enumerate(bins):
        pooled = conv_norm_relu(adaptive_average(features["res5"], s), weights[f"ppm.{i}"], groups)
        pyramid.append(resize(pooled, size(features["res5"])))
    summed = conv_norm_relu(torch.cat(pyramid, dim=1), weights["bottleneck"], groups)

    levels = [summed]  # coarsest first; the top level is fused unchanged
    for name in ("res4", "res3", "res2"):
        lateral = conv_norm_relu(features[name], weights[f"lateral.{name}"], groups)
        summed = lateral + resize(summed, size(lateral))
        levels.append(conv_norm_relu(summed, weights[f"fpn.{name}"], groups))

    finest_first = [resize(level, size(features["res2"])) for level in reversed(levels)]
    fused = conv_norm_relu(torch.cat(finest_first, dim=1), weights["fusion"], groups)
    aux = conv_norm_relu(features["res4"], weights["aux"], groups)
    return predict(fused, weights["predictor"]), predict(aux, weights["aux_predictor"])


def upernet_loss(
    logits: Tensor, aux_logits: Tensor, labels: Tensor, *, stride: int = 4, aux_stride: int = 16
) -> tuple[Tensor, Tensor]:
    """Logits of both heads, labels (B, H, W) int -> main loss, auxiliary loss, neither weighted.

    The total of a training step is main + 0.4 * auxiliary.
    """
    main = pixel_cross_entropy(logits.double(), labels, stride)
    return main, pixel_cross_entropy(aux_logits.double(), labels, aux_stride)


def pixel_cross_entropy(logits: Tensor, labels: Tensor, stride: int) -> Tensor:
    """Mean of log sum_k exp(x_k) - x_label over all labeled pixels of the batch; 0 without any.

    The logits (B, K, h, w) are enlarged `stride` times; the part that exceeds the labels
    (B, H, W) at the bottom and right is cropped.
    """
    height, width = labels.shape[1:]
    h, w = size(logits)
    assert h * stride >= height and w * stride >= width, f"{(h, w)} logits do not cover the labels"
    logits = resize(logits, (h * stride, w * stride))[:, :, :height, :width]
    pixels = logits.permute(0, 2, 3, 1)[labels != IGNORED_LABEL]  # (labeled pixels, K)
    truth = labels[labels != IGNORED_LABEL].long()
    losses = pixels.logsumexp(dim=1) - pixels[torch.arange(len(truth)), truth]
    return losses.sum() / max(len(truth), 1)


def conv_norm_relu(x: Tensor, layer: Layer, groups: int | None) -> Tensor:
    """(B, I, H, W) -> (B, O, H, W): convolution without a bias, norm, ReLU."""
    return norm(convolution(x, layer["weight"]), layer, groups).relu()


def predict(x: Tensor, layer: Layer) -> Tensor:
    """(B, I, H, W) -> class logits (B, K, H, W): a 1x1 convolution with a bias."""
    return convolution(x, layer["weight"]) + layer["bias"][:, None, None]


def convolution(x: Tensor, weight: Tensor) -> Tensor:
    """y[b, o, r, c] = sum over i, u, v of weight[o, i, u, v] x[b, i, r + u - p, c + v - p].

    x (B, I, H, W) is zero outside the map, weight (O, I, k, k) has an odd k, and p = k // 2;
    the result is (B, O, H, W).
    """
    batch, channels, h, w = x.shape
    k = weight.shape[-1]
    padded = x.new_zeros(batch, channels, h + k - 1, w + k - 1)
    padded[:, :, k // 2 : k // 2 + h, k // 2 : k // 2 + w] = x
    y = x.new_zeros(batch, weight.shape[0], h, w)
    for u in range(k):
        for v in range(k):
            shifted = padded[:, :, u : u + h, v : v + w]
            y = y + torch.einsum("oi,bihw->bohw", weight[:, :, u, v], shifted)
    return y


def norm(x: Tensor, layer: Layer, groups: int | None) -> Tensor:
    """norm_weight (x - mean) / sqrt(variance + eps) + norm_bias, for x (B, O, H, W).

    A group norm takes mean and variance over each image's consecutive O / groups channels and all
    pixels, a batch norm over all images' pixels, one by one for each channel. The variance is the
    mean squared deviation.
    """
    batch, channels, h, w = x.shape
    if groups is not None:
        grouped = x.reshape(batch, groups, channels // groups, h, w)
        normalized = standardize(grouped, *moments(grouped, (2, 3, 4))).reshape(x.shape)
    elif "running_mean" in layer:
        mean, variance = layer["running_mean"], layer["running_var"]
        normalized = standardize(x, mean[:, None, None], variance[:, None, None])
    else:
        normalized = standardize(x, *moments(x, (0, 2, 3)))
    return layer["norm_weight"][:, None, None] * normalized + layer["norm_bias"][:, None, None]


def moments(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and mean squared deviation over the axes, which stay with length 1."""
    mean = x.mean(dim=axes, keepdim=True)
    return mean, ((x - mean) ** 2).mean(dim=axes, keepdim=True)


def standardize(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + eps)."""
    return (x - mean) / (variance + NORM_EPS).sqrt()


def adaptive_average(x: Tensor, cells: int) -> Tensor:
    """(B, C, H, W) -> (B, C, cells, cells), the mean of each cell; cells may overlap."""
    rows, columns = (cell_spans(length, cells) for length in size(x))
    pooled = [
        torch.stack([x[:, :, rows_, columns_].mean(dim=(2, 3)) for columns_ in columns], dim=-1)
        for rows_ in rows
    ]
    return torch.stack(pooled, dim=-2)


def cell_spans(length: int, cells: int) -> list[slice]:
    """Cell i of n covers floor(i L / n) ... ceil((i + 1) L / n) - 1."""
    return [slice(i * length // cells, math.ceil((i + 1) * length / cells)) for i in range(cells)]


def resize(x: Tensor, target: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *target), bilinear: linear along each axis, corners not aligned."""
    rows, columns = (interpolation(n, m).to(x) for n, m in zip(size(x), target, strict=True))
    return torch.einsum("yh,bchw,xw->bcyx", rows, x, columns)


def interpolation(length: int, target: int) -> Tensor:
    """(target, length), the share of each source pixel in each target pixel, in float64.

    The center of target pixel i lies at (i + 1/2) length / target - 1/2 of the source, where
    source pixels have whole numbers; outside it is clamped to the outermost pixels.
    """
    share = torch.zeros(target, length, dtype=torch.float64)
    for i in range(target):
        position = min(max((i + 0.5) * length / target - 0.5, 0.0), length - 1.0)
        before = math.floor(position)
        after = min(before + 1, length - 1)
        share[i, before] += 1 - (position - before)
        share[i, after] += position - before
    return share


def size(x: Tensor) -> tuple[int, int]:
    """Height and width of (B, C, H, W)."""
    return x.shape[-2], x.shape[-1]
