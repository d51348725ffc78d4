"""All jobs of all experiments, in two sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from experiments import detectors, masked, stability, transfer
from experiments.biases import BIASES
from experiments.classify import WINDOW
from experiments.detectors import SCRATCH, SIMMIM
from experiments.jobs import Job
from experiments.stability import FAMILIES


@dataclass(frozen=True)
class Scale:
    """How much of everything: pictures, steps, seeds."""

    seeds: tuple[int, ...]
    images: int  # of the classifiers
    steps: int
    tested: int
    windows: tuple[int, ...]  # besides that of pre-training
    tuned_images: int
    tuned_steps: int
    detector_images: tuple[int, int]  # trained on, tested on
    iterations: int
    filling_in: int  # iterations of pre-training without labels
    widths: tuple[int, ...]
    rates: tuple[float, ...]  # learning rates
    stability_steps: int


FULL = Scale(
    seeds=(0, 1, 2),
    images=3000,
    steps=1000,
    tested=800,
    windows=(12, 16, 24),
    tuned_images=320,
    tuned_steps=30,
    detector_images=(600, 100),
    iterations=150,
    filling_in=400,
    widths=(32, 64, 128),
    rates=(1e-3, 3e-3, 1e-2, 3e-2),
    stability_steps=50,
)
QUICK = Scale(
    seeds=(0, 1),
    images=600,
    steps=100,
    tested=100,
    windows=(16,),
    tuned_images=64,
    tuned_steps=8,
    detector_images=(60, 20),
    iterations=20,
    filling_in=20,
    widths=(32, 64),
    rates=(1e-3, 1e-2),
    stability_steps=20,
)
RATE_WIDTH = 64  # of the models that are trained at several rates


def jobs(scale: Scale) -> list[Job]:
    """Return all jobs, in an order in which none waits long for those that it needs."""
    train, test = scale.detector_images
    dataset = Job("dataset", detectors.make_dataset, {"train": train, "test": test})
    return [
        dataset,
        *_pretraining(scale),
        *_filling_in(scale),
        *_detectors(scale),
        *_tuning(scale),
        *_stability(scale),
    ]


def pretrained(bias: str, seed: int) -> str:
    return f"pretrain_{bias}_seed{seed}"


def tuned(bias: str, window: int, seed: int) -> str:
    return f"tune_{bias}_w{window}_seed{seed}"


def detector(start: str, window: int, seed: int, change: str = "") -> str:
    """Return a name; change: "", "stretched", "attended", "frozen" or "frozen_stretched"."""
    return f"detect_{start}_w{window}{change and '_' + change}_seed{seed}"


def filled_in(seed: int) -> str:
    return f"simmim_seed{seed}"


def stable(family: str, width: int, rate: float, seed: int) -> str:
    return f"stability_{family}_c{width}_lr{rate:g}_seed{seed}"


def runs_of_stability(scale: Scale) -> list[tuple[int, float]]:
    """Return every width at the lowest rate, and one width at every rate."""
    lowest = scale.rates[0]
    found = [(width, lowest) for width in scale.widths]
    return found + [(RATE_WIDTH, rate) for rate in scale.rates[1:]]


def _pretraining(scale: Scale) -> Iterator[Job]:
    options = {"images": scale.images, "steps": scale.steps, "test": scale.tested}
    for seed in scale.seeds:
        for bias in BIASES:
            yield Job(
                pretrained(bias, seed),
                transfer.pretrain,
                {"bias": bias, "seed": seed, "windows": [WINDOW, *scale.windows], **options},
            )


def _filling_in(scale: Scale) -> Iterator[Job]:
    for seed in scale.seeds:
        options = {"seed": seed, "iterations": scale.filling_in}
        yield Job(filled_in(seed), masked.fill_in, options, needs=("dataset",))


def _tuning(scale: Scale) -> Iterator[Job]:
    options = {"images": scale.tuned_images, "steps": scale.tuned_steps, "test": scale.tested}
    for seed in scale.seeds:
        for window in scale.windows:
            for bias in BIASES:
                yield Job(
                    tuned(bias, window, seed),
                    transfer.tune,
                    {"bias": bias, "seed": seed, "window": window, **options},
                    needs=(pretrained(bias, seed),),
                )


def _detectors(scale: Scale) -> Iterator[Job]:
    wide: dict[str, Any] = {"start": "log", "window": 16}
    for seed in scale.seeds:
        plain = [(bias, window) for bias in (*BIASES, SCRATCH) for window in (WINDOW, 16)]
        plain.append((SIMMIM, WINDOW))
        for start, window in plain:
            yield _detector(scale, seed, "", start=start, window=window)
        yield _detector(scale, seed, "stretched", pretrained_window=16, **wide)
        yield _detector(scale, seed, "attended", attended=True, **wide)
        yield _detector(scale, seed, "frozen", frozen=True, **wide)
        yield _detector(scale, seed, "frozen_stretched", frozen=True, pretrained_window=16, **wide)
        for start in (SIMMIM, SCRATCH):
            yield _detector(scale, seed, "frozen", frozen=True, start=start, window=16)


def _detector(scale: Scale, seed: int, change: str, **options: Any) -> Job:
    start, window = options["start"], options["window"]
    needed = {SCRATCH: [], SIMMIM: [filled_in(seed)]}.get(start, [pretrained(start, seed)])
    return Job(
        detector(start, window, seed, change),
        detectors.detect,
        {"seed": seed, "iterations": scale.iterations, **options},
        needs=("dataset", *needed),
    )


def _stability(scale: Scale) -> Iterator[Job]:
    for seed in scale.seeds:
        for family in FAMILIES:
            for width, rate in runs_of_stability(scale):
                yield Job(
                    stable(family, width, rate, seed),
                    stability.run,
                    {"family": family, "embed_dim": width, "lr": rate, "seed": seed}
                    | {"images": scale.tuned_images, "steps": scale.stability_steps},
                )
