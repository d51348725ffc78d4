"""Label Studio's run-length encoding of brush strokes: an RGBA image as a stream of bits.

The header is the number of values (32 bits), the bits per value minus one (5 bits), and four sizes
of a run length in bits, each minus one (4 bits each). A run is a flag (1 bit: 1 for one repeated
value, 0 for single values), the index of one of the four sizes (2 bits), the length minus one, and
the value or values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def decode_brush(code: Sequence[int], height: int, width: int) -> np.ndarray:
    """Return the mask (H, W) of a brush: the pixels whose alpha is not 0.

    Raises:
        ValueError: the code is damaged, or of another size.
    """
    bits = _Bits(code)
    count, word = bits.take(32), bits.take(5) + 1
    if count != 4 * height * width:
        raise ValueError(
            f"a brush has {count} values, an image of {height}x{width} (height x width) has "
            f"{4 * height * width} in RGBA"
        )
    sizes = [bits.take(4) + 1 for _ in range(4)]
    values, place = np.zeros(count, np.uint8), 0
    while place < count:
        repeated = bits.take(1)
        end = place + bits.take(sizes[bits.take(2)]) + 1
        if end > count:
            raise ValueError("the runs of a brush exceed its image")
        values[place:end] = bits.take(word) if repeated else bits.take_several(end - place, word)
        place = end
    return values.reshape(height, width, 4)[:, :, 3] > 0


class _Bits:
    """Reads numbers of any width from bytes, most significant bit first."""

    def __init__(self, code: Sequence[int]):
        self.bits = np.unpackbits(np.asarray(code, np.uint8))
        self.place = 0

    def take(self, size: int) -> int:
        return int(self.take_several(1, size)[0])

    def take_several(self, count: int, size: int) -> np.ndarray:
        end = self.place + count * size
        if end > len(self.bits):
            raise ValueError("the runs of a brush end too early")
        rows = self.bits[self.place : end].reshape(count, size).astype(np.int64)
        self.place = end
        return rows @ (1 << np.arange(size)[::-1])
