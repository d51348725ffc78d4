"""Text on drawings, in the font that matplotlib installs, which has the letters of many scripts.

Legend: drawings are (H, W, 3) uint8 in BGR order.
"""

from __future__ import annotations

import functools
import os

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALLEST, LARGEST = 12, 48  # pixels of letters
MARGIN = 2  # pixels around the text
SIZE = 60  # letters have this fraction of the drawing's sides
LIGHT, DARK = 255, 0
BRIGHT = 140  # brightness of a background on which letters are dark


def write_label(
    drawing: np.ndarray,
    text: str,
    place: tuple[int, int],
    color: tuple[int, int, int],
    scale: float = 1.0,
    centered: bool = False,
) -> None:
    """Write a text on a colored rectangle, moved so that all of it is in the drawing.

    Args:
        place: pixel (x, y) divided by ``scale``, above which the text starts, or its center.
        color: of the rectangle; the letters are black or white, whichever contrasts.
    """
    height, width = drawing.shape[:2]
    size = int(np.clip((height * width) ** 0.5 / SIZE, SMALLEST, LARGEST))
    letters = _letters(text, size)
    x, y = (round(value * scale) for value in place)
    rows, columns = letters.shape
    left, top = (x - columns // 2, y - rows // 2) if centered else (x, y - rows)
    left, top = max(min(left, width - columns), 0), max(min(top, height - rows), 0)
    pixels = drawing[top : top + rows, left : left + columns]
    alpha = letters[: pixels.shape[0], : pixels.shape[1], None].astype(np.uint16)
    ink = DARK if _brightness(color) > BRIGHT else LIGHT
    pixels[:] = (alpha * ink + (255 - alpha) * np.array(color, np.uint16)) // 255


@functools.lru_cache(maxsize=4096)
def _letters(text: str, size: int) -> np.ndarray:
    """Return the opacity of the letters of a text, (rows, columns) uint8."""
    font = _font(size)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics()
    canvas = Image.new("L", (int(right - left) + 2 * MARGIN, ascent + descent + MARGIN))
    ImageDraw.Draw(canvas).text((MARGIN - left, MARGIN // 2), text, fill=255, font=font)
    return np.asarray(canvas)


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    file = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(file, size)


def _brightness(color: tuple[int, int, int]) -> float:
    return float(cv2.cvtColor(np.array([[color]], np.uint8), cv2.COLOR_BGR2GRAY)[0, 0])
