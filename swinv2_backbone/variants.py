"""The published architectures: data with a citation, nothing else.

T, S, B, L: the models of https://github.com/microsoft/Swin-Transformer (MODELHUB.md and
configs/swinv2), names as in timm.  H and G: "Swin Transformer V2: Scaling Up Capacity and
Resolution", arXiv 2111.09883, section 4.1 and appendix A1 (192 px pre-training, window 12); their
heads are not published and follow from the 32 channels a head of all the others.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One published model.

    Attributes:
        embed_dim: channels C of the first stage; a later stage has twice those before it.
        depths: blocks of each stage.
        num_heads: heads of each stage.
        window_sizes: window of each stage, in tokens.
        pretrained_window_sizes: what normalises the position bias in each stage: the window that
            pre-training really had there (at 256 px and window 16 the last map is 8x8).
        image_size: pixels of the side of the square images the weights were trained on.
        extra_norm_every: one more LayerNorm after every so many blocks of a stage; 0: none.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    pretrained_window_sizes: tuple[int, ...]
    image_size: int
    extra_norm_every: int = 0


def _variant(
    size: tuple,
    window_sizes: tuple[int, ...],
    pretrained_window_sizes: tuple[int, ...],
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
