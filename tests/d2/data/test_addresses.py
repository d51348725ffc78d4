"""Images are read from every address that Detectron2's PathManager opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from PIL import Image

from swinv2_backbone.d2.data.loading import images
from swinv2_backbone.d2.data.loading.bands import read_bands

PREFIX = "elsewhere://"
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    class Elsewhere(PathHandler):
        def _get_supported_prefixes(self):
            return [PREFIX]

        def _open(self, path, mode="r", **options):
            return open(tmp_path / path.removeprefix(PREFIX), mode)

    PathManager.register_handler(Elsewhere(), allow_override=True)
    return tmp_path


def test_images_and_labels_are_read_from_elsewhere(folder):
    Image.fromarray(PIXELS).save(folder / "a.png")
    Image.fromarray(PIXELS[:, :, 0]).save(folder / "b.png")
    assert np.array_equal(images.read_image(f"{PREFIX}a.png", "RGB"), PIXELS)
    assert np.array_equal(images.read_labels(f"{PREFIX}b.png"), PIXELS[:, :, 0])
    assert (
        images.image_size(f"{PREFIX}a.png") == images.image_header(f"{PREFIX}a.png")[:2] == (5, 6)
    )
    assert images.reads_plainly(f"{PREFIX}b.png")


def test_bands_are_read_from_elsewhere(folder):
    tifffile.imwrite(folder / "a.tif", PIXELS, photometric="rgb")
    assert np.array_equal(read_bands(f"{PREFIX}a.tif", 3), PIXELS)
