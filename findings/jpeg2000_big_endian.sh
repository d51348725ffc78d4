#!/usr/bin/env bash
# imagecodecs 2026.3.6 encodes a big-endian array (">u2", as readers of FITS, netCDF and raw sensor
# data return it) to JPEG 2000 without an error, but with the bytes of each pixel exchanged: 7 becomes
# 1792.  tifffile 2026.3.3 hands such arrays on, so imwrite(..., compression="jpeg2000") stores wrong
# pixels, also from a native array with byteorder=">".  LZW and deflate store the right pixels; JPEG XL
# and LERC refuse the array.  Convert it before: array.astype(array.dtype.newbyteorder("=")).
#
# Seen with tifffile 2026.3.3, imagecodecs 2026.3.6, numpy 2.4.6 on Python 3.11:
#   jpeg2000 native: equal
#   jpeg2000 big-endian: exchanged bytes
#   lzw big-endian: equal
#   zlib big-endian: equal
#   jpegxl big-endian: ValueError
#   lerc big-endian: ValueError
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import io
import sys

import numpy as np
import tifffile

pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 7
expected = {
    ("jpeg2000", "native"): "equal",
    ("jpeg2000", "big-endian"): "exchanged bytes",
    ("lzw", "big-endian"): "equal",
    ("zlib", "big-endian"): "equal",
    ("jpegxl", "big-endian"): "ValueError",
    ("lerc", "big-endian"): "ValueError",
}
same = True
for (compression, order), result in expected.items():
    array = pixels.astype(">u2") if order == "big-endian" else pixels
    file = io.BytesIO()
    try:
        tifffile.imwrite(file, array, compression=compression)
        file.seek(0)
        read = tifffile.imread(file)
        found = "other pixels"
        if np.array_equal(read, pixels):
            found = "equal"
        elif np.array_equal(read, pixels.byteswap()):
            found = "exchanged bytes"
    except ValueError as error:
        found = type(error).__name__
    print(f"{compression} {order}: {found}")
    same &= found == result
sys.exit(not same)
PYTHON
