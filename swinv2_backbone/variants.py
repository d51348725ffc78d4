"""The published architectures and checkpoints: data with a citation, nothing else.

T, S, B, L: the models of https://github.com/microsoft/Swin-Transformer (MODELHUB.md and
configs/swinv2), names as in timm.  H and G: "Swin Transformer V2: Scaling Up Capacity and
Resolution", arXiv 2111.09883, section 4.1 and appendix A1 (192 px pre-training, window 12); their
numbers of heads are not published and follow from the 32 channels per head of all others.

Checkpoints: configs/swin_transformer_v2 of https://github.com/open-mmlab/mmpretrain, converted
there from Microsoft's. Full FLOPs: ``flops()`` of Microsoft's model.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One published model.

    Attributes:
        embed_dim: channels C of the first stage; they double with every stage.
        depths: number of blocks of each stage.
        num_heads: number of attention heads of each stage.
        window_sizes: window of each stage, in tokens.
        pretrained_window_sizes: window of each stage in pre-training, which normalizes the position
            bias. It is never larger than the map (at 256 px and window 16, the last map is 8x8).
        image_size: side of the square images that the weights were trained on, in pixels.
        extra_norm_every: one more LayerNorm after every n-th block of a stage; 0: none.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    pretrained_window_sizes: tuple[int, ...]
    image_size: int
    extra_norm_every: int = 0


_Stages = tuple[int, ...]


def _variant(
    size: tuple[int, _Stages, _Stages],
    window_sizes: _Stages,
    pretrained_window_sizes: _Stages,
    image_size: int,
    extra_norm_every: int = 0,
) -> Variant:
    return Variant(*size, window_sizes, pretrained_window_sizes, image_size, extra_norm_every)


_TINY = (96, (2, 2, 6, 2), (3, 6, 12, 24))
_SMALL = (96, (2, 2, 18, 2), (3, 6, 12, 24))
_BASE = (128, (2, 2, 18, 2), (4, 8, 16, 32))
_LARGE = (192, (2, 2, 18, 2), (6, 12, 24, 48))
_HUGE = (352, (2, 2, 18, 2), (11, 22, 44, 88))
_GIANT = (512, (2, 2, 42, 4), (16, 32, 64, 128))

_W8, _W16, _W24 = (8, 8, 8, 8), (16, 16, 16, 8), (24, 24, 24, 12)
_W12 = (12, 12, 12, 6)

VARIANTS: dict[str, Variant] = {
    "swinv2_tiny_window8_256": _variant(_TINY, _W8, _W8, 256),
    "swinv2_tiny_window16_256": _variant(_TINY, _W16, _W16, 256),
    "swinv2_small_window8_256": _variant(_SMALL, _W8, _W8, 256),
    "swinv2_small_window16_256": _variant(_SMALL, _W16, _W16, 256),
    "swinv2_base_window8_256": _variant(_BASE, _W8, _W8, 256),
    "swinv2_base_window16_256": _variant(_BASE, _W16, _W16, 256),
    "swinv2_base_window12_192": _variant(_BASE, _W12, _W12, 192),
    "swinv2_base_window12to16_192to256": _variant(_BASE, _W16, _W12, 256),
    "swinv2_base_window12to24_192to384": _variant(_BASE, _W24, _W12, 384),
    "swinv2_large_window12_192": _variant(_LARGE, _W12, _W12, 192),
    "swinv2_large_window12to16_192to256": _variant(_LARGE, _W16, _W12, 256),
    "swinv2_large_window12to24_192to384": _variant(_LARGE, _W24, _W12, 384),
    "swinv2_huge": _variant(_HUGE, _W12, _W12, 192, extra_norm_every=6),
    "swinv2_giant": _variant(_GIANT, _W12, _W12, 192, extra_norm_every=6),
}


@dataclass(frozen=True)
class Release:
    """A published ImageNet checkpoint of a variant, with its publisher's figures.

    Attributes:
        seed_name: name of the checkpoint in mmpretrain.
        path: path below ``RELEASES_URL``; the name ends with 8 hexadecimal digits of the SHA-256.
        num_classes: classes of the head: 1000, or the 21841 of ImageNet-21k.
        parameters: parameters in millions, with a head of 1000 classes.
        seed_flops: multiply-adds per image in 1e9, as counted by mmpretrain: without qkv and both
            products of attention, but with the MLP of the position bias.
        full_flops: multiply-adds per image in 1e9, as counted by Microsoft: with qkv and both
            products of attention, without the MLP of the position bias.
        top1, top5: accuracy on ImageNet-1k in percent; None for a head of 21841 classes.
    """

    seed_name: str
    path: str
    num_classes: int
    parameters: float
    seed_flops: float
    full_flops: float
    top1: float | None
    top5: float | None


RELEASES_URL = "https://download.openmmlab.com/mmclassification/v0/swin-v2/"


def _release(
    seed_name: str,
    digest: str,
    counts: tuple[float, float, float],
    accuracy: tuple[float, float] | None,
) -> Release:
    path = f"{seed_name}_20220803-{digest}.pth"
    if accuracy is None:
        return Release(seed_name, f"pretrain/{path}", 21841, *counts, None, None)
    return Release(seed_name, path, 1000, *counts, *accuracy)


RELEASES: dict[str, Release] = {
    "swinv2_tiny_window8_256": _release(
        "swinv2-tiny-w8_3rdparty_in1k-256px", "e318968f", (28.35, 4.35, 5.93), (81.76, 95.87)
    ),
    "swinv2_tiny_window16_256": _release(
        "swinv2-tiny-w16_3rdparty_in1k-256px", "9651cdd7", (28.35, 4.40, 6.61), (82.81, 96.23)
    ),
    "swinv2_small_window8_256": _release(
        "swinv2-small-w8_3rdparty_in1k-256px", "b01a4332", (49.73, 8.45, 11.51), (83.74, 96.60)
    ),
    "swinv2_small_window16_256": _release(
        "swinv2-small-w16_3rdparty_in1k-256px", "b707d206", (49.73, 8.57, 12.65), (84.13, 96.83)
    ),
    "swinv2_base_window8_256": _release(
        "swinv2-base-w8_3rdparty_in1k-256px", "8ff28f2b", (87.92, 14.99, 20.29), (84.20, 96.86)
    ),
    "swinv2_base_window16_256": _release(
        "swinv2-base-w16_3rdparty_in1k-256px", "5a1886b7", (87.92, 15.14, 21.80), (84.60, 97.05)
    ),
    "swinv2_base_window12_192": _release(
        "swinv2-base-w12_3rdparty_in21k-192px", "f7dc9763", (87.92, 8.51, 11.78), None
    ),
    "swinv2_base_window12to16_192to256": _release(
        "swinv2-base-w16_in21k-pre_3rdparty_in1k-256px",
        "8d7aa8ad",
        (87.92, 15.14, 21.80),
        (86.17, 97.88),
    ),
    "swinv2_base_window12to24_192to384": _release(
        "swinv2-base-w24_in21k-pre_3rdparty_in1k-384px",
        "44eb70f8",
        (87.92, 34.07, 54.75),
        (87.14, 98.23),
    ),
    "swinv2_large_window12_192": _release(
        "swinv2-large-w12_3rdparty_in21k-192px", "d9073fee", (196.74, 19.04, 26.00), None
    ),
    "swinv2_large_window12to16_192to256": _release(
        "swinv2-large-w16_in21k-pre_3rdparty_in1k-256px",
        "c40cbed7",
        (196.75, 33.86, 47.49),
        (86.93, 98.06),
    ),
    "swinv2_large_window12to24_192to384": _release(
        "swinv2-large-w24_in21k-pre_3rdparty_in1k-384px",
        "3b36c165",
        (196.75, 76.20, 115.42),
        (87.59, 98.27),
    ),
}


# The normalization of all published weights: ImageNet's, in RGB and pixels from 0 to 255.
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def variant_name(name: str) -> str:
    """Return the key of ``VARIANTS`` for one of its keys or a seed name.

    Raises:
        ValueError: no variant has this name.
    """
    if name in VARIANTS:
        return name
    for variant, release in RELEASES.items():
        if name == release.seed_name:
            return variant
    raise ValueError(f"unknown variant {name!r}; there are: {', '.join(VARIANTS)}")
