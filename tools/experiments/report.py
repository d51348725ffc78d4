"""Tables of means and standard deviations over the seeds, in markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import mean, stdev

from experiments.biases import BIASES
from experiments.classify import WINDOW
from experiments.detectors import SCRATCH, SIMMIM
from experiments.plan import (
    RATE_WIDTH,
    Scale,
    detector,
    pretrained,
    runs_of_stability,
    stable,
    tuned,
)
from experiments.stability import FAMILIES

Results = dict[str, dict]
NAMES = {
    "log": "log-CPB (ours)",
    "linear": "linear CPB",
    "parameterized": "table, bicubic",
    SCRATCH: "log-CPB, from scratch",
    SIMMIM: "log-CPB, from SimMIM",
    "v1": "V1: norm before, dot product",
    "v2": "V2: norm after, cosine (ours)",
}
# Detectors with a frozen backbone, by start and change; differences are from the first.
FROZEN = {
    ("log", "frozen"): "classifier, pretrained window 8 (ours)",
    ("log", "frozen_stretched"): "classifier, pretrained window 16",
    (SIMMIM, "frozen"): "SimMIM",
    (SCRATCH, "frozen"): "random weights",
}


def report(results: Results, scale: Scale) -> str:
    minutes = sum(result["minutes"] for result in results.values())
    many = len(scale.seeds)
    return "\n".join(
        [
            f"Mean and standard deviation of {many} seeds; {len(results)} jobs of one thread, "
            f"{minutes:.0f} minutes in all.",
            *_transfer(results, scale),
            *_starts(results, scale),
            *_changes(results, scale),
            *_frozen(results, scale),
            *_stability(results, scale),
            "",
        ]
    )


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return mean and sample standard deviation."""
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def over_seeds(results: Results, scale: Scale, name: Callable[[int], str], key: str) -> list[float]:
    return [results[name(seed)][key] for seed in scale.seeds]


def zero_shot(results: Results, scale: Scale, bias: str, window: int) -> list[float]:
    return over_seeds(results, scale, lambda seed: pretrained(bias, seed), f"w{window}")


def after_tuning(results: Results, scale: Scale, bias: str, window: int) -> list[float]:
    return over_seeds(results, scale, lambda seed: tuned(bias, window, seed), "accuracy")


def box_ap(
    results: Results, scale: Scale, start: str, window: int, change: str = "", key: str = "box_ap"
) -> list[float]:
    return over_seeds(results, scale, lambda seed: detector(start, window, seed, change), key)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield ""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _transfer(results: Results, scale: Scale) -> Iterator[str]:
    yield "\n### Classifiers, accuracy in %: without and with tuning at the window"
    head = ["bias", f"window {WINDOW}"]
    for window in scale.windows:
        head += [f"{window}, without", f"{window}, tuned"]
    rows = []
    for bias in BIASES:
        row = [NAMES[bias], spread(zero_shot(results, scale, bias, WINDOW))]
        for window in scale.windows:
            row.append(spread(zero_shot(results, scale, bias, window)))
            row.append(spread(after_tuning(results, scale, bias, window)))
        rows.append(row)
    yield from _table(head, rows)


def _starts(results: Results, scale: Scale) -> Iterator[str]:
    yield f"\n### Mask R-CNN from these classifiers, window {WINDOW} in pre-training: box AP"
    rows = [
        [NAMES[start], *(spread(box_ap(results, scale, start, w)) for w in (WINDOW, 16))]
        for start in (*BIASES, SCRATCH)
    ]
    rows.append([NAMES[SIMMIM], spread(box_ap(results, scale, SIMMIM, WINDOW)), ""])
    yield from _table(["backbone", f"window {WINDOW}", "window 16"], rows)


def _changes(results: Results, scale: Scale) -> Iterator[str]:
    yield "\n### The cost of a silent mistake: Mask R-CNN at window 16 from log-CPB at window 8"
    rows = []
    for change, name in (
        ("", "pretrained window 8, padding masked (ours)"),
        ("stretched", "pretrained window 16"),
        ("attended", "padding attended"),
    ):
        alone, together = (
            box_ap(results, scale, "log", 16, change, key) for key in ("box_ap", "box_ap_together")
        )
        own = box_ap(results, scale, "log", 16)
        less = [one - other for one, other in zip(alone, own)]
        rows.append([name, spread(alone), spread(together), spread(less) if change else "-"])
    head = ["", "box AP, images alone", "in batches of 8", "difference, by seed"]
    yield from _table(head, rows)


def _frozen(results: Results, scale: Scale) -> Iterator[str]:
    yield "\n### The same with a frozen backbone, which cannot adapt: box AP"
    rows, own = [], None
    for (start, change), name in FROZEN.items():
        found = box_ap(results, scale, start, 16, change)
        less = spread([one - other for one, other in zip(found, own)]) if own else "-"
        own = own or found
        rows.append([name, spread(found), less])
    yield from _table(["frozen backbone", "box AP", "difference, by seed"], rows)


def _stability(results: Results, scale: Scale) -> Iterator[str]:
    yield "\n### Largest amplitude after a block before and after training, and loss at the end"
    rows = []
    for family in FAMILIES:
        for width, rate in runs_of_stability(scale):
            runs = [results[stable(family, width, rate, seed)] for seed in scale.seeds]
            rows.append(
                [
                    NAMES[family],
                    str(width),
                    f"{rate:g}",
                    f"{mean(max(run['before']) for run in runs):.2f}",
                    spread([max(run["after"]) for run in runs], 2),
                    spread([run["loss"] for run in runs], 2),
                ]
            )
    head = ["family", "width", "rate", "amplitude before", "amplitude after", "loss"]
    yield from _table(head, rows)
    yield f"\n(Higher rates are tested at width {RATE_WIDTH} alone.)"
