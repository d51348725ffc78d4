"""Tables of the results, for the marked places of docs/RESULTS.md, and their numbers as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from results.arms import BACKBONES, GROUPS, RECIPES, SCREENING
from results.plan import EVALUATION_SEEDS, SCREENED
from results.screening import SETTINGS, Effect, design, effects
from results.sets import BY_NAME
from results.training import forwards_of, trained

KEPT = ("bbox_ap", "segm_ap", "miou", "images_per_second", "iterations", "peak_mb", "parameters")
METRICS = {"bbox_ap": "box AP", "segm_ap": "mask AP", "miou": "mIoU"}
Numbers = Mapping[str, Any]


def compact(results: Mapping[str, dict], sets: Sequence[str], seeds: Sequence[int]) -> dict:
    """Return the numbers of what is done: set -> group of arms -> arm -> the runs, by seed."""
    found: dict[str, Any] = {}
    for name in sets:
        for group in (BACKBONES, RECIPES):
            for arm in GROUPS[group]:
                own_seeds = seeds if group == BACKBONES else EVALUATION_SEEDS
                runs = [results.get(trained(name, arm, seed)) for seed in own_seeds]
                if own := [_rounded(run) for run in runs if run is not None]:
                    found.setdefault(name, {}).setdefault(group, {})[arm] = own
        if speed := results.get(forwards_of(name, BACKBONES)):
            found.setdefault(name, {})["forwards"] = {
                arm: round(1 / seconds, 1) for arm, seconds in speed["forwards"].items()
            }
        for run in design():
            if done := results.get(trained(name, run.title, run.block)):
                screened = found.setdefault(name, {}).setdefault(SCREENING, {})
                screened[run.title] = round(done["bbox_ap"], 2)
    return found


def tables(numbers: Numbers) -> dict[str, str]:
    """Return the tables of what is done, by their marks."""
    found = {}
    for name, own in numbers.items():
        if BACKBONES in own:
            found[name] = comparison(name, own[BACKBONES], own.get("forwards", {}))
        if RECIPES in own:
            found[f"{name} {RECIPES}"] = comparison(name, own[RECIPES], {})
    screened = {name: numbers.get(name, {}).get(SCREENING, {}) for name in SCREENED}
    if complete := {name: own for name, own in screened.items() if len(own) == len(design())}:
        found[SCREENING] = screening(complete)
    return found


def comparison(
    name: str, arms: Mapping[str, Sequence[Numbers]], forwards: Mapping[str, float]
) -> str:
    """Return a set's table: means and standard deviations over the seeds."""
    own = BY_NAME[name]
    shown = [key for key in METRICS if any(key in run for runs in arms.values() for run in runs)]
    columns = ["model", "seeds", *(METRICS[key] for key in shown), "iterations", "images/s trained"]
    columns += ["images/s of the backbone"] if forwards else []
    lines = [f"{own.title[0].upper()}{own.title[1:]} ({own.licence}): <{own.url}>", ""]
    lines += _head([*columns, "peak memory, MB"])
    for arm, runs in arms.items():
        cells = [arm, str(len(runs)), *(_spread(runs, key, 1) for key in shown)]
        cells += [_spread(runs, "iterations", 0), _spread(runs, "images_per_second", 1)]
        cells += [f"{forwards[arm]:.1f}"] if forwards else []
        lines.append(f"| {' | '.join([*cells, _spread(runs, 'peak_mb', 0)])} |")
    return "\n".join(lines)


def screening(aps: Mapping[str, Mapping[str, float]]) -> str:
    """Return the effects of all settings on the box AP of some sets, with 95 % intervals."""
    found = {name: effects(own) for name, own in aps.items()}
    lines = _head(["setting", "from", "to", *found])
    for number, setting in enumerate(SETTINGS):
        cells = [_effect(own[number]) for own in found.values()]
        lines.append(f"| {setting.title} | {setting.low} | {setting.high} | {' | '.join(cells)} |")
    means = [f"{mean(own.values()):.1f}" for own in aps.values()]
    lines.append(f"| box AP, mean of all | | | {' | '.join(means)} |")
    return "\n".join(lines)


def merged(earlier: Numbers, found: Numbers) -> dict[str, Any]:
    """Return the numbers of an earlier report with those that were found now.

    The runs of an arm replace those of an earlier report if they are at least as many.
    """
    both: dict[str, Any] = {name: dict(earlier.get(name, {})) for name in {**earlier, **found}}
    for name, groups in found.items():
        for group, own in groups.items():
            before = both[name].get(group, {})
            kept = {
                arm: runs for arm, runs in before.items() if _count(runs) > _count(own.get(arm))
            }
            both[name][group] = {**before, **own, **kept}
    return both


def _count(runs: Any) -> int:
    return len(runs) if isinstance(runs, list) else int(runs is not None)


def _head(columns: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]


def _rounded(run: Numbers) -> dict[str, float]:
    return {key: round(run[key], 2) for key in KEPT if key in run}


def _spread(runs: Sequence[Numbers], key: str, digits: int) -> str:
    values = [run[key] for run in runs]
    middle = f"{mean(values):,.{digits}f}"
    if len(values) < 2 or len(set(values)) == 1:
        return middle
    return f"{middle} ± {stdev(values):,.{digits}f}"


def _effect(effect: Effect) -> str:
    """Return an effect with its interval; bold if the interval excludes zero."""
    text = f"{effect.value:+.1f} ± {effect.margin:.1f}"
    return f"**{text}**" if abs(effect.value) > effect.margin else text
