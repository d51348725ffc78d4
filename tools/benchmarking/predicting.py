"""Images a second of ``swinv2 predict`` against those of its model alone, in pairs.

The model alone gets the same images in the same batches as tensors that are already resized. The
whole also reads the files, resizes, draws, and writes drawings and JSON. The two take turns.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from benchmarking.comparison import progress
from swinv2_backbone.d2.inference.batch import predict_files
from swinv2_backbone.d2.inference.inputs import find_inputs, plan_outputs
from swinv2_backbone.d2.inference.model import load
from swinv2_backbone.d2.inference.pipeline import Pipeline
from swinv2_backbone.d2.inference.predictor import Predictor

WARMUP = 3  # batches


def compare(
    source: str, weights: str | None, images: str, count: int, batch: int, rounds: int, device: str
) -> str:
    """Return a table of medians over ``rounds`` pairs.

    Args:
        source, weights: see :func:`swinv2_backbone.load`.
        images: folder of images, of which the first ``count`` are predicted.
        batch: images that enter the model together.
    """
    predictor = load(source, weights, device=device).predictor
    files = find_inputs([images]).files[:count]
    batches = _batches(predictor, files, batch)
    for one in batches[:WARMUP]:
        _forward(predictor, one)
    alone, whole = [], []
    for _ in range(rounds):
        alone.append(len(files) / _seconds_alone(predictor, batches))
        whole.append(len(files) / _seconds_whole(Pipeline(predictor, batch), files))
        progress(f"model alone {alone[-1]:.2f}, predict {whole[-1]:.2f} images/s")
    ratio = median(one / other for one, other in zip(whole, alone))
    size = "x".join(map(str, batches[0][0]["image"].shape[1:]))
    return "\n".join(
        [
            f"{len(files)} images (the first: {size} for the model), batches of {batch}, "
            f"{predictor.device}, {torch.get_num_threads()} threads, {rounds} pairs",
            f"model alone: {median(alone):.2f} images/s ({_listed(alone)})",
            f"predict:     {median(whole):.2f} images/s ({_listed(whole)})",
            f"ratio: {ratio:.3f} (median of pairs)",
        ]
    )


def _batches(predictor: Predictor, files: list[Path], size: int) -> list[list[dict]]:
    """Return the inputs of the model, batched by size as the pipeline does."""
    by_shape: dict[torch.Size, list[dict]] = {}
    for file in files:
        tensor, height, width = predictor.prepare(predictor.read(file))
        one = {"image": tensor.to(predictor.device).float(), "height": height, "width": width}
        by_shape.setdefault(tensor.shape, []).append(one)
    return [
        same[start : start + size]
        for same in by_shape.values()
        for start in range(0, len(same), size)
    ]


@torch.inference_mode()
def _forward(predictor: Predictor, batch: list[dict]) -> None:
    predictor.model(batch)


def _seconds_alone(predictor: Predictor, batches: list[list[dict]]) -> float:
    _synchronize(predictor)
    start = time.perf_counter()
    for batch in batches:
        _forward(predictor, batch)
    _synchronize(predictor)
    return time.perf_counter() - start


def _seconds_whole(pipeline: Pipeline, files: list[Path]) -> float:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        outputs = plan_outputs(files, Path(folder), overwrite=False)
        start = time.perf_counter()
        _, failed = predict_files(pipeline, outputs, Path(folder))
        seconds = time.perf_counter() - start
    if failed:
        raise ValueError("\n".join(failed))
    return seconds


def _synchronize(predictor: Predictor) -> None:
    if predictor.device.type == "cuda":
        torch.cuda.synchronize(predictor.device)


def _listed(rates: list[float]) -> str:
    return " ".join(f"{rate:.2f}" for rate in rates)
