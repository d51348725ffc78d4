"""All measurements of docs/SPEED.md as a table; ``--suite`` runs them.

An interrupted suite continues: existing results are not measured again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from benchmarking import jobs, scaling
from benchmarking.candidates import COMPILE, OURS, Candidate, with_variations
from benchmarking.comparison import Plan
from benchmarking.jobs import Job
from benchmarking.products import products
from benchmarking.settings import Setting, parse_size

TINY, BASE = "swinv2_tiny_window8_256", "swinv2_base_window8_256"


@dataclass(frozen=True)
class Entry:
    """Comparisons of one kind, for every window at every size."""

    section: str
    mode: str
    windows: tuple[int, ...]
    sizes: tuple[str, ...]
    model: str = TINY
    batch: int = 1
    dtype: str = "float32"
    compiled: bool = False
    checkpointing: bool = False


# fmt: off
ON_CPU = (
    Entry("Forward", "forward", (8, 16), ("800x1333", "1024x1024", "1536x1536")),
    Entry("Forward, large windows", "forward", (24,), ("768x1280",)),
    Entry("Forward, large windows", "forward", (32,), ("1024x1024", "1536x1536")),
    Entry("Training", "training", (8, 16), ("800x1333",)),
    Entry("Training", "training", (24,), ("768x1280",)),
    Entry("Two images", "forward", (8, 16), ("512x512",), batch=2),
    Entry("Two images", "training", (8, 16), ("512x512",), batch=2),
    Entry("bfloat16", "forward", (8, 16), ("512x512",), dtype="bfloat16"),
    Entry("bfloat16", "training", (8, 16), ("512x512",), dtype="bfloat16"),
    Entry("Forward, eager and compiled", "forward", (8, 16), ("512x512", "768x1280"),
          compiled=True),
    Entry("Training, eager, compiled and with checkpointing", "training", (8, 16),
          ("512x512", "768x1280"), compiled=True, checkpointing=True),
)
ON_CUDA = (
    *(
        Entry(f"{title}, {model.split('_')[1]}, batch {batch}", mode, (8, 16),
              ("800x1333", "1024x1024"), model=model, batch=batch, dtype="bfloat16",
              checkpointing=mode == "training")
        for title, mode in (("Forward", "forward"), ("Training", "training"))
        for model in (TINY, BASE)
        for batch in (2, 8)
    ),
    *(
        Entry("Beside compiled peers", mode, (8,), ("1024x1024",), batch=batch, dtype="bfloat16",
              compiled=True)
        for mode in ("forward", "training")
        for batch in (2, 8)
    ),
)
# fmt: on
DETECTOR_SIZES = ("800x1333",)
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}  # of all but the comparisons, by device
INT8_SIZES = ("256x256", "512x512")
SCALED_AT = "768x1280"  # size at which threads are varied

# For the estimate alone: multiply-adds per second of a thread or a GPU, time of a candidate divided
# by that of its products, seconds around each candidate (checks, memory), and to compile it.
RATE = {"cpu": 30e9, "cuda": 100e12}
OVER_FLOOR, AROUND, COMPILING = 2.0, 15.0, 120.0


def suite(base: Setting, candidates: Sequence[Candidate], plan: Plan) -> list[Job]:
    """Return all jobs for the base setting's device and threads."""
    found, base = [], replace(base, dtype=DTYPES[base.device])
    for entry in ON_CUDA if base.device == "cuda" else ON_CPU:
        chosen = with_variations(
            candidates, compiled=entry.compiled, checkpointing=entry.checkpointing
        )
        for setting in _settings(entry, base):
            found.append(jobs.comparison(setting, chosen, plan, entry.section))
    found += [*_attention(base), *_scaling(base, plan)]
    found += [*_detectors(base, plan), *_int8(base, plan)]
    return sorted(found, key=lambda job: COMPILE in str(job))  # compiling takes longest: last


def _settings(entry: Entry, base: Setting) -> Iterator[Setting]:
    for window, size in product(entry.windows, entry.sizes):
        yield Setting(
            model=entry.model,
            window=window,
            size=parse_size(size),
            batch=entry.batch,
            dtype=entry.dtype,
            mode=entry.mode,
            device=base.device,
            threads=base.threads,
        )


def _attention(base: Setting) -> Iterator[Job]:
    for window in (8, 16) if base.device == "cuda" else ():
        yield jobs.attention(
            replace(base, model=TINY, window=window, batch=2, size=parse_size("1024x1024"))
        )


def _scaling(base: Setting, plan: Plan) -> Iterator[Job]:
    for window, mode in product((8, 16), ("forward", "training")):
        at = replace(base, model=TINY, window=window, batch=1, mode=mode)
        if mode == "forward":  # many machines lack the memory for 2048x2048 in training
            yield jobs.scaling(
                scaling.linear_cost(at), Candidate(OURS), plan, "Cost of a pixel by size"
            )
        yield jobs.scaling(scaling.padding_cost(at), Candidate(OURS), plan, "Cost of padding")
        if base.device == "cpu":
            at = replace(at, size=parse_size(SCALED_AT))
            settings = scaling.threads_scaling(at)
            yield jobs.scaling(settings, Candidate(OURS), plan, "Threads")


def _detectors(base: Setting, plan: Plan) -> Iterator[Job]:
    for size, mode in product(DETECTOR_SIZES, ("forward", "training")):
        yield jobs.detector(
            replace(base, model=TINY, window=16, size=parse_size(size), mode=mode), plan
        )


def _int8(base: Setting, plan: Plan) -> Iterator[Job]:
    for size in INT8_SIZES if base.device == "cpu" else ():
        at = replace(base, model=TINY, window=8, batch=1, mode="forward", size=parse_size(size))
        yield jobs.int8(at, plan)


def estimated_seconds(job: Job, plan: Plan) -> float:
    """Estimate the time of a job, within a factor of about two."""
    first = job.turns[0]
    rate = RATE[first.device] * (first.threads if first.device == "cpu" else 1)
    work = sum(p.multiply_adds * n for one in job.turns for p, n in products(one).items())
    running = OVER_FLOOR * (plan.rounds + plan.warmup) * work / rate
    if plan.time_limit is not None:
        running = min(running, plan.time_limit)
    return running + AROUND * len(job.turns) + COMPILING * str(job).count(COMPILE)
