"""A slow, obviously right SwinV2 backbone in float64, written from the paper (arXiv 2111.09883).

It shares no code with the package: it reads a state dict, takes one image at a time, and attends
over ALL tokens of the image's map under a boolean matrix that says who may attend to whom.
No map is ever partitioned into windows, rolled, or padded to whole windows.

Shapes: H, W image; h, w map; N = h * w tokens, row-major; C channels; nH heads; d = C / nH.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = Mapping[str, Tensor]
Pair = tuple[int, int]

STAGES = ("res2", "res3", "res4", "res5")
LAYER_NORM_EPS = 1e-5


def reference_features(
    state: State,
    images: Tensor,
    *,
    depths: Sequence[int],
    window_sizes: Sequence[int | Pair],
    pretrained_window_sizes: Sequence[int | Pair],
    image_sizes: Sequence[Pair] | None = None,
    extra_norm_every: int = 0,
    square_small_maps: bool = False,
) -> dict[str, Tensor]:
    """images (B, 3, H, W) -> {"resN": (B, C_i, ceil(H / stride), ceil(W / stride))}.

    Strides are 4, 8, 16, 32; the features are those whose output norm `norms.resN` is in the
    state. Image b is cropped to `image_sizes[b]` = (h, w), by default all of (H, W), and computed
    alone; its maps are zero outside its own ceil(h / stride) x ceil(w / stride).
    `extra_norm_every` = n expects norm3 in blocks n - 1, 2n - 1, ... of every stage; 0 in none.
    `square_small_maps`: see `may_attend`.
    """
    state = {name: value.double() for name, value in state.items()}
    batch, _, height, width = images.shape
    sizes = [(height, width)] * batch if image_sizes is None else list(image_sizes)
    alone = []
    for image, (h, w) in zip(images.double(), sizes, strict=True):
        assert 0 < h <= height and 0 < w <= width, f"{(h, w)} in a batch of {(height, width)}"
        crop = image[:, :h, :w]
        alone.append(
            image_features(
                state,
                crop,
                depths,
                window_sizes,
                pretrained_window_sizes,
                extra_norm_every,
                square_small_maps,
            )
        )
    features = {}
    for name, first in alone[0].items():
        stride = 4 * 2 ** STAGES.index(name)
        full = (math.ceil(height / stride), math.ceil(width / stride))
        features[name] = first.new_zeros(batch, first.shape[0], *full)
        for b, (h, w) in enumerate(sizes):
            own = (slice(math.ceil(h / stride)), slice(math.ceil(w / stride)))
            features[name][(b, slice(None), *own)] = alone[b][name]
    return features


def image_features(
    state: State,
    image: Tensor,
    depths: Sequence[int],
    window_sizes: Sequence[int | Pair],
    pretrained_window_sizes: Sequence[int | Pair],
    extra_norm_every: int,
    square_small_maps: bool,
) -> dict[str, Tensor]:
    """One whole image (3, H, W) -> {"resN": (C_i, h_i, w_i)}."""
    features = {}
    x = patch_embedding(state, image)  # (h, w, C)
    for i, depth in enumerate(depths):
        if i > 0:
            x = patch_merging(state, f"layers.{i}.downsample", x)
        h, w, channels = x.shape
        window, p = pair(window_sizes[i]), pair(pretrained_window_sizes[i])
        coords = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(x)  # (N, 2), row-major
        tokens = x.reshape(h * w, channels)
        for j in range(depth):
            allowed = may_attend((h, w), window, j % 2 == 1, square_small_maps).to(x.device)
            extra_norm = extra_norm_every > 0 and (j + 1) % extra_norm_every == 0
            tokens = block(state, f"layers.{i}.blocks.{j}", tokens, coords, allowed, p, extra_norm)
        x = tokens.reshape(h, w, channels)
        if f"norms.{STAGES[i]}.weight" in state:
            features[STAGES[i]] = layer_norm(state, f"norms.{STAGES[i]}", x).permute(2, 0, 1)
    return features


def patch_embedding(state: State, image: Tensor) -> Tensor:
    """(3, H, W) -> (ceil(H / 4), ceil(W / 4), C): zeros to a multiple of 4, 4x4 conv, LayerNorm."""
    _, height, width = image.shape
    image = F.pad(image, (0, -width % 4, 0, -height % 4))
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    x = F.conv2d(image[None], weight, bias, stride=4)[0]
    return layer_norm(state, "patch_embed.norm", x.permute(1, 2, 0))


def patch_merging(state: State, prefix: str, x: Tensor) -> Tensor:
    """(h, w, C) -> (ceil(h / 2), ceil(w / 2), 2C): LayerNorm(Linear(neighbors)), the norm last."""
    x = linear(state, f"{prefix}.reduction", concat_neighbors(x), bias=False)
    return layer_norm(state, f"{prefix}.norm", x)


def concat_neighbors(x: Tensor) -> Tensor:
    """(h, w, C) -> (ceil(h / 2), ceil(w / 2), 4C): h0w0, h1w0, h0w1, h1w1; zeros past the edge."""
    h, w, _ = x.shape
    x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2))
    return torch.cat([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], dim=-1)


def block(
    state: State,
    prefix: str,
    x: Tensor,
    coords: Tensor,
    allowed: Tensor,
    pretrained_window: Pair,
    extra_norm: bool,
) -> Tensor:
    """(N, C) -> (N, C), residual post-norm: x + LN(attention(x)), then x + LN(MLP(x)).

    Every few blocks of SwinV2-H and -G, one more LayerNorm (norm3) on the main branch follows.
    """
    assert (f"{prefix}.norm3.weight" in state) == extra_norm, f"{prefix}.norm3 is not as expected"
    branch = attention(state, f"{prefix}.attn", x, coords, allowed, pretrained_window)
    x = x + layer_norm(state, f"{prefix}.norm1", branch)
    hidden = F.gelu(linear(state, f"{prefix}.mlp.fc1", x))  # the exact, erf GELU
    branch = linear(state, f"{prefix}.mlp.fc2", hidden)
    x = x + layer_norm(state, f"{prefix}.norm2", branch)
    return layer_norm(state, f"{prefix}.norm3", x) if extra_norm else x


def may_attend(size: Pair, window: Pair, shifted: bool, square_small_maps: bool = False) -> Tensor:
    """(N, N) bool: query i may attend to key j if and only if they share a group on both axes.

    Over original coordinates this says exactly "pad first, to whole windows; then roll by s, mask
    the wrapped regions, and never attend padding". After the roll, window g holds the rows
    g * M + s ... (g + 1) * M + s - 1, and the last window also the rows 0 ... s - 1, wrapped
    around, which the mask splits off as a group of their own (here: -1). Padded tokens, whom
    nobody attends to and whose output is dropped, need not exist.

    `square_small_maps` is Microsoft's rule: a map whose shorter side is one window or less is cut
    into squares of that side, one after another along the longer side, in every block.
    """
    shorter, longer = min(size), 0 if size[0] >= size[1] else 1
    if square_small_maps and shorter <= min(window):
        cells = [(row, column) for row in range(size[0]) for column in range(size[1])]
        square = torch.tensor([cell[longer] // shorter for cell in cells])  # (N,)
        return square[:, None] == square[None, :]
    rows, columns = (axis_groups(size[axis], window[axis], shifted) for axis in (0, 1))
    group = torch.tensor([(row, column) for row in rows for column in columns])  # (N, 2)
    return (group[:, None] == group[None, :]).all(dim=-1)


def axis_groups(length: int, window: int, shifted: bool) -> list[int]:
    """floor((r - s) / M) of every row r; s = 0 where the whole axis fits into one window."""
    s = window // 2 if shifted and length > window else 0
    return [(r - s) // window for r in range(length)]


def attention(
    state: State, prefix: str, x: Tensor, coords: Tensor, allowed: Tensor, pretrained_window: Pair
) -> Tensor:
    """(N, C) -> (N, C), Sim(q_i, k_j) = cos(q_i, k_j) / tau + B_ij, 1 / tau <= 100 (eq. 2).

    coords (N, 2), each token's row and column; allowed (N, N) bool, queries first.
    """
    n, channels = x.shape
    logit_scale = state[f"{prefix}.logit_scale"].flatten()  # (nH,)
    heads = len(logit_scale)
    scale = logit_scale.clamp(max=math.log(100)).exp()
    q, k, v = F.linear(x, state[f"{prefix}.qkv.weight"]).split(channels, dim=1)  # (N, C) each
    q = unit((q + state[f"{prefix}.q_bias"]).reshape(n, heads, -1))  # (N, nH, d)
    k = unit(k.reshape(n, heads, -1))  # k has no bias
    v = (v + state[f"{prefix}.v_bias"]).reshape(n, heads, -1)
    out = []
    for i in range(n):  # one query at a time, over the keys it may attend to
        keys = allowed[i]
        bias = position_bias(state, prefix, coords[i] - coords[keys], pretrained_window)
        logits = (q[i] * k[keys]).sum(dim=-1) * scale + bias  # (keys, nH)
        weights = logits.softmax(dim=0)
        out.append((weights[:, :, None] * v[keys]).sum(dim=0).flatten())  # (C,), head-major
    return linear(state, f"{prefix}.proj", torch.stack(out))


def position_bias(state: State, prefix: str, offsets: Tensor, pretrained_window: Pair) -> Tensor:
    """Offset query - key (..., 2) -> B = 16 sigmoid(MLP(t_h, t_w)) (..., nH), log-CPB (eq. 3)."""
    t_h = log_spaced(offsets[..., 0], pretrained_window[0])
    t_w = log_spaced(offsets[..., 1], pretrained_window[1])
    hidden = linear(state, f"{prefix}.cpb_mlp.0", torch.stack([t_h, t_w], dim=-1)).relu()
    return 16 * linear(state, f"{prefix}.cpb_mlp.2", hidden, bias=False).sigmoid()


def log_spaced(d: Tensor, p: int) -> Tensor:
    """t = sign(d) log2(1 + |8 d / (p - 1)|) / log2(8), p the pretrained window (eq. 4, scaled).

    p = 1 would divide by zero; it divides by 1.
    """
    return d.sign() * torch.log2(1 + (8 * d / max(p - 1, 1)).abs()) / math.log2(8)


def unit(x: Tensor) -> Tensor:
    """x / |x| over the last axis; the zero vector stays zero."""
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def linear(state: State, prefix: str, x: Tensor, bias: bool = True) -> Tensor:
    """Linear over the last axis."""
    return F.linear(x, state[f"{prefix}.weight"], state[f"{prefix}.bias"] if bias else None)


def layer_norm(state: State, prefix: str, x: Tensor) -> Tensor:
    """LayerNorm over the last axis."""
    weight, bias = state[f"{prefix}.weight"], state[f"{prefix}.bias"]
    return F.layer_norm(x, x.shape[-1:], weight, bias, LAYER_NORM_EPS)


def pair(size: int | Pair) -> Pair:
    """M -> (M, M); (Mh, Mw) as it is."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@torch.no_grad()
def randomize(module: nn.Module, seed: int) -> nn.Module:
    """Fill every parameter in place so that all have an effect, and return the module.

    A fresh SwinV2 block is the identity (norm1 = norm2 = 0). A parameter's values depend on its
    name, its shape and the seed alone, not on the other parameters.
    """
    for name, parameter in module.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        parameter.copy_(random_values(name, parameter.shape, generator))
    return module


def random_values(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw values for one parameter, by the end of its name and its number of axes."""
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    if name.endswith("logit_scale"):  # exp from 5 to 200: of two or more heads, one is clamped
        scales = torch.logspace(math.log10(5), math.log10(200), max(shape[0], 2)).double()
        order = torch.randperm(len(scales), generator=generator)[: shape[0]]
        return scales[order].log().reshape(shape)
    if name.endswith("cpb_mlp.2.weight"):  # around 0 before the sigmoid: varies within (0, 16)
        return (normal - normal.mean(dim=1, keepdim=True)) * 4 / math.sqrt(shape[1])
    if len(shape) > 1:
        return normal / math.sqrt(math.prod(shape[1:]))
    return 0.2 * normal + (1 if name.endswith("weight") else 0)  # a norm's weight; any bias
