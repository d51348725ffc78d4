"""All jobs of the results on real photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from experiments.jobs import Job

from results import pictures, training
from results.arms import BACKBONES, GROUPS, RECIPES, SCREENING, group_of
from results.screening import design
from results.sets import BY_NAME
from results.training import forwards_of, steps_of, trained

SEEDS = (0, 1, 2)
COMPARED = ("nuclei", "cards", "nuclei_pixels", "nuts", "tiles")
SCREENED = ("cards", "raccoons")  # the sets on which settings are chosen
EVALUATED = ("nuts",)  # the sets on which the choice is evaluated, once
EVALUATION_SEEDS = range(6)
SCREENING_SECONDS = 80.0
DRAWN = "SwinV2, window 8, SimMIM"  # in the documentation
MASKED_ITERATIONS = 400  # without labels
COMPARISON = "comparison"
PARTS = (COMPARISON, SCREENING, RECIPES)


def jobs(
    sets: Sequence[str],
    data: str,
    *,
    parts: Sequence[str] = PARTS,
    seconds: float | None = None,
    seeds: Sequence[int] = SEEDS,
    full: bool = False,
) -> list[Job]:
    """Return the jobs of some sets, and the parts of each set that there are.

    Args:
        seconds: Of every training; default: each set's own.
        seeds: Of the comparison of backbones; the other parts have their own.
        full: Models of full size at 512 pixels, for a GPU.
    """
    found: list[Job] = []
    for name in sets:
        prepared = Job(f"set_{name}", training.prepare, {"name": name, "data": data})
        found += [prepared, _without_labels(name)]
        if COMPARISON in parts and name in COMPARED:
            found += _comparison(name, BACKBONES, seconds, seeds)
            found.append(_measured(name, training.measure_forwards, forwards_of, BACKBONES))
            found += [_pictures(name, seeds[0])] if BY_NAME[name].shown else []
        if SCREENING in parts and name in SCREENED:
            found += _screening(name, seconds or SCREENING_SECONDS)
        if RECIPES in parts and name in EVALUATED:
            found += _comparison(name, RECIPES, seconds, EVALUATION_SEEDS)
    return [_of_full_size(job) for job in found] if full else found


def _of_full_size(job: Job) -> Job:
    """Return a job with models of full size, if it has any models."""
    if job.work in (training.prepare, pictures.draw):
        return job
    return replace(job, options=job.options | {"full": True})


def _without_labels(name: str) -> Job:
    options = {"name": name, "iterations": MASKED_ITERATIONS}
    return Job(f"simmim_{name}", training.train_without_labels, options, (f"set_{name}",))


def _comparison(
    name: str, group: str, seconds: float | None, seeds: Sequence[int]
) -> Iterator[Job]:
    yield _measured(name, training.measure_steps, steps_of, group)
    for seed in seeds:
        for arm in GROUPS[group]:
            yield _training(name, arm, seed, seconds or BY_NAME[name].seconds)


def _screening(name: str, seconds: float) -> Iterator[Job]:
    yield _measured(name, training.measure_steps, steps_of, SCREENING)
    for run in design():
        yield _training(name, run.title, seed=run.block, seconds=seconds)


def _pictures(name: str, seed: int) -> Job:
    options = {"name": name, "arm": DRAWN, "seed": seed}
    return Job(f"pictures_{name}", pictures.draw, options, (trained(name, DRAWN, seed),))


def _measured(
    name: str, measure: Callable[..., dict], title: Callable[[str, str], str], group: str
) -> Job:
    options = {"name": name, "group": group}
    needs = (f"set_{name}", f"simmim_{name}")
    return Job(title(name, group), measure, options, needs, alone=True)


def _training(name: str, arm: str, seed: int, seconds: float) -> Job:
    options = {"name": name, "arm": arm, "seed": seed, "seconds": seconds}
    needs = (steps_of(name, group_of(arm)),)
    return Job(trained(name, arm, seed), training.train, options, needs)
