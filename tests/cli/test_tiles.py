"""The options of tiles are checked before a model is loaded."""

from __future__ import annotations

import pytest

from swinv2_backbone.cli.predict import parser, run
from swinv2_backbone.cli.tiles import tiling_of

GIVEN = ["--config-file", "none.yaml", "--input", "a.tif", "--output", "drawn"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--overlap", "64"], "--overlap needs --tile"),
        (["--tile-scale", "0.5"], "--tile-scale needs --tile"),
        (["--tile", "16"], "tile must be an integer of at least 32, got 16"),
        (["--tile", "256", "--overlap", "256"], "overlap must be smaller than the tile"),
        (["--tile", "256", "--tile-scale", "-1"], "scale must be a positive number"),
    ],
)
def test_wrong_tiles_are_refused_before_the_config_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        run(parser().parse_args([*GIVEN, *options]))


def test_the_overlap_is_a_quarter_unless_given():
    tiling = tiling_of(parser().parse_args([*GIVEN, "--tile", "1024", "--batch-size", "2"]))
    assert (tiling.tile, tiling.overlap, tiling.scale, tiling.batch_size) == (1024, 256, 1.0, 2)
    assert tiling_of(parser().parse_args(GIVEN)) is None
