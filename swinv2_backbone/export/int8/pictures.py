"""Pictures that calibrate an int8 file, and others on which it is compared with the float file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

LEAST = 10
MOST = 80
COMPARED = 5  # every fifth picture is for the comparison


@dataclass(frozen=True)
class Pictures:
    """Files of pictures, read one at a time.

    Attributes:
        files: at least ``LEAST``; of more than ``MOST``, as many are used, evenly spaced.
        read: file -> pixels as the exported graph takes them, (B, C_in, H, W) float32.
    """

    files: Sequence[Path]
    read: Callable[[Path], Tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.read, self.files)

    def __len__(self) -> int:
        return len(self.files)

    def split(self) -> tuple[Pictures, Pictures]:
        """Return the pictures for calibration, and those for the comparison."""
        count = min(len(self.files), MOST)
        used = [self.files[index * len(self.files) // count] for index in range(count)]
        compared = used[COMPARED - 1 :: COMPARED]
        others = [file for index, file in enumerate(used) if index % COMPARED != COMPARED - 1]
        return replace(self, files=others), replace(self, files=compared)
