"""A design of trainings that shows which settings matter on a small set, and their effects.

The design is that of Plackett and Burman (Biometrika 33, 1946) with 12 runs, folded over: 24 runs
in two blocks, in each of which every setting is at either level six times.  The effect of no
setting is mixed with that of another, or with the joint effect of two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from scipy.stats import t as student

from results.sets import PublicSet
from results.sizes import resize, scaled

FIRST_ROW = (1, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1)
BLOCKS = 2  # the design and its mirror image, each with a seed of its own
USUAL_ANCHORS = (32, 64, 128, 256, 512)  # Detectron2's, in pixels


@dataclass(frozen=True)
class Setting:
    """A setting with two levels; ``change`` makes a config of the low level one of the high."""

    title: str
    low: str
    high: str
    change: Callable[[CfgNode, PublicSet], None]


def _larger_images(cfg: CfgNode, own: PublicSet) -> None:
    resize(cfg, scaled(own.side, cfg))


def _larger_window(cfg: CfgNode, own: PublicSet) -> None:
    cfg.MODEL.SWINV2.WINDOW_SIZE = 16


def _higher_rate(cfg: CfgNode, own: PublicSet) -> None:
    cfg.SOLVER.BASE_LR *= 2


def _jitter(cfg: CfgNode, own: PublicSet) -> None:
    cfg.INPUT.LSJ.ENABLED, cfg.INPUT.LSJ.SIZE = True, cfg.INPUT.MAX_SIZE_TRAIN


def _averaged(cfg: CfgNode, own: PublicSet) -> None:
    cfg.SOLVER.EMA.ENABLED, cfg.SOLVER.EMA.DECAY = True, averaging(cfg.SOLVER.MAX_ITER)


def _drop_path(cfg: CfgNode, own: PublicSet) -> None:
    cfg.MODEL.SWINV2.DROP_PATH_RATE = 0.1


def _layer_decay(cfg: CfgNode, own: PublicSet) -> None:
    cfg.SOLVER.LAYER_DECAY = 0.9


def _frozen(cfg: CfgNode, own: PublicSet) -> None:
    cfg.MODEL.SWINV2.FROZEN_STAGES = 1


def _own_anchors(cfg: CfgNode, own: PublicSet) -> None:
    scale = cfg.INPUT.MIN_SIZE_TEST / own.side  # with the images
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[round(size * scale)] for size in own.anchors]


def _nothing(cfg: CfgNode, own: PublicSet) -> None:
    """The start is no key of the config."""


START = "start"
# Image size first, since two others follow from it.
SETTINGS = (
    Setting("image size", "128", "192", _larger_images),
    Setting("window", "8", "16", _larger_window),
    Setting("learning rate", "0.001", "0.002", _higher_rate),
    Setting("large-scale jitter", "off", "on", _jitter),
    Setting("averaged weights", "off", "on", _averaged),
    Setting("drop path", "0", "0.1", _drop_path),
    Setting("layer decay", "1", "0.9", _layer_decay),
    Setting("frozen", "nothing", "first stage", _frozen),
    Setting("anchors", "Detectron2's", "the set's", _own_anchors),
    Setting(START, "random", "SimMIM", _nothing),
)
# Settings at the high level: of the recipe mask_rcnn_swinv2, and of that for small data, which
# follows from the screening.  Anchors fit the set in both.
PLAIN = ("image size", "window", "anchors")
SMALL_DATA = ("anchors",)


class Run(NamedTuple):
    """A training of the design; ``levels`` has -1 or 1 for each of the settings."""

    title: str
    block: int
    levels: tuple[int, ...]

    def change(self, cfg: CfgNode, own: PublicSet) -> None:
        _change(cfg, own, [setting for setting, level in zip(SETTINGS, self.levels) if level > 0])

    @property
    def pretrained(self) -> bool:
        return self.levels[[setting.title for setting in SETTINGS].index(START)] > 0


class Effect(NamedTuple):
    """The gain in AP from the high level, with the half width of its 95 % interval."""

    title: str
    value: float
    margin: float


def change_to(titles: Sequence[str]) -> Callable[[CfgNode, PublicSet], None]:
    """Return the change of a config that sets the settings of these titles to the high level."""
    high = [setting for setting in SETTINGS if setting.title in titles]
    return lambda cfg, own: _change(cfg, own, high)


def _change(cfg: CfgNode, own: PublicSet, high: Sequence[Setting]) -> None:
    """Set some settings to the high level and the others to the low level."""
    resize(cfg, scaled(own.side, cfg) * 2 // 3)
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size] for size in USUAL_ANCHORS]
    for setting in high:
        setting.change(cfg, own)


def averaging(iterations: int) -> float:
    """Return the decay of an average over about the last tenth of a training."""
    return 1 - 10 / max(iterations, 20)


def design() -> list[Run]:
    rows = [np.roll(FIRST_ROW, shift) for shift in range(len(FIRST_ROW))]
    block = np.array([*rows, [-1] * len(FIRST_ROW)])[:, : len(SETTINGS)]
    return [
        Run(f"screening {number + 1 + mirror * len(block):02d}", mirror, tuple(map(int, levels)))
        for mirror in range(BLOCKS)
        for number, levels in enumerate(-block if mirror else block)
    ]


def effects(aps: Mapping[str, float]) -> list[Effect]:
    """Return the effects of all settings by least squares, with a mean for every block.

    Args:
        aps: the title of a run -> its AP, for all runs of one block or of both.

    Raises:
        ValueError: the runs do not suffice for the intervals.
    """
    runs = [run for run in design() if run.title in aps]
    blocks = sorted({run.block for run in runs})
    means = [[float(run.block == block) for block in blocks] for run in runs]
    levels = np.reshape([run.levels for run in runs], (len(runs), len(SETTINGS)))
    columns = np.hstack([np.reshape(means, (len(runs), len(blocks))), levels])
    freedom = len(runs) - columns.shape[1]
    if freedom < 1 or np.linalg.matrix_rank(columns) < columns.shape[1]:
        raise ValueError(f"{len(runs)} runs do not determine {len(SETTINGS)} effects: run the rest")
    found = np.array([aps[run.title] for run in runs])
    solution, *_ = np.linalg.lstsq(columns, found, rcond=None)
    variance = np.sum((found - columns @ solution) ** 2) / freedom
    errors = np.sqrt(variance * np.diag(np.linalg.inv(columns.T @ columns)))
    quantile = student.ppf(0.975, freedom)
    return [
        # From level -1 to 1 are two steps.
        Effect(setting.title, 2 * float(value), 2 * float(quantile * error))
        for setting, value, error in zip(
            SETTINGS, solution[len(blocks) :], errors[len(blocks) :], strict=True
        )
    ]
