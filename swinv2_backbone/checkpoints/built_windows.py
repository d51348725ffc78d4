"""The pretrained windows of models that timm and Hugging Face build, by their own rules.

Both have one window for all stages, or one per stage, shrink it to the map at the image size that
the model is built for, and normalize the position bias by the result, unless pretrained windows
are given.

Legend: g tokens of the first map's side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from swinv2_backbone.layers import PATCH_SIZE
from swinv2_backbone.packing import Size
from swinv2_backbone.variants import VARIANTS

LARGEST = 4096  # side of a window, in tokens; a larger number is an error
IMAGE_SIZES = ("img_size", "image_size", "input_size")

Windows = tuple[Size, ...]
Map = Callable[[int, int], int]  # (g, stage) -> tokens of that stage's side


class Publisher(NamedTuple):
    """A publisher's rule.

    Attributes:
        maps: the sides of the maps; several if versions of the publisher's library differ.
        square: the window of the first axis is that of both.
    """

    maps: tuple[Map, ...]
    square: bool = False

    def windows(
        self, settings: Mapping[str, Any], name: str, stages: int
    ) -> tuple[Windows, Windows] | None:
        """Return the pretrained windows and the windows of a model's first stages.

        Args:
            settings: the arguments of the model.
            name: the published model with the defaults of the arguments; "" if there are none.
            stages: number of the stages.

        Returns:
            None if the settings do not determine them.

        Raises:
            ValueError: the settings are no windows or sizes.
        """
        given = {key: value for key, value in settings.items() if value is not None}
        stated = {**_defaults(name), **given}
        image = next((given[key] for key in IMAGE_SIZES if key in given), stated.get("img_size"))
        window = stated.get("window_size")
        if image is None or window is None:
            return None
        if isinstance(window, list | tuple) and len(window) == 2 and type(window[0]) is int:
            window = [window] * stages  # (height, width) for all
        built = per_stage(window, stages)
        pretrained = per_stage(stated.get("pretrained_window_sizes", 0), stages, least=0)
        grid = [side // PATCH_SIZE for side in _pair(image)]
        shrunk = {
            built if stated.get("always_partition") else _shrunk(built, grid, maps, self.square)
            for maps in self.maps
        }
        found = {tuple(p if p[0] else m for p, m in zip(pretrained, one)) for one in shrunk}
        if len(found) != 1:
            return None
        return found.pop(), shrunk.pop()


def _rounded_down(g: int, stage: int) -> int:
    return g // 2**stage


def _rounded_up(g: int, stage: int) -> int:
    return -(-g // 2**stage)


TIMM = Publisher((_rounded_up, _rounded_down))
HUGGING_FACE = Publisher((_rounded_down,), square=True)


def _defaults(name: str) -> dict[str, Any]:
    """Return the defaults of timm's model of a published name."""
    if not name:
        return {}
    variant = VARIANTS[name]
    return {
        "window_size": max(variant.window_sizes),
        "img_size": variant.image_size,
        "pretrained_window_sizes": (
            0
            if variant.pretrained_window_sizes == variant.window_sizes
            else list(variant.pretrained_window_sizes)
        ),
    }


def _shrunk(windows: Windows, grid: list[int], maps: Map, square: bool) -> Windows:
    shrunk = []
    for stage, window in enumerate(windows):
        height, width = (min(m, maps(g, stage)) for m, g in zip(window, grid))
        shrunk.append((height, height if square else width))
    return tuple(shrunk)


def per_stage(given: Any, stages: int, least: int = 1) -> Windows:
    """Return (height, width) of each stage from a number, or a number or a pair for each stage.

    A list for more stages than ``stages`` is cut.

    Raises:
        ValueError: a window is no whole number in range, or there are too few.
    """
    listed = given if isinstance(given, list | tuple) else [given] * stages
    pairs = [one if isinstance(one, list | tuple) else (one, one) for one in listed]
    whole = all(type(m) is int and least <= m <= LARGEST for pair in pairs for m in pair)
    if len(pairs) < stages or not whole or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"one window for each of {stages} stages is needed, got {given!r:.200}")
    return tuple((height, width) for height, width in pairs[:stages])


def _pair(size: Any) -> tuple[int, int]:
    """Return (height, width) of a number, a pair, or timm's (channels, height, width)."""
    sides = size if isinstance(size, list | tuple) else (size, size)
    if len(sides) == 1:
        sides = (*sides, *sides)
    if len(sides) not in (2, 3) or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"an image size of one or two whole numbers is needed, got {size!r:.200}")
    return sides[-2], sides[-1]
