"""Comparing an exported file in another runtime with the model."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.export.check import Align, Difference, Run, as_found, compare
from swinv2_backbone.export.runtimes.child import REPEATS
from swinv2_backbone.export.runtimes.run import run_in


class Report(NamedTuple):
    """A file in a runtime.

    Attributes:
        differences: between its outputs and the model's, at each size.
        ratio: its time relative to the model's in PyTorch, one thread each, at the largest batch.
    """

    differences: list[Difference]
    ratio: float


def check_in(
    name: str,
    path: Path,
    expected: Run,
    batches: Sequence[Tensor],
    align: Align = as_found,
    python: str = sys.executable,
) -> Report:
    """Run a file in a runtime, and compare its outputs and time with the model's.

    It runs twice: for the outputs in filled memory (see :func:`run_in`), and for the time.

    Args:
        name, python: see :func:`run_in`.
        expected: the original model.
        batches: images (B, C_in, H, W).
        align: see :func:`compare`.

    Raises:
        ValueError: the runtime failed, or the outputs have other names.
    """
    ours, times = _run(expected, batches)
    names = list(ours[0])
    answers = iter(run_in(name, path, batches, names, python, filled=True).outputs)
    timed = run_in(name, path, batches, names, python).seconds
    known = iter(ours)
    differences = compare(lambda images: next(answers), lambda images: next(known), batches, align)
    largest = max(range(len(batches)), key=lambda number: batches[number].numel())
    return Report(differences, timed[largest] / times[largest])


@torch.no_grad()
def _run(expected: Run, batches: Sequence[Tensor]) -> tuple[list, list[float]]:
    """Return the outputs of the model and the time of its fastest run, for each batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    outputs, seconds = [], []
    try:
        for images in batches:
            times = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                found = expected(images)
                times.append(time.perf_counter() - start)
            outputs.append(found)
            seconds.append(min(times))
    finally:
        torch.set_num_threads(threads)
    return outputs, seconds
