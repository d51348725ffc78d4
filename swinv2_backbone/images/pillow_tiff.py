"""Which TIFF files Pillow reads right; it misreads others without an error.

Found by comparing it with tifffile on a table of compressions, depths and layouts
(``tests/images/test_tiff_table.py``). Wrong with Pillow 13: 16-bit bands stored one after the
other, 16-bit gray with 0 for white, compressed planes of gray bands (only the first is returned),
12-bit gray, signed bytes, compressed big-endian signed integers, packbits after a predictor,
palettes of 8-bit colors, volumes.
"""

from __future__ import annotations

from PIL.TiffImagePlugin import TiffImageFile

# TIFF tags.
SUBFILE_TYPE, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR = 254, 258, 259, 262, 277, 284
PREDICTOR, COLORMAP, EXTRA_SAMPLES, SAMPLE_FORMAT, DEPTH, DNG = 317, 320, 338, 339, 32997, 50706

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
STRAIGHT_ALPHA = 2  # a value of ExtraSamples
REDUCED, MASK = 1, 4  # bits of NewSubfileType

RAW = 1
DECODED = {RAW, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000}  # compressions
PREDICTED = {5, 8, 32946, 34925, 50000}  # those after which a predictor counts: LZW, deflate, ...


def pillow_reads(image: TiffImageFile) -> bool:
    """Return True if Pillow decodes the opened TIFF file correctly."""
    tags = image.tag_v2
    bits = set(tags.get(BITS, (1,)))
    compression, planes = tags.get(COMPRESSION, RAW), tags.get(PLANAR, 1) == 2
    if compression not in DECODED or tags.get(DEPTH, 1) != 1 or len(bits) != 1:
        return False
    if tags.get(PREDICTOR, 1) != 1 and compression not in PREDICTED:
        return False
    depth, photometric = bits.pop(), tags.get(PHOTOMETRIC, WHITE_IS_ZERO)
    if planes and not _reads_planes(image, depth, photometric):
        return False
    if set(tags.get(SAMPLE_FORMAT, (1,))) != {1}:  # signed or float
        native = tags.prefix == b"II" or compression == RAW
        one = photometric == BLACK_IS_ZERO and tags.get(SAMPLES, 1) == 1
        return depth >= 16 and native and one
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        return _reads_gray(image, depth, photometric)
    if photometric == PALETTE:
        return depth <= 8 and tags.get(SAMPLES, 1) == 1 and max(tags.get(COLORMAP, (0,))) > 255
    return photometric in (RGB, CMYK) or (photometric in (YCBCR, LAB) and depth == 8)


def _reads_planes(image: TiffImageFile, depth: int, photometric: int) -> bool:
    """Return True if Pillow reads bands that are stored one after the other."""
    tags = image.tag_v2
    extra, raw = set(tags.get(EXTRA_SAMPLES, ())), tags.get(COMPRESSION, RAW) == RAW
    known = photometric in (BLACK_IS_ZERO, RGB, CMYK) or tags.get(SAMPLES, 1) == 1 and not raw
    return known and (depth == 8 or not raw) and (extra <= {0} or extra == {STRAIGHT_ALPHA})


def _reads_gray(image: TiffImageFile, depth: int, photometric: int) -> bool:
    tags = image.tag_v2
    samples = tags.get(SAMPLES, 1)
    if samples == 2:
        alpha = tuple(tags.get(EXTRA_SAMPLES, ())) == (STRAIGHT_ALPHA,)
        return alpha and depth == 8 and photometric == BLACK_IS_ZERO and tags.get(PLANAR, 1) == 1
    shades = depth in (1, 2, 4, 8) or (depth in (16, 32) and photometric == BLACK_IS_ZERO)
    return samples == 1 and shades


def is_preview(image: TiffImageFile) -> bool:
    """Return True if the first image of a TIFF file is a preview, as in raw camera files."""
    return DNG in image.tag_v2 or bool(image.tag_v2.get(SUBFILE_TYPE, 0) & REDUCED)


def gray_pages(image: TiffImageFile) -> bool:
    """Return True if the first page is gray and another has its size, so that pages may be bands.

    The image is left at its first page.
    """
    tags = image.tag_v2
    shape = _shape(image)
    if shape is None or set(tags.get(BITS, (1,))) == {1}:  # a document of 1 bit has pages to read
        return False
    try:
        for page in range(1, 1000):
            image.seek(page)
            if _shape(image) == shape:
                return True
    except (EOFError, SyntaxError):  # the last page, or one of a kind that Pillow does not know
        pass
    finally:
        image.seek(0)
    return False


def _shape(image: TiffImageFile) -> tuple | None:
    """Return the size and depth of a gray page, or None for other pages, overviews and masks."""
    tags = image.tag_v2
    gray = tags.get(PHOTOMETRIC, WHITE_IS_ZERO) in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    if not gray or tags.get(SAMPLES, 1) != 1 or tags.get(SUBFILE_TYPE, 0) & (REDUCED | MASK):
        return None
    return image.size, tuple(tags.get(BITS, (1,))), tuple(tags.get(SAMPLE_FORMAT, (1,)))
