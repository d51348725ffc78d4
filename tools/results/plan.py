"""All jobs of the results on real photographs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments.jobs import Job

from results import training
from results.backbones import BACKBONES

SEEDS = (0, 1, 2)
SECONDS = 240.0  # of every training, on one thread


def jobs(
    sets: Sequence[str], data: str, seconds: float = SECONDS, seeds: Sequence[int] = SEEDS
) -> list[Job]:
    """Return the jobs of some sets, in an order in which none waits long."""
    found: list[Job] = []
    for name in sets:
        prepared, steps = f"set_{name}", training.steps_of(name)
        found.append(Job(prepared, training.prepare, {"name": name, "data": data}))
        found.append(Job(steps, training.measure_steps, {"name": name}, needs=(prepared,)))
        found += _trainings(name, steps, seconds, seeds)
    return found


def trained(name: str, backbone: str, seed: int) -> str:
    short = "".join(letter for letter in backbone.lower() if letter.isalnum())
    return f"train_{name}_{short}_seed{seed}"


def _trainings(name: str, steps: str, seconds: float, seeds: Sequence[int]) -> Iterator[Job]:
    for seed in seeds:
        for backbone in BACKBONES:
            options = {"name": name, "backbone": backbone, "seed": seed, "seconds": seconds}
            yield Job(trained(name, backbone, seed), training.train, options, needs=(steps,))
