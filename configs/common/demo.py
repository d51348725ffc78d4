"""The generated demo dataset of objects, and the small SwinV2 that is trained on it."""

from __future__ import annotations

from typing import Any

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from swinv2_backbone.d2 import register_coco


def small_swinv2() -> dict[str, Any]:
    """Return the arguments of a SwinV2 for training from scratch."""
    return dict(
        variant=None,
        embed_dim=32,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        window_size=8,
        drop_path_rate=0.0,
    )


def demo_objects(**arguments: Any) -> dict[str, DictConfig]:
    """Return ``datasets`` of the demo's objects; ``arguments`` are of ``register_coco``."""
    return {
        split: L(register_coco)(
            name=f"demo_{folder}",
            json_file=f"datasets/demo/{folder}.json",
            images=f"datasets/demo/{folder}",
            output_dir="${train.output_dir}",
            for_evaluation=split == "test",
            **arguments,
        )
        for split, folder in (("train", "train"), ("test", "val"))
    }
