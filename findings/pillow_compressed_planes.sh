#!/usr/bin/env bash
# Pillow 13.0.0 reads a TIFF of several gray bands that are stored band by band (PlanarConfiguration 2,
# GDAL's INTERLEAVE=BAND) in two ways.  Uncompressed, it raises an error.  Compressed by deflate or LZW,
# it returns the first band alone as a gray image ("L" or "I;16", one frame), without a warning: a
# satellite image of 4 bands becomes a photograph of its first one.  tifffile reads all bands.
#
# Seen with pillow 13.0.0, tifffile 2026.3.3, imagecodecs 2026.3.6, numpy 2.4.6 on Python 3.11:
#   4 bands uint8  uncompressed: UnidentifiedImageError
#   4 bands uint8  zlib: L (8, 8), the first band
#   4 bands uint8  lzw: L (8, 8), the first band
#   4 bands uint16 uncompressed: ValueError
#   4 bands uint16 zlib: I;16 (8, 8), the first band
#   4 bands uint16 lzw: I;16 (8, 8), the first band
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import io
import sys

import numpy as np
import tifffile
from PIL import Image

expected = {
    "uint8": {None: "UnidentifiedImageError", "zlib": "L", "lzw": "L"},
    "uint16": {None: "ValueError", "zlib": "I;16", "lzw": "I;16"},
}
same = True
for dtype, modes in expected.items():
    bands = np.random.default_rng(0).integers(0, 200, (4, 8, 8)).astype(dtype)
    for compression, mode in modes.items():
        file = io.BytesIO()
        tifffile.imwrite(
            file, bands, photometric="minisblack", planarconfig="separate", compression=compression
        )
        file.seek(0)
        assert np.array_equal(tifffile.imread(file), bands)
        file.seek(0)
        try:
            image = Image.open(file)
            first = np.array_equal(np.asarray(image), bands[0])
            found = image.mode if first and image.n_frames == 1 else f"{image.mode}, other pixels"
        except Exception as error:
            found = type(error).__name__
        print(f"4 bands {dtype} {compression or 'uncompressed'}: {found}")
        same &= found == mode
sys.exit(not same)
PYTHON
