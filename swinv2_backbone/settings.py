"""The arguments of a SwinV2: the forms in which they are given, and their checks."""

from __future__ import annotations

from collections.abc import Sequence

from swinv2_backbone.packing import Size

FEATURES = ("res2", "res3", "res4", "res5")  # the outputs of the stages, as Detectron2 names them

SMALL_MAP_RULES = ("per_axis", "square")

WindowSizes = int | Sequence[int | Size]


def window_per_stage(windows: WindowSizes, stages: int, argument: str) -> tuple[Size, ...]:
    """Return one (height, width) per stage from one number, one per stage, or one pair per stage.

    Raises:
        ValueError: the number of stages differs, or a window is not an integer of at least 1.
    """
    given = tuple(windows) if isinstance(windows, Sequence) else (windows,) * stages
    if len(given) != stages:
        raise ValueError(
            f"{argument} must be one number or one per stage ({stages}), got {windows!r}"
        )
    pairs = []
    for window in given:
        pair = tuple(window) if isinstance(window, Sequence) else (window, window)
        if len(pair) != 2 or not all(isinstance(m, int) and m >= 1 for m in pair):
            raise ValueError(
                f"{argument} must be integers >= 1 or pairs (height, width) of them, "
                f"got {windows!r}"
            )
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def check_stages(embed_dim: int, depths: tuple[int, ...], num_heads: tuple[int, ...]) -> list[int]:
    """Return the channels of each stage, or raise ValueError if the stages are impossible."""
    if not 1 <= len(depths) <= len(FEATURES) or len(num_heads) != len(depths):
        raise ValueError(
            f"depths and num_heads need one entry for each of 1 to {len(FEATURES)} "
            f"stages, got {depths} and {num_heads}"
        )
    if any(d < 1 for d in depths):
        raise ValueError(f"every stage needs at least one block, got depths {depths}")
    widths = [embed_dim * 2**stage for stage in range(len(depths))]
    for width, heads in zip(widths, num_heads):
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(
                f"num_heads {num_heads} must divide the channels {tuple(widths)} of the stages"
            )
    return widths


def check_small_maps(rule: str, windows: tuple[Size, ...]) -> None:
    """Raise ValueError if the rule is unknown, or needs square windows."""
    if rule not in SMALL_MAP_RULES:
        raise ValueError(
            f"small_map_rule must be one of {', '.join(SMALL_MAP_RULES)}, got {rule!r}"
        )
    if rule == "square" and any(height != width for height, width in windows):
        raise ValueError(
            f"small_map_rule 'square' (MODEL.SWINV2.SMALL_MAP_RULE) needs square windows, got "
            f"{windows}: choose square windows, or 'per_axis'"
        )


def check_options(
    out_features: Sequence[str], drop_path_rate: float, frozen_stages: int, stages: int
) -> None:
    """Raise ValueError if an option is out of its range for a model of ``stages`` stages."""
    allowed = FEATURES[:stages]
    if not out_features or any(name not in allowed for name in out_features):
        raise ValueError(
            f"out_features must be some of {', '.join(allowed)}, got {tuple(out_features)}"
        )
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must be in [0, 1), got {drop_path_rate}")
    if not -1 <= frozen_stages <= stages:
        raise ValueError(f"frozen_stages must be in -1 .. {stages}, got {frozen_stages}")
