"""The difference between the outputs of an int8 file and of the float file, on pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.export.formats import Run

Outputs = Mapping[str, Tensor]

LOGITS, BOXES = "logits", "boxes"
SAME = 0.5  # lowest IoU of two boxes of one object
LOWEST = 0.05  # lowest score of a detection that counts


class Comparison(NamedTuple):
    """An int8 file in comparison with the float file.

    Attributes:
        errors: see :func:`errors`; averages of the pictures.
        same: part of the images, or pixels, with the same class; None without logits.
        time: median time of the int8 file, divided by that of the float file.
    """

    errors: dict[str, float]
    same: float | None
    time: float

    @property
    def largest(self) -> float:
        return max(self.errors.values())

    def __str__(self) -> str:
        found = ", ".join(f"{name} {100 * error:.1f} %" for name, error in self.errors.items())
        same = "" if self.same is None else f"; the same class in {100 * self.same:.1f} %"
        return found + same


def compare_files(int8: Run, plain: Run, pictures: Iterable[Tensor]) -> Comparison:
    """Run both files on pictures, in turns."""
    found: list[dict[str, float]] = []
    same, times = [], []
    for images in pictures:
        if not found:  # the first run also allocates memory
            int8(images), plain(images)
        outputs, seconds = _timed(int8, images)
        expected, plain_seconds = _timed(plain, images)
        found.append(errors(outputs, expected))
        times.append(seconds / plain_seconds)
        if LOGITS in expected:
            classes = (each[LOGITS].argmax(1) for each in (outputs, expected))
            same.append(torch.eq(*classes).float().mean().item())
    means = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
    return Comparison(means, sum(same) / len(same) if same else None, median(times))


def _timed(run: Run, images: Tensor) -> tuple[Outputs, float]:
    start = perf_counter()
    outputs = run(images)
    return outputs, perf_counter() - start


def errors(found: Outputs, expected: Outputs) -> dict[str, float]:
    """Return errors between 0 (equal) and about 1, by name.

    Features and logits have the relative error |found - expected| / |expected| (Euclidean norms),
    a detector "detections", see :func:`detection_error`.
    """
    if BOXES in expected:
        return {"detections": detection_error(found, expected)}
    return {name: relative_error(found[name], value) for name, value in expected.items()}


def relative_error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape or not found.isfinite().all():
        return torch.inf
    size = expected.double().norm().clamp(min=1e-12)
    return ((found.double() - expected.double()).norm() / size).item()


def detection_error(found: Outputs, expected: Outputs) -> float:
    """Return 1 - 2 * overlap / (scores found + scores expected): 0 for equal detections.

    The overlap is the sum of IoU * min(score) over pairs of boxes of one class, each box in at most
    one pair. Detections of low scores weigh little, as they do in AP.
    """
    found, expected = _counted(found), _counted(expected)
    total = (found["scores"].sum() + expected["scores"].sum()).item()
    if total == 0:
        return 0.0
    ious = _iou(expected[BOXES], found[BOXES])
    same = expected["classes"][:, None] == found["classes"]
    ious = torch.where(same, ious, 0)
    overlap = 0.0
    for row in range(len(ious)):  # from high to low scores
        iou, column = ious[row].max(dim=0) if ious.shape[1] else (torch.zeros(()), torch.tensor(0))
        if iou < SAME:
            continue
        overlap += (iou * torch.minimum(expected["scores"][row], found["scores"][column])).item()
        ious[:, column] = 0
    return 1 - 2 * overlap / total


def _counted(outputs: Outputs) -> dict[str, Tensor]:
    kept = outputs["scores"] >= LOWEST
    return {name: outputs[name][kept] for name in (BOXES, "scores", "classes")}


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """Return (n, m): the IoU of boxes (n, 4) and (m, 4)."""
    low = torch.maximum(one[:, None, :2], other[:, :2])
    high = torch.minimum(one[:, None, 2:], other[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    areas, others = ((b[:, 2:] - b[:, :2]).prod(dim=1) for b in (one, other))
    return shared / (areas[:, None] + others - shared).clamp(min=1e-12)
