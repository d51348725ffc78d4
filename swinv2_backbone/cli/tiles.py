"""The options of ``swinv2 predict`` for large pictures, which are predicted by tiles."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swinv2_backbone.d2.inference.tiling import Tiling


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--tile``, ``--overlap`` and ``--tile-scale``."""
    add = parser.add_argument_group("large pictures (docs/PREDICTING.md)").add_argument
    add(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="divide pictures into squares of this side, read and predicted one after the other, "
        "and join their objects",
    )
    add(
        "--overlap",
        type=int,
        metavar="PIXELS",
        help="of neighboring tiles; default: a quarter of the tile",
    )
    add(
        "--tile-scale",
        type=float,
        metavar="FACTOR",
        help="resize every tile by this before the model, so that objects have the size that they "
        "had in training; default: 1",
    )


def tiling_of(args: argparse.Namespace) -> Tiling | None:
    """Return the tiles that the options ask for; None without ``--tile``.

    Raises:
        ValueError: an option is out of range, or needs ``--tile``.
    """
    if args.tile is None:
        for name in ("overlap", "tile_scale"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} needs --tile PIXELS, such as 1024")
        return None
    from swinv2_backbone.d2.inference.tiling import Tiling

    try:
        return Tiling.given(args.tile, args.overlap, args.tile_scale, args.batch_size)
    except ValueError as error:
        raise ValueError(f"--tile, --overlap, --tile-scale: {error}") from error


def refuse_videos(files: Sequence[Path]) -> None:
    """Raise ValueError if there are videos, whose frames are not divided into tiles."""
    from swinv2_backbone.d2.inference.inputs import is_video

    if videos := [path for path in files if is_video(path)]:
        raise ValueError(
            f"--tile is for pictures, and {videos[0]} is a video: predict videos by a command "
            "without --tile"
        )
