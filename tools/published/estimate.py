"""The hours of a row on GPUs, from multiply-adds and one measured rate.

Only the backbone is counted, not the heads, the optimizer, loading and evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarking.results import read_results
from detectron2.config import CfgNode

from published.data import full_sizes
from published.rows import SUITES, Row
from swinv2_backbone.cli.flops import analyze, total
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.recipes import config_path
from swinv2_backbone.variants import VARIANTS

SPEED = Path(__file__).parents[2] / "docs" / "speed.json"
# The row of docs/speed/GPU.md with the lowest rate; two images are a recipe's on each of 8 GPUs.
MODEL, WINDOW, SIZE, BATCH = "swinv2_tiny_window8_256", 8, (1024, 1024), 2
MEASURED = {
    **{"model": MODEL, "window": WINDOW, "size": list(SIZE), "batch": BATCH},
    **{"dtype": "bfloat16", "mode": "training", "device": "cuda"},
}
TRAINING, CHECKPOINTING, FORWARD = 3, 4, 1  # passes: a backward costs two forwards
CPU = ("MODEL.DEVICE", "cpu")  # where the config is read
FLOPS = 2  # of a multiply-add


class Work(NamedTuple):
    """What a row computes: ``passes`` over the backbone for every image of every iteration."""

    iterations: int
    images: int
    size: tuple[int, int]
    multiply_adds: int
    passes: int

    def hours(self, gpus: int, rate: float) -> float:
        """Return the hours at ``rate`` FLOP/s on each GPU."""
        operations = self.iterations * self.images * self.multiply_adds * FLOPS * self.passes
        return operations / (gpus * rate) / 3600


class Rate(NamedTuple):
    """A measured training step of the backbone, and the FLOP/s that it sustains."""

    gpu: str
    milliseconds: float
    multiply_adds: int

    @property
    def flops(self) -> float:
        operations = BATCH * self.multiply_adds * FLOPS * TRAINING
        return operations / (self.milliseconds / 1000)


def measured_rate() -> Rate:
    """Return the rate of the measured row of docs/speed.json."""
    (one,) = (
        result
        for result in read_results(SPEED)
        if result["section"] == "Training" and MEASURED.items() <= result["setting"].items()
    )
    milliseconds = median(one["candidates"]["ours"]["ms"])
    return Rate(one["machine"]["gpu"], milliseconds, backbone_multiply_adds(MODEL, SIZE, WINDOW))


def backbone_multiply_adds(
    variant: str, size: tuple[int, int], window: int | Sequence[int] | None
) -> int:
    parts = analyze(variant, size, window)
    return total({name: cost for name, cost in parts.items() if name != "head"}).full_flops


def work_of(row: Row, changes: Sequence[str] = ()) -> Work:
    """Count what a row computes.

    Raises:
        ValueError: The changes leave no published variant to count.
    """
    if row in SUITES["imagenet"]:
        size = (VARIANTS[row.recipe].image_size,) * 2
        count = backbone_multiply_adds(row.recipe, size, None)
        return Work(1, full_sizes("imagenet")["val"], size, count, FORWARD)
    cfg = load_config(str(config_path(row.recipe)), [*row.changes, *changes, *CPU])
    node, size = cfg.MODEL.SWINV2, training_size(cfg)
    if node.VARIANT is None:
        raise ValueError("MODEL.SWINV2.VARIANT None: only the published variants are counted")
    count = backbone_multiply_adds(node.VARIANT, size, node.WINDOW_SIZE)
    passes = CHECKPOINTING if node.ACTIVATION_CHECKPOINTING else TRAINING
    return Work(cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, size, count, passes)


def training_size(cfg: CfgNode) -> tuple[int, int]:
    """Return height and width of a training image.

    This is the side of the jitter or the crop, else the mean of the short sides, as wide as the
    longest image that the recipe allows.
    """
    node = cfg.INPUT
    if node.LSJ.ENABLED:
        return node.LSJ.SIZE, node.LSJ.SIZE
    if node.CROP.ENABLED:
        return tuple(node.CROP.SIZE)
    short = sum(node.MIN_SIZE_TRAIN) / len(node.MIN_SIZE_TRAIN)
    return round(short), round(short * node.MAX_SIZE_TRAIN / max(node.MIN_SIZE_TRAIN))


def estimate(rows: Sequence[Row], gpus: int, changes: Sequence[str] = ()) -> str:
    """Return the table of hours, with the arithmetic."""
    rate = measured_rate()
    lines = [
        f"Measured: a training step of {BATCH} images in {rate.milliseconds:.1f} ms on one "
        f"{rate.gpu} ({MODEL}, window {WINDOW}, {SIZE[0]}x{SIZE[1]}, bfloat16), which is",
        f"{BATCH} x {rate.multiply_adds / 1e9:.1f}e9 x {FLOPS} x {TRAINING} / "
        f"{rate.milliseconds / 1000:.4f} s = {rate.flops / 1e12:.1f}e12 FLOP/s.",
        "",
        f"| row | image | iterations x images x multiply-adds x {FLOPS} x passes "
        f"/ (GPUs x FLOP/s) / 3600 | hours of the backbone |",
        "|---|---|---|---|",
    ]
    for row in rows:
        one = work_of(row, changes)
        product = (
            f"{one.iterations:,} x {one.images:,} x {one.multiply_adds / 1e9:.1f}e9 x {FLOPS} x "
            f"{one.passes} / ({gpus} x {rate.flops / 1e12:.1f}e12) / 3600"
        )
        hours = f"{one.hours(gpus, rate.flops):.3g}"
        lines.append(f"| `{row.name}` | {one.size[0]}x{one.size[1]} | {product} | {hours} |")
    return "\n".join(lines)
