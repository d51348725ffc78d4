"""Files to load, and models to load them into, for the tests of checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from publishers import PUBLISHERS, native_state
from torch import Tensor, nn

from swinv2_backbone import SwinV2, SwinV2Classifier, Variant, load_checkpoint

SMALL = Variant(32, (2, 2, 2, 2), (1, 2, 4, 8), (8, 8, 8, 4), (6, 6, 6, 3), 128)
TINY = "swinv2_tiny_window8_256"


def published(state: dict, name: str | Variant, publisher: str, folder: Path) -> Path:
    """Write the file of a publisher with our weights."""
    path = folder / f"{publisher}.pth"
    torch.save(PUBLISHERS[publisher](state, name), path)
    return path


def small_classifier(**options) -> SwinV2Classifier:
    backbone = SwinV2(
        SMALL.embed_dim,
        SMALL.depths,
        num_heads=SMALL.num_heads,
        window_size=SMALL.window_sizes,
        out_features=("res5",),
        **{"pretrained_window_sizes": SMALL.pretrained_window_sizes} | options,
    )
    return SwinV2Classifier(backbone, 10)


def state_of(model: SwinV2Classifier) -> dict[str, Tensor]:
    """Return the state of a classifier under the names of `publishers.native_state`."""
    return {key.removeprefix("backbone."): value for key, value in model.state_dict().items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@lru_cache(maxsize=2)
def random_state(name: str) -> dict[str, Tensor]:
    """Return `publishers.native_state`, made once."""
    return native_state(name)


def small_backbone(**options) -> SwinV2:
    return SwinV2(
        32, (2, 2), num_heads=(1, 2), window_size=4, out_features=("res2", "res3"), **options
    )


def write(content: dict, path: Path) -> Path:
    torch.save(content, path)
    return path


def refused(model: nn.Module, path: Path, match: str, **options) -> None:
    """Check that a file is refused with these words and that the model does not change."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        load_checkpoint(model, path, **options)
    assert_equal(model.state_dict(), before)


def changed(state: dict[str, Tensor], change: Callable[[dict], None], tmp_path: Path) -> Path:
    """Write a file of Microsoft's layout with changed tensors."""
    content = PUBLISHERS["microsoft"](state, SMALL)
    change(content["model"])
    return write(content, tmp_path / "changed.pth")
