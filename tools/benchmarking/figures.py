"""The figures that tables show, derived from the rounds of a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarking.candidates import Candidate, named
from benchmarking.results import Content
from benchmarking.settings import Setting
from benchmarking.timing import Spread, fastest, paired

OURS = "ours"
FLOAT = "float32"


@dataclass(frozen=True)
class Ratio:
    """The ratio of the time of ``of`` to that of a candidate, round by round."""

    of: str
    spread: Spread


@dataclass(frozen=True)
class Compared:
    """Figures of a candidate of a comparison.

    Attributes:
        ms: Milliseconds.
        over_eager: Ratio to the fastest eager peer.
        over_compiled: Ratio to the fastest compiled peer.
        floor: Time of the floor divided by the candidate's.
        memory_ratio: Peak memory divided by that of the leanest eager peer.
    """

    ms: Spread
    over_eager: Ratio | None
    over_compiled: Ratio | None
    floor: Spread
    memory_ratio: float | None


@dataclass(frozen=True)
class Scaled:
    """Figures of a candidate at one of several settings.

    Attributes:
        setting: The setting.
        ms: Milliseconds.
        ns_per_pixel: Nanoseconds per pixel.
        over_first: Nanoseconds per pixel, divided by those of the first setting.
    """

    setting: Setting
    ms: Spread
    ns_per_pixel: Spread
    over_first: Spread


def comparison_figures(result: Content) -> dict[str, Compared]:
    """Return the figures of every candidate that was timed, by name."""
    contents: dict[str, Content] = result["candidates"]
    ms = {name: content["ms"] for name, content in contents.items()}
    candidates = [named(name) for name in contents]
    eager = fastest(ms, [c.name for c in candidates if c.is_eager_peer])
    compiled = fastest(ms, [c.name for c in candidates if c.is_peer and c.compiled])
    leanest = _leanest(contents, candidates)
    return {
        name: Compared(
            ms=Spread.of(own),
            over_eager=_ratio(ms, eager, name),
            over_compiled=_ratio(ms, compiled, name),
            floor=paired(result["floor"], own),
            memory_ratio=_memory_ratio(contents[name], leanest),
        )
        for name, own in ms.items()
    }


def scaling_figures(result: Content) -> list[Scaled]:
    """Return the figures of every setting, in the order of the result."""
    first = Setting.from_json(result["setting"])
    found: list[Scaled] = []
    reference: list[float] = []
    for row in result["rows"]:
        setting = replace(first, size=tuple(row["size"]), threads=row["threads"])
        per_pixel = [1e6 * ms / setting.pixels for ms in row["ms"]]
        reference = reference or per_pixel
        over_first = paired(per_pixel, reference)
        found.append(Scaled(setting, Spread.of(row["ms"]), Spread.of(per_pixel), over_first))
    return found


def detector_figures(result: Content) -> dict[str, tuple[Spread, Spread]]:
    """Return milliseconds, and time divided by ours, of every detector by name."""
    detectors = result["detectors"]
    return {name: (Spread.of(ms), paired(ms, detectors[OURS])) for name, ms in detectors.items()}


def int8_figures(result: Content) -> dict[str, tuple[Spread, Spread]]:
    """Return milliseconds, and speed relative to float32, of every model by name."""
    models = result["models"]
    exact = models[FLOAT]["ms"]
    return {name: (Spread.of(m["ms"]), paired(exact, m["ms"])) for name, m in models.items()}


def _ratio(ms: Mapping[str, list[float]], of: str | None, to: str) -> Ratio | None:
    return None if of is None else Ratio(of, paired(ms[of], ms[to]))


def _leanest(contents: Mapping[str, Content], candidates: list[Candidate]) -> int | None:
    """Return the smallest peak of the eager peers; a peak may be an error message instead."""
    peaks = [contents[c.name]["memory"] for c in candidates if c.is_eager_peer]
    return min((peak for peak in peaks if isinstance(peak, int)), default=None)


def _memory_ratio(content: Content, leanest: int | None) -> float | None:
    return content["memory"] / leanest if leanest and isinstance(content["memory"], int) else None
